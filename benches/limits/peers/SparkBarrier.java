import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import org.apache.spark.BarrierTaskContext;
import org.apache.spark.RequestMethod;
import org.apache.spark.RequestToSync;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.rpc.RpcEndpointRef;
import org.apache.spark.rpc.RpcTimeout;
import org.apache.spark.util.RpcUtils;
import scala.Enumeration;
import scala.Function1;
import scala.collection.Iterator;
import scala.concurrent.duration.FiniteDuration;
import scala.jdk.javaapi.CollectionConverters;
import scala.reflect.ClassTag$;

/**
 * How long a round of Spark's barrier coordinator takes between N executors: SparkBarrier N.
 *
 * <p>BarrierTaskContext.barrier() sends one RequestToSync and then sleeps for a second between its
 * looks at the reply. The task here sends that request itself and waits for the reply, so what is
 * measured is the coordinator and the way to it, without the sleep.
 */
public final class SparkBarrier {
    private static final int BATCH = 500;
    // The JITs of all the processes need this long before the rounds stop getting faster.
    private static final double WARM_UP_S = 20;
    private static final double MEASURED_S = 8;

    private static final class Coordinator {
        private final BarrierTaskContext task = BarrierTaskContext.get();
        private final int n = task.getTaskInfos().length;
        private final RpcTimeout patience =
            new RpcTimeout(FiniteDuration.apply(60, "s"), "SparkBarrier");
        private final RpcEndpointRef endpoint = RpcUtils.makeDriverRef(
            "barrierSync", SparkEnv.get().conf(), SparkEnv.get().rpcEnv());
        private int epoch = 0;

        String[] sync(Enumeration.Value method, String message) {
            RequestToSync request = new RequestToSync(
                n, task.stageId(), task.stageAttemptNumber(), task.taskAttemptId(), epoch++,
                task.partitionId(), message, method);
            return endpoint.askSync(request, patience, ClassTag$.MODULE$.apply(String[].class));
        }
    }

    /** Task 0 looks at its clock between batches, so that all agree on the number of rounds. */
    private static List<Long> roundsOf(double seconds, Coordinator coordinator) {
        List<Long> took = new ArrayList<>();
        long started = System.nanoTime();
        String more = "yes";
        while (more.equals("yes")) {
            for (int i = 0; i < BATCH; i++) {
                long before = System.nanoTime();
                coordinator.sync(RequestMethod.BARRIER(), "");
                took.add(System.nanoTime() - before);
            }
            String mine = System.nanoTime() - started < seconds * 1e9 ? "yes" : "no";
            more = coordinator.sync(RequestMethod.ALL_GATHER(), mine)[0];
        }
        return took;
    }

    private static Iterator<long[]> task() {
        Coordinator coordinator = new Coordinator();
        roundsOf(WARM_UP_S, coordinator);
        List<Long> took = roundsOf(MEASURED_S, coordinator);
        boolean first = BarrierTaskContext.get().partitionId() == 0;
        long[] result = took.stream().mapToLong(ns -> ns).limit(first ? took.size() : 0).toArray();
        return CollectionConverters.asScala(List.of(result).iterator());
    }

    public static void main(String[] arguments) {
        int n = Integer.parseInt(arguments[0]);
        long[] took = new long[0];
        try (JavaSparkContext spark = new JavaSparkContext(new SparkConf())) {
            took = spark.parallelize(new ArrayList<>(java.util.Collections.nCopies(n, 0)), n)
                .rdd()
                .barrier()
                .mapPartitions(
                    (Function1<Iterator<Integer>, Iterator<long[]>> & Serializable) none -> task(),
                    false,
                    ClassTag$.MODULE$.<long[]>apply(long[].class))
                .toJavaRDD()
                .reduce((a, b) -> a.length > 0 ? a : b);
        }
        Arrays.sort(took);
        System.out.printf(
            Locale.ROOT,
            "{\"peer\":\"spark-rpc\",\"n\":%d,\"median_us\":%.1f,\"p99_us\":%.1f,\"rounds\":%d}%n",
            n, took[took.length / 2] / 1e3, took[(int) (took.length * 99L / 100)] / 1e3,
            took.length);
    }
}

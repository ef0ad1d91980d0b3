/* How long MPI_Barrier takes between the processes of mpirun: mpi_barrier NAME */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH 200
#define ROUNDS_MAX 2000000
#define WARM_UP_S 1.0
#define MEASURED_S 3.0

static double took_us[ROUNDS_MAX];

/* Rank 0 looks at its clock between batches, so that all agree on the number of rounds. */
static int rounds_of(double seconds) {
    double started = MPI_Wtime();
    int rounds = 0, more = 1;
    while (more) {
        for (int i = 0; i < BATCH; i++) {
            double before = MPI_Wtime();
            MPI_Barrier(MPI_COMM_WORLD);
            took_us[rounds++] = (MPI_Wtime() - before) * 1e6;
        }
        more = MPI_Wtime() - started < seconds && rounds + BATCH <= ROUNDS_MAX;
        MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
    }
    return rounds;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, n;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    rounds_of(WARM_UP_S);
    int rounds = rounds_of(MEASURED_S);
    if (rank == 0) {
        qsort(took_us, rounds, sizeof took_us[0], ascending);
        printf("{\"peer\":\"%s\",\"n\":%d,\"median_us\":%.3f,\"p99_us\":%.3f,\"rounds\":%d}\n",
               argc > 1 ? argv[1] : "openmpi", n, took_us[rounds / 2],
               took_us[(long)rounds * 99 / 100], rounds);
    }
    MPI_Finalize();
    return 0;
}

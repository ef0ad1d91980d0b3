//! A query makes the rows, a gang trains on them: each partition of DataFusion's result becomes a
//! task.
//!
//! The cars of 1930, how fast they were (miles per hour) and how far it took them to stop (feet).
//! The query makes one row of each speed; the gang fits a line through them all.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::expr_fn::{avg, count};
use datafusion::prelude::{CsvReadOptions, SessionConfig, SessionContext, cast, col, lit};
use phalanx::{BoxError, ReduceOp, Runtime};

const CARS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cars.csv");

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
    let number = |column| cast(col(column), DataType::Float64);
    let by_speed = session.read_csv(CARS, CsvReadOptions::new()).await?.aggregate(
        vec![col("speed")],
        vec![avg(col("distance")).alias("distance"), count(lit(1)).alias("cars")],
    )?;
    let query = by_speed.select(vec![number("speed"), number("distance"), number("cars")])?;
    let partitions = query.collect_partitioned().await?;

    // A gang runs at once or not at all: a slot for each of its tasks.
    let slots = u32::try_from(partitions.len())?;
    let runtime = Runtime::with_slots(slots)?;
    let lines = runtime
        .from_partitions(partitions)
        .settings(|stage| stage.name("line through the cars"))
        .barrier()
        .map_partitions(|ctx, batches| {
            let mut mine = vec![0.0; 5];
            batches.for_each(|batch| add(&mut mine, &batch));
            let all = ctx.all_reduce(ReduceOp::Sum, &mine)?; // those of all tasks
            println!("task {} has {} of the {} cars", ctx.rank(), mine[0], all[0]);
            Ok([line_through(&all)])
        })
        .collect()
        .await?;

    let (begin, slope) = *lines.first().ok_or("the query has no partitions")?;
    println!("{slots} tasks agree: {}", lines.iter().all(|line| *line == (begin, slope)));
    println!("stopping distance = {begin:.3} + {slope:.3} * speed");
    Ok(())
}

/// Number of cars, and their sums of x, y, x * x and x * y.
fn add(sums: &mut [f64], batch: &RecordBatch) {
    let column = |index| batch.column(index).as_primitive::<Float64Type>().values();
    for ((x, y), cars) in column(0).iter().zip(column(1)).zip(column(2)) {
        let terms = [1.0, *x, *y, x * x, x * y];
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += cars * term);
    }
}

/// Least squares: where it begins, and its slope.
fn line_through(sums: &[f64]) -> (f64, f64) {
    let [n, x, y, xx, xy] = [0, 1, 2, 3, 4].map(|index| sums[index]);
    let slope = (n * xy - x * y) / (n * xx - x * x);
    ((y - slope * x) / n, slope)
}

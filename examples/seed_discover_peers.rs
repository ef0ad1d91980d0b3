//! Three tasks tell each other where they listen, start together and finish together: the first
//! program that one writes for Spark's mode. `discover.rs` is the same with stages.
//!
//! Nine numbers in three partitions. A plain job looks how large they are. Then a gang, one task
//! for each partition, "trains" on them: `all_gather` for the addresses, `barrier` for the end.
//!
//! ```sh
//! cargo run --example seed_discover_peers
//! ```

use comfy_table::Table;
use phalanx::blocking::BarrierTaskContext;
use phalanx::{Rows, Runtime, TaskResult};

const TASKS: u32 = 3;

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::with_slots(TASKS)?;
    let numbers = runtime.parallelize(0..9, TASKS as usize);
    println!("{} partitions", numbers.num_partitions());

    let sizes = numbers
        .map_partitions_with_index(|partition, numbers| Ok([(partition, numbers.count())]))
        .collect()
        .wait()?;
    let mut table = Table::new();
    table.set_header(["partitionId", "size"]);
    table.add_rows(sizes.iter().map(|(partition, size)| [partition, size].map(usize::to_string)));
    println!("{table}");

    // Until here, nothing but the sizes has run: an action such as `count` starts the gang.
    let trained = numbers.barrier().map_partitions(train);
    println!("count: {}", trained.count().wait()?);
    Ok(())
}

fn train(ctx: BarrierTaskContext, numbers: Rows<i32>) -> TaskResult<Rows<i32>> {
    let task = ctx.partition_id();
    let address = format!("localhost:{}", 10_000 + ctx.rank());
    let message = format!("A message from task {task}, e.g. {address} it listens at");
    let messages = ctx.all_gather(&message)?;
    // One speaks for all.
    if ctx.rank() == 0 {
        println!(">>> Got host:port's from the other tasks");
        messages.iter().for_each(|message| println!("{message}"));
        println!(">>> Starting a distributed training at the nodes...");
    }
    ctx.barrier()?;
    if ctx.rank() == 0 {
        println!(">>> All tasks have finished");
    }
    Ok(numbers)
}

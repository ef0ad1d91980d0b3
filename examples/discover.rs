//! Three tasks tell each other where they listen, start together and finish together.
//!
//! Nine numbers in three partitions. A plain stage looks how large the partitions are, then a
//! barrier stage "trains" on them: `all_gather` for the addresses, `barrier` for the end.

use comfy_table::Table;
use phalanx::{BarrierTaskContext, Runtime, Stage, TaskResult};
use std::sync::Arc;

const TASKS: u32 = 3;

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::with_slots(TASKS)?;
    let numbers: Vec<u32> = (0..9).collect();
    let partitions = numbers.chunks(3).map(<[u32]>::to_vec);

    let sizes = Stage::partitions(partitions.clone())
        .name("sizes")
        .plain()
        .run(&runtime, async |ctx, numbers| Ok((ctx.rank(), numbers.len())))
        .wait()?;
    let mut table = Table::new();
    table.set_header(["partition", "size"]);
    table.add_rows(sizes.iter().map(|(partition, size)| [partition, size].map(usize::to_string)));
    println!("{table}");

    let trained = Stage::partitions(partitions).name("discover").run(&runtime, train).wait()?;
    println!("count: {}", trained.iter().map(|numbers| numbers.len()).sum::<usize>());
    Ok(())
}

async fn train(ctx: BarrierTaskContext, numbers: Arc<Vec<u32>>) -> TaskResult<Arc<Vec<u32>>> {
    let rank = ctx.rank();
    let address = format!("localhost:{}", 10_000 + rank);
    let message = format!("A message from task {rank}, e.g. {address} it listens at");
    let messages = ctx.all_gather(&message).await?;
    // One speaks for all.
    if rank == 0 {
        println!(">>> Got host:port's from the other tasks");
        messages.iter().for_each(|message| println!("{message}"));
        println!(">>> Starting a distributed training at the nodes...");
    }
    ctx.barrier().await?;
    if rank == 0 {
        println!(">>> All tasks have finished");
    }
    Ok(numbers)
}

//! Memory of a task that waits, and of a stage that waits for slots. Each is measured in a process
//! of its own, whose allocator has nothing left over from other rows.

use crate::measure::{Fallible, Samples, Spread};
use crate::row::{Bar, Row, Unit};
use crate::{Bench, child, ours, reference};
use phalanx::{BarrierTaskContext, Stage, TaskResult};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, process, thread};
use tokio::sync::Barrier;

const TASKS: usize = 100_000;
const STAGES: usize = 50_000;

/// Tasks that are about to wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Bytes of the future that the task's own code is.
static OWN: AtomicUsize = AtomicUsize::new(0);

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    if bench.wants("memory/waiting-task", TASKS, 0) {
        let [ours, bare] = alternate(bench, ["task", "tokio-task"])?;
        let row = Row::new("memory/waiting-task", TASKS, Spread::of(ours.beyond));
        let row = row.against("tokio task at tokio barrier", Spread::of(bare.beyond));
        let note = format!("beyond the task's own future of {} B", ours.own);
        bench.add(row.unit(Unit::Bytes).bar(Bar::Ours(512.0)).note(note));
    }
    if bench.wants("memory/queued-stage", STAGES, 0) {
        let [ours] = alternate(bench, ["stage"])?;
        let row = Row::new("memory/queued-stage", STAGES, Spread::of(ours.beyond));
        bench.add(row.unit(Unit::Bytes).note("a stage of 4 tasks and its handle"));
    }
    Ok(())
}

struct Told {
    own: usize,
    beyond: Samples,
}

fn alternate<const K: usize>(bench: &Bench, whats: [&str; K]) -> Fallible<[Told; K]> {
    let mut told = [const { Told { own: 0, beyond: Vec::new() } }; K];
    for _ in 0..if bench.effort.quick { 1 } else { 7 } {
        for (told, what) in told.iter_mut().zip(whats) {
            let text = child::start(&["memory", what])?;
            let (own, beyond) = text.trim().split_once(' ').ok_or("the child says nothing")?;
            told.own = own.parse()?;
            told.beyond.push(beyond.parse()?);
        }
    }
    Ok(told)
}

/// Prints the size of a task's own future and the memory that one takes beyond that.
pub fn child(what: &str) -> Fallible<()> {
    let (count, growth) = match what {
        "task" => (TASKS, waiting_tasks()?),
        "tokio-task" => (TASKS, waiting_tokio_tasks()?),
        _ => (STAGES, queued_stages()?),
    };
    let own = OWN.load(Ordering::SeqCst);
    println!("{own} {:.1}", growth / count as f64 - own as f64);
    // Nobody waits for those that wait.
    process::exit(0)
}

async fn waits(ctx: BarrierTaskContext) -> TaskResult<()> {
    if WAITING.fetch_add(1, Ordering::SeqCst) == 0 {
        // The first never comes.
        pending::<()>().await;
    }
    Ok(ctx.barrier().await?)
}

fn waiting_tasks() -> Fallible<f64> {
    let runtime = ours::runtime(TASKS, 2)?;
    pollster::block_on(ours::launch(&runtime, 1_000))?;
    let before = resident()?;
    let gang = Stage::tasks(TASKS).run(&runtime, |ctx| {
        let own = waits(ctx);
        OWN.store(size_of_val(&own), Ordering::SeqCst);
        own
    });
    let growth = grown_since(before)?;
    drop(gang);
    Ok(growth)
}

fn waiting_tokio_tasks() -> Fallible<f64> {
    async fn waits(barrier: Arc<Barrier>) {
        if WAITING.fetch_add(1, Ordering::SeqCst) == 0 {
            pending::<()>().await;
        }
        barrier.wait().await;
    }
    let tokio = reference::runtime(2)?;
    tokio.block_on(reference::spawn_and_join(1_000))?;
    let before = resident()?;
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let own = waits(barrier.clone());
            OWN.store(size_of_val(&own), Ordering::SeqCst);
            tokio.spawn(own)
        })
        .collect();
    let growth = grown_since(before)?;
    drop(tasks);
    Ok(growth)
}

/// Bytes that came, once all tasks wait.
fn grown_since(before: f64) -> Fallible<f64> {
    while WAITING.load(Ordering::SeqCst) < TASKS {
        thread::sleep(Duration::from_millis(1));
    }
    settle()?;
    Ok(resident()? - before)
}

fn queued_stages() -> Fallible<f64> {
    let runtime = ours::runtime(4, 2)?;
    pollster::block_on(ours::launch(&runtime, 4))?;
    let stage = || Stage::tasks(4).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    let first = Stage::tasks(4).run(&runtime, async |_| pending::<Result<(), _>>().await);
    let before = resident()?;
    let stages: Vec<_> = (0..STAGES).map(|_| stage()).collect();
    // Whoever asks is answered after all that was handed in before.
    let known = pollster::block_on(runtime.status()).stages.len();
    assert_eq!(known, STAGES + 1, "all are queued");
    settle()?;
    let growth = resident()? - before;
    drop((first, stages));
    Ok(growth)
}

/// Waits until memory does not change any more.
fn settle() -> Fallible<()> {
    let mut last = 0.0;
    while last != resident()? {
        last = resident()?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Bytes of memory that the process has.
fn resident() -> Fallible<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).ok_or("no VmRSS")?;
    Ok(kibibytes.trim().parse::<f64>()? * 1024.0)
}

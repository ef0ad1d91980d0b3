//! On which threads blocking tasks run. Alone in its process, whose threads it counts.

use phalanx::{Runtime, Stage, TaskResult};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

thread_local! {
    static MARK: Cell<u32> = const { Cell::new(0) };
}

/// Threads of this process with this name.
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|it| it.trim() == name).count()
}

#[test]
fn small_tasks_share_threads_and_gangs_do_not() -> TaskResult<()> {
    let runtime = Runtime::with_slots(4)?;
    let thread = |_| Ok(std::thread::current().id());
    let used = Stage::tasks(500).plain().run_blocking(&runtime, thread).wait()?;
    let used: HashSet<_> = used.into_iter().collect();
    assert!(used.len() < 250, "{} threads for 500 tasks on 4 slots", used.len());
    // All that run at once have a thread, whoever waits for whom.
    let all = Arc::new(Barrier::new(4));
    let meets = move |_| Ok(all.wait().is_leader());
    Stage::tasks(40).plain().run_blocking(&runtime, meets).wait()?;
    for _ in 0..20 {
        let fresh = Stage::tasks(4).run_blocking(&runtime, |_| Ok(MARK.replace(1)));
        assert_eq!(fresh.wait()?, [0; 4], "a gang's task has a thread that nobody had before");
    }
    // A task that panics takes nobody along.
    let fails = |ctx: phalanx::blocking::BarrierTaskContext| match ctx.rank() % 7 {
        0 => panic!("on purpose"),
        _ => Ok(()),
    };
    let failed = Stage::tasks(60).plain().max_attempts(1).run_blocking(&runtime, fails).wait();
    assert!(failed.is_err());
    Stage::tasks(40).plain().run_blocking(&runtime, |_| Ok(())).wait()?;
    #[cfg(target_os = "linux")]
    assert!(threads_named("phalanx-tasks") > 0);
    runtime.shutdown_blocking(Duration::from_secs(20))?;
    let until = Instant::now() + Duration::from_secs(20);
    while threads_named("phalanx-tasks") > 0 {
        assert!(Instant::now() < until, "threads outlive their runtime");
        std::thread::yield_now();
    }
    Ok(())
}

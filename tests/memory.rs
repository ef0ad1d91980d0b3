//! What a gang takes is given back. Alone in its process, so that nothing else is measured.

#![cfg(target_os = "linux")]

use phalanx::{Runtime, Stage};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// On real time: its timers are asked for in another way than those that are cranked by hand.
#[test]
fn thousands_of_gangs_that_met_leave_nothing_behind() {
    let runtime = Runtime::with_slots(4).unwrap();
    let run = |count| {
        for _ in 0..count {
            let gang = Stage::tasks(4).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
            gang.wait().unwrap();
        }
    };
    run(3_000);
    let before = resident_kib();
    run(6_000);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 6_000, "6,000 gangs kept {grown} KiB");
}

//! Kills of tasks that wait, and what keeps a gang from starting: A9 to A12, A14.

use super::stage;
use crate::observe::{
    Gate, cluster, launched, local, no_pause, queued, round_opened, running, start_without_time,
    story, until,
};
use phalanx::{
    EventStream, ExecutorId, ExecutorResources, Runtime, RuntimeEvent, Stage, StageHandle,
    StagePhase, SyncError, TaskFailure, TaskOutcome,
};
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

fn without_time(executors: usize) -> Runtime {
    start_without_time(no_pause(), vec![ExecutorResources::new(1); executors])
}

const WHY: &str = "not needed any more";

/// Partition 0 hears it inside `barrier()`; its peer, which is elsewhere, hears of it as well.
fn kill_partition_0(
    events: &mut EventStream,
    stage: StageHandle<()>,
    inside: &mpsc::Receiver<SyncError>,
    peer: &mpsc::Receiver<String>,
) {
    until(events, round_opened);
    assert_eq!(peer.recv().unwrap(), "begun");
    stage.kill_task(0, WHY);
    let error = inside.recv().unwrap();
    assert!(matches!(&error, SyncError::Killed { reason, .. } if reason == WHY), "{error}");
    let heard = peer.recv().unwrap();
    assert!(heard.contains("partition 0") && heard.ends_with(WHY), "{heard}");
    let error = stage.wait().unwrap_err();
    let cause = error.first_cause().unwrap();
    assert_eq!(cause.failure, TaskFailure::Killed(WHY.to_owned()));
    assert_eq!(cause.origin.unwrap().partition.0, 0);
}

#[test]
fn a9_a_waiting_task_is_killed() {
    let runtime = without_time(2);
    let mut events = runtime.subscribe();
    let ((tell, inside), (hear, peer)) = (mpsc::channel(), mpsc::channel());
    let stage = stage(2).run(&runtime, async move |ctx| {
        if ctx.rank() == 1 {
            hear.send("begun".to_owned())?;
            ctx.killed().await;
            hear.send(ctx.kill_reason().unwrap())?;
            return Ok(());
        }
        let error = ctx.barrier().await.unwrap_err();
        tell.send(error.clone())?;
        Err(error.into())
    });
    kill_partition_0(&mut events, stage, &inside, &peer);
}

#[test]
fn a10_a_waiting_task_is_killed_on_a_blocked_thread() {
    let runtime = without_time(2);
    let mut events = runtime.subscribe();
    let ((tell, inside), (hear, peer)) = (mpsc::channel(), mpsc::channel());
    let stage = stage(2).run_blocking(&runtime, move |ctx| {
        if ctx.rank() == 1 {
            hear.send("begun".to_owned())?;
            ctx.wait_killed();
            hear.send(ctx.kill_reason().unwrap())?;
            return Ok(());
        }
        let error = ctx.barrier().unwrap_err();
        tell.send(error.clone())?;
        Err(error.into())
    });
    kill_partition_0(&mut events, stage, &inside, &peer);
}

/// Where the first attempt failed, the second would rather not run.
fn fails_where_partition_0_is(executors: usize) -> [BTreeSet<ExecutorId>; 2] {
    let runtime = without_time(executors);
    let mut events = runtime.subscribe();
    let stage = Stage::tasks(2).max_attempts(2).run(&runtime, async |ctx| {
        ctx.barrier().await?;
        if ctx.rank() == 0 && ctx.stage_attempt_number() == 0 {
            return Err("a bad disk".into());
        }
        Ok(ctx.barrier().await?)
    });
    let story = story(&mut events, stage.id());
    stage.wait().unwrap();
    [0, 1].map(|number| {
        let all = launched(&story).into_iter();
        let of = all.filter(|(attempt, ..)| attempt.attempt == number);
        of.map(|(_, _, executor)| executor).collect()
    })
}

#[test]
fn a11_a_preference_does_not_keep_a_gang_from_starting() {
    let [bad, good, spare] = [0, 1, 2].map(ExecutorId);
    let [before, after] = fails_where_partition_0_is(3);
    assert_eq!(before, BTreeSet::from([bad, good]));
    assert_eq!(after, BTreeSet::from([good, spare]), "it is a preference");
    let [before, after] = fails_where_partition_0_is(2);
    assert_eq!(before, BTreeSet::from([bad, good]));
    assert_eq!(after, before, "and no more");
}

/// When the tasks of attempt 0 ended, in order, and how.
fn ends_of_the_first_attempt(events: &mut EventStream) -> Vec<(TaskOutcome, Duration)> {
    let (mut start, mut ends) = (Duration::ZERO, Vec::new());
    while ends.len() < 2 {
        let record = events.next_blocking().unwrap();
        match record.event {
            RuntimeEvent::AttemptStarted { .. } => start = record.since_start,
            RuntimeEvent::TaskEnded { outcome, .. } => {
                ends.push((outcome, record.since_start - start));
            }
            _ => {}
        }
    }
    ends
}

#[test]
fn a12_a_kill_interrupts_a_sleep_that_asks_for_it() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let begun = Gate::closed();
    let stage = Stage::tasks(2).max_attempts(2).run(&runtime, async move |ctx| {
        if ctx.stage_attempt_number() == 0 {
            if ctx.rank() == 0 {
                begun.pass().await;
                return Err("the exception".into());
            }
            begun.open();
            ctx.until_killed(tokio::time::sleep(Duration::from_secs(3600))).await?;
        }
        Ok(ctx.stage_attempt_number())
    });
    let ends = ends_of_the_first_attempt(&mut events);
    assert_eq!(stage.wait().unwrap(), [1, 1]);
    let exception = TaskFailure::Error("the exception".to_owned());
    assert_eq!(ends[0].0, TaskOutcome::Failed(exception));
    let (killed, after) = &ends[1];
    assert!(
        matches!(killed, TaskOutcome::Failed(TaskFailure::Killed(why))
            if why.contains("partition 0") && why.ends_with("the exception")),
        "{killed:?}"
    );
    assert!(*after < Duration::from_secs(5), "{after:?}");
}

#[test]
fn a12_a_sleep_that_does_not_ask_for_it_is_waited_for() {
    let runtime = local(2);
    let mut events = runtime.subscribe();
    let (sleep, begun) = (Gate::closed(), Gate::closed());
    let asleep = sleep.clone();
    let stage = Stage::tasks(2).max_attempts(2).run_blocking(&runtime, move |ctx| {
        if ctx.stage_attempt_number() == 0 {
            if ctx.rank() == 0 {
                begun.pass_blocking();
                return Err("the exception".into());
            }
            begun.open();
            asleep.pass_blocking();
        }
        Ok(ctx.stage_attempt_number())
    });
    until(&mut events, |event| {
        matches!(event, RuntimeEvent::AttemptFailed { will_retry: true, .. }).then_some(())
    });
    let status = pollster::block_on(stage.status()).unwrap();
    assert_eq!(status.phase.to_string(), "stopping: waits for the killed tasks of partition 1");
    sleep.open();
    assert_eq!(stage.wait().unwrap(), [1, 1]);
}

#[test]
fn a14_a_gang_that_fits_in_part_holds_nothing_and_does_not_hang() {
    let runtime = without_time(2);
    let mut events = runtime.subscribe();
    let busy = Gate::closed();
    let gate = busy.clone();
    let hog = Stage::tasks(1).plain().run(&runtime, async move |_| {
        gate.pass().await;
        Ok(())
    });
    let gang = stage(2).run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    assert_eq!(until(&mut events, queued), (2, 1));
    let waits = StagePhase::Queued { required: 2, free: 1, ahead: 0, reserves: false };
    assert_eq!(pollster::block_on(gang.status()).unwrap().phase, waits);
    assert_eq!(running(&runtime), 1, "the other slot is not held");
    Stage::tasks(1).run(&runtime, async |_| Ok(())).wait().unwrap();
    busy.open();
    hog.wait().unwrap();
    gang.wait().unwrap();
}

/// On as many executors as tasks, one of which is lost while the gang runs.
#[test]
fn a14_a_gang_that_no_longer_fits_says_so_and_starts_when_it_does() {
    let runtime = cluster(2, 1);
    let mut events = runtime.subscribe();
    let stage = stage(2).run(&runtime, async |ctx| {
        if ctx.stage_attempt_number() == 0 {
            ctx.barrier().await?;
            ctx.killed().await;
        }
        let placed = ctx.task_infos().iter().map(|info| info.executor);
        Ok(placed.collect::<BTreeSet<_>>())
    });
    until(&mut events, |event| matches!(event, RuntimeEvent::RoundReleased { .. }).then_some(()));
    let lost = ExecutorId(1);
    assert!(pollster::block_on(runtime.remove_executor(lost, "was taken away")));
    let (required, available, _) = until(&mut events, crate::observe::deferred);
    assert_eq!((required, available), (2, 1));
    let new = pollster::block_on(runtime.add_executor(ExecutorResources::new(1))).unwrap();
    let expected = BTreeSet::from([ExecutorId(0), new]);
    assert_eq!(stage.wait().unwrap(), [expected.clone(), expected]);
}

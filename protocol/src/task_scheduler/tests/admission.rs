//! All or nothing, and what is refused.

use super::*;

#[test]
fn a_gang_that_fits_exactly_is_launched_in_one_step() {
    let mut cluster = Cluster::of(&[2, 1, 1]);
    let (stage, effects) = cluster.submit(gang(4));
    assert_eq!(launched(&effects).len(), 4);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
    assert_eq!(cluster.free_slots(), 0);
}

#[test]
fn a_gang_that_misses_one_free_slot_launches_nothing() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (load, _) = cluster.submit(plain(1));
    let (stage, effects) = cluster.submit(gang(4));
    let reserve = set_timer(SchedulerTimer::Reserve(attempt(stage, 0)), RESERVE);
    assert_eq!(without_events(effects), [reserve], "no OpenBarrier, no LaunchTasks");
    assert_eq!(cluster.free_slots(), 3, "it holds nothing while it waits");
    let effects = cluster.ok_all(load);
    assert_eq!(launched(&effects).len(), 4, "the last missing slot launches all");
}

#[test]
fn a_gang_waits_until_all_its_slots_are_free_at_the_same_time() {
    let mut cluster = Cluster::of(&[4]);
    let (load, _) = cluster.submit(plain(4));
    let (stage, _) = cluster.submit(gang(4));
    for (index, task) in cluster.tasks(load).into_iter().enumerate() {
        let effects = cluster.ok(task);
        let expected = if index == 3 { 4 } else { 0 };
        assert_eq!(launched(&effects).len(), expected, "after {} ends", index + 1);
    }
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
}

#[test]
fn two_gangs_and_plain_load_on_too_few_slots_for_both_all_finish() {
    let mut cluster = Cluster::of(&[2, 2]);
    let mut unfinished = Vec::new();
    for spec in [plain(2), gang(3), gang(3), plain(3)] {
        unfinished.push(cluster.submit(spec).0);
    }
    // The cluster checks at every step that no gang holds part of its slots.
    for _ in 0..20 {
        unfinished.retain(|stage| cluster.machine.stage_status(*stage).is_some());
        let running = unfinished.iter().find_map(|stage| cluster.status(*stage).tasks.pop());
        let Some(task) = running else { break };
        cluster.ok(task.task_attempt);
    }
    assert_eq!(unfinished, []);
    assert_eq!(cluster.free_slots(), 4);
}

#[test]
fn two_gangs_that_fit_together_run_together() {
    let mut cluster = Cluster::of(&[3, 3]);
    let (first, _) = cluster.submit(gang(3));
    let (second, _) = cluster.submit(gang(3));
    for stage in [first, second] {
        assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
    }
    assert_ne!(cluster.tasks(first), cluster.tasks(second), "task attempts are unique");
}

#[test]
fn a_known_id_is_ignored_while_its_stage_runs() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    let again = SubmitStage { stage, spec: plain(1), of_job: None };
    cluster.ignores(SchedulerEvent::SubmitStage(again));
}

#[test]
fn a_known_id_is_ignored_while_its_stage_waits() {
    let mut cluster = Cluster::of(&[2]);
    cluster.submit(gang(2));
    for spec in [gang(1), gang(3)] {
        let (stage, _) = cluster.submit(spec.clone());
        cluster.ignores(SchedulerEvent::SubmitStage(SubmitStage { stage, spec, of_job: None }));
    }
}

#[test]
fn a_known_id_is_ignored_while_killed_tasks_of_its_stage_are_ending() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit(gang(2));
    cluster.cancel(stage);
    cluster.ignores(SchedulerEvent::SubmitStage(SubmitStage {
        stage,
        spec: gang(2),
        of_job: None,
    }));
}

#[test]
fn a_stage_beyond_the_limit_is_refused_and_the_others_stay() {
    let mut cluster = Cluster::configured(SchedulerConfig { queue_max: 2, ..config() }, &[2]);
    let (running, _) = cluster.submit(gang(2));
    let (waiting, _) = cluster.submit(gang(2));
    let (refused, effects) = cluster.submit(gang(1));
    let submitted = RuntimeEvent::StageSubmitted { stage: refused, spec: gang(1) };
    let [ended, told] = stage_over(refused, 0, Some(StageFailure::QueueFull { limit: 2 }));
    assert_eq!(effects, [SchedulerEffect::Emit(submitted), ended, told]);
    cluster.is_over(refused);

    let effects = cluster.ok_all(running);
    assert_eq!(launched_stages(&effects), [waiting]);
    let (next, effects) = cluster.submit(gang(1));
    assert_eq!(results(&effects), [], "there is room again");
    assert_eq!(cluster.status(next).stage, next);
}

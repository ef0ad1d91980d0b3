//! What users do with a plan: ask when things would end, who would wait, and why not.

use phalanx::simulation::{Fault, Network, Plan, PlanError, TaskScript};
use phalanx::{
    Config, ExecutorId, ExecutorResources, PartitionId, RuntimeEvent, Stage, StageFailure,
};
use std::time::Duration;

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn plan(slots: u32) -> Plan {
    let mut plan = Plan::new(Config { reserve_after: Duration::ZERO, ..Config::default() });
    plan.executor(ExecutorResources::new(slots));
    plan
}

#[test]
fn a_gang_waits_for_all_of_its_slots() {
    let mut plan = plan(4);
    let train = Stage::tasks(3).name("train");
    plan.submit(Duration::ZERO, train, TaskScript::work(minutes(50))).unwrap();
    let report = Stage::tasks(2).name("report");
    plan.submit(minutes(1), report, TaskScript::work(minutes(10))).unwrap();
    let log = plan.run().unwrap();
    assert_eq!(log.makespan(), minutes(60));
    // 3 x 50 and 2 x 10 of 4 x 60 slot minutes.
    assert!((log.utilisation() - 170.0 / 240.0).abs() < 1e-9, "{}", log.utilisation());
    let times = log.stage_times();
    assert_eq!(times[1].waited(), Some(minutes(49)));
    assert_eq!(times[1].ended, Some(minutes(60)));
    let table = log.matrix().to_string();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("0s - 50m"), "{table}");
    assert!(table.contains("train/0   train/1  train/2"), "{table}");
    // It starts in the slot that nobody had and the first that came free.
    assert!(table.ends_with("report/0                    report/1\n"), "{table}");
}

#[test]
fn more_slots_another_priority_another_end() {
    let mut plan = plan(4);
    let long = plan.submit(minutes(0), Stage::tasks(4), TaskScript::work(minutes(30))).unwrap();
    let first = plan.submit(minutes(1), Stage::tasks(4), TaskScript::work(minutes(20))).unwrap();
    let second = plan.submit(minutes(2), Stage::tasks(4), TaskScript::work(minutes(5))).unwrap();
    let ended = |plan: &Plan, stage| {
        let times = plan.run().unwrap().stage_times();
        times.into_iter().find(|it| it.stage == stage).unwrap().ended.unwrap()
    };
    assert_eq!(ended(&plan, second), minutes(55), "in line behind both");
    let mut urgent = plan.clone();
    urgent.stage_mut(second).unwrap().spec.priority = 1;
    assert_eq!(ended(&urgent, second), minutes(35), "before the first");
    assert_eq!(ended(&urgent, first), minutes(55));
    let mut wide = plan.clone();
    wide.replace_executors([ExecutorResources::new(4), ExecutorResources::new(4)]);
    assert_eq!(ended(&wide, first), minutes(21), "at once");
    assert_eq!(ended(&wide, long), minutes(30));
}

#[test]
fn a_crash_costs_what_it_costs() {
    let mut plan = Plan::new(Config { stage_retry_delay: minutes(1), ..Config::default() });
    let executor = plan.executor(ExecutorResources::new(2));
    plan.executor(ExecutorResources::new(1));
    let script = TaskScript::work(minutes(10)).all_gather().then_work(minutes(10));
    let stage = plan.submit(minutes(0), Stage::tasks(3), script).unwrap();
    assert_eq!(plan.run().unwrap().makespan(), minutes(20));
    let (noticed_after, back_after) = (minutes(2), Some(minutes(5)));
    let reason = "does not answer".to_owned();
    plan.fault(minutes(15), Fault::ExecutorCrashes { executor, reason, noticed_after, back_after });
    let log = plan.run().unwrap();
    // Noticed at 17; the other task waits in no sync and is killed; back at 20.
    assert_eq!(log.makespan(), minutes(40));
    let lost = log.records().iter().find_map(|record| match &record.event {
        RuntimeEvent::AttemptFailed { cause, will_retry: true } => Some(cause.to_string()),
        _ => None,
    });
    assert!(lost.unwrap().contains("executor 0 does not answer"));
    assert_eq!(log.stage_times()[0].attempts, 2);
    let too_few = plan.stage_mut(stage).unwrap();
    too_few.spec.max_infrastructure_failures = 0;
    let failure = plan.run().unwrap().stage_times().remove(0).failure.unwrap();
    assert!(matches!(failure, StageFailure::InfrastructureExhausted { losses: 1, .. }));
}

#[test]
fn single_tasks_and_tries_may_differ() {
    let mut plan = plan(2);
    let stage = plan.submit(minutes(0), Stage::tasks(2), TaskScript::work(minutes(4))).unwrap();
    let planned = plan.stage_mut(stage).unwrap();
    planned.partitions.insert(PartitionId(1), TaskScript::work(minutes(9)));
    let fails = TaskScript::work(minutes(1)).fails("cold cache");
    planned.tries.insert((PartitionId(1), 0), fails);
    planned.spec.retry_delay = minutes(1);
    assert_eq!(plan.run().unwrap().makespan(), minutes(1 + 1 + 9));
}

#[test]
fn what_never_ends_is_named() {
    let mut plan = plan(2);
    let hangs = TaskScript::work(Duration::MAX);
    plan.submit(minutes(0), Stage::tasks(2).name("hangs"), hangs).unwrap();
    plan.submit(minutes(1), Stage::tasks(1).name("waits"), TaskScript::new()).unwrap();
    let Err(PlanError::Unfinished(unfinished)) = plan.run() else { panic!("it has an end") };
    let text = unfinished.to_string();
    assert!(text.contains("2 stages have not ended"), "{text}");
    assert!(text.contains("'hangs' is running"), "{text}");
    assert!(text.contains("'waits' is queued: needs 1 slots, 0 are free"), "{text}");
    assert_eq!(unfinished.log.records().len(), 7, "{:?}", unfinished.log);
}

#[test]
fn plans_that_cannot_be_run_say_why() {
    let mut plan = plan(2);
    let refused = plan.submit(minutes(0), Stage::tasks(2).cpus(0), TaskScript::new());
    assert!(refused.unwrap_err().to_string().contains("a task needs 0 cpus"));
    plan.network = Network { duplicates: 1.5, ..Network::default() };
    assert_eq!(
        plan.run().unwrap_err().to_string(),
        "network: duplicates is 1.5, allowed is from 0 to 1"
    );
    plan.network = Network { delay: (minutes(2), minutes(1)), ..Network::default() };
    assert!(plan.run().unwrap_err().to_string().contains("the first must be the shorter"));
    plan.network = Network { delay: (minutes(0), Duration::MAX), ..Network::default() };
    assert!(plan.run().unwrap_err().to_string().contains("allowed is at most 86400s"));
    plan.network = Network::default();
    plan.submit(Duration::MAX, Stage::tasks(1).name("late"), TaskScript::new()).unwrap();
    let late = plan.run().unwrap_err().to_string();
    assert!(late.contains("stage 'late': handed in at"), "{late}");
    plan.config.slots = 0;
    assert!(plan.run().unwrap_err().to_string().contains("slots"));
}

#[test]
fn a_fault_without_victim_does_nothing() {
    let mut plan = plan(2);
    plan.submit(minutes(0), Stage::tasks(2), TaskScript::work(minutes(1))).unwrap();
    let quiet = plan.run().unwrap();
    let lasts = minutes(1);
    plan.fault(minutes(0), Fault::ExecutorPauses { executor: ExecutorId(9), lasts });
    plan.fault(minutes(5), Fault::BarrierDies { stage: phalanx::StageId(0) });
    assert_eq!(plan.run().unwrap().fingerprint(), quiet.fingerprint());
}

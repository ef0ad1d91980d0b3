//! Executors that come and go by policy.

use super::of_job::ended;
use super::*;

fn dynamic() -> Cluster {
    Cluster::configured(SchedulerConfig { dynamic_allocation: true, ..config() }, &[4])
}

#[test]
fn gangs_are_refused_at_once() {
    let mut cluster = dynamic();
    let (stage, effects) = cluster.submit(gang(3));
    let failure = StageFailure::DynamicAllocation { required: 3 };
    let text = "was refused: a barrier stage needs 3 slots that stay, and \
                dynamic_allocation.enabled is on: turn it off (executors may still join), or make \
                it a plain stage";
    assert_eq!(failure.to_string(), text);
    let submitted = RuntimeEvent::StageSubmitted { stage, spec: gang(3) };
    let [over, told] = stage_over(stage, 0, Some(failure.clone()));
    assert_eq!(effects, [SchedulerEffect::Emit(submitted), over, told]);
    cluster.is_over(stage);
    let (stage, effects) = cluster.submit_of_job(gang(3), 0, &[]);
    assert_eq!(without_events(effects), [ended(stage, 0, Some(failure))]);
}

/// Before the slots are counted, as in Spark.
#[test]
fn gangs_that_would_not_fit_are_refused_for_that_reason() {
    let (_, effects) = dynamic().submit(gang(9));
    let failure = StageFailure::DynamicAllocation { required: 9 };
    assert_eq!(results(&effects), [(StageId(0), Err(failure))]);
}

#[test]
fn plain_stages_are_not_concerned() {
    let mut cluster = dynamic();
    let (stage, effects) = cluster.submit(plain(3));
    assert_eq!(launched(&effects).len(), 3);
    cluster.ok_all(stage);
    cluster.started(plain(3));
}

#[test]
fn a_gang_of_no_tasks_needs_no_slots_that_stay() {
    let mut cluster = dynamic();
    let (stage, effects) = cluster.submit_of_job(gang(0), 0, &[]);
    assert_eq!(without_events(effects), [SchedulerEffect::AwaitsInput(stage)]);
}

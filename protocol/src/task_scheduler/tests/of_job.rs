//! Stages of jobs: checked at once, started when their input is ready.

use super::*;
use crate::OfJob;

impl Cluster {
    /// A stage of a job, from this attempt on, without these partitions.
    pub(super) fn submit_of_job(
        &mut self,
        spec: StageSpec,
        first_attempt: u32,
        done: &[u32],
    ) -> (StageId, Effects) {
        let stage = StageId(self.next_stage);
        self.next_stage += 1;
        (stage, self.hand_in_again(stage, spec, first_attempt, done))
    }

    pub(super) fn hand_in_again(
        &mut self,
        stage: StageId,
        spec: StageSpec,
        first_attempt: u32,
        done: &[u32],
    ) -> Effects {
        self.handle(of_job(stage, spec, first_attempt, done))
    }

    pub(super) fn ready(&mut self, stage: StageId) -> Effects {
        self.handle(SchedulerEvent::InputReady(stage))
    }

    /// A stage of a job whose input is ready.
    pub(super) fn started(&mut self, spec: StageSpec) -> StageId {
        let (stage, effects) = self.submit_of_job(spec, 0, &[]);
        assert_eq!(without_events(effects), [SchedulerEffect::AwaitsInput(stage)]);
        assert_ne!(launched(&self.ready(stage)), []);
        stage
    }
}

pub(super) fn of_job(
    stage: StageId,
    spec: StageSpec,
    first_attempt: u32,
    done: &[u32],
) -> SchedulerEvent {
    let done: PartitionRanges = done.iter().copied().map(PartitionId).collect();
    let of_job = Some(OfJob { first_attempt, done });
    SchedulerEvent::SubmitStage(SubmitStage { stage, spec, of_job })
}

/// What is said when a stage of a job has its result.
pub(super) fn ended(
    stage: StageId,
    next_attempt: u32,
    failure: Option<StageFailure>,
) -> SchedulerEffect {
    SchedulerEffect::StageEnded { stage, next_attempt, result: failure.map_or(Ok(()), Err) }
}

#[test]
fn a_stage_of_a_job_says_that_it_fits_and_starts_when_its_input_is_ready() {
    for spec in [gang(2), plain(2)] {
        let mut cluster = Cluster::of(&[2]);
        let (stage, effects) = cluster.submit_of_job(spec.clone(), 0, &[]);
        let submitted = SchedulerEffect::Emit(RuntimeEvent::StageSubmitted { stage, spec });
        assert_eq!(effects, [submitted, SchedulerEffect::AwaitsInput(stage)]);
        assert_eq!(cluster.phase(stage), StagePhase::AwaitingInput);
        assert_eq!(cluster.free_slots(), 2, "it holds nothing while it waits");
        assert_eq!(launched(&cluster.ready(stage)).len(), 2);
        assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 0 });
        let effects = without_events(cluster.ok_all(stage));
        assert_eq!(effects.last(), Some(&ended(stage, 1, None)));
        cluster.is_over(stage);
    }
}

#[test]
fn a_stage_that_waits_for_its_input_is_in_nobodys_way() {
    let mut cluster = Cluster::of(&[2]);
    let (waiting, _) = cluster.submit_of_job(gang(2), 0, &[]);
    let (other, effects) = cluster.submit(gang(2));
    assert_eq!(launched_stages(&effects), [other]);
    let effects = cluster.ready(waiting);
    let reserve = set_timer(SchedulerTimer::Reserve(attempt(waiting, 0)), RESERVE);
    assert_eq!(without_events(effects), [reserve], "now it is in line");
    assert_eq!(launched_stages(&cluster.ok_all(other)), [waiting]);
}

#[test]
fn input_that_nobody_waits_for_is_ignored() {
    let mut cluster = Cluster::of(&[2]);
    cluster.ignores(SchedulerEvent::InputReady(StageId(77)));
    let stage = cluster.started(gang(2));
    cluster.ignores(SchedulerEvent::InputReady(stage));
    let (queued, _) = cluster.submit(gang(2));
    cluster.ignores(SchedulerEvent::InputReady(queued));
    cluster.ignores(of_job(stage, gang(2), 1, &[]));
}

#[test]
fn a_stage_that_is_too_large_is_deferred_first_and_admitted_when_slots_arrive() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, effects) = cluster.submit_of_job(gang(4), 0, &[]);
    let check = |check| SchedulerTimer::SlotCheck { stage, deferral: 1, check };
    assert_eq!(without_events(effects), [set_timer(check(1), SLOT_CHECK)]);
    let effects = without_events(cluster.fire(check(1)));
    assert_eq!(effects, [set_timer(check(2), SLOT_CHECK)]);
    let effects = without_events(cluster.join(E2, cpus(2)));
    assert_eq!(effects, [SchedulerEffect::AwaitsInput(stage)]);
    assert_eq!(launched(&cluster.ready(stage)).len(), 4);
}

#[test]
fn a_stage_for_which_no_slots_arrive_fails_before_its_input_is_ready() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, effects) = cluster.submit_of_job(gang(4), 0, &[]);
    let mut timer = timers(&effects);
    let mut last = effects;
    while let Some((key, _)) = timer.pop() {
        last = cluster.fire(key);
        timer = timers(&last);
    }
    let (required, available, checks, interval) = (4, 2, 4, SLOT_CHECK);
    let last_cause = None;
    let failure =
        StageFailure::NotEnoughSlots { required, available, checks, interval, last_cause };
    assert_eq!(without_events(last), [ended(stage, 0, Some(failure))]);
    cluster.is_over(stage);
}

#[test]
fn a_stage_that_no_longer_fits_when_its_input_is_ready_is_deferred() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit_of_job(gang(4), 0, &[]);
    assert_eq!(without_events(cluster.lose(E2)), [], "it is not in line");
    assert_eq!(cluster.phase(stage), StagePhase::AwaitingInput);
    let check = SchedulerTimer::SlotCheck { stage, deferral: 1, check: 1 };
    assert_eq!(without_events(cluster.ready(stage)), [set_timer(check, SLOT_CHECK)]);
    let effects = cluster.join(E3, cpus(2));
    assert_eq!(launched(&effects).len(), 4, "it waits for slots only");
}

#[test]
fn input_may_be_ready_while_a_stage_is_deferred() {
    let mut cluster = Cluster::of(&[2, 2]);
    let (stage, _) = cluster.submit_of_job(gang(4), 0, &[]);
    cluster.lose(E2);
    cluster.ready(stage);
    assert_eq!(without_events(cluster.ready(stage)), []);
    assert_eq!(launched(&cluster.join(E3, cpus(2))).len(), 4);
}

#[test]
fn a_stage_that_waits_for_its_input_can_be_cancelled_and_shut_down_but_not_killed() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit_of_job(gang(2), 0, &[]);
    cluster.ignores(kill_partition(stage, 0));
    let reason = "not needed".to_owned();
    let failure = StageFailure::Cancelled { reason };
    let mut stopped = cluster.clone();
    assert_eq!(without_events(cluster.cancel(stage)), [ended(stage, 0, Some(failure))]);
    cluster.is_over(stage);
    cluster.ignores(SchedulerEvent::InputReady(stage));
    let effects = without_events(stopped.handle(SchedulerEvent::Shutdown));
    let over = ended(stage, 0, Some(StageFailure::Shutdown));
    assert_eq!(effects, [over, SchedulerEffect::Drained]);
    let effects = stopped.hand_in_again(stage, gang(2), 0, &[]);
    assert_eq!(results(&effects), [(stage, Err(StageFailure::Shutdown))]);
}

#[test]
fn attempts_are_numbered_from_where_the_stage_had_been() {
    let mut cluster = Cluster::of(&[2]);
    let (stage, _) = cluster.submit_of_job(gang(2), 3, &[]);
    assert_eq!(launched(&cluster.ready(stage))[0].0, attempt(stage, 3));
    cluster.fail(cluster.task(stage, 0), "boom");
    let effects = cluster.killed_all(stage);
    assert_eq!(launched(&effects)[0].0, attempt(stage, 4), "its input is there as before");
    let effects = cluster.ok_all(stage);
    let told = RuntimeEvent::StageCompleted { stage, attempts: 2, failure: None };
    let over = [ended(stage, 5, None), SchedulerEffect::Emit(told)];
    assert!(effects.ends_with(&over), "{effects:#?}");
}

#[test]
fn partitions_that_are_done_need_not_run() {
    let mut cluster = Cluster::of(&[4]);
    let (stage, _) = cluster.submit_of_job(plain(4), 1, &[1, 3]);
    let (first, on) = (attempt(stage, 1), E1);
    let effects = cluster.ready(stage);
    assert_eq!(launched(&effects), [(first, PartitionId(0), on), (first, PartitionId(2), on)]);
    assert_eq!(cluster.phase(stage), StagePhase::Running { succeeded: 2 });
    let effects = without_events(cluster.ok_all(stage));
    let kept = |it: &&SchedulerEffect| matches!(it, SchedulerEffect::KeepPayload { .. });
    assert_eq!(effects.iter().filter(kept).count(), 2);
    assert_eq!(effects.last(), Some(&ended(stage, 2, None)));
}

#[test]
fn a_gang_makes_all_or_nothing() {
    let mut cluster = Cluster::of(&[4]);
    let (stage, _) = cluster.submit_of_job(gang(4), 1, &[1, 3]);
    assert_eq!(launched(&cluster.ready(stage)).len(), 4);
}

#[test]
fn a_stage_of_which_nothing_is_left_to_do_ends_when_its_input_is_ready_without_a_slot() {
    let mut cluster = Cluster::of(&[]);
    for (spec, done) in [(plain(2), &[0, 1][..]), (plain(0), &[]), (gang(0), &[])] {
        let (stage, effects) = cluster.submit_of_job(spec, 1, done);
        assert_eq!(without_events(effects), [SchedulerEffect::AwaitsInput(stage)]);
        assert_eq!(without_events(cluster.ready(stage)), [ended(stage, 1, None)]);
        cluster.is_over(stage);
    }
}

//! Failures and cancels.

use super::*;
use crate::{FailureCause, TaskFailure};

fn killed(stage: StageId) -> FailureCause {
    let attempt = StageAttemptId { stage, attempt: 0 };
    FailureCause { attempt, origin: None, failure: TaskFailure::Killed("by hand".to_owned()) }
}

/// R3: a result gang has handed out what it may not hand out twice.
#[test]
fn a_barrier_result_stage_that_is_aborted_ends_the_job() {
    let mut jobs = Jobs::mapped(&[Plain(2), Gang(2)]);
    let cause = killed(RESULT);
    let effects = jobs.failed(RESULT, 1, StageFailure::Aborted { cause });
    let Some(PlannerEffect::JobEnded { job: JOB, result: Err(failure) }) = effects.first() else {
        panic!("{effects:#?}")
    };
    let text = "aborted due to stage failure: could not recover from a failed barrier result \
                stage (stage 8 'stage-8'), because results of some partitions may have been \
                handed out; the most recent failure: Stage 8 (Attempt 0) was killed: by hand. If \
                a repeat does no harm, ask for it: settings(|stage| \
                stage.on_failure(OnFailure::Restart))";
    assert_eq!(failure.to_string(), text);
    let over = job_ended(JOB, Some(failure.clone()));
    assert_eq!(effects, all([&over, &[PlannerEffect::ForgetStage(RESULT)]]));
    assert_eq!(jobs.machine.outputs(), 2, "for the next job");
}

#[test]
fn the_failure_of_one_stage_cancels_the_others() {
    let (mut jobs, _) = Jobs::of(&[Plain(2), Plain(2), Plain(1)]);
    jobs.awaits_all(&[MAP, SECOND_MAP, RESULT]);
    let failure = StageFailure::AttemptsExhausted { attempts: 4, cause: killed(MAP) };
    let effects = jobs.failed(MAP, 4, failure.clone());
    let failure = JobFailure::Stage {
        stage: MAP,
        name: "stage-0".to_owned(),
        role: StageRole::Map,
        is_barrier: false,
        failure,
    };
    let reason = format!("its job was {failure}");
    let cancel = |stage| PlannerEffect::CancelStage { stage, reason: reason.clone() };
    let over = job_ended(JOB, Some(failure));
    assert_eq!(effects, all([&over, &[cancel(SECOND_MAP), cancel(RESULT)]]));
    assert_eq!(jobs.failed(SECOND_MAP, 0, was_cancelled()), [], "its dataset is there");
    assert_eq!(jobs.failed(RESULT, 0, was_cancelled()), [PlannerEffect::ForgetStage(RESULT)]);
}

#[test]
fn a_cancelled_job_ends_at_once_and_its_stages_are_cancelled() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.awaits_all(&[MAP, RESULT]);
    let effects = jobs.cancel(JOB);
    let over = job_ended(JOB, Some(not_needed()));
    assert_eq!(effects, all([&over, &[cancels(MAP), cancels(RESULT)]]));
    assert_eq!(not_needed().to_string(), "cancelled: not needed");
    jobs.ignores(cancelled(JOB));
    for stage in [MAP, RESULT] {
        jobs.ignores(PlannerEvent::AwaitsInput(stage));
    }
    assert_eq!(jobs.failed(MAP, 1, was_cancelled()), []);
    assert_eq!(jobs.failed(RESULT, 0, was_cancelled()), [PlannerEffect::ForgetStage(RESULT)]);
    assert_eq!(jobs.drop_all(&[MAP]), [PlannerEffect::ForgetStage(MAP)]);
    jobs.is_empty();
}

#[test]
fn a_job_is_cancelled_while_its_stages_are_checked() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.handle(PlannerEvent::AwaitsInput(MAP));
    let effects = jobs.cancel(JOB);
    assert_eq!(effects[2..], [cancels(MAP), cancels(RESULT)]);
    jobs.ignores(PlannerEvent::AwaitsInput(RESULT));
    jobs.drop_all(&[MAP]);
    jobs.failed(RESULT, 0, was_cancelled());
    assert_eq!(jobs.failed(MAP, 0, was_cancelled()), [PlannerEffect::ForgetStage(MAP)]);
    jobs.is_empty();
}

/// The model found that such a result stage, and its code, were kept for ever.
#[test]
fn a_result_that_was_on_its_way_when_its_job_was_cancelled_is_forgotten() {
    let (mut jobs, _) = Jobs::of(&[Plain(1)]);
    jobs.awaits_all(&[RESULT]);
    jobs.cancel(JOB);
    assert_eq!(jobs.made(RESULT, 1, &[]), [PlannerEffect::ForgetStage(RESULT)]);
    jobs.is_empty();
}

#[test]
fn outputs_that_were_on_their_way_when_their_job_was_cancelled_are_kept() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.awaits_all(&[MAP, RESULT]);
    jobs.cancel(JOB);
    assert_eq!(jobs.made(MAP, 1, &[(0, E1), (1, E2)]), []);
    assert_eq!(jobs.machine.outputs(), 2);
    let stages = chain(&[Gang(2), Plain(2)], OTHER_RESULT);
    let effects = jobs.submit(OTHER_JOB, stages.clone());
    assert_eq!(effects, [hands_in(&stages[1], 0, &[])]);
}

/// Another job had it made again and was cancelled; this one had its input already.
#[test]
fn a_stage_that_nobody_needs_any_more_is_cancelled_when_the_result_is_there() {
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    jobs.lose(E1);
    jobs.submit(OTHER_JOB, chain(&[Gang(2), Plain(2)], OTHER_RESULT));
    jobs.awaits_all(&[MAP, OTHER_RESULT]);
    assert_eq!(jobs.cancel(OTHER_JOB)[2..], [cancels(OTHER_RESULT)]);
    let effects = jobs.made(RESULT, 1, &[]);
    let reason = "its job has its result".to_owned();
    let cancel = PlannerEffect::CancelStage { stage: MAP, reason };
    let forget = PlannerEffect::ForgetStage(RESULT);
    assert_eq!(effects, all([&job_ended(JOB, None), &[cancel, forget]]));
}

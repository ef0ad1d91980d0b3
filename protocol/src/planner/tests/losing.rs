//! Outputs that are lost, and what is made again.

use super::*;

/// R1: a child's fetch failure re-runs the whole barrier map stage.
#[test]
fn an_output_of_a_gang_that_is_not_found_makes_the_whole_gang_run_again() {
    let stages = chain(&[Gang(2), Plain(2)], RESULT);
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    let effects = jobs.not_found(RESULT, (MAP, 0), 0);
    let again = hands_in(&stages[0], 1, &[]);
    assert_eq!(effects, all([&forgotten(MAP, &[0, 1]), &[again]]));
    assert_eq!(jobs.machine.outputs(), 0);
    assert_eq!(jobs.open_stages(), [(JOB, vec![MAP, RESULT])]);
    let effects = jobs.handle(PlannerEvent::AwaitsInput(MAP));
    assert_eq!(effects, [PlannerEffect::InputReady(MAP)], "the job has started long ago");
    let effects = jobs.made(MAP, 2, &[(0, E2), (1, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
    jobs.made(RESULT, 2, &[]);
    jobs.drop_all(&[MAP]);
    jobs.is_empty();
}

/// R2: the scheduler repeats the gang on its own; what it tells at the end is all of it.
#[test]
fn a_gang_that_was_repeated_counts_once_with_its_last_attempt() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.awaits_all(&[MAP, RESULT]);
    assert_eq!(jobs.machine.outputs(), 0, "also of the task that had succeeded");
    let effects = jobs.made(MAP, 2, &[(0, E1), (1, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
    jobs.ignores_stale((MAP, 0));
    let effects = jobs.not_found(RESULT, (MAP, 1), 1);
    assert_eq!(effects[..2], forgotten(MAP, &[0, 1]));
}

#[test]
fn of_a_plain_stage_only_what_is_lost_is_made_again() {
    let stages = chain(&[Plain(2), Plain(2)], RESULT);
    let mut jobs = Jobs::mapped(&[Plain(2), Plain(2)]);
    let effects = jobs.not_found(RESULT, (MAP, 0), 0);
    let again = hands_in(&stages[0], 1, &[1]);
    assert_eq!(effects, all([&forgotten(MAP, &[0]), &[again]]));
    jobs.awaits_all(&[MAP]);
    let effects = jobs.made(MAP, 2, &[(0, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
    assert_eq!(jobs.machine.outputs(), 2);
}

#[test]
fn an_executor_takes_its_outputs_with_it_and_the_running_stage_tells_if_it_misses_them() {
    let stages = chain(&[Gang(2), Plain(2)], RESULT);
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    assert_eq!(jobs.lose(E2), forgotten(MAP, &[0, 1]), "the result may have read them");
    assert_eq!(jobs.lose(life(77, 0)), []);
    let effects = jobs.not_found(RESULT, (MAP, 0), 1);
    assert_eq!(effects, [hands_in(&stages[0], 1, &[])]);
}

#[test]
fn what_is_lost_before_its_reader_has_started_is_made_again_at_once() {
    let stages = chain(&[Plain(2), Gang(2), Plain(1)], RESULT);
    let (mut jobs, _) = Jobs::of(&[Plain(2), Gang(2), Plain(1)]);
    jobs.handle(PlannerEvent::AwaitsInput(MAP));
    jobs.handle(PlannerEvent::AwaitsInput(RESULT));
    jobs.awaits_all(&[SECOND_MAP]);
    jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
    jobs.made(SECOND_MAP, 1, &[(0, E1), (1, E2)]);
    jobs.not_found(RESULT, (SECOND_MAP, 0), 0);
    assert_eq!(jobs.awaits_all(&[SECOND_MAP]), [PlannerEffect::InputReady(SECOND_MAP)]);
    let effects = jobs.not_found(SECOND_MAP, (MAP, 0), 1);
    assert_eq!(effects, all([&forgotten(MAP, &[1]), &[hands_in(&stages[0], 1, &[0])]]));
    let effects = jobs.lose(E1);
    assert_eq!(effects, forgotten(MAP, &[0]), "with the scheduler, it is made when that is done");
    jobs.awaits_all(&[MAP]);
    let effects = jobs.made(MAP, 2, &[(1, E2)]);
    assert_eq!(effects, [hands_in(&stages[0], 2, &[1])]);
}

#[test]
fn outputs_whose_executor_was_lost_before_all_were_made_are_made_again() {
    let stages = chain(&[Plain(2), Plain(2)], RESULT);
    let (mut jobs, _) = Jobs::of(&[Plain(2), Plain(2)]);
    jobs.awaits_all(&[MAP, RESULT]);
    assert_eq!(jobs.lose(E1), []);
    let effects = jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
    let again = hands_in(&stages[0], 1, &[1]);
    assert_eq!(effects, all([&forgotten(MAP, &[0]), &[again]]));
    jobs.awaits_all(&[MAP]);
    let effects = jobs.made(MAP, 2, &[(0, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
}

#[test]
fn a_gang_of_which_an_executor_was_lost_before_it_was_told_runs_again_as_a_whole() {
    let stages = chain(&[Gang(2), Plain(2)], RESULT);
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.awaits_all(&[MAP, RESULT]);
    jobs.lose(E2);
    let effects = jobs.made(MAP, 1, &[(0, E1), (1, E2)]);
    assert_eq!(effects, all([&forgotten(MAP, &[0, 1]), &[hands_in(&stages[0], 1, &[])]]));
}

#[test]
fn outputs_that_nobody_needs_now_are_made_again_when_a_job_does() {
    let mut jobs = Jobs::mapped(&[Plain(2), Plain(2)]);
    jobs.made(RESULT, 1, &[]);
    assert_eq!(jobs.lose(E1), forgotten(MAP, &[0]));
    let stages = chain(&[Plain(2), Plain(2)], OTHER_RESULT);
    let effects = jobs.submit(OTHER_JOB, stages.clone());
    assert_eq!(effects, [hands_in(&stages[0], 1, &[1]), hands_in(&stages[1], 0, &[])]);
}

#[test]
fn what_was_made_again_since_is_not_meant() {
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    jobs.not_found(RESULT, (MAP, 0), 0);
    jobs.awaits_all(&[MAP]);
    jobs.made(MAP, 2, &[(0, E1), (1, E2)]);
    jobs.ignores_stale((MAP, 0));
    assert_eq!(jobs.machine.outputs(), 2);
}

impl Jobs {
    /// The result stage is told that its input is ready: what it has not found is made again.
    #[track_caller]
    fn ignores_stale(&mut self, (input, attempt): (StageId, u32)) {
        let before = self.machine.clone();
        let effects = self.not_found(RESULT, (input, attempt), 0);
        assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
        assert!(self.machine == before);
    }
}

#[test]
fn lost_input_of_a_stage_that_is_not_known_is_only_awaited() {
    let mut jobs = Jobs::mapped(&[Gang(2), Plain(2)]);
    jobs.ignores_stale((StageId(77), 0));
}

#[test]
fn what_a_later_life_of_a_lost_executor_has_made_is_kept() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(1)]);
    jobs.awaits_all(&[MAP, RESULT]);
    assert_eq!(jobs.lose(E1), []);
    let effects = jobs.made(MAP, 2, &[(0, life(1, 1)), (1, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
    assert_eq!(jobs.lose(life(1, 1)), forgotten(MAP, &[0, 1]));
}

/// What it holds now was made by the life that is there.
#[test]
fn outputs_of_a_later_life_of_an_executor_are_not_lost_with_the_former() {
    let (mut jobs, _) = Jobs::of(&[Gang(2), Plain(2)]);
    jobs.awaits_all(&[MAP, RESULT]);
    assert_eq!(jobs.lose(E1), []);
    let effects = jobs.made(MAP, 2, &[(0, life(1, 1)), (1, E2)]);
    assert_eq!(effects, [PlannerEffect::InputReady(RESULT)]);
    jobs.ignores(PlannerEvent::ExecutorLost(E1));
    assert_eq!(jobs.lose(life(1, 1)), forgotten(MAP, &[0, 1]));
}

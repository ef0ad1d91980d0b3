//! Clusters in which the scheduler keeps its promises, with all that may go wrong in them.

use super::Reached::{self, *};
use super::{Budget, Config, Scheduler};
use phalanx::protocol::{
    OnFailure, SchedulerConfig, StageKind, StageSpec, TaskResources, TaskScheduler,
};
use std::marker::PhantomData;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(1);

fn stage(kind: StageKind, num_tasks: u32) -> StageSpec {
    StageSpec {
        name: String::new(),
        kind,
        num_tasks,
        resources: TaskResources::default(),
        max_attempts: 2,
        max_infrastructure_failures: 1,
        retry_delay: SOON,
        priority: 0,
        sync_timeout: SOON,
        on_failure: OnFailure::Restart,
    }
}

pub fn gang(num_tasks: u32) -> StageSpec {
    stage(StageKind::Barrier, num_tasks)
}

fn plain(num_tasks: u32) -> StageSpec {
    stage(StageKind::Plain, num_tasks)
}

fn limits() -> SchedulerConfig {
    SchedulerConfig {
        slot_check_interval: SOON,
        slot_check_max_failures: 1,
        reserve_after: SOON,
        kill_grace: SOON,
        zombie_deadline: None,
        queue_max: 9,
        dynamic_allocation: false,
    }
}

pub const NONE: Budget = Budget {
    deaths: 0,
    unheard: 0,
    joins: 0,
    cancels: 0,
    kills: 0,
    errors: 0,
    barriers: 0,
    zombies: 0,
    late: 0,
    shutdowns: 0,
};

pub fn world<S: Scheduler>(stages: &[StageSpec], executors: &[u32], budget: Budget) -> Config<S> {
    Config {
        stages: stages.to_vec(),
        executors: executors.to_vec(),
        present: executors.len(),
        limits: limits(),
        in_flight: false,
        refires: true,
        budget,
        reached: &[Reached::Succeeded],
        scheduler: PhantomData,
    }
}

fn in_flight<S>(config: Config<S>) -> Config<S> {
    Config { in_flight: true, ..config }
}

/// Timers fire once: who ignores one must have set another.
fn once<S>(config: Config<S>) -> Config<S> {
    Config { refires: false, ..config }
}

pub fn with_deadline<S>(mut config: Config<S>) -> Config<S> {
    config.limits.zombie_deadline = Some(SOON);
    config
}

fn at_once(spec: StageSpec) -> StageSpec {
    StageSpec { retry_delay: Duration::ZERO, ..spec }
}

fn first(spec: StageSpec) -> StageSpec {
    StageSpec { priority: 1, ..spec }
}

fn prove(name: &str, reached: &'static [Reached], config: Config<TaskScheduler>) -> usize {
    crate::prove(name, Config { reached, ..config })
}

#[test]
fn gangs_and_a_plain_stage_take_turns() {
    let budget = Budget { errors: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, SucceededAfterFailure, StageQueued, TaskIgnoresKill, Cancelled];
    let config = world(&[gang(2), plain(2), gang(3)], &[2, 1], budget);
    let states = prove("gang, plain, gang on 2 + 1, error, cancel", reached, config);
    assert_eq!(states, 19_571);
}

#[test]
fn tasks_may_be_of_several_cpus() {
    let budget = Budget { errors: 1, cancels: 1, ..NONE };
    let reached = &[Succeeded, SucceededAfterFailure, StageQueued, TaskIgnoresKill, Cancelled];
    let wide = StageSpec { resources: TaskResources::new(2), ..gang(2) };
    let config = once(world(&[wide, plain(2)], &[3, 2], budget));
    assert_eq!(prove("gang of 2 cpus each, plain on 3 + 2", reached, config), 3_215);
}

#[test]
fn a_shutdown_ends_what_waits_and_what_runs() {
    let budget = Budget { errors: 1, shutdowns: 1, ..NONE };
    let reached = &[
        Succeeded,
        SucceededAfterFailure,
        StageQueued,
        TaskIgnoresKill,
        QueueFull,
        Aborted,
        Shutdown,
    ];
    let abort = StageSpec { on_failure: OnFailure::Abort, ..gang(2) };
    let mut config = once(world(&[gang(2), plain(2), abort], &[2, 1], budget));
    config.limits.queue_max = 2;
    let states = prove("gang, plain, gang on 2 + 1, error, shutdown", reached, config);
    assert_eq!(states, 29_698);
}

#[test]
fn slots_come_late() {
    let budget = Budget { joins: 1, cancels: 1, ..NONE };
    let reached =
        &[Succeeded, StageQueued, StageDeferred, TaskIgnoresKill, NotEnoughSlots, Cancelled];
    let config = once(world(&[gang(2), plain(1), gang(3)], &[2, 1], budget));
    let config = Config { present: 1, ..config };
    assert_eq!(prove("gang, plain, gang on 2, later + 1", reached, config), 1_682);
}

const LOSSES: &[Reached] = &[
    Succeeded,
    SucceededAfterFailure,
    StageQueued,
    StageDeferred,
    TaskIgnoresKill,
    NotEnoughSlots,
];

#[test]
fn an_executor_is_lost() {
    let budget = Budget { deaths: 1, ..NONE };
    let config = once(world(&[gang(2), gang(3), first(gang(2))], &[2, 1], budget));
    assert_eq!(prove("3 gangs on 2 + 1, death", LOSSES, config), 6_720);
}

const MANY_LOSSES: &[Reached] = &[
    Succeeded,
    SucceededAfterFailure,
    StageQueued,
    StageDeferred,
    TaskIgnoresKill,
    NotEnoughSlots,
    InfrastructureExhausted,
];

#[test]
fn executors_are_lost_and_come_back() {
    let budget = Budget { deaths: 2, joins: 2, ..NONE };
    let config = once(world(&[gang(2), plain(1)], &[1, 1], budget));
    assert_eq!(prove("gang, plain on 1 + 1, 2 deaths, 2 joins", MANY_LOSSES, config), 24_180);
}

#[test]
fn gangs_start_again_at_once_when_executors_are_lost() {
    let budget = Budget { deaths: 2, joins: 2, ..NONE };
    let config = world(&[at_once(gang(2)), at_once(gang(1))], &[1, 1], budget);
    assert_eq!(
        prove("2 gangs, no delay, on 1 + 1, 2 deaths, 2 joins", MANY_LOSSES, config),
        22_060
    );
}

#[test]
fn everything_ends_while_executors_come_and_go() {
    let budget = Budget { deaths: 1, joins: 1, cancels: 1, shutdowns: 1, ..NONE };
    let reached = &[
        Succeeded,
        SucceededAfterFailure,
        StageQueued,
        StageDeferred,
        TaskIgnoresKill,
        NotEnoughSlots,
        Cancelled,
        Shutdown,
    ];
    let config = once(world(&[gang(2), plain(1)], &[1, 1], budget));
    let states = prove("gang, plain on 1 + 1, death, join, cancel, shutdown", reached, config);
    assert_eq!(states, 24_438);
}

const RETRIES: &[Reached] = &[Succeeded, SucceededAfterFailure, AttemptsExhausted, TaskIgnoresKill];

#[test]
fn a_kill_and_a_failure_race() {
    let budget = Budget { errors: 1, kills: 1, late: 1, ..NONE };
    let config = in_flight(world(&[gang(2)], &[2], budget));
    assert_eq!(prove("gang of 2, error, kill, late", RETRIES, config), 5_255);
}

#[test]
fn a_kill_and_a_failure_race_before_an_instant_retry() {
    let budget = Budget { errors: 1, kills: 1, late: 1, ..NONE };
    let config = in_flight(world(&[at_once(gang(2))], &[2], budget));
    assert_eq!(prove("gang of 2, no delay, error, kill, late", RETRIES, config), 4_595);
}

#[test]
fn a_gang_of_three_is_killed() {
    let budget = Budget { errors: 1, kills: 1, ..NONE };
    let config = in_flight(world(&[gang(3)], &[3], budget));
    assert_eq!(prove("gang of 3, error, kill", RETRIES, config), 7_445);
}

#[test]
fn a_lost_coordinator_fails_its_own_attempt_only() {
    let budget = Budget { errors: 1, barriers: 1, late: 1, ..NONE };
    let reached = &[Succeeded, SucceededAfterFailure, TaskIgnoresKill];
    let config = in_flight(world(&[gang(2)], &[2], budget));
    assert_eq!(prove("gang of 2, error, coordinator, late", reached, config), 8_336);
}

#[test]
fn a_cancel_meets_every_other_failure() {
    let budget = Budget { errors: 1, kills: 1, barriers: 1, cancels: 1, ..NONE };
    let reached =
        &[Succeeded, SucceededAfterFailure, AttemptsExhausted, TaskIgnoresKill, Cancelled];
    let config = in_flight(world(&[gang(2)], &[2], budget));
    assert_eq!(prove("gang of 2, error, kill, coordinator, cancel", reached, config), 9_371);
}

#[test]
fn two_gangs_wait_for_one_anothers_zombies() {
    let budget = Budget { errors: 1, kills: 1, ..NONE };
    let reached =
        &[Succeeded, SucceededAfterFailure, AttemptsExhausted, TaskIgnoresKill, StageQueued];
    let config = in_flight(once(world(&[gang(2), gang(2)], &[2], budget)));
    assert_eq!(prove("2 gangs on 2, error, kill", reached, config), 79_612);
}

#[test]
fn a_task_of_a_plain_stage_is_killed() {
    let budget = Budget { errors: 1, kills: 1, late: 1, ..NONE };
    let reached =
        &[Succeeded, SucceededAfterFailure, AttemptsExhausted, TaskIgnoresKill, StageQueued];
    let config = in_flight(world(&[plain(2), gang(1)], &[2], budget));
    assert_eq!(prove("plain, gang on 2, error, kill, late", reached, config), 10_858);
}

#[test]
fn a_former_life_reports_late() {
    let budget = Budget { deaths: 1, joins: 1, errors: 1, late: 1, ..NONE };
    let reached =
        &[Succeeded, SucceededAfterFailure, StageDeferred, TaskIgnoresKill, NotEnoughSlots];
    let config = in_flight(world(&[gang(2)], &[2], budget));
    assert_eq!(prove("gang of 2, death, join, error, late", reached, config), 6_772);
}

/// The simulation found that such a life joined, and that its tasks were waited for ever after.
#[test]
fn a_life_that_dies_unheard_does_not_join() {
    let budget = Budget { unheard: 1, joins: 1, errors: 1, late: 1, ..NONE };
    let reached =
        &[Succeeded, SucceededAfterFailure, StageDeferred, TaskIgnoresKill, NotEnoughSlots];
    let config = world(&[gang(2)], &[1, 1], budget);
    assert_eq!(prove("gang on 1 + 1, unheard, join, error, late", reached, config), 4_282);
}

const ZOMBIES: &[Reached] = &[
    Succeeded,
    SucceededAfterFailure,
    StageDeferred,
    TaskIgnoresKill,
    NotEnoughSlots,
    RetireExecutor,
];

#[test]
fn an_executor_with_zombies_is_given_up() {
    let budget = Budget { kills: 1, zombies: 1, joins: 1, late: 1, ..NONE };
    let config = with_deadline(in_flight(world(&[gang(2)], &[1, 1], budget)));
    assert_eq!(prove("gang on 1 + 1, zombie, join, late", ZOMBIES, config), 6_736);
}

#[test]
fn an_executor_with_zombies_dies_before_it_is_given_up() {
    let budget = Budget { kills: 1, zombies: 1, joins: 1, deaths: 1, ..NONE };
    let config = with_deadline(in_flight(world(&[gang(2)], &[1, 1], budget)));
    assert_eq!(prove("gang on 1 + 1, zombie, death, join", ZOMBIES, config), 15_174);
}

#[test]
fn one_gangs_zombies_cost_another_gang_its_executor() {
    let budget = Budget { kills: 1, zombies: 1, joins: 1, ..NONE };
    let reached = &[
        Succeeded,
        SucceededAfterFailure,
        StageQueued,
        StageDeferred,
        TaskIgnoresKill,
        NotEnoughSlots,
        RetireExecutor,
    ];
    let config = with_deadline(in_flight(once(world(&[gang(2), gang(1)], &[1, 1], budget))));
    assert_eq!(prove("2 gangs on 1 + 1, zombie, join", reached, config), 44_232);
}

#[test]
#[ignore = "minutes in the debug profile"]
fn three_gangs_while_executors_come_and_go() {
    let budget = Budget { deaths: 1, joins: 1, ..NONE };
    let config = once(world(&[gang(2), gang(3), first(gang(2))], &[2, 1], budget));
    assert_eq!(prove("3 gangs on 2 + 1, death, join", LOSSES, config), 232_422);
}

#[test]
#[ignore = "minutes in the debug profile"]
fn two_gangs_are_killed_while_executors_come_and_go() {
    let budget = Budget { deaths: 1, joins: 1, kills: 1, ..NONE };
    let config = in_flight(world(&[gang(2), gang(2)], &[2, 1], budget));
    assert_eq!(prove("2 gangs on 2 + 1, death, join, kill", LOSSES, config), 1_507_701);
}

#[test]
#[ignore = "minutes in the debug profile"]
fn two_gangs_one_of_which_starts_beside_the_others_zombies() {
    let budget = Budget { errors: 1, kills: 1, ..NONE };
    let reached =
        &[Succeeded, SucceededAfterFailure, AttemptsExhausted, TaskIgnoresKill, StageQueued];
    let config = in_flight(world(&[gang(2), gang(2)], &[3], budget));
    assert_eq!(prove("2 gangs on 3, error, kill", reached, config), 168_811);
}

#[test]
#[ignore = "minutes in the debug profile"]
fn a_gang_meets_every_failure() {
    let budget = Budget { errors: 1, kills: 1, barriers: 1, cancels: 1, late: 1, ..NONE };
    let reached =
        &[Succeeded, SucceededAfterFailure, AttemptsExhausted, TaskIgnoresKill, Cancelled];
    let config = in_flight(world(&[gang(2)], &[2], budget));
    let states = prove("gang of 2, error, kill, coordinator, cancel, late", reached, config);
    assert_eq!(states, 943_578);
}

#[test]
#[ignore = "minutes in the debug profile"]
fn everything_ends_while_executors_die_or_are_given_up() {
    let budget = Budget { kills: 1, deaths: 1, joins: 1, zombies: 1, shutdowns: 1, ..NONE };
    let reached = &[
        Succeeded,
        SucceededAfterFailure,
        StageQueued,
        StageDeferred,
        TaskIgnoresKill,
        NotEnoughSlots,
        InfrastructureExhausted,
        RetireExecutor,
        Shutdown,
    ];
    let config = with_deadline(world(&[gang(2), plain(1)], &[1, 1], budget));
    let states =
        prove("gang, plain on 1 + 1, kill, zombie, death, join, shutdown", reached, config);
    assert_eq!(states, 145_363);
}

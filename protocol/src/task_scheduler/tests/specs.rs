//! What the tests submit, and to what.

use super::*;

pub(super) fn config() -> SchedulerConfig {
    SchedulerConfig {
        slot_check_interval: SLOT_CHECK,
        slot_check_max_failures: 3,
        reserve_after: RESERVE,
        kill_grace: GRACE,
        zombie_deadline: None,
        queue_max: 100,
        dynamic_allocation: false,
    }
}

pub(super) fn gang(num_tasks: u32) -> StageSpec {
    StageSpec {
        name: "gang".to_owned(),
        kind: StageKind::Barrier,
        num_tasks,
        resources: TaskResources::default(),
        max_attempts: 4,
        max_infrastructure_failures: 3,
        retry_delay: Duration::ZERO,
        priority: 0,
        sync_timeout: SYNC,
        on_failure: OnFailure::Restart,
    }
}

pub(super) fn plain(num_tasks: u32) -> StageSpec {
    StageSpec { name: "plain".to_owned(), kind: StageKind::Plain, ..gang(num_tasks) }
}

pub(super) fn cpus(count: u32) -> ExecutorResources {
    ExecutorResources::new(count)
}

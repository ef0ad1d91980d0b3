//! Mixed work with mixed trouble, all of it chosen by one seed.

use phalanx::simulation::{Fault, Network, Plan, Step, TaskEnd, TaskScript};
use phalanx::{
    Config, ExecutorId, ExecutorResources, OnFailure, PartitionId, Stage, StageId, SyncMethod,
    TaskFailure,
};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// A task takes a half, a third, ... of a gpu; all of these add up to whole numbers of shares.
pub const GPU_SHARES: u32 = 12;

/// Nothing goes wrong after this.
const TROUBLE_ENDS: u64 = 40_000;

/// By when everything has ended, if nothing hangs: the longest waits of all stages in a row.
pub const ALL_IS_OVER: Duration = Duration::from_secs(6 * 60 * 60);

/// The plan of a seed.
pub fn plan(seed: u64) -> Plan {
    Workload { rng: ChaCha8Rng::seed_from_u64(seed), executors: 0, stages: 0 }.plan(seed)
}

struct Workload {
    rng: ChaCha8Rng,
    executors: u64,
    stages: u64,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Workload {
    fn plan(mut self, seed: u64) -> Plan {
        let mut plan = Plan::new(self.config());
        plan.seed = seed;
        plan.network = self.network();
        plan.given_up_returns_after = self.maybe(0.8, |it| it.between(0, 5_000));
        self.executors = self.rng.random_range(1..=5);
        for _ in 0..self.executors {
            let late = if self.chance(0.2) { self.between(0, 30_000) } else { Duration::ZERO };
            let resources = self.resources();
            plan.executor_joins(late, resources);
        }
        self.stages = self.rng.random_range(1..=14);
        for _ in 0..self.stages {
            self.stage(&mut plan);
        }
        self.trouble(&mut plan);
        plan
    }

    fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    fn between(&mut self, least: u64, most: u64) -> Duration {
        ms(self.rng.random_range(least..=most))
    }

    fn maybe<T>(&mut self, share: f64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(share).then(|| make(self))
    }

    fn config(&mut self) -> Config {
        Config {
            progress_log_interval: self.between(1_000, 30_000),
            slot_check_interval: self.between(1_000, 10_000),
            slot_check_max_failures: self.rng.random_range(0..=3),
            reserve_after: self.between(0, 5_000),
            kill_grace: self.between(0, 3_000),
            kill_zombie_deadline: self.maybe(0.5, |it| it.between(1_000, 20_000)),
            queue_max_stages: if self.chance(0.1) { 3 } else { 1_000 },
            ..Config::default()
        }
    }

    fn network(&mut self) -> Network {
        let longest = *[0, 5, 500, 3_000].choose(&mut self.rng).expect("not empty");
        Network {
            delay: (ms(longest / 10), ms(longest)),
            duplicates: if self.chance(0.5) { 0.2 } else { 0.0 },
            late_timers: if self.chance(0.5) { 0.5 } else { 0.0 },
        }
    }

    fn resources(&mut self) -> ExecutorResources {
        let resources = ExecutorResources::new(self.rng.random_range(1..=8));
        let gpus = self.rng.random_range(0..=3);
        if gpus == 0 {
            return resources;
        }
        resources.with("gpu", (0..gpus).map(|gpu: u32| gpu.to_string()))
    }

    fn stage(&mut self, plan: &mut Plan) {
        let count = self.rng.random_range(0..=10_usize).saturating_sub(1);
        let mut stage = Stage::tasks(count)
            .name("work")
            .cpus(if self.chance(0.2) { 2 } else { 1 })
            .priority(self.rng.random_range(-1..=1))
            .max_attempts(self.rng.random_range(1..=4))
            .max_infrastructure_failures(self.rng.random_range(0..=4))
            .retry_delay(if self.chance(0.3) { Duration::ZERO } else { self.between(1, 2_000) })
            .sync_timeout(self.between(5_000, 60_000));
        if self.chance(0.2) {
            stage = stage.on_failure(OnFailure::Abort);
        }
        let is_gang = self.chance(0.75);
        if !is_gang {
            stage = stage.plain();
        }
        if self.chance(0.2) {
            let shares = *[1, 2, 3, 4].choose(&mut self.rng).expect("not empty");
            // The name tells the invariant what one task takes.
            stage = stage.name(format!("gpu/{shares}")).resource("gpu", 1.0 / f64::from(shares));
        }
        let script = self.script(is_gang);
        let at = self.between(0, 30_000);
        let id = plan.submit(at, stage, script.clone()).expect("is a stage");
        let exceptions = self.rng.random_range(0..=4).min(count);
        for _ in 0..exceptions {
            let partition = PartitionId(self.rng.random_range(0..count as u32));
            let attempt = self.rng.random_range(0..=2);
            let bad = self.bad_script(script.clone(), id, plan);
            if let Some(planned) = plan.stage_mut(id) {
                planned.tries.insert((partition, attempt), bad);
            }
        }
    }

    fn script(&mut self, is_gang: bool) -> TaskScript {
        let mut script = TaskScript::work(self.between(0, 3_000));
        for _ in 0..self.rng.random_range(0..=6) {
            if is_gang {
                let methods = [SyncMethod::Barrier, SyncMethod::AllGather];
                let method = *methods.choose(&mut self.rng).expect("not empty");
                script = script.then(Step::Sync(method));
            }
            script = script.then_work(self.between(0, 2_000));
        }
        script
    }

    /// One thing that this task does otherwise than its peers.
    fn bad_script(&mut self, mut script: TaskScript, id: StageId, plan: &mut Plan) -> TaskScript {
        let position = self.rng.random_range(0..=script.steps.len());
        match self.rng.random_range(0..12) {
            0 => script = script.fails("bad data"),
            1 => script = script.panics("index out of bounds"),
            2 => script = TaskScript::cannot_start("no thread"),
            3 => script.steps.truncate(position),
            4 => {
                script.steps.truncate(position);
                script = script.fails("half-way");
            }
            5 => script.steps.retain(|step| !matches!(step, Step::Sync(_))),
            6 => {
                for step in script.steps.iter_mut().take(position) {
                    if let Step::Sync(method) = step {
                        *method = other(*method);
                    }
                }
            }
            7 => script = script.ends_after_kill(Some(self.between(1, 8_000))),
            8 => script = script.ends_after_kill(None),
            9 => script = script.ignores_sync_errors().ends_after_kill(None),
            10 => self.tries(&mut script),
            _ => {
                // Hangs: until its killer comes, for which it may have no ear.
                let heeds = plan.config.kill_zombie_deadline.is_none()
                    || plan.given_up_returns_after.is_none()
                    || self.chance(0.5);
                script.steps.truncate(position);
                script = script.then_work(Duration::MAX);
                script.end = TaskEnd::Fails(TaskFailure::Error("never".to_owned()));
                script.ends_after_kill = heeds.then_some(Duration::ZERO);
                plan.cancel(self.between(30_000, 90_000), id, "hangs");
            }
        }
        script
    }

    /// Looks whether the others are there before it waits for them.
    fn tries(&mut self, script: &mut TaskScript) {
        let steps = std::mem::take(&mut script.steps);
        for step in steps {
            if let Step::Sync(method) = step
                && self.chance(0.7)
            {
                let patience = self.between(0, 1_500);
                let tried = if self.chance(0.8) { method } else { other(method) };
                script.steps.push(Step::TrySync(tried, patience));
                script.ignores_sync_errors |= self.chance(0.3);
            }
            script.steps.push(step);
        }
    }

    fn trouble(&mut self, plan: &mut Plan) {
        for _ in 0..self.rng.random_range(0..=8) {
            let at = self.between(0, TROUBLE_ENDS);
            let executor = ExecutorId(self.rng.random_range(0..self.executors));
            let stage = StageId(self.rng.random_range(0..self.stages));
            let (noticed_after, back_after) =
                (self.between(0, 10_000), self.maybe(0.7, |it| it.between(0, 10_000)));
            let lasts = self.between(1, 15_000);
            match self.rng.random_range(0..7) {
                0 => {
                    let reason = "lost its heartbeat".to_owned();
                    let fault =
                        Fault::ExecutorCrashes { executor, reason, noticed_after, back_after };
                    plan.fault(at, fault);
                }
                1 => {
                    plan.fault(at, Fault::ExecutorCutOff { executor, noticed_after, back_after });
                }
                2 => plan.fault(at, Fault::ExecutorPauses { executor, lasts }),
                3 => plan.fault(at, Fault::DriverOverloaded { lasts }),
                4 => plan.fault(at, Fault::BarrierDies { stage }),
                5 => plan.cancel(at, stage, "no longer needed"),
                _ => {
                    let partition = PartitionId(self.rng.random_range(0..8));
                    plan.kill_task(at, stage, partition, "by hand");
                }
            }
        }
        if self.chance(0.15) {
            plan.shutdown(self.between(0, TROUBLE_ENDS));
        }
    }
}

fn other(method: SyncMethod) -> SyncMethod {
    match method {
        SyncMethod::Barrier => SyncMethod::AllGather,
        SyncMethod::AllGather | SyncMethod::Broadcast | SyncMethod::AllReduce => {
            SyncMethod::Barrier
        }
    }
}

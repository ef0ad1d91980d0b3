//! The scheduler's decisions, with few and with many stages in its queue: the machine alone.

use crate::Bench;
use crate::measure::{Fallible, Plan, Samples, alternate, micros};
use crate::row::{Bar, Row};
use phalanx::protocol::{
    ExecutorJoined, LaunchTasks, SchedulerConfig, SchedulerEffect, SchedulerEvent, StageSpec,
    SubmitStage, TaskOutcome, TaskReport, TaskScheduler,
};
use phalanx::{Config, ExecutorId, ExecutorResources, Incarnation, Stage, StageId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SLOTS: u32 = 4;
const FEW: usize = 10;
const MANY: usize = 10_000;

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Submit,
    Report,
}

pub fn measure(bench: &mut Bench) -> Fallible<()> {
    for (what, step) in [("scheduler/submit", Step::Submit), ("scheduler/place", Step::Report)] {
        if !bench.wants(what, MANY, 0) {
            continue;
        }
        let (mut few, mut many) = (World::new(FEW)?, World::new(MANY)?);
        let [of_many, of_few] = alternate(
            bench.effort,
            [&mut |plan| many.samples(plan, step), &mut |plan| few.samples(plan, step)],
        )?;
        let row = Row::new(what, MANY, of_many).against("10 queued stages", of_few);
        bench.add(row.bar(Bar::Ratio(10.0)).note("n: queued stages"));
    }
    Ok(())
}

/// A scheduler whose slots are all taken, and so many stages of one task in its queue.
struct World {
    scheduler: TaskScheduler,
    effects: Vec<SchedulerEffect>,
    running: VecDeque<TaskReport>,
    spec: StageSpec,
    next: u64,
}

impl World {
    fn new(queued: usize) -> Fallible<Self> {
        let config = Config::default();
        let scheduler = TaskScheduler::new(SchedulerConfig {
            slot_check_interval: config.slot_check_interval,
            slot_check_max_failures: config.slot_check_max_failures,
            reserve_after: config.reserve_after,
            kill_grace: config.kill_grace,
            zombie_deadline: None,
            queue_max: config.queue_max_stages,
            dynamic_allocation: false,
        });
        let spec = Stage::tasks(1).spec(&config)?;
        let (effects, running) = (Vec::new(), VecDeque::new());
        let mut world = World { scheduler, effects, running, spec, next: 0 };
        world.step(SchedulerEvent::ExecutorJoined(ExecutorJoined {
            executor: ExecutorId(0),
            incarnation: Incarnation(0),
            address: "here".into(),
            resources: ExecutorResources::new(SLOTS),
        }));
        for _ in 0..queued + SLOTS as usize {
            let submit = world.submit();
            world.step(submit);
        }
        assert_eq!(world.running.len(), SLOTS as usize, "as many run as there are slots");
        Ok(world)
    }

    fn submit(&mut self) -> SchedulerEvent {
        let submit =
            SubmitStage { stage: StageId(self.next), spec: self.spec.clone(), of_job: None };
        self.next += 1;
        SchedulerEvent::SubmitStage(submit)
    }

    /// How long the scheduler takes for an event. What it launches runs then.
    fn step(&mut self, event: SchedulerEvent) -> Duration {
        let start = Instant::now();
        self.scheduler.handle(event, &mut self.effects);
        let time = start.elapsed();
        for effect in self.effects.drain(..) {
            if let SchedulerEffect::LaunchTasks { executor, launch } = effect {
                let LaunchTasks { attempt, tasks, .. } = launch;
                self.running.extend(tasks.into_iter().map(|task| TaskReport {
                    executor,
                    incarnation: Incarnation(0),
                    attempt,
                    partition: task.partition,
                    task_attempt: task.task_attempt,
                    outcome: TaskOutcome::Succeeded,
                }));
            }
        }
        time
    }

    /// One more stage comes, then one that runs ends and the next is placed: the queue is as long
    /// as before. Only one of the two counts.
    fn samples(&mut self, plan: Plan, counted: Step) -> Fallible<Samples> {
        let mut samples = Samples::with_capacity(plan.samples);
        for _ in 0..plan.samples {
            let mut time = Duration::ZERO;
            for _ in 0..plan.rounds {
                let submit = self.submit();
                let submitted = self.step(submit);
                let report = self.running.pop_front().ok_or("nothing runs")?;
                let placed = self.step(SchedulerEvent::TaskReport(report));
                time += if counted == Step::Submit { submitted } else { placed };
            }
            samples.push(micros(time) / plan.rounds as f64);
        }
        assert_eq!(self.running.len(), SLOTS as usize, "a slot that comes free is taken");
        Ok(samples)
    }
}

//! Jobs, their stages and what map stages have made, as an actor.

use crate::Orders;
use crate::drop_thread::DropThread;
use crate::map_outputs::{MapOutput, MapOutputs};
use crate::messages::JobEnded;
use crate::run_task::{BoxError, Payload, TaskBody};
use crate::stage_run::caught;
use crate::{
    CancelStage, EventBus, GetJobs, InputReady, JobStatus, JobsStatus, RunJob, StageEnded,
    StageOfJobEnded, SubmitOfJob, Tell,
};
use actix::prelude::*;
use phalanx_protocol::{
    JobFailure, JobId, Planner, PlannerEffect, PlannerEvent, StageAttemptId, StageFailure, StageId,
    SubmitStage,
};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use tokio::sync::{oneshot, watch};

/// Wraps one `Planner`: takes jobs, hands their stages to the scheduler, keeps what map stages have
/// made.
pub struct PlannerActor {
    machine: Planner,
    orders: Orders,
    outputs: MapOutputs,
    /// The code of the stages that the machine knows.
    bodies: HashMap<StageId, TaskBody>,
    jobs: HashMap<JobId, JobRun>,
    events: EventBus,
    drops: DropThread,
}

struct JobRun {
    ended: oneshot::Sender<JobEnded>,
    outcome: watch::Sender<Option<Result<(), JobFailure>>>,
}

/// What came with the end of a stage: a result stage's values, or a failed task's own error.
#[derive(Default)]
struct Brought {
    values: Vec<Payload>,
    error: Option<BoxError>,
}

impl PlannerActor {
    /// A planner without jobs, for this scheduler. The outputs are read by the jobs' tasks.
    pub fn new(orders: Orders, outputs: MapOutputs, events: EventBus) -> Self {
        PlannerActor {
            machine: Planner::new(),
            orders,
            outputs,
            bodies: HashMap::new(),
            jobs: HashMap::new(),
            events,
            drops: DropThread::start(),
        }
    }

    fn handle_event(&mut self, event: PlannerEvent, mut brought: Brought, ctx: &Context<Self>) {
        let (mut events, mut effects) = (VecDeque::from([event]), Vec::new());
        while let Some(event) = events.pop_front() {
            self.machine.handle(event, &mut effects);
            for effect in effects.drain(..) {
                events.extend(self.run(effect, &mut brought, ctx));
            }
        }
        let unwanted = brought.error.map(|error| Box::new(error) as Payload);
        self.drops.take(brought.values.into_iter().chain(unwanted));
    }

    /// What fails goes back in.
    fn run(
        &mut self,
        effect: PlannerEffect,
        brought: &mut Brought,
        ctx: &Context<Self>,
    ) -> Option<PlannerEvent> {
        match effect {
            PlannerEffect::SubmitStage(submit) => match self.bodies.get(&submit.stage).cloned() {
                Some(body) => {
                    let planner = ctx.address();
                    self.orders.send(SubmitOfJob { submit, body, planner });
                }
                None => return Some(without_code(&submit)),
            },
            PlannerEffect::InputReady(stage) => self.orders.send(InputReady(stage)),
            PlannerEffect::CancelStage { stage, reason } => {
                self.orders.send(CancelStage { stage, reason });
            }
            PlannerEffect::DropOutputs { stage, partitions } => {
                let rows = self.outputs.take(stage, &partitions);
                self.drops.take(rows.into_iter().map(|rows| Box::new(rows) as Payload));
            }
            PlannerEffect::ForgetStage(stage) => {
                let rows = self.outputs.take_all(stage).into_iter();
                let body = self.bodies.remove(&stage).map(|body| Box::new(body) as Payload);
                self.drops.take(rows.map(|rows| Box::new(rows) as Payload).chain(body));
            }
            PlannerEffect::JobEnded { job, result } => {
                if let Some(run) = self.jobs.remove(&job) {
                    run.end(result, brought, &self.drops);
                }
            }
            PlannerEffect::Emit(event) => {
                let now = self.events.now();
                self.events.emit(|| now, event);
            }
        }
        None
    }

    /// Keeps what a map stage has made; says what was made where.
    fn keep(
        &self,
        made_by: StageAttemptId,
        values: Vec<Payload>,
    ) -> Result<Vec<MapOutput>, StageFailure> {
        if values.iter().all(|value| value.is::<MapOutput>()) {
            let made = values.into_iter().filter_map(|value| value.downcast().ok());
            return Ok(made.map(|output| *output).collect());
        }
        self.drops.take(values);
        let reason = format!("a task of map stage {} returned no MapOutput", made_by.stage);
        Err(StageFailure::Refused { reason })
    }
}

/// A job came as a bare event, and not as a `RunJob`.
fn without_code(submit: &SubmitStage) -> PlannerEvent {
    let (stage, next_attempt) = (submit.stage, 0);
    let reason = "it has no code: hand the job in as a RunJob".to_owned();
    let result = Err(StageFailure::Refused { reason });
    PlannerEvent::StageEnded { stage, next_attempt, result }
}

impl JobRun {
    fn end(self, result: Result<(), JobFailure>, brought: &mut Brought, drops: &DropThread) {
        caught(|| self.outcome.send_replace(Some(result.clone())));
        let result = match result {
            Ok(()) => Ok(std::mem::take(&mut brought.values)),
            Err(failure) => Err((failure, brought.error.take())),
        };
        let unwanted = caught(|| self.ended.send(JobEnded { result }).err()).flatten();
        if let Some(JobEnded { result }) = unwanted {
            drops.take(result.unwrap_or_else(|(_, error)| {
                error.into_iter().map(|error| Box::new(error) as Payload).collect()
            }));
        }
    }
}

impl Actor for PlannerActor {
    type Context = Context<Self>;
}

impl Handler<RunJob> for PlannerActor {
    type Result = ();

    fn handle(&mut self, message: RunJob, ctx: &mut Self::Context) {
        let RunJob { submit, bodies, ended, outcome } = message;
        let run = JobRun { ended, outcome };
        let refusal = if self.jobs.contains_key(&submit.job) {
            Some(format!("job id {} is in use, choose another", submit.job))
        } else if submit.stages.is_empty() || bodies.len() != submit.stages.len() {
            let (stages, bodies) = (submit.stages.len(), bodies.len());
            Some(format!("it has {stages} stages and code for {bodies}; both must be 1 or more"))
        } else {
            let invalid = submit.stages.iter().find_map(|stage| stage.spec.validate().err());
            invalid.map(|invalid| invalid.to_string())
        };
        if let Some(reason) = refusal {
            let failure = JobFailure::Refused { reason };
            run.end(Err(failure), &mut Brought::default(), &self.drops);
            self.drops.take(bodies.into_iter().map(|body| Box::new(body) as Payload));
            return;
        }
        let mut known = Vec::new();
        for (stage, body) in submit.stages.iter().zip(bodies) {
            match self.bodies.entry(stage.planned.stage) {
                Entry::Vacant(place) => drop(place.insert(body)),
                Entry::Occupied(mut place) if !self.machine.is_handed_in(stage.planned.stage) => {
                    known.push(place.insert(body));
                }
                Entry::Occupied(_) => known.push(body),
            }
        }
        self.drops.take(known.into_iter().map(|body| Box::new(body) as Payload));
        self.jobs.insert(submit.job, run);
        self.handle_event(PlannerEvent::SubmitJob(submit), Brought::default(), ctx);
    }
}

impl Handler<Tell<PlannerEvent>> for PlannerActor {
    type Result = ();

    fn handle(&mut self, Tell(event): Tell<PlannerEvent>, ctx: &mut Self::Context) {
        self.handle_event(event, Brought::default(), ctx);
    }
}

impl Handler<StageOfJobEnded> for PlannerActor {
    type Result = ();

    fn handle(&mut self, message: StageOfJobEnded, ctx: &mut Self::Context) {
        let StageOfJobEnded { stage, next_attempt, ended: StageEnded { result, body } } = message;
        self.drops.take(body.map(|body| Box::new(body) as Payload));
        let mut brought = Brought::default();
        let result = match result {
            Ok(values) if self.machine.is_map_stage(stage) => {
                let made_by = StageAttemptId { stage, attempt: next_attempt.saturating_sub(1) };
                self.keep(made_by, values).map(|made| {
                    let places = made.iter().map(|it| (it.partition, it.executor)).collect();
                    self.outputs.put(made_by, made);
                    places
                })
            }
            Ok(values) => {
                brought.values = values;
                Ok(Vec::new())
            }
            Err((failure, error)) => {
                brought.error = error;
                Err(failure)
            }
        };
        self.handle_event(PlannerEvent::StageEnded { stage, next_attempt, result }, brought, ctx);
    }
}

impl Handler<GetJobs> for PlannerActor {
    type Result = MessageResult<GetJobs>;

    fn handle(&mut self, _: GetJobs, _ctx: &mut Self::Context) -> Self::Result {
        let jobs = self.machine.jobs().map(|(job, name, stages)| {
            let name = name.to_owned();
            JobStatus { job, name, stages }
        });
        MessageResult(JobsStatus {
            jobs: jobs.collect(),
            map_stages: self.machine.map_stages(),
            map_outputs: self.machine.outputs(),
        })
    }
}

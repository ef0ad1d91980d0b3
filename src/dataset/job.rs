//! From an action to the planner.

use super::rows::{self, Rows};
use super::{Dataset, Described, JobHandle, TaskEnv};
use crate::stage::{context, payload, value_of};
use crate::task_context::{StageProgress, StageShared};
use crate::{OnFailure, Stage, TaskResult, Tasks, blocking};
use phalanx_actors::{MapOutput, RunJob, TaskBody};
use phalanx_protocol::{
    JobFailure, JobId, JobStage, PartitionId, PlannedStage, StageId, StageKind, StageRole,
    SubmitJob,
};
use std::any::Any;
use std::sync::Arc;

/// What an action asks for: a value of each partition.
pub(super) struct Job<'a, T, P> {
    dataset: &'a Dataset<T>,
    code: Arc<dyn Fn(Rows<T>) -> TaskResult<P> + Send + Sync>,
    /// If not all.
    partitions: Option<Vec<usize>>,
    /// A partition that is done cannot be done again.
    has_effects: bool,
}

/// A job that can be handed in.
struct Prepared {
    submit: SubmitJob,
    bodies: Vec<TaskBody>,
    /// What the tasks of its result stage report.
    progress: Arc<StageProgress>,
}

/// Code of a stage's tasks, given the task's index.
type Code = Arc<dyn Fn(usize, &TaskEnv) -> TaskResult<Box<dyn Any + Send>> + Send + Sync>;

impl<'a, T: 'static, P: Send + 'static> Job<'a, T, P> {
    pub(super) fn new(
        dataset: &'a Dataset<T>,
        code: impl Fn(Rows<T>) -> TaskResult<P> + Send + Sync + 'static,
    ) -> Self {
        Job { dataset, code: Arc::new(code), partitions: None, has_effects: false }
    }

    pub(super) fn only(mut self, partitions: Vec<usize>) -> Self {
        self.partitions = Some(partitions);
        self
    }

    pub(super) fn for_its_effects(mut self) -> Self {
        self.has_effects = true;
        self
    }

    /// `finish`: the job's value of those of its partitions.
    pub(super) fn run<R: 'static>(
        self,
        finish: impl FnOnce(Vec<P>) -> R + Send + 'static,
    ) -> JobHandle<R> {
        let runtime = &self.dataset.runtime;
        let (job, result) = (runtime.next_job_id(), runtime.next_stage_id());
        let described = Described::of(&self.dataset.meta);
        let prepared = self.prepare(job, result, &described);
        let name = self.dataset.settings.name_of().to_owned();
        let (stages, progress) = match &prepared {
            Ok(Prepared { submit, progress, .. }) => {
                let stages = submit.stages.iter().map(|stage| stage.planned.stage);
                (stages.collect(), progress.clone())
            }
            Err(_) => (Vec::new(), StageProgress::new(0)),
        };
        // A gang makes its partitions in order, so that a task's rank is its partition.
        let order = self.partitions.filter(|_| self.dataset.is_barrier());
        let finish = move |values: Vec<Box<dyn Any + Send>>| {
            let values = values.into_iter().map(value_of::<P>);
            finish(match order {
                None => values.collect(),
                Some(order) => {
                    let mut values: Vec<Option<P>> = values.map(Some).collect();
                    order.into_iter().filter_map(|partition| values[partition].take()).collect()
                }
            })
        };
        let (ended, outcome, handle) = JobHandle::new(runtime, job, name, stages, progress, finish);
        match prepared {
            Ok(Prepared { submit, bodies, .. }) => {
                let job = RunJob { submit, bodies, ended, outcome };
                runtime.orders().send_to_planner(runtime.planner(), job);
            }
            Err(reason) => {
                let failure = JobFailure::Refused { reason };
                outcome.send_replace(Some(Err(failure.clone())));
                // The receiver is in the handle.
                drop(ended.send(phalanx_actors::JobEnded { result: Err((failure, None)) }));
            }
        }
        handle
    }

    fn prepare(
        &self,
        job: JobId,
        result: StageId,
        described: &Described,
    ) -> Result<Prepared, String> {
        let Dataset { runtime, settings, .. } = self.dataset;
        if let Some(refusal) = &described.refusal {
            return Err(refusal.clone());
        }
        if runtime.has_cluster() {
            return Err("a dataset's operations are closures, and the runtime's executors are \
                        other processes: use a runtime without a cluster, or Stage::named"
                .to_owned());
        }
        let partitions = self.checked_partitions(described.lineage.num_partitions())?;
        let planned = described.lineage.stages(result, partitions.as_deref());
        let (mut stages, mut bodies, mut progress) = (Vec::new(), Vec::new(), None);
        for (index, planned) in planned.into_iter().enumerate() {
            let code = match planned.role {
                StageRole::Result => self.result_code(&planned),
                StageRole::Map => map_code(&planned, described),
            };
            let settings = self.settings_of(&planned, index, settings);
            let num_tasks = planned.num_tasks as usize;
            let (shared, reported) = settings.shared(runtime, num_tasks);
            bodies.push(body(shared, code));
            // The last one is that of the result stage.
            progress = Some(reported);
            let spec = settings.spec_of(num_tasks, runtime.config())?;
            stages.push(JobStage { planned, spec });
        }
        let name = settings.name_of().to_owned();
        let progress = progress.unwrap_or_else(|| StageProgress::new(0));
        Ok(Prepared { submit: SubmitJob { job, name, stages }, bodies, progress })
    }

    fn checked_partitions(&self, there_are: u32) -> Result<Option<Vec<u32>>, String> {
        let Some(partitions) = &self.partitions else { return Ok(None) };
        let checked = partitions.iter().map(|&partition| {
            let known = u32::try_from(partition).ok().filter(|it| *it < there_are);
            known.ok_or_else(|| {
                format!("partition {partition} is asked for, there are {there_are}, from 0 on")
            })
        });
        Ok(Some(checked.collect::<Result<_, _>>()?))
    }

    fn settings_of(
        &self,
        planned: &PlannedStage,
        index: usize,
        settings: &Stage<Tasks>,
    ) -> Stage<Tasks> {
        let mut settings = settings.clone();
        if planned.role == StageRole::Map {
            let name = format!("{}-map-{index}", settings.name_of());
            settings = settings.name(name);
        }
        let on_failure = match (planned.role, settings.on_failure_of()) {
            (StageRole::Map, _) => OnFailure::Restart,
            // Its tasks are tried again one by one, each for itself.
            (StageRole::Result, _) if !planned.is_barrier() => OnFailure::Restart,
            (StageRole::Result, OnFailure::Restart) if self.has_effects => {
                OnFailure::RestartUnlessCommitted
            }
            (StageRole::Result, on_failure) => on_failure,
        };
        let settings = settings.on_failure(on_failure);
        let kind = if planned.is_barrier() { StageKind::Barrier } else { StageKind::Plain };
        settings.of_kind(kind)
    }

    fn result_code(&self, planned: &PlannedStage) -> Code {
        let (code, compute) = (self.code.clone(), self.dataset.compute.clone());
        let partitions = self.partitions.clone().filter(|_| !planned.is_barrier());
        Arc::new(move |index, env| {
            let partition = partitions.as_ref().map_or(index, |partitions| partitions[index]);
            code(compute(partition, env)).map(payload)
        })
    }
}

fn map_code(planned: &PlannedStage, described: &Described) -> Code {
    let of_stage = described.shuffles.iter().find(|shuffle| shuffle.stage == planned.stage);
    let write = of_stage.expect("a map stage is that of a shuffle").write.clone();
    Arc::new(move |index, env| {
        let rows = write(index, env);
        let partition = PartitionId(index as u32);
        let executor = env.ctx.task.executor_life();
        Ok(payload(MapOutput { partition, executor, rows }))
    })
}

fn body(shared: Arc<StageShared>, code: Code) -> TaskBody {
    TaskBody::Blocking(Arc::new(move |task| {
        let ctx = blocking::BarrierTaskContext::new(context(task, &shared));
        let index = ctx.rank();
        rows::run(ctx, |env| code(index, env))
    }))
}

//! Planners with one rule broken each: the model must refute them, or it proves nothing.

use super::Planning;
use phalanx::protocol::{Incarnation, JobId, Planner, PlannerEffect, PlannerEvent, StageFailure};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

/// How a planner that only reads events wrongly, or only omits or adds effects, is broken.
pub trait Flaw: Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// What it makes of an event; `None`: it does not hear it.
    fn hears(_planner: &Planner, event: PlannerEvent) -> Option<PlannerEvent> {
        Some(event)
    }

    /// Whether it does what it should because of this event.
    fn does(_event: &PlannerEvent, _effect: &PlannerEffect) -> bool {
        true
    }

    /// What it does besides.
    fn adds(_event: &PlannerEvent) -> Option<PlannerEffect> {
        None
    }
}

/// A planner with this flaw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broken<F>(Planner, PhantomData<F>);

impl<F: Flaw> Planning for Broken<F> {
    fn new() -> Self {
        Broken(Planner::new(), PhantomData)
    }

    fn handle(&mut self, event: PlannerEvent, effects: &mut Vec<PlannerEffect>) {
        let Some(event) = F::hears(&self.0, event) else { return };
        self.0.handle(event.clone(), effects);
        effects.retain(|effect| F::does(&event, effect));
        effects.extend(F::adds(&event));
    }

    fn shipped(&self) -> &Planner {
        &self.0
    }
}

/// Takes gangs for plain stages, or plain stages for gangs, when it forgets outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TakesAllForGangs<const GANGS: bool>;

impl<const GANGS: bool> Flaw for TakesAllForGangs<GANGS> {
    fn hears(_: &Planner, mut event: PlannerEvent) -> Option<PlannerEvent> {
        if let PlannerEvent::SubmitJob(submit) = &mut event {
            let datasets = submit.stages.iter_mut().flat_map(|it| &mut it.planned.datasets);
            datasets.for_each(|it| it.is_barrier = GANGS);
        }
        Some(event)
    }
}

/// Does not make again what was not found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IgnoresLostInput;

impl Flaw for IgnoresLostInput {
    fn hears(_: &Planner, event: PlannerEvent) -> Option<PlannerEvent> {
        Some(event).filter(|it| !matches!(it, PlannerEvent::InputLost { .. }))
    }
}

/// Starts what fits without looking for its input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StartsAtOnce;

impl Flaw for StartsAtOnce {
    fn adds(event: &PlannerEvent) -> Option<PlannerEffect> {
        match event {
            PlannerEvent::AwaitsInput(stage) => Some(PlannerEffect::InputReady(*stage)),
            _ => None,
        }
    }
}

/// Does not remember which executors were lost before a stage was done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForgetsEarlyLosses;

impl Flaw for ForgetsEarlyLosses {
    fn hears(planner: &Planner, event: PlannerEvent) -> Option<PlannerEvent> {
        let is_loss = matches!(event, PlannerEvent::ExecutorLost(_));
        Some(event).filter(|_| !is_loss || planner.outputs() > 0)
    }
}

/// Takes all lives of an executor for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MixesLives;

impl Flaw for MixesLives {
    fn hears(_: &Planner, mut event: PlannerEvent) -> Option<PlannerEvent> {
        match &mut event {
            PlannerEvent::ExecutorLost(life) => life.incarnation = Incarnation(0),
            PlannerEvent::StageEnded { result: Ok(made), .. } => {
                made.iter_mut().for_each(|(_, life)| life.incarnation = Incarnation(0));
            }
            _ => {}
        }
        Some(event)
    }
}

/// Does not hear of a result that nobody wants any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IgnoresUnwanted;

impl Flaw for IgnoresUnwanted {
    fn hears(planner: &Planner, event: PlannerEvent) -> Option<PlannerEvent> {
        let is_unwanted = match &event {
            PlannerEvent::StageEnded { stage, result: Ok(_), .. } => {
                !planner.is_map_stage(*stage) && planner.jobs().next().is_none()
            }
            _ => false,
        };
        Some(event).filter(|_| !is_unwanted)
    }
}

/// Does not hand in again what was cancelled and is wanted by who came later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForgetsWhoCameLater;

impl Flaw for ForgetsWhoCameLater {
    fn does(event: &PlannerEvent, effect: &PlannerEffect) -> bool {
        let cancelled = |it: &PlannerEvent| {
            let was = |failure: &StageFailure| matches!(failure, StageFailure::Cancelled { .. });
            matches!(it, PlannerEvent::StageEnded { result: Err(failure), .. } if was(failure))
        };
        !cancelled(event) || !matches!(effect, PlannerEffect::SubmitStage(_))
    }
}

/// Drops a stage's code with its dataset, also while jobs run that need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForgetsWithTheDataset;

impl Flaw for ForgetsWithTheDataset {
    fn adds(event: &PlannerEvent) -> Option<PlannerEffect> {
        match event {
            PlannerEvent::DatasetDropped(stage) => Some(PlannerEffect::ForgetStage(*stage)),
            _ => None,
        }
    }
}

/// Says that a cancelled job has ended when it is cancelled, and when its stages have ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndsCancelledTwice {
    planner: Planner,
    cancelled: BTreeSet<JobId>,
}

impl Planning for EndsCancelledTwice {
    fn new() -> Self {
        EndsCancelledTwice { planner: Planner::new(), cancelled: BTreeSet::new() }
    }

    fn handle(&mut self, event: PlannerEvent, effects: &mut Vec<PlannerEffect>) {
        let again = match &event {
            PlannerEvent::CancelJob { job, .. } => {
                self.cancelled.insert(*job);
                None
            }
            PlannerEvent::StageEnded { result: Err(_), .. } => self.cancelled.pop_first(),
            _ => None,
        };
        self.planner.handle(event, effects);
        effects.extend(again.map(|job| PlannerEffect::JobEnded { job, result: Ok(()) }));
    }

    fn shipped(&self) -> &Planner {
        &self.planner
    }
}

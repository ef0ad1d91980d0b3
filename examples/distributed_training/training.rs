//! What each task does.

use crate::model::Model;
use crate::wines::{Sums, Wines};
use phalanx::blocking::BarrierTaskContext;
use phalanx::{ReduceOp, TaskResult};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Plan {
    pub epochs: u64,
    pub fail_at: Option<u64>,
    /// After each epoch.
    pub pause: Duration,
}

/// The same in every task.
#[derive(Serialize, Deserialize)]
pub struct Trained {
    pub model: Model,
    pub loss: f64,
    pub accuracy: f64,
    pub attempts: u32,
    /// Of the last attempt.
    pub epochs_run: u64,
    /// The checkpoint that the last attempt began with.
    pub resumed_from: Option<u64>,
}

/// The code that is registered as `train`.
pub fn train(ctx: BarrierTaskContext, (part, plan): (Wines, Plan)) -> TaskResult<Trained> {
    let restored = ctx.restore::<Model>()?;
    let resumed_from = restored.as_ref().map(|checkpoint| checkpoint.step);
    let mut model = restored.map_or_else(|| Model::new(part.columns()), |it| it.value);
    let first = resumed_from.map_or(1, |step| step + 1);
    for epoch in first..=plan.epochs {
        fail_if_asked(&ctx, plan, epoch);
        let ahead = model.ahead();
        let sums = sum_up(&ctx, &part, &ahead)?;
        model.step(&ahead, &sums);
        if ctx.rank() == 0 {
            ctx.checkpoint(epoch, &model)?;
            ctx.report_progress(epoch, plan.epochs);
        }
        if !plan.pause.is_zero() {
            std::thread::sleep(plan.pause);
        }
    }
    let sums = sum_up(&ctx, &part, &model.weights)?;
    Ok(Trained {
        loss: model.loss(&sums),
        accuracy: sums.correct / sums.rows,
        attempts: ctx.stage_attempt_number() + 1,
        epochs_run: plan.epochs + 1 - first,
        resumed_from,
        model,
    })
}

/// The sums over the rows of all tasks.
fn sum_up(ctx: &BarrierTaskContext, part: &Wines, weights: &[f64]) -> TaskResult<Sums> {
    let mine: Vec<f64> = part.sums(weights).into();
    let all = ctx.all_reduce(ReduceOp::Sum, &mine)?;
    Ok(Sums::try_from(all)?)
}

fn fail_if_asked(ctx: &BarrierTaskContext, plan: Plan, epoch: u64) {
    let is_first_attempt = ctx.stage_attempt_number() == 0;
    let who = 1.min(ctx.world_size() - 1);
    if is_first_attempt && plan.fail_at == Some(epoch) && ctx.rank() == who {
        panic!("task {who} fails at epoch {epoch}, as asked");
    }
}

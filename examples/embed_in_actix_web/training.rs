//! What a job does: a linear regression whose rows are spread over the tasks of a gang.

use phalanx::{
    BarrierTaskContext, ReduceOp, Runtime, Stage, StageHandle, TaskContext, TaskResult, blocking,
};
use serde::{Deserialize, Serialize};
use std::thread;
use std::time::{Duration, Instant};

const TRUE_WEIGHTS: [f64; 4] = [1.0, -2.0, 0.5, 3.0];
const ROWS_PER_TASK: usize = 256;
const LEARNING_RATE: f64 = 1.0;
const STUCK_FOR: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Plan {
    pub name: String,
    pub tasks: usize,
    pub epochs: u64,
    /// How long an epoch lasts at least.
    pub epoch: Duration,
    /// The tasks block their threads and ignore their kill.
    pub stuck: bool,
}

/// The checkpoint of every epoch and the result of the last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    pub weights: Vec<f64>,
    pub loss: f64,
}

struct Row {
    features: [f64; TRUE_WEIGHTS.len()],
    label: f64,
}

pub fn start(runtime: &Runtime, plan: Plan) -> StageHandle<Model> {
    let Plan { name, tasks, epochs, epoch, stuck } = plan;
    let stage = Stage::tasks(tasks).name(name);
    if stuck {
        return stage.run_blocking(runtime, be_stuck);
    }
    stage.run(runtime, async move |ctx| train(&ctx, epochs, epoch).await)
}

async fn train(ctx: &BarrierTaskContext, epochs: u64, epoch: Duration) -> TaskResult<Model> {
    let rows = rows_of(ctx.rank());
    let untrained = Model { weights: vec![0.0; TRUE_WEIGHTS.len()], loss: f64::INFINITY };
    let saved = ctx.restore::<Model>().await?;
    let (start, mut model) = saved.map_or((0, untrained), |saved| (saved.step, saved.value));
    ctx.report_progress(start, epochs);
    for done in start + 1..=epochs {
        let began = Instant::now();
        let sums = ctx.all_reduce(ReduceOp::Sum, &gradient_and_loss(&rows, &model.weights)).await?;
        descend(&mut model, &sums, ctx.world_size());
        if ctx.rank() == 0 {
            ctx.checkpoint(done, &model).await?;
        }
        ctx.report_progress(done, epochs);
        pause(ctx, epoch.saturating_sub(began.elapsed())).await?;
    }
    Ok(model)
}

/// A plain sleep would hold up the end of a killed gang.
async fn pause(ctx: &TaskContext, time: Duration) -> TaskResult<()> {
    match tokio::time::timeout(time, ctx.killed()).await {
        Ok(()) => Err(ctx.kill_reason().unwrap_or_default().into()),
        Err(_elapsed) => Ok(()),
    }
}

fn be_stuck(ctx: blocking::BarrierTaskContext) -> TaskResult<Model> {
    ctx.report_progress(0, 1);
    let end = Instant::now() + STUCK_FOR;
    while Instant::now() < end {
        thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
    Err("it was stuck for too long".into())
}

/// The same rows for the same task in every run.
fn rows_of(rank: usize) -> Vec<Row> {
    let mut state = rank as u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 30) as f64 - 1.0
    };
    let row = |_| {
        let features = [1.0, random(), random(), random()];
        Row { features, label: dot(&features, &TRUE_WEIGHTS) + 0.05 * random() }
    };
    (0..ROWS_PER_TASK).map(row).collect()
}

/// The sums over these rows: the gradient of each weight, and the squared error last.
fn gradient_and_loss(rows: &[Row], weights: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; TRUE_WEIGHTS.len() + 1];
    for row in rows {
        let error = dot(&row.features, weights) - row.label;
        for (sum, feature) in sums.iter_mut().zip(row.features) {
            *sum += error * feature;
        }
        sums[TRUE_WEIGHTS.len()] += error * error;
    }
    sums
}

fn descend(model: &mut Model, sums: &[f64], tasks: usize) {
    let rows = (tasks * ROWS_PER_TASK) as f64;
    for (weight, sum) in model.weights.iter_mut().zip(sums) {
        *weight -= LEARNING_RATE * sum / rows;
    }
    model.loss = sums[TRUE_WEIGHTS.len()] / rows;
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

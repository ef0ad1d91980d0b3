//! The model and how a step changes it: gradient descent with Nesterov's momentum.

use crate::wines::Sums;
use serde::{Deserialize, Serialize};

/// Weight of the L2 term, half the squared weights, beside the sum of the rows' losses.
const ALPHA: f64 = 1.0;
const LEARNING_RATE: f64 = 1.0;
const MOMENTUM: f64 = 0.9;

/// What a checkpoint holds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Model {
    /// The intercept is the last.
    pub weights: Vec<f64>,
    velocity: Vec<f64>,
}

impl Model {
    pub fn new(columns: usize) -> Self {
        Model { weights: vec![0.0; columns], velocity: vec![0.0; columns] }
    }

    /// Where the momentum leads: there the gradient of the next step is taken.
    pub fn ahead(&self) -> Vec<f64> {
        self.weights.iter().zip(&self.velocity).map(|(w, v)| w + MOMENTUM * v).collect()
    }

    /// `sums`: over all rows, at `ahead`.
    pub fn step(&mut self, ahead: &[f64], sums: &Sums) {
        let intercept = ahead.len() - 1;
        for (index, gradient) in sums.gradient.iter().enumerate() {
            let penalty = if index == intercept { 0.0 } else { ALPHA * ahead[index] };
            let slope = (gradient + penalty) / sums.rows;
            self.velocity[index] = MOMENTUM * self.velocity[index] - LEARNING_RATE * slope;
            self.weights[index] += self.velocity[index];
        }
    }

    /// The objective per row; `sums`: over all rows, at the weights.
    pub fn loss(&self, sums: &Sums) -> f64 {
        let intercept = self.weights.len() - 1;
        let squares: f64 = self.weights[..intercept].iter().map(|weight| weight * weight).sum();
        (sums.loss + 0.5 * ALPHA * squares) / sums.rows
    }
}

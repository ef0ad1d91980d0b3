//! What is printed in the end.

use crate::training::Trained;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;

#[derive(Serialize)]
pub struct Report {
    tasks: u32,
    attempts: u32,
    /// Of the last attempt.
    epochs_run: u64,
    resumed_from: Option<u64>,
    /// Executors lost on the way.
    infrastructure_failures: u32,
    loss: f64,
    accuracy: f64,
    sha256: String,
    weights: Vec<f64>,
}

impl Report {
    pub fn new(tasks: u32, infrastructure_failures: u32, trained: Trained) -> Self {
        let Trained { model, loss, accuracy, attempts, epochs_run, resumed_from } = trained;
        let sha256 = fingerprint(&model.weights);
        let weights = model.weights;
        Report {
            tasks,
            attempts,
            epochs_run,
            resumed_from,
            infrastructure_failures,
            loss,
            accuracy,
            sha256,
            weights,
        }
    }
}

/// SHA-256 of the numbers' little-endian bytes.
fn fingerprint(numbers: &[f64]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(epoch) = self.resumed_from {
            let (attempts, run) = (self.attempts, self.epochs_run);
            writeln!(f, "attempt {attempts} resumed after epoch {epoch} and ran {run} epochs")?;
        }
        writeln!(f, "accuracy {:.2} %, loss {:.6}", 100.0 * self.accuracy, self.loss)?;
        writeln!(f, "sha256 of the weights {}", self.sha256)
    }
}

//! The wine-quality data, and what the logistic loss needs to know of a part of it.

use ndarray::{Array1, Array2, ArrayView1, Axis, Slice, concatenate};
use serde::{Deserialize, Serialize};

const GOOD: usize = 6;

/// Wines: features with a mean of 0 and a deviation of 1, and last a 1 for the intercept.
#[derive(Serialize, Deserialize)]
pub struct Wines {
    features: Array2<f64>,
    /// 1 for a good wine, -1 for another.
    labels: Array1<f64>,
}

/// One of them, as a row of a dataset.
#[derive(Clone)]
pub struct Wine {
    features: Vec<f64>,
    label: f64,
}

/// Sums over rows. Those of several parts add up to those of the whole.
pub struct Sums {
    pub rows: f64,
    pub loss: f64,
    pub correct: f64,
    pub gradient: Vec<f64>,
}

impl Wines {
    /// Standardised over all wines, so that it does not matter who gets which.
    pub fn load() -> Self {
        let dataset = linfa_datasets::winequality();
        let raw = dataset.records();
        let mean = raw.sum_axis(Axis(0)) / raw.nrows() as f64;
        let features = (raw - &mean) / raw.std_axis(Axis(0), 0.0);
        let ones = Array2::ones((raw.nrows(), 1));
        Wines {
            features: concatenate![Axis(1), features, ones],
            labels: dataset.targets().mapv(|quality| if quality >= GOOD { 1.0 } else { -1.0 }),
        }
    }

    pub fn rows(&self) -> usize {
        self.features.nrows()
    }

    /// Features, with the intercept's.
    pub fn columns(&self) -> usize {
        self.features.ncols()
    }

    /// Parts whose sizes differ by at most one row.
    pub fn split(&self, parts: usize) -> Vec<Wines> {
        let bound = |part| self.rows() * part / parts;
        let part = |part| {
            let rows = Slice::from(bound(part)..bound(part + 1));
            Wines {
                features: self.features.slice_axis(Axis(0), rows).to_owned(),
                labels: self.labels.slice_axis(Axis(0), rows).to_owned(),
            }
        };
        (0..parts).map(part).collect()
    }

    /// Row by row. Collected, they are the same wines again.
    pub fn iter(&self) -> impl Iterator<Item = Wine> {
        let rows = self.features.outer_iter().zip(&self.labels);
        rows.map(|(features, label)| Wine { features: features.to_vec(), label: *label })
    }

    pub fn sums(&self, weights: &[f64]) -> Sums {
        // How far each row is on the right side.
        let margins = self.features.dot(&ArrayView1::from(weights)) * &self.labels;
        let slopes = margins.mapv(|margin| -1.0 / (1.0 + margin.exp())) * &self.labels;
        Sums {
            rows: self.rows() as f64,
            loss: margins.iter().map(|margin| log_loss(*margin)).sum(),
            correct: margins.iter().filter(|margin| **margin > 0.0).count() as f64,
            gradient: self.features.t().dot(&slopes).to_vec(),
        }
    }
}

impl FromIterator<Wine> for Wines {
    fn from_iter<I: IntoIterator<Item = Wine>>(wines: I) -> Self {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        for wine in wines {
            features.extend(wine.features);
            labels.push(wine.label);
        }
        let columns = features.len() / labels.len().max(1);
        let features = Array2::from_shape_vec((labels.len(), columns), features);
        Wines {
            features: features.expect("all wines have the same features"),
            labels: labels.into(),
        }
    }
}

/// ln(1 + exp(-margin)), without overflow.
fn log_loss(margin: f64) -> f64 {
    (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()
}

impl From<Sums> for Vec<f64> {
    fn from(Sums { rows, loss, correct, mut gradient }: Sums) -> Self {
        gradient.extend([rows, loss, correct]);
        gradient
    }
}

impl TryFrom<Vec<f64>> for Sums {
    type Error = String;

    fn try_from(mut numbers: Vec<f64>) -> Result<Self, String> {
        let numbers_len = numbers.len();
        let rest = numbers.split_off(numbers_len.saturating_sub(3));
        match rest[..] {
            [rows, loss, correct] => Ok(Sums { rows, loss, correct, gradient: numbers }),
            _ => Err(format!("{numbers_len} numbers are no sums")),
        }
    }
}

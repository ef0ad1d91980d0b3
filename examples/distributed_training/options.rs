//! What the user asks for.

use crate::training::Plan;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, value_parser};
use phalanx::Cluster;
use std::path::PathBuf;
use std::time::Duration;

/// Trains a model that tells good wines from others, on a gang of tasks.
#[derive(Parser)]
#[command(name = "distributed_training")]
pub struct Options {
    /// Tasks in the gang; each gets its part of the rows.
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = value_parser!(u32).range(1..=256))]
    pub tasks: u32,
    /// How often all rows are gone through.
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub epochs: u64,
    /// Has task 1 (task 0 if it is alone) panic once, at the start of this epoch.
    #[arg(long, value_name = "E")]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub fail_at_epoch: Option<u64>,
    /// Where the tasks run: processes:4, slurm, slurm:3 or listen:0.0.0.0:7077; by default in this
    /// process. Executors are this very program, with PHALANX_ROLE=executor.
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<Cluster>,
    /// Reads the rows through a dataset, with a partition for each task; in this process only.
    #[arg(long)]
    pub dataset: bool,
    /// The file with the secret that executors share; by default PHALANX_TOKEN_FILE.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub token_file: Option<PathBuf>,
    /// Makes each task sleep after each epoch, so that there is something to look at.
    #[arg(long, value_name = "PAUSE", default_value = "0s", value_parser = humantime::parse_duration)]
    pub epoch_pause: Duration,
    /// Prints the result as one line of JSON.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    pub fn check(&self) -> Result<(), clap::Error> {
        let refused = |kind, reason| Err(Options::command().error(kind, reason));
        if let Some(fail_at) = self.fail_at_epoch.filter(|fail_at| *fail_at > self.epochs) {
            let reason = format!("--fail-at-epoch {fail_at} is beyond --epochs {}", self.epochs);
            return refused(ErrorKind::ValueValidation, reason);
        }
        if self.dataset && self.cluster.is_some() {
            let reason = "--dataset cannot be used with --cluster: what a dataset does with its \
                          rows are closures, and those cannot be sent to other processes; leave \
                          out one of the two (without --dataset the model is the same)";
            return refused(ErrorKind::ArgumentConflict, reason.to_owned());
        }
        Ok(())
    }

    pub fn plan(&self) -> Plan {
        Plan { epochs: self.epochs, fail_at: self.fail_at_epoch, pause: self.epoch_pause }
    }
}

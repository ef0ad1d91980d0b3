//! Every limit, with its default.

mod keys;

use crate::program::is_variable;
use keys::KEYS;
use phalanx_actors::DURATION_MAX;
use phalanx_protocol::SchedulerConfig;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The settings of a runtime. Start from [`Config::default`] and change fields, or read a TOML file
/// and `PHALANX_*` variables with [`Config::load`]. Printed, it is a TOML file of all keys.
///
/// A key `barrier.sync.timeout` is the variable `PHALANX_BARRIER_SYNC_TIMEOUT`. Durations are
/// written like `365d`, `1m 30s`, `200ms`; they may be at most two years.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `slots`: cpus of the executor that [`Runtime::start`](crate::Runtime::start) brings; the
    /// number of tasks of one cpu that run at once. Default: the machine's cores.
    pub slots: u32,
    /// `worker_threads`: threads for async tasks of each executor. Default: the machine's cores.
    pub worker_threads: usize,
    /// `barrier.sync.timeout`: how long one sync may last from its first arrival.
    /// Default: 365 days.
    pub barrier_sync_timeout: Duration,
    /// `progress_log.interval`: pause between two log lines of a task that waits in a sync.
    /// Default: 60 s.
    pub progress_log_interval: Duration,
    /// `slot_check.interval`: pause between two checks whether a stage fits the executors at all.
    /// Default: 15 s.
    pub slot_check_interval: Duration,
    /// `slot_check.max_failures`: checks after the first that may fail before the stage does.
    /// Default: 40.
    pub slot_check_max_failures: u32,
    /// `reserve_after`: a waiting gang older than this keeps slots as they come free. Default: 1 s.
    pub reserve_after: Duration,
    /// `stage.max_attempts`: attempts of a stage (plain: of a task) that may fail in a row.
    /// Default: 4.
    pub stage_max_attempts: u32,
    /// `stage.max_infrastructure_failures`: losses of executors that do not count as attempts.
    /// Default: 16.
    pub stage_max_infrastructure_failures: u32,
    /// `stage.retry_delay`: pause before the next attempt. Default: 200 ms.
    pub stage_retry_delay: Duration,
    /// `stage.max_tasks`: largest stage taken. Default: 1,000,000.
    pub stage_max_tasks: u32,
    /// `dynamic_allocation.enabled`: executors come and go by policy, so that no gang can count on
    /// them: barrier stages are refused. Executors that join or are lost by chance are fine
    /// without it. Default: false.
    pub dynamic_allocation_enabled: bool,
    /// `kill.grace`: a killed task that still runs after this is named in log and status.
    /// Default: 5 s.
    pub kill_grace: Duration,
    /// `kill.zombie_deadline`: after this its executor is given up, with all that runs on it;
    /// `off`: never.
    pub kill_zombie_deadline: Option<Duration>,
    /// `queue.max_stages`: stages that may be waiting or running at once. Default: 100,000.
    pub queue_max_stages: usize,
    /// `events.capacity`: events kept for subscribers that are slow. Default: 8,192.
    pub events_capacity: usize,
    /// `sync.max_message_size`: bytes that one task may give to a collective call.
    /// Default: 256 MiB.
    pub sync_max_message_size: usize,
    /// `checkpoint.directory`: where stages keep checkpoints; empty: in memory. Default: empty.
    pub checkpoint_directory: Option<PathBuf>,
    /// `checkpoint.keep`: newest checkpoints kept of a stage. Default: 2.
    pub checkpoint_keep: usize,
    /// `link.heartbeat_interval`: pause between two heartbeats of driver and executors.
    /// Default: 1 s.
    pub link_heartbeat_interval: Duration,
    /// `link.heartbeat_timeout`: after so much silence the other side of a link is lost.
    /// Default: 10 s.
    pub link_heartbeat_timeout: Duration,
    /// `link.reconnect_timeout`: how long an executor tries to reach its driver, at first and after
    /// it lost it. Default: 10 s.
    pub link_reconnect_timeout: Duration,
    /// `link.max_payload`: bytes that an input or a value may have that goes to another process.
    /// Default: 256 MiB.
    pub link_max_payload: usize,
    /// `link.max_queued`: bytes that may wait for one who reads slowly; who has more waiting is
    /// cut off. Inputs, values and messages wait where they are and are not copied. Default: 4 GiB.
    pub link_max_queued: usize,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Config {
            slots: u32::try_from(cores).unwrap_or(u32::MAX),
            worker_threads: cores,
            barrier_sync_timeout: 365 * DAY,
            progress_log_interval: Duration::from_secs(60),
            slot_check_interval: Duration::from_secs(15),
            slot_check_max_failures: 40,
            reserve_after: Duration::from_secs(1),
            stage_max_attempts: 4,
            stage_max_infrastructure_failures: 16,
            stage_retry_delay: Duration::from_millis(200),
            stage_max_tasks: 1_000_000,
            dynamic_allocation_enabled: false,
            kill_grace: Duration::from_secs(5),
            kill_zombie_deadline: None,
            queue_max_stages: 100_000,
            events_capacity: 8192,
            sync_max_message_size: 256 << 20,
            checkpoint_directory: None,
            checkpoint_keep: 2,
            link_heartbeat_interval: Duration::from_secs(1),
            link_heartbeat_timeout: Duration::from_secs(10),
            link_reconnect_timeout: Duration::from_secs(10),
            link_max_payload: 256 << 20,
            link_max_queued: u32::MAX as usize,
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The value has no meaning for its key.
    #[error("{origin}: {key} = \"{value}\" is not allowed; allowed is {allowed}")]
    BadValue {
        /// Where it stands: a file, a variable, the program.
        origin: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What may stand there.
        allowed: &'static str,
    },
    /// There is no such key.
    #[error("{origin}: there is no setting {key}; there are {known}")]
    UnknownKey {
        /// Where it stands.
        origin: String,
        /// The key.
        key: String,
        /// All keys.
        known: String,
    },
    /// The file cannot be read.
    #[error("{origin}: {reason}")]
    Unreadable {
        /// The file.
        origin: String,
        /// What the system or the TOML parser says.
        reason: String,
    },
}

impl Config {
    /// The defaults, changed by the TOML file if one is given, then by the `PHALANX_*` variables of
    /// the process.
    ///
    /// # Errors
    /// Names the file or variable, the key, the value and what is allowed.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Config::default();
        if let Some(path) = file {
            let origin = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
                origin: origin.clone(),
                reason: error.to_string(),
            })?;
            config.apply_toml(&text, &origin)?;
        }
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        config.apply_variables(variables)?;
        config.validate()?;
        Ok(config)
    }

    /// Takes the settings of a TOML text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Config::load`]; settings before the wrong one are taken.
    pub fn apply_toml(&mut self, text: &str, origin: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigError::Unreadable { origin: origin.to_owned(), reason: error.to_string() }
        })?;
        self.apply_table("", &table, origin)
    }

    fn apply_table(
        &mut self,
        prefix: &str,
        table: &toml::Table,
        origin: &str,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let key = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) => {
                    self.apply_table(&format!("{key}."), inner, origin)?;
                }
                toml::Value::String(text) => self.set_from(&key, text, origin)?,
                toml::Value::Integer(_)
                | toml::Value::Float(_)
                | toml::Value::Boolean(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_) => self.set_from(&key, &value.to_string(), origin)?,
            }
        }
        Ok(())
    }

    /// Takes the settings among these variables; those without the prefix `PHALANX_` are others',
    /// and some say what a process is (see [`phalanx::main`](crate::main)), not what it is set to.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn apply_variables(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let ours = |name: &str| name.starts_with("PHALANX_") && !is_variable(name);
        for (name, value) in variables.into_iter().filter(|(name, _)| ours(name)) {
            let key = KEYS.iter().find(|key| key.variable() == name);
            let key = key.map_or(name.as_str(), |key| key.name);
            self.set_from(key, &value, &name)?;
        }
        Ok(())
    }

    /// Sets one key from text, as a file or variable would.
    ///
    /// # Errors
    /// Names the key, the value and what is allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        self.set_from(key, value, "set")
    }

    fn set_from(&mut self, name: &str, value: &str, origin: &str) -> Result<(), ConfigError> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            let (origin, key) = (origin.to_owned(), name.to_owned());
            return Err(ConfigError::UnknownKey { origin, key, known: known.join(", ") });
        };
        (key.set)(self, value.trim()).ok_or_else(|| ConfigError::BadValue {
            origin: origin.to_owned(),
            key: name.to_owned(),
            value: value.to_owned(),
            allowed: key.allowed,
        })
    }

    /// Checks values that were set in code as strictly as those that were read.
    ///
    /// # Errors
    /// Names the key, the value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut copy = self.clone();
        for key in KEYS {
            copy.set_from(key.name, &(key.get)(self), "the program")?;
        }
        Ok(())
    }

    /// The settings that are not the defaults, but for the slots, as variables.
    pub(crate) fn changed_variables(&self) -> Vec<(String, String)> {
        let default = Config::default();
        let changed = KEYS.iter().filter(|key| key.name != "slots");
        let changed = changed.filter(|key| (key.get)(self) != (key.get)(&default));
        changed.map(|key| (key.variable(), (key.get)(self))).collect()
    }

    pub(crate) fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig {
            slot_check_interval: self.slot_check_interval,
            slot_check_max_failures: self.slot_check_max_failures,
            reserve_after: self.reserve_after,
            kill_grace: self.kill_grace,
            zombie_deadline: self.kill_zombie_deadline,
            queue_max: self.queue_max_stages,
            dynamic_allocation: self.dynamic_allocation_enabled,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in KEYS {
            writeln!(f, "{} = {}", key.name, toml::Value::String((key.get)(self)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

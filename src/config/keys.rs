//! The settings by name: how each is read and printed.

use super::{Config, DURATION_MAX};
use crate::codec::SIZE_MAX;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One setting.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What may stand there, for errors.
    pub(super) allowed: &'static str,
    /// `None`: the text has no meaning here, nothing was set.
    pub(super) set: fn(&mut Config, &str) -> Option<()>,
    pub(super) get: fn(&Config) -> String,
}

impl Key {
    /// `barrier.sync.timeout` is `PHALANX_BARRIER_SYNC_TIMEOUT`.
    pub(super) fn variable(&self) -> String {
        format!("PHALANX_{}", self.name.replace('.', "_").to_uppercase())
    }
}

const POSITIVE: &str = "a whole number from 1";
const ANY_NUMBER: &str = "a whole number from 0";
const POSITIVE_DURATION: &str =
    "a duration like 365d, 1m 30s or 200ms, more than 0 and at most 730d";
const ANY_DURATION: &str = "a duration like 365d, 1m 30s or 0s, at most 730d";

/// A setting that is a number of at least `$least`.
macro_rules! number {
    ($name:literal, $field:ident, $least:literal, $allowed:ident) => {
        Key {
            name: $name,
            allowed: $allowed,
            set: |config, text| {
                let number = text.parse().ok().filter(|number| ($least..).contains(number));
                number.map(|number| config.$field = number)
            },
            get: |config| config.$field.to_string(),
        }
    };
}

/// A setting that is a duration of at least `$least`.
macro_rules! duration {
    ($name:literal, $field:ident, $least:expr, $allowed:ident) => {
        Key {
            name: $name,
            allowed: $allowed,
            set: |config, text| {
                let duration = duration(text).filter(|duration| *duration >= $least);
                duration.map(|duration| config.$field = duration)
            },
            get: |config| humantime::format_duration(config.$field).to_string(),
        }
    };
}

/// A setting that is a number of bytes of one message.
macro_rules! size {
    ($name:literal, $field:ident) => {
        Key {
            name: $name,
            allowed: "a number of bytes, at most 1073741824",
            set: |config, text| {
                let size = text.parse().ok().filter(|size| *size <= SIZE_MAX);
                size.map(|size| config.$field = size)
            },
            get: |config| config.$field.to_string(),
        }
    };
}

const MILLISECOND: Duration = Duration::from_millis(1);
const LINK_DURATION: &str = "a duration like 10s or 500ms, at least 1ms and at most 730d";

const SHORTEST: Duration = Duration::from_nanos(1);

pub(super) const KEYS: &[Key] = &[
    number!("slots", slots, 1, POSITIVE),
    number!("worker_threads", worker_threads, 1, POSITIVE),
    duration!("barrier.sync.timeout", barrier_sync_timeout, SHORTEST, POSITIVE_DURATION),
    duration!("progress_log.interval", progress_log_interval, SHORTEST, POSITIVE_DURATION),
    duration!("slot_check.interval", slot_check_interval, SHORTEST, POSITIVE_DURATION),
    number!("slot_check.max_failures", slot_check_max_failures, 0, ANY_NUMBER),
    duration!("reserve_after", reserve_after, Duration::ZERO, ANY_DURATION),
    number!("stage.max_attempts", stage_max_attempts, 1, POSITIVE),
    number!("stage.max_infrastructure_failures", stage_max_infrastructure_failures, 0, ANY_NUMBER),
    duration!("stage.retry_delay", stage_retry_delay, Duration::ZERO, ANY_DURATION),
    number!("stage.max_tasks", stage_max_tasks, 1, POSITIVE),
    Key {
        name: "dynamic_allocation.enabled",
        allowed: "true or false",
        set: |config, text| {
            config.dynamic_allocation_enabled = text.parse().ok()?;
            Some(())
        },
        get: |config| config.dynamic_allocation_enabled.to_string(),
    },
    duration!("kill.grace", kill_grace, Duration::ZERO, ANY_DURATION),
    Key {
        name: "kill.zombie_deadline",
        allowed: "off, or a duration like 30s, more than 0 and at most 730d",
        set: |config, text| {
            let deadline = match text {
                "off" => None,
                text => Some(duration(text).filter(|deadline| !deadline.is_zero())?),
            };
            config.kill_zombie_deadline = deadline;
            Some(())
        },
        get: |config| match config.kill_zombie_deadline {
            None => "off".to_owned(),
            Some(deadline) => humantime::format_duration(deadline).to_string(),
        },
    },
    number!("queue.max_stages", queue_max_stages, 1, POSITIVE),
    number!("events.capacity", events_capacity, 1, POSITIVE),
    size!("sync.max_message_size", sync_max_message_size),
    Key {
        name: "checkpoint.directory",
        allowed: "a path, or nothing to keep checkpoints in memory",
        set: |config, text| {
            config.checkpoint_directory = Some(PathBuf::from_str(text).ok()?);
            config.checkpoint_directory.take_if(|path| path.as_os_str().is_empty());
            Some(())
        },
        get: |config| match &config.checkpoint_directory {
            None => String::new(),
            Some(path) => path.display().to_string(),
        },
    },
    number!("checkpoint.keep", checkpoint_keep, 1, POSITIVE),
    duration!("link.heartbeat_interval", link_heartbeat_interval, MILLISECOND, LINK_DURATION),
    duration!("link.heartbeat_timeout", link_heartbeat_timeout, MILLISECOND, LINK_DURATION),
    duration!("link.reconnect_timeout", link_reconnect_timeout, Duration::ZERO, ANY_DURATION),
    size!("link.max_payload", link_max_payload),
    number!("link.max_queued", link_max_queued, 1, POSITIVE),
];

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| *duration <= DURATION_MAX)
}

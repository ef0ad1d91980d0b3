//! What is shown while it runs.

use indicatif::ProgressBar;
use phalanx::{EventStreamError, FailureCause, Runtime, RuntimeEvent, StageControl};
use std::io::IsTerminal;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing::{Level, enabled, info};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Without the two lines per task and sync.
const LOGGED: &str = "info,phalanx_actors::task=warn";

const PAUSE: Duration = Duration::from_millis(20);

/// If `RUST_LOG` asks for it, or there is more than this process to be seen.
pub fn log_to_stderr() {
    let asked = std::env::var("RUST_LOG").ok();
    let is_remote = std::env::args().any(|argument| argument.starts_with("--cluster"))
        || std::env::var_os("PHALANX_ROLE").is_some();
    if asked.is_none() && !is_remote {
        return;
    }
    let targets: Targets = asked.as_deref().unwrap_or(LOGGED).parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}

/// Until the stage has its result, if anybody looks.
pub fn show_progress(stage: &StageControl) {
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
    if bar.is_none() && !enabled!(Level::INFO) {
        return;
    }
    let mut last = None;
    while stage.outcome().is_none() {
        let progress = stage.progress().first().copied().flatten();
        if let Some(now) = progress.filter(|now| Some(*now) != last) {
            match &bar {
                Some(bar) => {
                    bar.set_length(now.total);
                    bar.set_position(now.done);
                }
                None => info!("epoch {} of {}", now.done, now.total),
            }
            last = progress;
        }
        thread::sleep(PAUSE);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// How many attempts failed because an executor was lost, once the runtime has ended.
pub fn count_losses(runtime: &Runtime) -> JoinHandle<u32> {
    let mut events = runtime.subscribe();
    thread::spawn(move || {
        let mut losses = 0;
        loop {
            match events.next_blocking().map(|record| record.event) {
                Ok(RuntimeEvent::AttemptFailed { cause: FailureCause { failure, .. }, .. }) => {
                    losses += u32::from(failure.is_infrastructure());
                }
                Ok(_) | Err(EventStreamError::Missed(_)) => {}
                Err(EventStreamError::Ended) => return losses,
            }
        }
    })
}

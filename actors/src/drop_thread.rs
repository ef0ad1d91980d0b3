//! Where users' values are dropped that nobody wants.

use crate::run_task::Payload;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// So long the first of some values waits for others: a gang that failed leaves many, and to wake
/// this thread for each of them would cost the one who does it more than all else.
const GATHERING: Duration = Duration::from_millis(1);

/// Drops values one by one on a thread of its own, so that a `Drop` may take its time or panic.
/// Ends when this is dropped and the values are.
pub(crate) struct DropThread(Option<mpsc::Sender<Payload>>);

impl DropThread {
    /// Without a thread, if the system gives none, values are dropped on the spot.
    pub(crate) fn start() -> Self {
        let (sender, values) = mpsc::channel::<Payload>();
        let run = move || {
            while let Ok(value) = values.recv() {
                thread::sleep(GATHERING);
                drop_caught(value);
                values.try_iter().for_each(drop_caught);
            }
        };
        let started = thread::Builder::new().name("phalanx-drop".to_owned()).spawn(run);
        DropThread(started.ok().map(|_| sender))
    }

    pub(crate) fn take(&self, values: impl IntoIterator<Item = Payload>) {
        for value in values {
            match &self.0 {
                Some(sender) => {
                    if let Err(mpsc::SendError(value)) = sender.send(value) {
                        drop_caught(value);
                    }
                }
                None => drop_caught(value),
            }
        }
    }
}

fn drop_caught(value: Payload) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping it might panic again.
        std::mem::forget(panic);
    }
}

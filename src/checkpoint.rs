//! Where a stage's checkpoints are kept.

mod checkpoint_file;

use bytes::Bytes;
use checkpoint_file::{CheckpointFile, claim_run, list, path_of, read, write};
use phalanx_protocol::PartitionId;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use tracing::warn;

/// A checkpoint that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored<T> {
    /// The step it was saved at.
    pub step: u64,
    /// What was saved.
    pub value: T,
}

/// Why a checkpoint could not be saved or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The value cannot be turned into bytes.
    #[error("checkpoint at step {step}: the value cannot be turned into bytes: {reason}")]
    Encode {
        /// The step.
        step: u64,
        /// What bincode says.
        reason: String,
    },
    /// The saved value is of another type.
    #[error("checkpoint at step {step} does not hold a value of the expected type: {reason}")]
    Decode {
        /// The step.
        step: u64,
        /// What bincode says.
        reason: String,
    },
    /// Another task has saved this step already. Nothing was overwritten.
    #[error(
        "checkpoint at step {step} was saved by partition {by} already: let one task save, or gather the others' values to it first"
    )]
    AlreadySaved {
        /// The step.
        step: u64,
        /// Who saved it.
        by: PartitionId,
    },
    /// A later attempt of the stage has begun: this task is a leftover.
    #[error(
        "checkpoint at step {step} is refused: it comes from attempt {attempt}, but attempt {current} has begun"
    )]
    Outdated {
        /// The step.
        step: u64,
        /// The attempt it comes from.
        attempt: u32,
        /// The attempt that has begun.
        current: u32,
    },
    /// A file could not be read or written.
    #[error("checkpoint {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not a whole checkpoint of this stage.
    #[error("checkpoint {path} is refused: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The driver, which keeps the checkpoints, could not save or read it.
    #[error("the driver keeps the checkpoints: {reason}")]
    AtDriver {
        /// What it says.
        reason: String,
    },
    /// The thread that did the work is gone.
    #[error("the checkpoint was interrupted: {reason}")]
    Interrupted {
        /// What is known.
        reason: String,
    },
}

/// Which checkpoint: newer ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    /// Which submission of the stage wrote it; 1 in memory, counted up in a directory.
    run: u64,
    attempt: u32,
    step: u64,
}

/// The checkpoints of one submitted stage.
pub(crate) struct Checkpoints {
    place: Place,
    /// Newest ones of this run kept; at least 1.
    keep: usize,
    /// Whether checkpoints of earlier runs are restored, too.
    resume: bool,
    /// The newest attempt that has begun. Not behind the lock, which is held while files are
    /// written: tasks that begin do not wait for a disk.
    newest_attempt: AtomicU32,
    /// This submission's run, once it is known, and who saved what in it.
    state: Mutex<State>,
}

enum Place {
    Memory,
    Directory { directory: PathBuf, stage: String },
}

#[derive(Default)]
struct State {
    run: Option<u64>,
    /// The newest attempt that has begun.
    attempt: u32,
    /// What this attempt restores, once it is known: the same for all of its tasks, and not
    /// deleted.
    base: Option<Option<Key>>,
    /// Who saved which step in this attempt.
    saved: BTreeMap<u64, PartitionId>,
    in_memory: BTreeMap<Key, Bytes>,
}

impl Checkpoints {
    pub(crate) fn new(directory: Option<PathBuf>, stage: &str, keep: usize, resume: bool) -> Self {
        let place = match directory {
            None => Place::Memory,
            Some(directory) => Place::Directory {
                directory: directory.join(folder(stage)),
                stage: stage.to_owned(),
            },
        };
        let (newest_attempt, state) = (AtomicU32::new(0), Mutex::default());
        Checkpoints { place, keep: keep.max(1), resume, newest_attempt, state }
    }

    /// A task of this attempt begins: what earlier attempts still save is refused from now on.
    pub(crate) fn begin(&self, attempt: u32) {
        self.newest_attempt.fetch_max(attempt, Ordering::SeqCst);
    }

    pub(crate) fn save(
        &self,
        attempt: u32,
        step: u64,
        partition: PartitionId,
        value: Bytes,
    ) -> Result<(), CheckpointError> {
        let mut state = self.lock();
        if attempt < state.attempt {
            let current = state.attempt;
            return Err(CheckpointError::Outdated { step, attempt, current });
        }
        if let Some(&by) = state.saved.get(&step).filter(|by| **by != partition) {
            return Err(CheckpointError::AlreadySaved { step, by });
        }
        let key = Key { run: self.run(&mut state)?, attempt, step };
        // Before there is something newer.
        let base = self.base(&mut state)?;
        match &self.place {
            Place::Memory => {
                state.in_memory.insert(key, value);
                let kept = state.in_memory.keys().rev().copied().filter(|key| Some(*key) != base);
                for old in kept.skip(self.keep).collect::<Vec<_>>() {
                    state.in_memory.remove(&old);
                }
            }
            Place::Directory { directory, stage } => {
                write(directory, &CheckpointFile { stage: stage.clone(), key, value })?;
                self.delete_old(directory, key.run, base);
            }
        }
        state.saved.insert(step, partition);
        Ok(())
    }

    /// The newest checkpoint that this attempt has not written itself, so that all tasks of the
    /// attempt find the same. A leftover of an earlier attempt is given nothing.
    pub(crate) fn restore(&self, attempt: u32) -> Result<Option<(u64, Bytes)>, CheckpointError> {
        let mut state = self.lock();
        if attempt < state.attempt {
            return Ok(None);
        }
        let Some(key) = self.base(&mut state)? else { return Ok(None) };
        let bytes = match &self.place {
            Place::Memory => state.in_memory.get(&key).cloned().unwrap_or_default(),
            Place::Directory { directory, stage } => read(&path_of(directory, key), stage, key)?,
        };
        Ok(Some((key.step, bytes)))
    }

    /// What the current attempt restores.
    fn base(&self, state: &mut State) -> Result<Option<Key>, CheckpointError> {
        if let Some(base) = state.base {
            return Ok(base);
        }
        let (run, attempt) = (self.run(state)?, state.attempt);
        let is_earlier =
            |key: &Key| (key.run, key.attempt) < (run, attempt) && (self.resume || key.run == run);
        let base = match &self.place {
            Place::Memory => state.in_memory.keys().rev().copied().find(|key| is_earlier(key)),
            Place::Directory { directory, stage } => newest_whole(directory, stage, is_earlier)?,
        };
        state.base = Some(base);
        Ok(base)
    }

    /// This submission's own number, claimed when it is first needed.
    fn run(&self, state: &mut State) -> Result<u64, CheckpointError> {
        if let Some(run) = state.run {
            return Ok(run);
        }
        let run = match &self.place {
            Place::Memory => 1,
            Place::Directory { directory, .. } => claim_run(directory)?,
        };
        state.run = Some(run);
        Ok(run)
    }

    /// What cannot be deleted costs space only.
    fn delete_old(&self, directory: &Path, run: u64, base: Option<Key>) {
        let Ok(files) = list(directory) else { return };
        let own = files.into_iter().rev();
        let own = own.filter(|(key, _)| key.run == run && Some(*key) != base);
        for (_, path) in own.skip(self.keep) {
            if let Err(error) = std::fs::remove_file(&path) {
                warn!(path = %path.display(), "an old checkpoint could not be deleted: {error}");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest_attempt.load(Ordering::SeqCst);
        if state.attempt < newest {
            state.attempt = newest;
            state.base = None;
            state.saved.clear();
        }
        state
    }
}

/// The newest file that can be used. Files that cannot are refused aloud and passed over; if none
/// can, the newest's error is the answer, so that no work is thrown away in silence.
fn newest_whole(
    directory: &Path,
    stage: &str,
    is_earlier: impl Fn(&Key) -> bool,
) -> Result<Option<Key>, CheckpointError> {
    let mut newest_error = None;
    for (key, path) in list(directory)?.into_iter().rev().filter(|(key, _)| is_earlier(key)) {
        match read(&path, stage, key) {
            Ok(_) => return Ok(Some(key)),
            Err(error) => {
                warn!(path = %path.display(), "{error}; the one before it is used");
                newest_error.get_or_insert(error);
            }
        }
    }
    newest_error.map_or(Ok(None), Err)
}

/// A stage's name as a directory's: letters, digits, `-` and `_` as they are, others as `%xx`.
fn folder(stage: &str) -> String {
    let mut folder = String::new();
    for byte in stage.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            folder.push(char::from(byte));
        } else {
            folder.push_str(&format!("%{byte:02x}"));
        }
    }
    folder
}

#[cfg(test)]
mod tests;

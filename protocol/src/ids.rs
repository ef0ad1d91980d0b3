//! Identities. Each is a type of its own, so that a partition cannot be passed for an epoch.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Declares a number as an identity with the derives that messages and machines need.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A stage, unique within one runtime, given in order of submission from 0.
    StageId(u64)
}
id! {
    /// A job on datasets, unique within one runtime, given in order of submission from 0.
    JobId(u64)
}
id! {
    /// Index of a task in its gang, `0..num_tasks`: its rank.
    PartitionId(u32)
}
id! {
    /// One try of one task, unique within one runtime and never used again.
    TaskAttemptId(u64)
}
id! {
    /// Number of a global sync within its stage attempt, from 0.
    Epoch(u64)
}
id! {
    /// An executor: a place with slots, in this process or another.
    ExecutorId(u64)
}
id! {
    /// Which life of an executor: one that was lost comes back under a higher number, from 0.
    Incarnation(u32)
}
id! {
    /// Whom to answer. Given by the shell that feeds a machine; the machine only hands it back.
    ReplyToken(u64)
}

/// One life of an executor: what it holds is gone when this life is over.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ExecutorLife {
    /// The executor.
    pub executor: ExecutorId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

/// One try of a whole stage. Printed as `Stage 3 (Attempt 0)`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct StageAttemptId {
    /// The stage.
    pub stage: StageId,
    /// Which try, from 0.
    pub attempt: u32,
}

impl fmt::Display for StageAttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stage {} (Attempt {})", self.stage, self.attempt)
    }
}

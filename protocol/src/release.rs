//! What the tasks of a gang get when all of them have come.

use crate::SyncMethod;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::sync::Arc;

/// All tasks of a gang have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    /// The call all of them made.
    pub method: SyncMethod,
    /// What they gave to each other.
    pub messages: Messages,
}

/// The messages of a gang's tasks by partition; none for [`SyncMethod::Barrier`]. Clones share
/// them.
///
/// Nothing is no allocation and has no count of references, for which the threads that are released
/// from a barrier would otherwise queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Messages(Option<Arc<[Bytes]>>);

impl Messages {
    /// All of them, shared.
    pub fn into_shared(self) -> Arc<[Bytes]> {
        self.0.unwrap_or_default()
    }
}

impl From<Vec<Bytes>> for Messages {
    fn from(messages: Vec<Bytes>) -> Self {
        Messages((!messages.is_empty()).then(|| messages.into()))
    }
}

impl Deref for Messages {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_shared_and_none_are_nothing() {
        let messages = Messages::from(vec![Bytes::from_static(b"a"), Bytes::new()]);
        assert_eq!(&*messages, [Bytes::from_static(b"a"), Bytes::new()]);
        assert!(Arc::ptr_eq(&messages.clone().into_shared(), &messages.into_shared()));
        assert_eq!(Messages::from(Vec::new()), Messages::default());
        assert!(Messages::default().is_empty());
        assert!(Messages::default().into_shared().is_empty());
    }
}

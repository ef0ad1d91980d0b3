//! Keeps users' code out of our locks.

use crate::drop_thread::DropThread;
use crate::run_task::Payload;
use crate::task::lock;
use bytes::Bytes;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, MutexGuard};

thread_local! {
    /// Sealed locks that this thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Where messages are dropped whose last reference goes under a sealed lock.
static DROPS: LazyLock<DropThread> = LazyLock::new(DropThread::start);

/// A message whose memory may be a user's type. Where its last reference goes, this is asked.
struct Message(Bytes);

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if HELD.try_with(Cell::get).is_ok_and(|held| held > 0) {
            DROPS.take([Box::new(std::mem::take(&mut self.0)) as Payload]);
        }
    }
}

/// The same bytes; their owner's `Drop`, which may take locks of its own or its time, never runs
/// under a sealed lock.
#[inline]
pub(crate) fn sealed(message: Bytes) -> Bytes {
    if message.is_empty() { Bytes::new() } else { seal(message) }
}

#[inline(never)]
fn seal(message: Bytes) -> Bytes {
    Bytes::from_owner(Message(message))
}

/// Locks a mutex under which messages may be dropped.
#[inline]
pub(crate) fn lock_sealed<T>(mutex: &Mutex<T>) -> Sealed<'_, T> {
    let guard = lock(mutex);
    let _ = HELD.try_with(|held| held.set(held.get() + 1));
    Sealed { guard, _held: Held }
}

/// A held lock. Unlocks first.
pub(crate) struct Sealed<'a, T> {
    guard: MutexGuard<'a, T>,
    _held: Held,
}

struct Held;

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        let _ = HELD.try_with(|held| held.set(held.get() - 1));
    }
}

impl<T> Deref for Sealed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Sealed<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    struct Owner(mpsc::Sender<ThreadId>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b"own"
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn an_owner_is_dropped_elsewhere_only_under_a_sealed_lock() {
        let (tell, told) = mpsc::channel();
        let message = || sealed(Bytes::from_owner(Owner(tell.clone())));
        assert_eq!(message(), "own");
        assert_eq!(told.recv(), Ok(thread::current().id()));
        let (outer, inner) = (Mutex::new(()), Mutex::new(()));
        let held = lock_sealed(&outer);
        drop(lock_sealed(&inner));
        drop(message());
        drop(held);
        assert_ne!(told.recv(), Ok(thread::current().id()));
        drop(message());
        assert_eq!(told.recv(), Ok(thread::current().id()));
    }
}

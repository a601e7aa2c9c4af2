//! What the threads of the store share: the records, leases, and who is busy with what.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;
use crate::records::Records;

/// Something in the store that can be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A blob.
    Blob(Digest),
    /// An unpacked layer by its chain id.
    Layer(Digest),
}

/// The state behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) records: Records,
    /// The records on disk were unreadable; nothing may be swept until fsck has rebuilt them.
    pub(crate) damaged: bool,
    leases: HashMap<Key, usize>,
    busy: BTreeSet<Key>,
}

impl State {
    pub(crate) fn new(records: Records, damaged: bool) -> Self {
        Self {
            records,
            damaged,
            leases: HashMap::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Whether anything is counted on or on its way.
    pub(crate) fn is_anything_leased(&self) -> bool {
        !self.leases.is_empty() || !self.busy.is_empty()
    }

    /// Whether somebody counts on `key` staying.
    pub(crate) fn is_leased(&self, key: &Key) -> bool {
        self.leases.contains_key(key)
    }
}

/// The lock and its waiters.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    freed: Condvar,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            freed: Condvar::new(),
        }
    }

    /// The state. Held for short times only, never while content is transferred. A panic of
    /// another holder cannot have left it half changed: it is replaced as a whole.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `keys` from being swept, whether they exist yet or not, until the lease is dropped.
    pub(crate) fn lease(self: &Arc<Self>, keys: impl IntoIterator<Item = Key>) -> Lease {
        let keys: Vec<Key> = keys.into_iter().collect();
        let mut state = self.state();
        for key in &keys {
            *state.leases.entry(*key).or_insert(0) += 1;
        }
        Lease {
            shared: Arc::clone(self),
            keys,
        }
    }

    /// Waits until nobody is busy with any of `keys`, then is busy with all of them. All at once,
    /// so that two callers can never wait for each other.
    pub(crate) fn busy(self: &Arc<Self>, keys: BTreeSet<Key>) -> Busy {
        let mut state = self.state();
        while !state.busy.is_disjoint(&keys) {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.busy.extend(keys.iter().copied());
        Busy {
            shared: Arc::clone(self),
            keys,
        }
    }
}

/// Keeps content from being swept.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    keys: Vec<Key>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        for key in &self.keys {
            if let Some(count) = state.leases.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    state.leases.remove(key);
                }
            }
        }
    }
}

/// The exclusive right to fetch or unpack something.
#[derive(Debug)]
pub(crate) struct Busy {
    shared: Arc<Shared>,
    keys: BTreeSet<Key>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        for key in &self.keys {
            state.busy.remove(key);
        }
        drop(state);
        self.shared.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new(State::new(Records::default(), false)))
    }

    #[test]
    fn leases_count() {
        let shared = shared();
        let key = Key::Blob(Digest::of(b"x"));
        let (first, second) = (shared.lease([key]), shared.lease([key]));
        drop(first);
        assert!(shared.state().is_leased(&key));
        drop(second);
        assert!(!shared.state().is_leased(&key));
    }

    #[test]
    fn the_second_caller_waits() {
        let shared = shared();
        let (a, b) = (Key::Blob(Digest::of(b"a")), Key::Layer(Digest::of(b"b")));
        let first = shared.busy([a, b].into());
        let other = Arc::clone(&shared);
        let waiter = std::thread::spawn(move || drop(other.busy([b].into())));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiter.is_finished());
        drop(first);
        waiter.join().unwrap();
    }
}

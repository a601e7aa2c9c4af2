//! One at a time per workload: creates and deletes of the same id wait for each other, those of
//! different ids do not.

use super::lock;
use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// Ids whose turn is taken.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<HashSet<String>>,
    given_back: Condvar,
}

/// A turn; given back when dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    id: String,
}

impl Turns {
    /// Waits for the turn of an id. Creates and deletes end by themselves (each waits for its
    /// supervisor with a limit), so that this does, too.
    pub(super) fn take(&self, id: &str) -> Turn<'_> {
        let mut taken = lock(&self.taken);
        while !taken.insert(id.to_owned()) {
            taken = self
                .given_back
                .wait(taken)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn {
            turns: self,
            id: id.to_owned(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.taken).remove(&self.id);
        self.turns.given_back.notify_all();
    }
}

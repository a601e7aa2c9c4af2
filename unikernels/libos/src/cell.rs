//! State that belongs to the whole guest.

use core::cell::RefCell;

/// A value that the guest's only thread shares with itself.
///
/// Borrows are checked: taking one while it is taken is a bug and panics.
pub(crate) struct Global<T>(RefCell<T>);

// SAFETY: a guest has one vCPU and no threads, and interrupt handlers (of the PVH entry) touch no
// state of Rust.
unsafe impl<T> Sync for Global<T> {}

impl<T> Global<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Calls a function with the value; it must not come back here.
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> R {
        use_it(&mut self.0.borrow_mut())
    }
}

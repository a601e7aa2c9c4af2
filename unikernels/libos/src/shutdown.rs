//! Ordered shutdown: the engine asks, the application finishes what it has begun and returns.

use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Poll, Waker};

use crate::cell::Global;
use crate::clock;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static WAITING: Global<Vec<Waker>> = Global::new(Vec::new());

/// Whether the guest has been asked to stop (`gamut stop`, SIGTERM).
#[must_use]
pub fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed) || clock::is_stop_requested()
}

/// Waits until the guest is asked to stop. An application that never waits for it is ended by the
/// engine when the time of `gamut stop` is over.
pub async fn requested() {
    poll_fn(|context| {
        if is_requested() {
            return Poll::Ready(());
        }
        WAITING.with(|waiting| {
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
        });
        Poll::Pending
    })
    .await;
}

/// If the monitor has asked, wakes who waits for it.
pub(crate) fn poll() {
    if !clock::is_stop_requested() || REQUESTED.swap(true, Ordering::Relaxed) {
        return;
    }
    for waker in WAITING.with(core::mem::take) {
        waker.wake();
    }
}

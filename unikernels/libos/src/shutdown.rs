//! Ordered shutdown: the engine asks, the application finishes what it has begun and returns.

use alloc::collections::BTreeMap;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use crate::cell::Global;
use crate::clock;

struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    next_number: u64,
}

static REQUESTED: AtomicBool = AtomicBool::new(false);
static WAITING: Global<Waiting> = Global::new(Waiting {
    wakers: BTreeMap::new(),
    next_number: 0,
});

/// Whether the guest has been asked to stop (`gamut stop`, SIGTERM).
#[must_use]
pub fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Waits until the guest is asked to stop.
#[derive(Debug)]
pub struct Requested {
    number: Option<u64>,
}

/// Waits until the guest is asked to stop. An application that never waits for it is ended by the
/// engine when the time of `gamut stop` is over.
#[must_use]
pub fn requested() -> Requested {
    Requested { number: None }
}

impl Future for Requested {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if is_requested() {
            return Poll::Ready(());
        }
        let known = self.number;
        let number = WAITING.with(|waiting| {
            let number = known.unwrap_or_else(|| {
                waiting.next_number += 1;
                waiting.next_number
            });
            waiting.wakers.insert(number, context.waker().clone());
            number
        });
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            WAITING.with(|waiting| waiting.wakers.remove(&number));
        }
    }
}

/// If the monitor has asked, wakes who waits for it.
pub(crate) fn poll() {
    if !clock::is_stop_requested() || REQUESTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let wakers = WAITING.with(|waiting| core::mem::take(&mut waiting.wakers));
    wakers.into_values().for_each(Waker::wake);
}

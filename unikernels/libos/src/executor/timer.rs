//! Timers.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use super::combine::{Either, select};
use crate::cell::Global;
use crate::clock;
use crate::error::becomes_error;

/// Wakers by when they are due; the second number tells timers of the same moment apart.
struct Timers {
    waiting: BTreeMap<(u64, u64), Waker>,
    next_number: u64,
}

static TIMERS: Global<Timers> = Global::new(Timers {
    waiting: BTreeMap::new(),
    next_number: 0,
});

/// When the next timer is due, in monotonic nanoseconds; `u64::MAX` if there is none.
pub(super) fn next_ns() -> u64 {
    TIMERS.with(|timers| {
        let first = timers.waiting.keys().next();
        first.map_or(u64::MAX, |&(due_ns, _)| due_ns)
    })
}

/// Wakes who waits for a time that has come.
pub(super) fn wake_due() {
    if next_ns() == u64::MAX {
        return;
    }
    let now_ns = clock::monotonic_ns();
    let due: Vec<Waker> = TIMERS.with(|timers| {
        let mut due = Vec::new();
        while let Some(entry) = timers.waiting.first_entry() {
            if entry.key().0 > now_ns {
                break;
            }
            due.push(entry.remove());
        }
        due
    });
    due.into_iter().for_each(Waker::wake);
}

/// Waits until a time has come.
#[derive(Debug)]
pub struct Sleep {
    due_ns: u64,
    /// Set while it is among the timers.
    number: Option<u64>,
}

/// Waits for a time from now.
#[must_use]
pub fn sleep(duration: Duration) -> Sleep {
    let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    sleep_until_ns(clock::monotonic_ns().saturating_add(duration_ns))
}

/// Waits until a point in monotonic time ([`clock::monotonic_ns`]).
#[must_use]
pub fn sleep_until_ns(due_ns: u64) -> Sleep {
    Sleep {
        due_ns,
        number: None,
    }
}

impl Sleep {
    fn forget(&mut self) {
        if let Some(number) = self.number.take() {
            TIMERS.with(|timers| timers.waiting.remove(&(self.due_ns, number)));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if clock::monotonic_ns() >= self.due_ns {
            self.forget();
            return Poll::Ready(());
        }
        let due_ns = self.due_ns;
        let known = self.number;
        let number = TIMERS.with(|timers| {
            let number = known.unwrap_or_else(|| {
                timers.next_number += 1;
                timers.next_number
            });
            timers
                .waiting
                .insert((due_ns, number), context.waker().clone());
            number
        });
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The time of [`timeout`] was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it took too long")
    }
}

becomes_error!(Elapsed);

/// A future's output, if it is there in time.
///
/// # Errors
/// If it is not; the future is dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    match select(pin!(future), sleep(duration)).await {
        Either::First(output) => Ok(output),
        Either::Second(()) => Err(Elapsed),
    }
}

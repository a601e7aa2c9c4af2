//! The cooperative executor: tasks run until they wait.
//!
//! A turn runs the tasks that are ready, lets the network stack work, and makes one request to the
//! monitor: transmit, receive, carry out block requests and, if nothing is ready, wait until
//! something arrives or the next timer is due.

mod combine;
mod task;
mod timer;

pub use combine::{Either, join, select, yield_now};
pub use task::{JoinHandle, spawn};
pub use timer::{Elapsed, Sleep, sleep, sleep_until_ns, timeout};

use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use alloc::sync::Arc;
use alloc::task::Wake;

use crate::{clock, input_output};

/// Rounds of tasks that wake one another before the outside world has its turn.
const MAX_ROUNDS: usize = 32;

/// Notes that the main future is to be polled.
struct MainWaker {
    is_woken: AtomicBool,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
    }
}

/// How long the guest waits for the acknowledgements of peers before it ends.
const DRAIN_NS: u64 = 2_000_000_000;

/// Runs a future and all tasks that it spawns, until it is done. Tasks that are left are dropped
/// with the guest.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let main = Arc::new(MainWaker {
        is_woken: AtomicBool::new(true),
    });
    let waker = Waker::from(main.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        let mut is_idle = false;
        for _ in 0..MAX_ROUNDS {
            if main.is_woken.swap(false, Ordering::Relaxed)
                && let Poll::Ready(output) = future.as_mut().poll(&mut context)
            {
                drain();
                return output;
            }
            task::run_ready();
            timer::wake_due();
            input_output::poll();
            if !main.is_woken.load(Ordering::Relaxed) && !task::is_any_ready() {
                is_idle = true;
                break;
            }
        }
        input_output::turn(is_idle.then(timer::next_ns));
    }
}

/// Lets what the application has written to closed connections reach its peers.
fn drain() {
    let end_ns = clock::monotonic_ns().saturating_add(DRAIN_NS);
    loop {
        input_output::poll();
        if !input_output::is_sending() || clock::monotonic_ns() >= end_ns {
            // What is prepared now (the last acknowledgement, a datagram) still goes out.
            return input_output::turn(None);
        }
        input_output::turn(Some(end_ns));
    }
}

//! Tasks and the queue of those that are ready.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::{Cell, RefCell};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::cell::Global;

static READY: Global<VecDeque<Arc<Task>>> = Global::new(VecDeque::new());

struct Task {
    /// None once it is done, and while it runs.
    future: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    is_queued: Cell<bool>,
}

// SAFETY: a guest has one vCPU and no threads, so neither ever happens.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.replace(true) {
            READY.with(|ready| ready.push_back(self));
        }
    }
}

/// Whether a task is ready to run.
pub(super) fn is_any_ready() -> bool {
    READY.with(|ready| !ready.is_empty())
}

/// Runs every task that is ready now; what becomes ready meanwhile waits for the next round.
pub(super) fn run_ready() {
    let count = READY.with(|ready| ready.len());
    for _ in 0..count {
        let Some(task) = READY.with(VecDeque::pop_front) else {
            return;
        };
        task.is_queued.set(false);
        let Some(mut future) = task.future.borrow_mut().take() else {
            continue;
        };
        let waker = Waker::from(task.clone());
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        if poll.is_pending() {
            task.future.replace(Some(future));
        }
    }
}

struct Outcome<T> {
    value: Option<T>,
    waiting: Option<Waker>,
}

/// The result of a task, to be awaited. Dropping it leaves the task running.
pub struct JoinHandle<T> {
    outcome: Rc<RefCell<Outcome<T>>>,
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut outcome = self.outcome.borrow_mut();
        match outcome.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                outcome.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Starts a task beside the others.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let outcome = Rc::new(RefCell::new(Outcome {
        value: None,
        waiting: None,
    }));
    let handle = JoinHandle {
        outcome: outcome.clone(),
    };
    let task = Arc::new(Task {
        future: RefCell::new(Some(Box::pin(async move {
            let value = future.await;
            let waiting = {
                let mut outcome = outcome.borrow_mut();
                outcome.value = Some(value);
                outcome.waiting.take()
            };
            if let Some(waiting) = waiting {
                waiting.wake();
            }
        }))),
        is_queued: Cell::new(false),
    });
    task.wake();
    handle
}

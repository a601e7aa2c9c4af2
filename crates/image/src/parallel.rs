//! The same work for several things at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// Does `work` for each of `items`, for at most `width` at a time, begun in their order. The first
/// failure is kept and sets `stop`, by which work under way may tell that it is futile; nothing is
/// begun after that. `what` names the work in case a thread dies.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    width: usize,
    what: &str,
    stop: &AtomicBool,
    work: &(dyn Fn(&T) -> Result<R> + Sync),
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        let threads = (0..width.min(items.len())).map(|_| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(position) else {
                        return;
                    };
                    match work(item) {
                        Ok(result) => done
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((position, result)),
                        Err(error) => {
                            failure
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            })
        });
        // Joined here, so that a thread that died is an error and not a panic.
        for thread in threads.collect::<Vec<_>>() {
            let _ = thread.join();
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if done.len() != items.len() {
        return Err(Error::Worker(what.to_owned()));
    }
    done.sort_by_key(|(position, _)| *position);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_failure_ends_it() {
        let items: Vec<usize> = (0..50).collect();
        let doubled = in_parallel(&items, 3, "doubling", &AtomicBool::new(false), &|item| {
            Ok(item * 2)
        })
        .unwrap();
        assert_eq!(
            doubled,
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
        let (stop, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let error = in_parallel(&items, 3, "failing", &stop, &|item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 2 {
                return Err(Error::Conflict("two".to_owned()));
            }
            // Ends only once the failure is known, and then with another error.
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Err::<(), _>(Error::Cancelled(item.to_string()))
        });
        assert_eq!(error.unwrap_err().to_string(), "conflict: two");
        assert_eq!(begun.into_inner(), 3);
    }

    #[test]
    fn a_thread_that_dies_is_an_error() {
        let stop = AtomicBool::new(false);
        let result = in_parallel(&[1], 1, "dying", &stop, &|_| -> Result<()> {
            panic!("as it should")
        });
        assert!(result.unwrap_err().to_string().contains("dying"));
    }
}

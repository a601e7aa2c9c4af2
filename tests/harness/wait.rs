//! Waiting for what happens soon.

use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Waits until a condition holds; panics with `what` if it does not in time.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// Waits until there is something to return; panics with `what` if there is not in time.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let due = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < due, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How long a race is run: a minute with `./test --long`, a few seconds without.
#[must_use]
pub fn racing_time() -> Duration {
    let is_long = std::env::var_os("GAMUT_TEST_LONG").is_some();
    Duration::from_secs(if is_long { 60 } else { 3 })
}

//! Wall-clock time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch; 0 before it.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

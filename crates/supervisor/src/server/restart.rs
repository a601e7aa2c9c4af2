//! Whether and when a process is started again. No I/O. The rules are dockerd's (moby,
//! restartmanager): a run of ten seconds makes the delay short again, but does not give back the
//! attempts of `on-failure:N`.

use gamut_abi::control::RestartPolicy;
use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A process that ran this long begins with the first delay again.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Counts restarts and doubles their delay.
pub(super) struct Backoff {
    next_delay: Duration,
    /// Restarts so far.
    retries: u32,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            next_delay: FIRST_DELAY,
            retries: 0,
        }
    }

    /// How long to wait before the next start of a process that ended with `code` after `ran`;
    /// `None` if it stays down.
    pub(super) fn delay(
        &mut self,
        policy: RestartPolicy,
        code: i32,
        ran: Duration,
    ) -> Option<Duration> {
        if ran >= STEADY_AFTER {
            self.next_delay = FIRST_DELAY;
        }
        let again = match policy {
            RestartPolicy::Never => false,
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure { maximum_retries } => {
                code != 0 && (maximum_retries == 0 || self.retries < maximum_retries)
            }
        };
        again.then(|| {
            self.retries = self.retries.saturating_add(1);
            let delay = self.next_delay;
            self.next_delay = (delay * 2).min(LONGEST_DELAY);
            delay
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_minute_and_start_afresh_after_a_healthy_run() {
        let mut backoff = Backoff::new();
        let mut delays = Vec::new();
        for _ in 0..12 {
            let delay = backoff
                .delay(RestartPolicy::Always, 0, Duration::ZERO)
                .unwrap();
            delays.push(delay.as_millis());
        }
        assert_eq!(&delays[..4], [100, 200, 400, 800]);
        assert_eq!(&delays[10..], [60_000, 60_000]);
        let delay = backoff.delay(RestartPolicy::Always, 1, Duration::from_secs(10));
        assert_eq!(delay, Some(FIRST_DELAY));
    }

    #[test]
    fn a_long_run_gives_no_attempts_back() {
        let policy = RestartPolicy::OnFailure { maximum_retries: 2 };
        let mut backoff = Backoff::new();
        let hour = Duration::from_secs(3600);
        assert_eq!(backoff.delay(policy, 1, hour), Some(FIRST_DELAY));
        assert_eq!(backoff.delay(policy, 1, hour), Some(FIRST_DELAY));
        assert_eq!(backoff.delay(policy, 1, hour), None);
    }

    #[test]
    fn on_failure_counts() {
        let policy = RestartPolicy::OnFailure { maximum_retries: 2 };
        let mut backoff = Backoff::new();
        assert!(backoff.delay(policy, 0, Duration::ZERO).is_none());
        assert!(backoff.delay(policy, 1, Duration::ZERO).is_some());
        assert!(backoff.delay(policy, 1, Duration::ZERO).is_some());
        assert!(backoff.delay(policy, 1, Duration::ZERO).is_none());
        assert!(
            backoff
                .delay(RestartPolicy::Never, 1, Duration::ZERO)
                .is_none()
        );
    }
}

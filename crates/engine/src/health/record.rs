//! How a container fares by its health check. No I/O.

use super::check::Healthcheck;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Results of probes remembered.
const REMEMBERED: usize = 5;

/// What the probes say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No probe has succeeded yet, nor have too many failed.
    #[default]
    Starting,
    /// The last probes did not fail too often.
    Healthy,
    /// Too many failed in a row, or it does not run any more.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// When it began, nanoseconds since the epoch.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// 0 is healthy, -1 a probe that took too long or could not be made.
    pub exit_code: i32,
    /// What it said, at most 4096 bytes.
    pub output: String,
}

/// How a container fares, since its last start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What the probes say.
    pub status: HealthStatus,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last probes, newest last, at most five, also of earlier runs.
    #[serde(default)]
    pub log: Vec<ProbeResult>,
}

impl Health {
    /// The container was started (again).
    pub fn begin(&mut self) {
        self.status = HealthStatus::Starting;
        self.failing_streak = 0;
    }

    /// Nobody looks after it any more: it has ended, or is frozen.
    pub fn end(&mut self) {
        self.status = HealthStatus::Unhealthy;
    }

    /// Takes in a result. True if the status has changed.
    pub fn note(&mut self, result: ProbeResult, check: &Healthcheck, started_ns: u64) -> bool {
        let before = self.status;
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else {
            let age = Duration::from_nanos(result.start_ns.saturating_sub(started_ns));
            let is_excused = self.status == HealthStatus::Starting && age < check.start_period();
            if !is_excused {
                self.failing_streak = self.failing_streak.saturating_add(1);
                if self.failing_streak >= check.retries() {
                    self.status = HealthStatus::Unhealthy;
                }
            }
        }
        if self.log.len() >= REMEMBERED {
            self.log.drain(..=self.log.len() - REMEMBERED);
        }
        self.log.push(result);
        self.status != before
    }

    /// How long to wait before the next probe.
    #[must_use]
    pub fn pause(&self, check: &Healthcheck, started_ns: u64, now_ns: u64) -> Duration {
        let age = Duration::from_nanos(now_ns.saturating_sub(started_ns));
        if self.status == HealthStatus::Starting && age < check.start_period() {
            check.start_interval()
        } else {
            check.interval()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn result(at_seconds: u64, exit_code: i32) -> ProbeResult {
        ProbeResult {
            start_ns: at_seconds * SECOND,
            end_ns: at_seconds * SECOND,
            exit_code,
            output: String::new(),
        }
    }

    fn check(start_period_seconds: u64, retries: u32) -> Healthcheck {
        Healthcheck {
            start_period_ns: start_period_seconds * SECOND,
            retries,
            ..Healthcheck::default()
        }
    }

    #[test]
    fn failures_count_after_the_start_period_only() {
        let (mut health, check) = (Health::default(), check(10, 2));
        assert!(!health.note(result(3, 1), &check, 0));
        assert!(!health.note(result(9, -1), &check, 0));
        assert_eq!(
            (health.status, health.failing_streak),
            (HealthStatus::Starting, 0)
        );
        assert!(!health.note(result(10, 1), &check, 0));
        assert!(health.note(result(11, 1), &check, 0));
        assert_eq!(health.status, HealthStatus::Unhealthy);
        // One success is enough.
        assert!(health.note(result(12, 0), &check, 0));
        assert_eq!(
            (health.status, health.failing_streak),
            (HealthStatus::Healthy, 0)
        );
    }

    #[test]
    fn once_healthy_failures_count_in_the_start_period_too() {
        let (mut health, check) = (Health::default(), check(100, 1));
        assert!(health.note(result(1, 0), &check, 0));
        assert!(health.note(result(2, 1), &check, 0));
        assert_eq!(health.status, HealthStatus::Unhealthy);
        health.begin();
        assert_eq!(
            (health.status, health.failing_streak),
            (HealthStatus::Starting, 0)
        );
        assert_eq!(health.log.len(), 2, "the log goes on");
    }

    #[test]
    fn probes_come_faster_while_it_starts() {
        let (mut health, mut check) = (Health::default(), check(10, 1));
        check.interval_ns = 60 * SECOND;
        check.start_interval_ns = 2 * SECOND;
        let pause = |health: &Health, at: u64| health.pause(&check, 0, at * SECOND).as_secs();
        assert_eq!(pause(&health, 1), 2);
        assert_eq!(pause(&health, 10), 60);
        health.note(result(1, 0), &check, 0);
        assert_eq!(pause(&health, 1), 60);
    }

    proptest! {
        #[test]
        fn a_log_of_five_and_a_streak_of_failures(codes in proptest::collection::vec(-1i32..2, 0..40),
                                                  period in 0u64..20, retries in 0u32..5) {
            let check = check(period, retries);
            let mut health = Health::default();
            for (second, code) in (0u64..).zip(&codes) {
                let before = health.status;
                let changed = health.note(result(second, *code), &check, 0);
                prop_assert_eq!(changed, before != health.status);
                prop_assert!(health.log.len() <= 5);
                prop_assert_eq!(health.log.last().unwrap().start_ns, second * SECOND);
                let failures = codes[..=usize::try_from(second).unwrap()]
                    .iter().rev().take_while(|code| **code != 0).count();
                prop_assert!(usize::try_from(health.failing_streak).unwrap() <= failures);
                prop_assert_eq!(*code == 0, health.status == HealthStatus::Healthy
                    && health.failing_streak == 0);
                prop_assert_eq!(health.status == HealthStatus::Unhealthy,
                    health.failing_streak >= check.retries());
            }
        }
    }
}

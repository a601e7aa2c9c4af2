//! Counters, and their text form (the exposition format of Prometheus, version 0.0.4).

use alloc::string::String;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or one that is set.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

impl Metric {
    /// A number that only grows. Its name ends in `_total` by convention.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// A number that is set.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    const fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            value: AtomicU64::new(0),
        }
    }

    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.value.fetch_add(amount, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Metrics as text, to be answered to `GET /metrics`.
#[must_use]
pub fn text(metrics: &[&Metric]) -> String {
    let mut text = String::new();
    for metric in metrics {
        let Metric { name, help, .. } = metric;
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let value = metric.get();
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Metric, text};

    #[test]
    fn metrics_are_shown_as_prometheus_wants_them() {
        static REQUESTS: Metric = Metric::counter("requests_total", "Requests.");
        static KEYS: Metric = Metric::gauge("keys", "Keys.");
        REQUESTS.add(2);
        REQUESTS.add(1);
        KEYS.set(7);
        let expected = "# HELP requests_total Requests.\n# TYPE requests_total counter\n\
                        requests_total 3\n# HELP keys Keys.\n# TYPE keys gauge\nkeys 7\n";
        assert_eq!(text(&[&REQUESTS, &KEYS]), expected);
    }
}

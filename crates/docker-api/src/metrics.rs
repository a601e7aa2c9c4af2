//! What the engine and its door do, in numbers: the text format of Prometheus.
//!
//! Source: Prometheus, "Exposition formats", text-based format 0.0.4.

use gamut_engine::Engine;
use gamut_engine::container::record::Phase;
use hyper::Method;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The type of the answer.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the buckets of durations, in microseconds, with their words in seconds.
const BUCKETS: [(u64, &str); 8] = [
    (1_000, "0.001"),
    (5_000, "0.005"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
    (60_000_000, "60"),
];

/// What the door counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By method and class of status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    buckets: [AtomicU64; BUCKETS.len()],
    durations: AtomicU64,
    duration_us: AtomicU64,
    connections: AtomicU64,
    closed_connections: AtomicU64,
    refused_handshakes: AtomicU64,
}

/// Methods that are told apart; what clients make up is not.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

impl Metrics {
    /// A request was answered after so long; what its answer streams afterwards does not count.
    pub fn answered(&self, method: &Method, status: u16, after: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method_name(method), status)).or_default() += 1;
        drop(requests);
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        for (bucket, (bound, _)) in self.buckets.iter().zip(BUCKETS) {
            if us <= bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.durations.fetch_add(1, Ordering::Relaxed);
        self.duration_us.fetch_add(us, Ordering::Relaxed);
    }

    /// A client has connected.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection has ended.
    pub fn disconnected(&self) {
        self.closed_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A client has shown no certificate that counts.
    pub fn refused_handshake(&self) {
        self.refused_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Everything, as text.
    #[must_use]
    pub fn text(&self, engine: &Engine) -> String {
        let mut text = Text::default();
        self.door(&mut text);
        engine_state(&mut text, engine);
        process(&mut text, engine);
        text.0
    }

    fn door(&self, text: &mut Text) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        text.head(
            "gamut_api_requests_total",
            "counter",
            "API requests that were answered.",
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, status), count) in requests.iter() {
            let labels = format!("method=\"{method}\",status=\"{status}\"");
            text.sample("gamut_api_requests_total", &labels, count);
        }
        drop(requests);
        let name = "gamut_api_request_duration_seconds";
        text.head(
            name,
            "histogram",
            "Time until the answer to an API request begins.",
        );
        for (bucket, (_, bound)) in self.buckets.iter().zip(BUCKETS) {
            let labels = format!("le=\"{bound}\"");
            text.sample(&format!("{name}_bucket"), &labels, get(bucket));
        }
        let count = get(&self.durations);
        text.sample(&format!("{name}_bucket"), "le=\"+Inf\"", count);
        text.sample(&format!("{name}_sum"), "", seconds(get(&self.duration_us)));
        text.sample(&format!("{name}_count"), "", count);
        let closed = get(&self.closed_connections);
        let opened = get(&self.connections);
        text.head(
            "gamut_api_connections_total",
            "counter",
            "Connections of clients so far.",
        );
        text.sample("gamut_api_connections_total", "", opened);
        text.head(
            "gamut_api_open_connections",
            "gauge",
            "Connections of clients now.",
        );
        text.sample(
            "gamut_api_open_connections",
            "",
            opened.saturating_sub(closed),
        );
        let name = "gamut_api_refused_handshakes_total";
        text.head(name, "counter", "TLS handshakes that failed.");
        text.sample(name, "", get(&self.refused_handshakes));
    }
}

fn engine_state(text: &mut Text, engine: &Engine) {
    text.head("gamut_build_info", "gauge", "The engine's version.");
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    text.sample("gamut_build_info", version, 1);
    let phases = [
        Phase::Created,
        Phase::Running,
        Phase::Paused,
        Phase::Restarting,
        Phase::Exited,
        Phase::Dead,
    ];
    let mut states: BTreeMap<&str, u64> = phases.map(|phase| (phase.as_str(), 0)).into();
    for phase in engine.container_phases() {
        *states.entry(phase.as_str()).or_default() += 1;
    }
    text.head("gamut_containers", "gauge", "Containers by state.");
    for (state, count) in states {
        text.sample("gamut_containers", &format!("state=\"{state}\""), count);
    }
    text.head("gamut_volumes", "gauge", "Volumes.");
    text.sample("gamut_volumes", "", engine.volumes().len());
    let name = "gamut_events_total";
    text.head(name, "counter", "Events by type and action.");
    for ((kind, action), count) in engine.events().counts() {
        text.sample(name, &format!("type=\"{kind}\",action=\"{action}\""), count);
    }
    let name = "gamut_damaged_records";
    text.head(
        name,
        "gauge",
        "Records that cannot be read; see gamut system fsck.",
    );
    text.sample(name, "", engine.damaged_count());
}

/// The numbers that Prometheus' own libraries tell of a process.
fn process(text: &mut Text, engine: &Engine) {
    let usage = gamut_engine::system::process_usage();
    let name = "process_cpu_seconds_total";
    text.head(name, "counter", "Processor time of the daemon.");
    text.sample(name, "", seconds(usage.cpu_us));
    let name = "process_resident_memory_bytes";
    text.head(name, "gauge", "Memory of the daemon that is in RAM.");
    text.sample(name, "", usage.resident_bytes);
    text.head(
        "process_open_fds",
        "gauge",
        "Descriptors that the daemon has open.",
    );
    text.sample("process_open_fds", "", usage.descriptors);
    let name = "process_start_time_seconds";
    text.head(name, "gauge", "When the daemon started, since the epoch.");
    text.sample(name, "", seconds(engine.started_ns() / 1_000));
}

/// Microseconds as seconds.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// `labels` as they stand between the braces.
    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_adds_up() {
        let metrics = Metrics::default();
        metrics.answered(&Method::GET, 200, Duration::from_millis(3));
        metrics.answered(&Method::GET, 200, Duration::from_millis(30));
        metrics.answered(&Method::PATCH, 404, Duration::from_secs(100));
        metrics.connected();
        let mut text = Text::default();
        metrics.door(&mut text);
        for line in [
            "gamut_api_requests_total{method=\"GET\",status=\"200\"} 2",
            "gamut_api_requests_total{method=\"other\",status=\"404\"} 1",
            "gamut_api_request_duration_seconds_bucket{le=\"0.001\"} 0",
            "gamut_api_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "gamut_api_request_duration_seconds_bucket{le=\"60\"} 2",
            "gamut_api_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "gamut_api_request_duration_seconds_sum 100.033000",
            "gamut_api_open_connections 1",
        ] {
            assert!(text.0.lines().any(|one| one == line), "{line}:\n{}", text.0);
        }
    }
}

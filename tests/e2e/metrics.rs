//! Metrics, health and readiness, and the daemon's own log.

use gamut_tests::{Daemon, eventually, exchange};
use std::net::TcpStream;

fn sample(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[test]
fn metrics_tell_what_has_happened() {
    let Some(daemon) = Daemon::start_with(&["--metrics-addr", "127.0.0.1:9323"]) else {
        return;
    };
    daemon.import(
        gamut_tests::busybox().unwrap(),
        "busybox",
        &["CMD [\"sh\"]"],
    );
    daemon.detached("runs", &[], "sleep 1000");
    let _ = daemon.shell(&[], "exit 3");
    let answer = daemon.http("GET", "/metrics", "");
    assert!(
        answer.head.contains("text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let text = answer.text();
    assert_eq!(
        sample(&text, "gamut_containers{state=\"running\"}"),
        Some(1.0),
        "{text}"
    );
    assert_eq!(
        sample(
            &text,
            "gamut_events_total{type=\"container\",action=\"start\"}"
        ),
        Some(2.0),
        "{text}"
    );
    assert!(
        sample(&text, "process_resident_memory_bytes").unwrap() > 1e6,
        "{text}"
    );
    assert!(
        sample(&text, "gamut_api_request_duration_seconds_count").unwrap() > 3.0,
        "{text}"
    );
    // Every sample has a type and a help line, and names have their units.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
        assert!(text.contains(&format!("# TYPE {family} ")), "{line}");
        assert!(text.contains(&format!("# HELP {family} ")), "{line}");
    }
    // On its own address there is nothing else.
    let over_tcp = |method: &str, path: &str| {
        daemon.namespaces().inside(|| {
            let stream = TcpStream::connect("127.0.0.1:9323").unwrap();
            exchange(stream, method, path, "text/plain", b"").unwrap()
        })
    };
    assert!(
        over_tcp("GET", "/metrics")
            .text()
            .contains("gamut_build_info")
    );
    assert_eq!(over_tcp("GET", "/healthz").status, 200);
    assert_eq!(over_tcp("GET", "/readyz").status, 200);
    for (method, path) in [
        ("GET", "/containers/json"),
        ("POST", "/metrics"),
        ("GET", "/v1.41/info"),
        ("GET", "/"),
    ] {
        assert_eq!(over_tcp(method, path).status, 404, "{method} {path}");
    }
    daemon.finish();
}

#[test]
fn readiness_tells_what_is_missing() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    assert_eq!(daemon.http("GET", "/healthz", "").text(), "ok\n");
    let ready = daemon.http("GET", "/readyz", "");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["checks"]["supervisor"], "ok");
    // The data root cannot be written any more.
    let data = daemon.data_root().display().to_string();
    let mount = |arguments: &[&str]| {
        assert!(
            daemon
                .command("mount")
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
    };
    mount(&["--bind", &data, &data]);
    mount(&["-o", "remount,bind,ro", &data]);
    let answer = daemon.http("GET", "/readyz", "");
    assert_eq!(answer.status, 503);
    let told = answer.json();
    assert_eq!(told["ready"], false);
    assert!(
        told["checks"]["data_root"]
            .as_str()
            .unwrap()
            .contains(&data),
        "{told}"
    );
    assert_eq!(daemon.http("GET", "/healthz", "").status, 200);
    assert!(
        daemon
            .command("umount")
            .arg(&data)
            .status()
            .unwrap()
            .success()
    );
    eventually("it is ready again", || {
        daemon.http("GET", "/readyz", "").status == 200
    });
    daemon.finish();
}

#[test]
fn the_daemons_log_is_json_where_it_is_asked_for() {
    let Some(daemon) = Daemon::start_with(&["--log-format", "json", "--log-level", "debug"]) else {
        return;
    };
    assert_eq!(
        daemon.http("GET", "/containers/nobody/json", "").status,
        404
    );
    let log = daemon.log();
    let events: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for field in ["timestamp", "level", "message", "target"] {
        assert!(
            events.iter().all(|event| event[field].is_string()),
            "{field}: {log}"
        );
    }
    let refused = events
        .iter()
        .find(|event| event["message"] == "refused" || event["status"] == 404);
    assert!(refused.is_some(), "{log}");
    daemon.finish();
}

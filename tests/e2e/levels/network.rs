//! Ports, addresses and health checks.

use super::{Level, at_every_level, said};
use gamut_tests::eventually;

at_every_level!(
    published_ports_are_answered,
    workloads_reach_each_other,
    health_is_checked_over_the_network,
);

fn published_ports_are_answered(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    let options = [
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:80",
        "--hostname",
        "web",
    ];
    level.start(&daemon, "web", &options, &["serve", "80"]);
    eventually("the page is served", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == Some("web /\n")
    });
    assert_eq!(daemon.fetch("127.0.0.1:8081").as_deref(), Some("web /\n"));
    let address = daemon.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    assert_eq!(
        daemon.fetch(&format!("{address}:80")).as_deref(),
        Some("web /\n")
    );
    let taken = [
        "run",
        "-d",
        "--isolation",
        level.word(),
        "-p",
        "8080:80",
        "--name",
        "late",
        "probe",
        "serve",
    ];
    let error = daemon.gamut(&taken).fails(125);
    assert!(error.contains("8080"), "{error}");
    // A new start has the same ports, and what is removed frees them.
    daemon.ok(&["restart", "web"]);
    eventually("it is served again", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == Some("web /\n")
    });
    daemon.ok(&["rm", "-f", "web"]);
    assert!(daemon.fetch("127.0.0.1:8080").is_none());
    daemon.ok(&["start", "late"]);
    daemon.finish();
}

fn workloads_reach_each_other(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    level.start(&daemon, "server", &["--hostname", "server"], &["serve"]);
    said(&daemon, "server", "listening");
    let address = daemon.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server"]);
    // From both levels, whatever the server's is.
    let unikernel = if level == Level::Translated {
        Level::Translated
    } else {
        Level::Unikernel
    };
    for client in [Level::Container, unikernel] {
        let host = format!("server:{address}");
        let answer = client.run(&daemon, &["--add-host", &host], &["get", "http://server/"]);
        assert_eq!(answer.ok(), "status 200\nserver /", "{client:?}");
    }
    daemon.finish();
}

fn health_is_checked_over_the_network(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    for (name, check) in [("http", "--health-http=80"), ("tcp", "--health-tcp=80")] {
        let options = [check, "--health-interval", "100ms"];
        level.start(&daemon, name, &options, &["serve"]);
        eventually("it is well", || {
            daemon.inspect(name)["State"]["Health"]["Status"] == "healthy"
        });
    }
    daemon.finish();
}

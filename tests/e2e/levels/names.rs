//! Names on a network of one's own: containers and unikernels find each other.

use super::{Level, at_every_level, said};
use crate::networks::{helpers, helpers_are_two};
use gamut_tests::{Daemon, eventually, unikernel};

at_every_level!(
    neighbours_are_found_by_name_and_alias,
    a_name_is_asked_for_again_whoever_was_killed,
);

#[track_caller]
fn get(daemon: &Daemon, level: Level, network: &str, host: &str) -> String {
    let url = format!("http://{host}/");
    level
        .run(daemon, &["--network", network], &["get", &url])
        .ok()
}

fn neighbours_are_found_by_name_and_alias(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    daemon.ok(&["network", "create", "open"]);
    daemon.ok(&["network", "create", "--internal", "closed"]);
    daemon.ok(&["network", "create", "--internal", "elsewhere"]);
    for network in ["open", "closed"] {
        let start = |level: Level, name: &str, alias: &str| {
            let name = format!("{name}-{network}");
            let options = [
                "--network",
                network,
                "--network-alias",
                alias,
                "--hostname",
                &name,
            ];
            level.start(&daemon, &name, &options, &["serve"]);
            said(&daemon, &name, "listening");
        };
        start(Level::Container, "plain", "site");
        start(level, "other", "edge");
        let page = |name: &str| format!("status 200\n{name}-{network} /");
        for client in [Level::Container, level] {
            for (host, name) in [
                (format!("plain-{network}"), "plain"),
                (format!("PLAIN-{network}.{network}"), "plain"),
                ("site".to_owned(), "plain"),
                (format!("other-{network}"), "other"),
                ("edge".to_owned(), "other"),
            ] {
                assert_eq!(
                    get(&daemon, client, network, &host),
                    page(name),
                    "{client:?} asks for {host} on {network}"
                );
            }
        }
    }
    // Nobody is known on other networks.
    if level != Level::Container {
        let options = ["--network", "elsewhere"];
        let words = ["resolve", "plain-open"];
        let lost = level.run(&daemon, &options, &words);
        assert_eq!(lost.code, 1, "{lost:#?}");
        assert!(!lost.stdout.contains("172."), "{lost:#?}");
    }
    daemon.finish();
}

/// A reverse proxy that is a unikernel, with a container behind it.
fn a_name_is_asked_for_again_whoever_was_killed(level: Level) {
    let Some(mut daemon) = level.daemon() else {
        return;
    };
    let Some(proxy) = unikernel("proxy") else {
        return;
    };
    // At level container there is a unikernel before it as well: the one that can be had.
    let front = match level {
        Level::Container if std::fs::File::open("/dev/kvm").is_err() => return,
        Level::Container => Level::Unikernel,
        level => level,
    };
    let proxy = proxy.display().to_string();
    daemon.ok(&["unikernel", "pack", "-t", "proxy", &proxy]);
    daemon.ok(&["network", "create", "net"]);
    let serve = |daemon: &Daemon, hostname: &str| {
        let options = [
            "--network",
            "net",
            "--network-alias",
            "site",
            "--hostname",
            hostname,
        ];
        level.start(daemon, hostname, &options, &["serve"]);
        said(daemon, hostname, "listening");
    };
    serve(&daemon, "first");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "front",
        "--isolation",
        front.word(),
        "--network",
        "net",
        "-p",
        "8080:80",
        "proxy",
        "site:80",
    ]);
    let answers = |daemon: &Daemon, name: &str| {
        let page = format!("{name} /\n");
        eventually(&format!("{name} answers"), || {
            daemon.fetch("127.0.0.1:8080").as_deref() == Some(page.as_str())
        });
    };
    answers(&daemon, "first");
    // Another one, with another address.
    daemon.ok(&["rm", "-f", "first"]);
    daemon.ok(&["run", "-d", "--network", "net", "probe", "sleep", "1000"]);
    serve(&daemon, "second");
    answers(&daemon, "second");
    // The worker, then its keeper, then the daemon and the worker.
    for is_keeper in [false, true] {
        let helpers = helpers(&daemon);
        let parents: Vec<u32> = helpers.iter().map(|(_, parent)| *parent).collect();
        let mut victims = helpers.iter().map(|(pid, _)| *pid);
        kill(
            victims
                .find(|pid| parents.contains(pid) == is_keeper)
                .unwrap(),
        );
        eventually("there is another one", || helpers_are_two(&daemon));
        answers(&daemon, "second");
    }
    daemon.kill_9();
    kill(helpers(&daemon).pop().unwrap().0);
    answers(&daemon, "second");
    daemon.restart();
    answers(&daemon, "second");
    daemon.finish();
}

fn kill(pid: u32) {
    let pid = libc::pid_t::try_from(pid).unwrap();
    // SAFETY: kill(2) takes no pointers; the process belongs to this test's namespaces.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

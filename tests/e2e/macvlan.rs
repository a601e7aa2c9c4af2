//! Networks on an interface of the host's.

use gamut_tests::{Daemon, eventually};
use serde_json::json;

use crate::networks::resolves;

/// A daemon beside a network: `lan0`, and `far0` at its other end with addresses .1 and ::1.
fn daemon() -> Option<Daemon> {
    let daemon = Daemon::with_busybox()?;
    let has_macvlan = daemon
        .command("sh")
        .args([
            "-c",
            "ip link add lan0 type veth peer name far0 && ip link set lan0 up && ip link set far0 up \
             && ip addr add 192.0.2.1/24 dev far0 && ip addr add fd00:9::1/64 dev far0 nodad \
             && ip link add probe0 link lan0 type macvlan && ip link del probe0",
        ])
        .status()
        .unwrap()
        .success();
    if !has_macvlan {
        gamut_tests::skipped("this kernel has no macvlan");
        daemon.finish();
        return None;
    }
    Some(daemon)
}

fn create(daemon: &Daemon, arguments: &[&str]) -> String {
    daemon.ok(&[
        &["network", "create", "-d", "macvlan", "-o", "parent=lan0"],
        arguments,
    ]
    .concat())
}

fn pings(daemon: &Daemon, container: &str, address: &str) -> bool {
    let ping = ["exec", container, "ping", "-c", "1", "-W", "2", address];
    daemon.gamut(&ping).code == 0
}

#[test]
fn containers_are_on_the_network_of_the_parent() {
    let Some(mut daemon) = daemon() else {
        return;
    };
    create(
        &daemon,
        &[
            "--subnet",
            "192.0.2.0/24",
            "--gateway",
            "192.0.2.1",
            "--ipv6",
            "--subnet",
            "fd00:9::/64",
            "lan",
        ],
    );
    let shown = daemon.json(&["network", "inspect", "lan"])[0].take();
    assert_eq!(
        (&shown["Driver"], &shown["Options"]),
        (&json!("macvlan"), &json!({"parent": "lan0"}))
    );
    daemon.detached("one", &["--network", "lan", "-p", "8080:80"], "sleep 1000");
    daemon.detached(
        "two",
        &["--network", "lan", "--ip", "192.0.2.77"],
        "sleep 1000",
    );
    let endpoint = daemon.inspect("one")["NetworkSettings"]["Networks"]["lan"].take();
    assert_eq!(endpoint["IPAddress"], "192.0.2.2");
    assert_eq!(endpoint["GlobalIPv6Address"], "fd00:9::2");
    assert_eq!(
        daemon.inspect("one")["NetworkSettings"]["Ports"],
        json!({"80/tcp": null}),
        "as with docker"
    );
    let inside = |script: &str| daemon.ok(&["exec", "one", "sh", "-c", script]);
    assert_eq!(
        inside("cat /sys/class/net/eth0/address"),
        endpoint["MacAddress"].as_str().unwrap()
    );
    assert!(inside("ip route").contains("default via 192.0.2.1 dev eth0"));

    // Neighbours on the network, and each other by name; the host by that interface does not.
    for address in ["192.0.2.1", "192.0.2.77", "fd00:9::1"] {
        eventually("the neighbour answers", || pings(&daemon, "one", address));
    }
    assert_eq!(resolves(&daemon, "one", "two"), ["192.0.2.77"]);
    let taken = daemon.shell(&["--network", "lan", "--ip", "192.0.2.77"], "true");
    assert!(taken.stderr.contains("Address already in use"), "{taken:?}");

    // It comes and goes, and has the way out only while no other network is first.
    daemon.ok(&["network", "create", "aa"]);
    daemon.ok(&["network", "connect", "aa", "one"]);
    assert_eq!(inside("ls /sys/class/net"), "eth0\neth1\nlo");
    daemon.ok(&["network", "disconnect", "lan", "one"]);
    assert_eq!(inside("ls /sys/class/net"), "eth1\nlo");
    daemon.ok(&["network", "connect", "--ip", "192.0.2.9", "lan", "one"]);
    eventually("the neighbour answers again", || {
        pings(&daemon, "one", "192.0.2.77")
    });

    // A daemon that comes later knows who has what.
    daemon.kill_9();
    daemon.restart();
    let taken = daemon.shell(&["--network", "lan", "--ip", "192.0.2.9"], "true");
    assert!(taken.stderr.contains("Address already in use"), "{taken:?}");
    let found = daemon.gamut(&["system", "fsck"]);
    assert_eq!(found.code, 0, "{found:?}");
    let busy = daemon.gamut(&["network", "rm", "lan"]);
    assert!(busy.stderr.contains("has active endpoints"), "{busy:?}");
    daemon.ok(&["rm", "-f", "one", "two"]);
    daemon.ok(&["network", "rm", "lan"]);
    let unplugged = daemon.command("ip").args(["link", "del", "lan0"]).status();
    assert!(unplugged.unwrap().success());
    daemon.finish();
}

#[test]
fn modes_say_who_reaches_whom_and_nonsense_is_refused() {
    let Some(daemon) = daemon() else {
        return;
    };
    create(
        &daemon,
        &[
            "--subnet",
            "192.0.2.0/24",
            "-o",
            "macvlan_mode=private",
            "lan",
        ],
    );
    daemon.detached("one", &["--network", "lan"], "sleep 1000");
    daemon.detached("two", &["--network", "lan"], "sleep 1000");
    // 192.0.2.1 is the gateway by default, and `far0`.
    eventually("the neighbour answers", || {
        pings(&daemon, "one", "192.0.2.1")
    });
    assert!(!pings(&daemon, "one", "192.0.2.3"), "private");
    for (arguments, words) in [
        (&["x"][..], "parent=NAME"),
        (&["-o", "parent=none0", "x"], "does not exist"),
        (&["-o", "parent=lo", "x"], "loopback"),
        (
            &["-o", "parent=lan0", "-o", "macvlan_mode=odd", "x"],
            "is not valid",
        ),
    ] {
        let line = [&["network", "create", "-d", "macvlan"], arguments].concat();
        let output = daemon.gamut(&line);
        assert!(
            output.code != 0 && output.stderr.contains(words),
            "{arguments:?}: {output:?}"
        );
    }
    assert_eq!(
        daemon.lines(&["network", "ls", "-q"]).len(),
        4,
        "nothing half done"
    );
    // A parent that vanishes is told of when it is needed.
    daemon.ok(&["rm", "-f", "two"]);
    let gone = daemon
        .command("ip")
        .args(["link", "del", "lan0"])
        .status()
        .unwrap();
    assert!(gone.success());
    let output = daemon.shell(&["--network", "lan"], "true");
    assert!(output.stderr.contains("lan0 does not exist"), "{output:?}");
    daemon.finish();
}

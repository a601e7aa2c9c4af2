//! What interfaces are like that containers have on networks, and the resolver beside them.

use gamut_tests::{Daemon, eventually};
use serde_json::json;

use crate::networks::{address, helpers, resolves};

/// The worker reads what containers send: it has not kept what the daemon may do.
#[test]
fn the_resolver_has_given_up_what_it_does_not_need() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&["network", "create", "net"]);
    daemon.detached("box", &["--network", "net"], "sleep 1000");
    let worker = || {
        let helpers = helpers(&daemon);
        let is_child = |(_, parent): &&(u32, u32)| helpers.iter().any(|(pid, _)| pid == parent);
        helpers.iter().find(is_child).map(|(pid, _)| *pid)
    };
    let assert_confined = |pid: u32| {
        // Of every thread: one that was there before would have kept all.
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim().to_owned()
            };
            // Entering network namespaces, changing them, and finding those of processes.
            let kept: u64 = 1 << 21 | 1 << 12 | 1 << 19;
            for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
                let held = u64::from_str_radix(&field(set), 16).unwrap();
                assert_eq!(held & !kept, 0, "{set} {held:x}");
            }
            for set in ["CapInh:", "CapAmb:"] {
                assert_eq!(field(set), "0000000000000000", "{set}");
            }
            assert_eq!(field("NoNewPrivs:"), "1");
            assert_eq!(field("Seccomp:"), "2", "a filter");
        }
    };
    assert_confined(worker().unwrap());
    // Nor has one that was started again, by whoever became its keeper.
    for kill_keeper in [false, true] {
        let (first, keeper) = {
            let helpers = helpers(&daemon);
            let pid = worker().unwrap();
            let parent = helpers
                .iter()
                .find(|(one, _)| *one == pid)
                .map(|(_, parent)| *parent);
            (pid, parent.unwrap())
        };
        let victim = if kill_keeper { keeper } else { first };
        // SAFETY: kill(2) takes no pointers; the process belongs to this test's namespaces.
        unsafe { libc::kill(i32::try_from(victim).unwrap(), libc::SIGKILL) };
        eventually("another worker serves", || {
            worker().is_some_and(|pid| pid != first) && resolves(&daemon, "box", "box").len() == 1
        });
        assert_confined(worker().unwrap());
    }
    // A new container is served by it, and a resolver of the container's own is asked inside.
    daemon.detached("late", &["--network", "net"], "sleep 1000");
    assert_eq!(resolves(&daemon, "box", "late").len(), 1);
    daemon.finish();
}

#[test]
fn endpoints_have_the_interface_that_is_asked_for() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&[
        "network",
        "create",
        "--opt",
        "com.docker.network.container_iface_prefix=lan",
        "net",
    ]);
    daemon.ok(&["network", "create", "other"]);
    daemon.detached(
        "box",
        &[
            "--network",
            "name=net,mac-address=02:00:00:00:00:07,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1",
            "--network",
            "name=other,driver-opt=com.docker.network.endpoint.ifname=back",
        ],
        "sleep 1000",
    );
    let inside = |script: &str| daemon.ok(&["exec", "box", "sh", "-c", script]);
    assert_eq!(inside("ls /sys/class/net"), "back\nlan0\nlo");
    assert_eq!(
        inside("cat /sys/class/net/lan0/address"),
        "02:00:00:00:00:07"
    );
    assert_eq!(inside("cat /proc/sys/net/ipv4/conf/lan0/log_martians"), "1");
    assert_eq!(inside("cat /proc/sys/net/ipv4/conf/back/log_martians"), "0");
    let networks = daemon.inspect("box")["NetworkSettings"]["Networks"].take();
    assert_eq!(networks["net"]["MacAddress"], "02:00:00:00:00:07");
    assert_eq!(
        networks["other"]["DriverOpts"],
        json!({"com.docker.network.endpoint.ifname": "back"})
    );
    // On the default network, too, and on one that comes later.
    let own = "name=bridge,driver-opt=com.docker.network.endpoint.ifname=up0";
    assert_eq!(
        daemon.shell(&["--network", own], "ls /sys/class/net").ok(),
        "lo\nup0"
    );
    daemon.ok(&["network", "create", "third"]);
    let option = "com.docker.network.endpoint.ifname=third";
    daemon.ok(&["network", "connect", "--driver-opt", option, "third", "box"]);
    assert_eq!(inside("ls /sys/class/net"), "back\nlan0\nlo\nthird");

    daemon.ok(&["network", "create", "fourth"]);
    for (option, words) in [
        (
            "com.docker.network.endpoint.ifname=back",
            "has an interface back already",
        ),
        (
            "com.docker.network.endpoint.ifname=lo",
            "invalid interface name",
        ),
        (
            "com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1",
            "IFNAME",
        ),
        (
            "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nothing=1",
            "nothing",
        ),
    ] {
        let output = daemon.gamut(&[
            "network",
            "connect",
            "--driver-opt",
            option,
            "fourth",
            "box",
        ]);
        assert!(
            output.code != 0 && output.stderr.contains(words),
            "{option}: {output:?}"
        );
    }
    assert_eq!(
        inside("ls /sys/class/net"),
        "back\nlan0\nlo\nthird",
        "nothing half done"
    );
    let routed = "com.docker.network.bridge.gateway_mode_ipv4=routed";
    let output = daemon.gamut(&["network", "create", "--opt", routed, "x"]);
    assert!(output.stderr.contains("not supported yet"), "{output:?}");
    daemon.finish();
}

/// How much passes is limited in the kernel: by option of an endpoint, of its network, and by the
/// annotations of pods.
#[test]
fn bandwidth_is_limited_as_asked() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let has_buckets = "ip link add tb0 type veth peer name tb1 && tc qdisc add dev tb0 root tbf rate 1mbit \
         burst 32k latency 100ms; status=$?; ip link del tb0; exit $status";
    if !daemon
        .command("sh")
        .args(["-c", has_buckets])
        .status()
        .unwrap()
        .success()
    {
        gamut_tests::skipped("this kernel has no token buckets (tbf)");
        daemon.finish();
        return;
    }
    let tc = |container: Option<&str>| {
        let mut command = daemon.command("tc");
        if let Some(container) = container {
            let path = format!("/proc/{}/ns/net", daemon.container_pid(container));
            command = std::process::Command::new("nsenter");
            command.args([&format!("--net={path}"), "tc"]);
        }
        let output = command.args(["-s", "qdisc", "show"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    daemon.ok(&[
        "network",
        "create",
        "--opt",
        "gamut.bandwidth.ingress=20M",
        "slow",
    ]);
    let send = "nc -ll -p 7000 -e dd if=/dev/zero bs=64k count=12";
    daemon.detached(
        "box",
        &[
            "--network",
            "name=slow,driver-opt=gamut.bandwidth.egress=8M",
        ],
        send,
    );
    let host = tc(None);
    assert!(
        host.contains("qdisc tbf") && host.contains("rate 20Mbit"),
        "{host}"
    );
    let own = tc(Some("box"));
    assert!(
        own.contains("qdisc tbf") && own.contains("rate 8Mbit"),
        "{own}"
    );
    // Much at once has to wait for its turn, and all of it comes.
    let address = address(&daemon, "box", "slow");
    let count = format!("nc {address} 7000 < /dev/null | wc -c");
    let received = daemon.shell(&["--network", "slow"], &count).ok();
    assert_eq!(received.trim(), (12 * 65536).to_string());
    let waited = |text: &str| !text.contains("overlimits 0 ");
    let shown = tc(Some("box"));
    let bucket = shown
        .split("qdisc ")
        .find(|part| part.starts_with("tbf"))
        .unwrap();
    assert!(waited(bucket), "{bucket}");

    // Pods' annotations, on the default network, too; and a network that comes later.
    daemon.detached(
        "pod",
        &["--annotation", "kubernetes.io/ingress-bandwidth=3M"],
        "sleep 1000",
    );
    assert!(tc(None).contains("rate 3Mbit"), "{}", tc(None));
    daemon.ok(&["network", "create", "later"]);
    let option = "gamut.bandwidth.egress=5M";
    daemon.ok(&["network", "connect", "--driver-opt", option, "later", "pod"]);
    assert!(
        tc(Some("pod")).contains("rate 5Mbit"),
        "{}",
        tc(Some("pod"))
    );

    let bad = "kubernetes.io/ingress-bandwidth=much";
    for arguments in [
        &["create", "--annotation", bad, "busybox"][..],
        &[
            "network",
            "create",
            "--opt",
            "gamut.bandwidth.ingress=much",
            "x",
        ],
        &[
            "network",
            "create",
            "--opt",
            "gamut.bandwidth.egress=1",
            "x",
        ],
    ] {
        let output = daemon.gamut(arguments);
        assert!(
            output.code != 0 && output.stderr.contains("bandwidth"),
            "{output:?}"
        );
    }
    daemon.finish();
}

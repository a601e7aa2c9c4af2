//! User-defined networks with IPv6.

use gamut_tests::{Daemon, Output, eventually};
use serde_json::{Value, json};

use crate::networks::resolves;

/// A daemon on a machine with IPv6, and busybox.
fn daemon() -> Option<Daemon> {
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        gamut_tests::skipped("this kernel has no IPv6");
        return None;
    }
    Daemon::with_busybox()
}

fn endpoint(daemon: &Daemon, container: &str, network: &str) -> Value {
    daemon.inspect(container)["NetworkSettings"]["Networks"][network].take()
}

/// Addresses of the sixth version that the resolver tells.
fn resolves6(daemon: &Daemon, container: &str, name: &str) -> Vec<String> {
    let output = daemon.gamut(&["exec", container, "nslookup", "-type=aaaa", name]);
    let (_, answer) = output.stdout.split_once("\n\n").unwrap_or_default();
    let addresses = answer
        .lines()
        .filter_map(|line| line.strip_prefix("Address: "));
    addresses.map(str::to_owned).collect()
}

fn fetches(daemon: &Daemon, container: &str, url: &str) -> Output {
    daemon.gamut(&[
        "exec", container, "timeout", "5", "wget", "-q", "-O", "-", url,
    ])
}

/// Runs a line in the daemon's network namespace.
fn run(daemon: &Daemon, line: &str) -> String {
    let output = daemon.command("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

const SERVE: &str = "echo page > /srv/index.html; exec httpd -f -p 80 -h /srv";

#[test]
fn a_network_has_both_families() {
    let Some(daemon) = daemon() else {
        return;
    };
    daemon.ok(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.71.0.0/24",
        "--subnet",
        "fd00:71::/64",
        "--gateway",
        "fd00:71::fe",
        "--ip-range",
        "fd00:71::ff00/120",
        "--aux-address",
        "printer=fd00:71::ff01",
        "dual",
    ]);
    let shown = daemon.json(&["network", "inspect", "dual"])[0].take();
    assert_eq!(shown["EnableIPv6"], true);
    assert_eq!(
        shown["IPAM"]["Config"],
        json!([{"Subnet": "10.71.0.0/24", "Gateway": "10.71.0.1"},
               {"Subnet": "fd00:71::/64", "Gateway": "fd00:71::fe", "IPRange": "fd00:71::ff00/120",
                "AuxiliaryAddresses": {"printer": "fd00:71::ff01"}}])
    );
    daemon.detached(
        "web",
        &["--network", "dual", "--network-alias", "www"],
        SERVE,
    );
    daemon.detached(
        "fixed",
        &[
            "--network",
            "dual",
            "--ip",
            "10.71.0.77",
            "--ip6",
            "fd00:71::77",
        ],
        "sleep 1000",
    );
    let web = endpoint(&daemon, "web", "dual");
    assert_eq!(web["GlobalIPv6Address"], "fd00:71::ff00");
    assert_eq!(web["GlobalIPv6PrefixLen"], 64);
    assert_eq!(web["IPv6Gateway"], "fd00:71::fe");
    let fixed = endpoint(&daemon, "fixed", "dual");
    assert_eq!(
        (&fixed["GlobalIPv6Address"], &fixed["IPAddress"]),
        (&json!("fd00:71::77"), &json!("10.71.0.77"))
    );
    assert_eq!(
        fixed["IPAMConfig"],
        json!({"IPv4Address": "10.71.0.77", "IPv6Address": "fd00:71::77"})
    );
    let members = daemon.json(&["network", "inspect", "dual"])[0]["Containers"].take();
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "fixed"]);
    assert_eq!(members[&id]["IPv6Address"], "fd00:71::77/64");

    // What the container sees.
    let inside = |script: &str| daemon.ok(&["exec", "web", "sh", "-c", script]);
    assert!(inside("ip -6 addr show dev eth0").contains("fd00:71::ff00/64 scope global"));
    assert!(inside("ip -6 route").contains("default via fd00:71::fe dev eth0"));
    assert_eq!(inside("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6"), "0");
    assert_eq!(inside("cat /proc/sys/net/ipv6/conf/eth0/accept_ra"), "0");
    assert!(
        inside("cat /etc/hosts").contains("fd00:71::ff00\t"),
        "its own line"
    );

    // Names have both, and addresses have names.
    assert_eq!(
        resolves(&daemon, "fixed", "www"),
        [web["IPAddress"].as_str().unwrap()]
    );
    assert_eq!(resolves6(&daemon, "fixed", "www"), ["fd00:71::ff00"]);
    let name = daemon
        .gamut(&["exec", "fixed", "nslookup", "fd00:71::ff00"])
        .stdout;
    assert!(name.contains("web.dual"), "{name}");
    for host in ["[fd00:71::ff00]", "www"] {
        let fetched = fetches(&daemon, "fixed", &format!("http://{host}/"));
        assert_eq!(fetched.stdout, "page\n", "{host}");
    }
    // Only of IPv4: no such data, rather than no such name.
    daemon.ok(&["network", "create", "four"]);
    daemon.detached("plain", &["--network", "four"], "sleep 1000");
    daemon.detached("peer", &["--network", "four"], "sleep 1000");
    assert!(resolves6(&daemon, "peer", "plain").is_empty());
    assert_eq!(resolves(&daemon, "peer", "plain").len(), 1);
    assert_eq!(endpoint(&daemon, "plain", "four")["GlobalIPv6Address"], "");
    let disabled = "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6";
    assert_eq!(daemon.ok(&["exec", "plain", "sh", "-c", disabled]), "1");

    // What cannot be.
    for (arguments, words) in [
        (
            &["--network", "dual", "--ip6", "fd00:72::1"][..],
            "does not belong to any of this network's subnets",
        ),
        (
            &["--network", "dual", "--ip6", "fd00:71::77"],
            "Address already in use",
        ),
        (
            &["--network", "dual", "--ip6", "fd00:71::fe"],
            "cannot be given",
        ),
        (
            &["--network", "four", "--ip6", "fd00:71::9"],
            "network four has no IPv6",
        ),
        (&["--network", "four", "-p", "[::]:8080:80"], "has no IPv6"),
    ] {
        let output = daemon.shell(arguments, "true");
        assert!(output.stderr.contains(words), "{arguments:?}: {output:?}");
    }
    daemon.finish();
}

#[test]
fn subnets_of_the_sixth_version_are_found_when_none_is_named() {
    let Some(mut daemon) = daemon() else {
        return;
    };
    for name in ["one", "two"] {
        daemon.ok(&["network", "create", "--ipv6", name]);
    }
    let subnet = |name: &str| {
        let shown = daemon.json(&["network", "inspect", name])[0].take();
        shown["IPAM"]["Config"][1]["Subnet"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (one, two) = (subnet("one"), subnet("two"));
    // Of one site, chosen by lot, and not the same.
    let site = one.strip_suffix("::/64").unwrap_or_else(|| panic!("{one}"));
    assert!(one.starts_with("fd"), "{one}");
    assert_eq!(two, format!("{site}:1::/64"));
    daemon.detached("first", &["--network", "one"], "sleep 1000");
    let address = endpoint(&daemon, "first", "one")["GlobalIPv6Address"].take();
    assert_eq!(address, json!(format!("{site}::2")));
    // A fixed address needs a subnet that the user named.
    let output = daemon.shell(
        &["--network", "one", "--ip6", &format!("{site}::9")],
        "true",
    );
    assert!(
        output.stderr.contains("user configured subnets"),
        "{output:?}"
    );

    for (arguments, words) in [
        (&["--subnet", "fe80::/64"][..], "reserved"),
        (&["--subnet", "fd00:1::1/64"], "fd00:1::/64"),
        (&["--subnet", &one], "Pool overlaps"),
        (
            &["--subnet", "fd00:1::/64", "--subnet", "fd00:2::/64"],
            "multiple subnets",
        ),
        (&["--subnet", "fd00:1::/127"], "/16 and /126"),
        (
            &["--opt", "com.docker.network.driver.mtu=1279"],
            "1280 to 65535",
        ),
    ] {
        let output = daemon.gamut(&[&["network", "create", "--ipv6", "x"], arguments].concat());
        assert!(output.stderr.contains(words), "{arguments:?}: {output:?}");
    }
    assert_eq!(
        daemon.lines(&["network", "ls", "-q"]).len(),
        5,
        "nothing half done"
    );

    // The daemon that comes next knows all of it, and gives no address twice.
    daemon.kill_9();
    daemon.restart();
    daemon.detached("second", &["--network", "one"], "sleep 1000");
    let other = endpoint(&daemon, "second", "one")["GlobalIPv6Address"].take();
    assert!(
        other != address && !other.as_str().unwrap().is_empty(),
        "{other}"
    );
    assert_eq!(
        endpoint(&daemon, "first", "one")["GlobalIPv6Address"],
        address
    );
    daemon.ok(&[
        "exec",
        "second",
        "ping",
        "-c",
        "1",
        "-W",
        "5",
        address.as_str().unwrap(),
    ]);
    daemon.finish();
}

#[test]
fn ports_are_published_on_both_families() {
    let Some(mut daemon) = daemon() else {
        return;
    };
    daemon.ok(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:71::/64",
        "dual",
    ]);
    let publish = [
        "--network",
        "dual",
        "-p",
        "8080:80",
        "-p",
        "[::]:8081:80",
        "-p",
        "0.0.0.0:8082:80",
    ];
    daemon.detached("web", &publish, SERVE);
    let page = Some("page\n");
    eventually("the page is served", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == page
    });
    for (address, expected) in [
        ("[fd00:71::1]:8080", page),
        ("[fd00:71::1]:8081", page),
        ("127.0.0.1:8081", None),
        ("127.0.0.1:8082", page),
        ("[fd00:71::1]:8082", None),
    ] {
        assert_eq!(daemon.fetch(address).as_deref(), expected, "{address}");
    }
    let ports = daemon.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"].take();
    assert_eq!(
        ports,
        json!([{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "0.0.0.0", "HostPort": "8082"},
               {"HostIp": "::", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8081"}])
    );
    let told = daemon.ok(&["port", "web", "80"]);
    assert!(told.lines().any(|line| line == "[::]:8081"), "{told}");
    // Both families of a port that is chosen have one number.
    daemon.detached("any", &["--network", "dual", "-p", "80"], SERVE);
    let ports = daemon.inspect("any")["NetworkSettings"]["Ports"]["80/tcp"].take();
    assert_eq!(ports.as_array().map(Vec::len), Some(2), "{ports}");
    assert_eq!(ports[0]["HostPort"], ports[1]["HostPort"]);
    let taken = daemon.gamut(&[
        "run",
        "-d",
        "--network",
        "dual",
        "-p",
        "[::]:8080:80",
        "busybox",
        "true",
    ]);
    assert!(
        taken
            .stderr
            .contains("[::]:8080 failed: port is already allocated"),
        "{taken:?}"
    );

    // They outlive the daemon.
    daemon.kill_9();
    daemon.restart();
    assert_eq!(daemon.fetch("[fd00:71::1]:8080").as_deref(), page);

    // A flushed ruleset comes back by itself.
    run(&daemon, "nft flush ruleset");
    eventually("the ports of both families are published again", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == page
            && daemon.fetch("[fd00:71::1]:8081").as_deref() == page
    });
    daemon.finish();
}

#[test]
fn networks_come_and_go_from_a_running_container() {
    let Some(daemon) = daemon() else {
        return;
    };
    daemon.ok(&["network", "create", "four"]);
    daemon.ok(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:71::/64",
        "six",
    ]);
    daemon.ok(&[
        "network",
        "create",
        "--internal",
        "--ipv6",
        "--subnet",
        "fd00:72::/64",
        "inner",
    ]);
    daemon.detached("web", &["--network", "four", "-p", "8080:80"], SERVE);
    let page = Some("page\n");
    eventually("the page is served", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == page
    });
    assert_eq!(daemon.fetch("[fd00:71::1]:8080"), None);
    daemon.ok(&["network", "connect", "--ip6", "fd00:71::99", "six", "web"]);
    daemon.ok(&["network", "connect", "inner", "web"]);
    let routes = || daemon.ok(&["exec", "web", "sh", "-c", "ip -6 route; ip -4 route"]);
    // Each family goes by the network that has it and a way out.
    let shown = routes();
    assert!(shown.contains("default via fd00:71::1 dev eth1"), "{shown}");
    assert!(shown.contains("dev eth0"), "{shown}");
    assert_eq!(daemon.fetch("127.0.0.1:8080").as_deref(), page);
    assert_eq!(
        daemon.fetch("[fd00:71::1]:8080").as_deref(),
        page,
        "it came with the network"
    );
    assert!(
        daemon
            .ok(&["exec", "web", "cat", "/etc/hosts"])
            .contains("fd00:71::99\t")
    );
    daemon.ok(&["network", "disconnect", "six", "web"]);
    let shown = routes();
    assert!(!shown.contains("default via fd00"), "{shown}");
    assert_eq!(daemon.fetch("127.0.0.1:8080").as_deref(), page);
    assert_eq!(daemon.fetch("[fd00:71::1]:8080"), None);
    assert!(
        !daemon
            .ok(&["exec", "web", "cat", "/etc/hosts"])
            .contains("fd00:71::99")
    );
    daemon.ok(&["network", "disconnect", "inner", "web"]);
    daemon.ok(&["network", "disconnect", "four", "web"]);
    daemon.ok(&["network", "connect", "six", "web"]);
    assert_eq!(daemon.fetch("[fd00:71::1]:8080").as_deref(), page);
    daemon.finish();
}

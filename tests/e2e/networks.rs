//! User-defined networks: making and removing them, several per container, names.

use gamut_tests::{Daemon, eventually};
use serde_json::{Value, json};

/// `nslookup` of busybox needs no more than a resolver; this asks the C library's way as well.
pub(crate) fn resolves(daemon: &Daemon, container: &str, name: &str) -> Vec<String> {
    let output = daemon.gamut(&["exec", container, "nslookup", "-type=a", name]);
    let answer = output
        .stdout
        .split_once("\n\n")
        .map_or("", |(_, rest)| rest);
    let addresses = answer
        .lines()
        .filter_map(|line| line.strip_prefix("Address: "));
    let mut addresses: Vec<String> = addresses.map(str::to_owned).collect();
    addresses.sort();
    addresses
}

/// Process id and parent of the resolver's processes.
pub fn helpers(daemon: &Daemon) -> Vec<(u32, u32)> {
    let facts = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.split_once(" (gamut-dns) ")?;
        let parent = rest.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    daemon.processes().into_iter().filter_map(facts).collect()
}

pub fn helpers_are_two(daemon: &Daemon) -> bool {
    helpers(daemon).len() == 2
}

fn address(daemon: &Daemon, container: &str, network: &str) -> String {
    let inspected = daemon.inspect(container);
    inspected["NetworkSettings"]["Networks"][network]["IPAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_network_is_made_inspected_listed_and_removed() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let id = daemon.ok(&[
        "network",
        "create",
        "--subnet",
        "10.77.0.0/16",
        "--ip-range",
        "10.77.5.0/24",
        "--gateway",
        "10.77.0.254",
        "--aux-address",
        "router=10.77.5.1",
        "--label",
        "a=b",
        "--opt",
        "com.docker.network.bridge.name=br-test0",
        "--opt",
        "com.docker.network.driver.mtu=1400",
        "back",
    ]);
    assert_eq!(id.len(), 64);
    let shown = daemon.json(&["network", "inspect", "back"])[0].take();
    assert_eq!(shown["Id"], id);
    assert_eq!(
        shown["IPAM"]["Config"],
        json!([{"Subnet": "10.77.0.0/16", "Gateway": "10.77.0.254", "IPRange": "10.77.5.0/24",
                "AuxiliaryAddresses": {"router": "10.77.5.1"}}])
    );
    assert_eq!(shown["Labels"], json!({"a": "b"}));
    let list = |filter: &str| {
        daemon.ok(&[
            "network",
            "ls",
            "--filter",
            filter,
            "--format",
            "{{.Name}} {{.Driver}}",
        ])
    };
    assert_eq!(list("type=custom"), "back bridge");
    assert_eq!(list("label=a=b"), "back bridge");
    assert_eq!(list("dangling=true"), "back bridge");
    assert_eq!(list("driver=null"), "none null");
    assert_eq!(
        daemon.ok(&["network", "ls", "-q", "--filter", "name=back"]),
        id[..12]
    );

    // Docker's words for what cannot be.
    for (arguments, words) in [
        (&["back"][..], "network with name back already exists"),
        (
            &["--subnet", "10.77.9.0/24", "x"],
            "Pool overlaps with other one",
        ),
        (&["--subnet", "10.78.0.1/24", "x"], "10.78.0.0/24"),
        (
            &["--subnet", "10.78.0.0/24", "--gateway", "10.79.0.1", "x"],
            "no matching subnet",
        ),
        (
            &["bridge"],
            "operation is not permitted on predefined bridge network",
        ),
        (&["-d", "ipvlan", "x"], "not supported yet"),
        (&["a/b"], "invalid network name"),
        (&["a "], "invalid network name"),
        (&["a\nb"], "invalid network name"),
        (
            &["--opt", "com.docker.network.driver.mtu=1", "x"],
            "68 to 65535",
        ),
    ] {
        let output = daemon.gamut(&[&["network", "create"], arguments].concat());
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

    daemon.detached(
        "box",
        &["--network", "back", "--ip", "10.77.200.7"],
        "sleep 1000",
    );
    assert_eq!(address(&daemon, "box", "back"), "10.77.200.7");
    let script = "cat /sys/class/net/eth0/mtu; ip route | grep default";
    assert_eq!(
        daemon.ok(&["exec", "box", "sh", "-c", script]),
        "1400\ndefault via 10.77.0.254 dev eth0"
    );
    let other = daemon
        .shell(&["--network", "back"], "ip -4 -o addr show dev eth0")
        .ok();
    assert!(other.contains("inet 10.77.5."), "out of the range: {other}");
    let taken = daemon.shell(&["--network", "back", "--ip", "10.77.200.7"], "true");
    assert!(taken.stderr.contains("Address already in use"), "{taken:?}");
    let outside = daemon.shell(&["--network", "back", "--ip", "10.1.1.1"], "true");
    assert!(
        outside
            .stderr
            .contains("does not belong to any of this network's subnets")
    );

    let shown = daemon.json(&["network", "inspect", "back"])[0].take();
    let members = shown["Containers"].as_object().unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(
        members.values().next().unwrap()["IPv4Address"],
        "10.77.200.7/16"
    );
    assert_eq!(
        daemon.ok(&["ps", "-q", "--filter", "network=back"]).len(),
        12
    );
    assert_eq!(list("dangling=true"), "");
    let error = daemon.gamut(&["network", "rm", "back"]).fails(1);
    assert!(
        error.contains("has active endpoints (name:\"box\""),
        "{error}"
    );
    let error = daemon.gamut(&["network", "rm", "host"]).fails(1);
    assert!(
        error.contains("pre-defined network and cannot be removed"),
        "{error}"
    );
    assert_eq!(daemon.ok(&["network", "prune", "-f"]), "");
    daemon.ok(&["rm", "-f", "box"]);
    assert_eq!(
        daemon.ok(&["network", "prune", "-f"]),
        "Deleted Networks:\nback"
    );
    let gone = daemon.gamut(&["network", "inspect", "back"]);
    assert!(gone.stderr.contains("network back not found"), "{gone:?}");
    daemon.finish();
}

#[test]
fn networks_are_apart_and_containers_on_one_know_each_others_names() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&["network", "create", "front"]);
    daemon.ok(&["network", "create", "--internal", "back"]);
    let serve = "echo $HOSTNAME > /srv/index.html; exec httpd -f -p 80 -h /srv";
    daemon.detached(
        "web",
        &[
            "--network",
            "front",
            "--network-alias",
            "Site",
            "--hostname",
            "webhost",
            "-p",
            "8080:80",
        ],
        serve,
    );
    daemon.detached(
        "api",
        &["--network", "front", "--network-alias", "site"],
        serve,
    );
    daemon.detached("db", &["--network", "back"], serve);
    daemon.detached("alone", &[], serve);
    let (web, api) = (
        address(&daemon, "web", "front"),
        address(&daemon, "api", "front"),
    );
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    for name in ["web", "webhost", "WEB", "web.front", &id[..12]] {
        assert_eq!(
            resolves(&daemon, "api", name),
            std::slice::from_ref(&web),
            "{name}"
        );
    }
    let mut both = [web.clone(), api.clone()];
    both.sort();
    assert_eq!(resolves(&daemon, "api", "site"), both);
    assert!(resolves(&daemon, "api", "db").is_empty());
    assert!(resolves(&daemon, "db", "web").is_empty());
    // Both families are asked for; there is no answer for the other, and that is no error.
    let both_families = daemon.gamut(&["exec", "api", "nslookup", "web"]);
    assert!(both_families.ok().contains(&web), "{both_families:?}");
    let unknown = daemon.gamut(&["exec", "db", "nslookup", "web.example.test"]);
    assert!(
        unknown.stdout.contains("SERVFAIL"),
        "nobody can be asked: {unknown:?}"
    );
    let fetch = |from: &str, target: &str| {
        let url = format!("http://{target}/");
        daemon.gamut(&["exec", from, "timeout", "3", "wget", "-q", "-O", "-", &url])
    };
    assert_eq!(fetch("api", "web").ok(), "webhost");
    let reverse = daemon.ok(&["exec", "api", "nslookup", &web]);
    assert!(reverse.contains("name = web.front"), "{reverse}");
    let resolv = daemon.ok(&["exec", "api", "cat", "/etc/resolv.conf"]);
    assert!(
        resolv.starts_with("nameserver 127.0.0.11") && resolv.contains("ndots:0"),
        "{resolv}"
    );

    // Apart, but for published ports.
    let db = address(&daemon, "db", "back");
    assert_ne!(fetch("api", &db).code, 0);
    assert_ne!(fetch("alone", &web).code, 0);
    assert_ne!(fetch("db", &web).code, 0);
    assert_eq!(daemon.fetch("127.0.0.1:8080").as_deref(), Some("webhost\n"));
    let gateway = daemon.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Gateway}}",
        "bridge",
    ]);
    assert_eq!(fetch("alone", &format!("{gateway}:8080")).ok(), "webhost");
    // An internal network has no default route.
    assert_eq!(
        daemon.ok(&[
            "exec",
            "db",
            "sh",
            "-c",
            "ip route | grep -c default || true"
        ]),
        "0"
    );

    // A workload that is a name server itself keeps its port.
    let own = "nc -l -p 53 -e true & sleep 1; nslookup -type=a web | tail -n 2";
    let answered = daemon.shell(&["--network", "front"], own).ok();
    assert!(answered.contains(&web), "{answered}");

    // Gone with the container, and known by its new name.
    daemon.ok(&["rename", "api", "backend"]);
    assert_eq!(resolves(&daemon, "web", "backend"), [api]);
    assert!(resolves(&daemon, "web", "api").is_empty());
    daemon.ok(&["rm", "-f", "backend"]);
    assert_eq!(resolves(&daemon, "web", "site"), [web]);
    daemon.finish();
}

#[test]
fn running_containers_are_connected_and_disconnected() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    for (name, subnet) in [("one", "10.71.0.0/24"), ("two", "10.72.0.0/24")] {
        daemon.ok(&["network", "create", "--subnet", subnet, name]);
    }
    let serve = "echo page > /srv/index.html; exec httpd -f -p 80 -h /srv";
    daemon.detached("box", &["-p", "8080:80"], serve);
    daemon.detached("peer", &["--network", "two"], serve);
    daemon.ok(&[
        "network",
        "connect",
        "--alias",
        "see",
        "--ip",
        "10.72.0.9",
        "two",
        "box",
    ]);
    assert_eq!(
        daemon.ok(&["exec", "box", "ls", "/sys/class/net"]),
        "eth0\neth1\nlo"
    );
    assert_eq!(address(&daemon, "box", "two"), "10.72.0.9");
    assert_eq!(resolves(&daemon, "peer", "see"), ["10.72.0.9"]);
    // The container itself came to have a resolver.
    assert_eq!(
        resolves(&daemon, "box", "peer"),
        [address(&daemon, "peer", "two")]
    );
    let hosts = daemon.ok(&["exec", "box", "cat", "/etc/hosts"]);
    assert!(hosts.contains("10.72.0.9"), "{hosts}");
    let again = daemon.gamut(&["network", "connect", "two", "box"]);
    assert!(
        again
            .stderr
            .contains("endpoint with name box already exists in network two")
    );

    // The first by name has the default route, unless priorities say otherwise.
    let default = || {
        daemon.ok(&[
            "exec",
            "box",
            "sh",
            "-c",
            "ip route | sed -n 's/default via \\([^ ]*\\) .*/\\1/p'",
        ])
    };
    let bridge = daemon.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Gateway}}",
        "bridge",
    ]);
    assert_eq!(default(), bridge);
    daemon.ok(&["network", "connect", "--gw-priority", "5", "one", "box"]);
    assert_eq!(default(), "10.71.0.1");
    assert_eq!(daemon.fetch("127.0.0.1:8080").as_deref(), Some("page\n"));
    let ports = daemon.inspect("box")["NetworkSettings"]["Ports"].take();
    assert_eq!(ports["80/tcp"][0]["HostPort"], "8080", "{ports}");

    // Ports and route move on when their network goes.
    daemon.ok(&["network", "disconnect", "one", "box"]);
    assert_eq!(default(), bridge);
    daemon.ok(&["network", "disconnect", "bridge", "box"]);
    assert_eq!(default(), "10.72.0.1");
    assert_eq!(daemon.fetch("127.0.0.1:8080").as_deref(), Some("page\n"));
    assert_eq!(
        daemon.ok(&["exec", "box", "ls", "/sys/class/net"]),
        "eth1\nlo"
    );
    let not = daemon.gamut(&["network", "disconnect", "one", "box"]);
    assert!(
        not.stderr.contains("is not connected to network one"),
        "{not:?}"
    );

    // Kept over a stop, changed while stopped.
    daemon.ok(&["stop", "-t", "0", "box"]);
    daemon.ok(&["network", "connect", "--alias", "first", "one", "box"]);
    daemon.ok(&["network", "disconnect", "two", "box"]);
    daemon.ok(&["start", "box"]);
    assert_eq!(
        daemon.ok(&["exec", "box", "ls", "/sys/class/net"]),
        "eth0\nlo"
    );
    assert_eq!(default(), "10.71.0.1");
    let networks = daemon.inspect("box")["NetworkSettings"]["Networks"].take();
    let names: Vec<&String> = networks.as_object().unwrap().keys().collect();
    assert_eq!(names, ["one"], "{networks}");

    for (container, network, words) in [
        ("box", "host", "host network"),
        ("box", "none", "private (none) mode"),
        ("none", "one", "private (none) mode"),
        ("host", "one", "host network"),
    ] {
        if container != "box" {
            daemon.detached(container, &["--network", container], "sleep 1000");
        }
        let output = daemon.gamut(&["network", "connect", network, container]);
        assert!(
            output.stderr.contains(words),
            "{container} {network}: {output:?}"
        );
    }
    daemon.finish();
}

#[test]
fn a_container_is_made_on_several_networks() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    for name in ["aa", "mm", "zz"] {
        daemon.ok(&["network", "create", name]);
    }
    daemon.detached(
        "box",
        &[
            "--network",
            "mm",
            "--network",
            "name=zz,alias=last",
            "--network",
            "name=aa,gw-priority=-1",
        ],
        "sleep 1000",
    );
    daemon.detached(
        "peer",
        &["--network", "zz", "--link", "box:linked"],
        "sleep 1000",
    );
    let networks = daemon.inspect("box")["NetworkSettings"]["Networks"].take();
    let on = |interface: &str| {
        let script =
            format!("ip -4 -o addr show dev {interface} | sed 's/.*inet \\([^/]*\\).*/\\1/'");
        Value::from(daemon.ok(&["exec", "box", "sh", "-c", &script]))
    };
    // That of the mode first, then by name.
    for (interface, network) in [("eth0", "mm"), ("eth1", "aa"), ("eth2", "zz")] {
        assert_eq!(on(interface), networks[network]["IPAddress"], "{networks}");
    }
    let route = daemon.ok(&["exec", "box", "sh", "-c", "ip route | grep default"]);
    assert!(route.ends_with("dev eth0"), "{route}");
    assert_eq!(
        resolves(&daemon, "peer", "last"),
        [address(&daemon, "box", "zz")]
    );
    assert_eq!(
        resolves(&daemon, "peer", "linked"),
        [address(&daemon, "box", "zz")]
    );
    assert_eq!(networks["zz"]["Aliases"], json!(["last"]));
    assert_eq!(daemon.inspect("box")["HostConfig"]["NetworkMode"], "mm");

    // Links of the default network stand in the file of names.
    daemon.detached("plain", &[], "sleep 1000");
    let hosts = daemon.shell(&["--link", "plain:db"], "cat /etc/hosts").ok();
    let plain = address(&daemon, "plain", "bridge");
    assert!(hosts.contains(&format!("{plain}\tdb ")), "{hosts}");
    let unknown = daemon.shell(&["--link", "nobody:db"], "true");
    assert!(
        unknown
            .stderr
            .contains("could not get container for nobody"),
        "{unknown:?}"
    );
    daemon.finish();
}

#[test]
fn networks_names_and_addresses_outlive_the_daemon_and_the_resolver() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&["network", "create", "net"]);
    let serve = "echo page > /srv/index.html; exec httpd -f -p 80 -h /srv";
    daemon.detached("first", &["--network", "net"], serve);
    daemon.detached("second", &["--network", "net", "-p", "8080:80"], serve);
    let (a, b) = (
        address(&daemon, "first", "net"),
        address(&daemon, "second", "net"),
    );
    assert_eq!(
        resolves(&daemon, "first", "second"),
        std::slice::from_ref(&b)
    );

    // The worker is killed, then its keeper.
    for is_keeper in [false, true] {
        let helpers = helpers(&daemon);
        assert_eq!(helpers.len(), 2, "a keeper and a worker");
        let parents: Vec<u32> = helpers.iter().map(|(_, parent)| *parent).collect();
        let (pid, _) = helpers
            .iter()
            .find(|(pid, _)| parents.contains(pid) == is_keeper)
            .unwrap();
        // SAFETY: kill(2) takes no pointers; the process belongs to this test's namespaces.
        unsafe { libc::kill(i32::try_from(*pid).unwrap(), libc::SIGKILL) };
        eventually("names are known again", || {
            resolves(&daemon, "first", "second") == [b.clone()] && helpers_are_two(&daemon)
        });
    }

    // With the daemon dead, and by a worker that it never knew.
    let inside = format!("/proc/{}", daemon.container_pid("first"));
    daemon.kill_9();
    let (worker, _) = helpers(&daemon).pop().unwrap();
    // SAFETY: kill(2) takes no pointers; the process belongs to this test's namespaces.
    unsafe { libc::kill(i32::try_from(worker).unwrap(), libc::SIGKILL) };
    eventually("names are known without the daemon", || {
        let mut command = std::process::Command::new("nsenter");
        command.args([
            &format!("--net={inside}/ns/net"),
            "busybox",
            "nslookup",
            "-type=a",
            "second",
            "127.0.0.11",
        ]);
        let output = command.output().expect("nsenter and busybox run");
        String::from_utf8_lossy(&output.stdout).contains(&b)
    });
    daemon.restart();
    assert_eq!(
        resolves(&daemon, "first", "second"),
        std::slice::from_ref(&b)
    );
    assert_eq!(daemon.fetch("127.0.0.1:8080").as_deref(), Some("page\n"));
    // No address is given twice.
    daemon.detached("third", &["--network", "net"], "sleep 1000");
    let c = address(&daemon, "third", "net");
    assert!(c != a && c != b && !c.is_empty(), "{a} {b} {c}");
    assert_eq!(resolves(&daemon, "first", "third"), [c]);
    assert_eq!(
        daemon.ok(&["system", "fsck"]),
        daemon.ok(&["system", "fsck"])
    );

    // Its bridge and rules come back when somebody removes them.
    let bridge = daemon.json(&["network", "inspect", "net"])[0]["Id"].take();
    let bridge = format!("br-{}", &bridge.as_str().unwrap()[..12]);
    let run = |line: &str| {
        let status = daemon.command("sh").args(["-c", line]).status().unwrap();
        assert!(status.success(), "{line}");
    };
    run(&format!("ip link del {bridge}; nft delete table ip gamut0"));
    let found = daemon.gamut(&["system", "fsck", "--repair"]);
    assert!(found.stdout.contains("bridge"), "{found:?}");
    let url = "http://second/";
    let fetched = daemon.gamut(&[
        "exec", "first", "timeout", "5", "wget", "-q", "-O", "-", url,
    ]);
    assert_eq!(fetched.stdout, "page\n", "{fetched:?}");
    assert_eq!(daemon.fetch("127.0.0.1:8080").as_deref(), Some("page\n"));
    daemon.finish();
}

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

#[test]
fn the_stock_client_knows_the_networks_and_their_events() {
    if !gamut_tests::has("docker") {
        return;
    }
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let docker = |arguments: &[&str]| daemon.docker(arguments).ok();
    let id = docker(&["network", "create", "--label", "x=y", "net"]);
    docker(&[
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "net",
        "busybox",
        "sleep",
        "1000",
    ]);
    docker(&["network", "create", "other"]);
    docker(&["network", "connect", "--alias", "box2", "other", "box"]);
    docker(&["network", "disconnect", "other", "box"]);
    assert_eq!(
        docker(&[
            "ps",
            "--filter",
            "network=net",
            "--format",
            "{{.Names}} {{.Networks}}"
        ]),
        "box net"
    );
    let listed = docker(&[
        "network",
        "ls",
        "--no-trunc",
        "--filter",
        "label=x",
        "--format",
        "{{.ID}}",
    ]);
    assert_eq!(listed, id);
    docker(&["rm", "-f", "box"]);
    assert_eq!(
        docker(&["network", "prune", "-f", "--filter", "label=x"]),
        "Deleted Networks:\nnet"
    );
    docker(&["network", "rm", "other"]);
    // The client tells `--until` in whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let format = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}";
    let events = docker(&[
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "--filter",
        "type=network",
        "--format",
        format,
    ]);
    assert_eq!(
        events,
        "create net bridge\nconnect net bridge\ncreate other bridge\nconnect other bridge\n\
         disconnect other bridge\ndisconnect net bridge\ndestroy net bridge\ndestroy other bridge"
    );
    daemon.finish();
}

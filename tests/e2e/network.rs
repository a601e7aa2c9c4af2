//! Networks and published ports.

use gamut_tests::{Daemon, eventually};

#[test]
fn published_tcp_and_udp_ports_are_answered() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let web = "echo 'page of the container' > /srv/index.html; exec httpd -f -p 80 -h /srv";
    daemon.detached(
        "web",
        &["-p", "8080:80", "-p", "127.0.0.1:8081:80/tcp"],
        web,
    );
    eventually("the page is served", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == Some("page of the container\n")
    });
    assert!(daemon.fetch("127.0.0.1:8081").is_some());
    let gateway = daemon.ok(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "web"]);
    assert!(
        daemon.fetch(&format!("{gateway}:8080")).is_some(),
        "{gateway}"
    );
    // Bound to loopback only.
    assert!(
        daemon.fetch(&format!("{gateway}:8081")).is_none(),
        "{gateway}"
    );

    // Another container reaches it by its address, and by the host's port.
    let address = daemon.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let fetch = |target: &str| {
        daemon
            .shell(&[], &format!("wget -q -O - http://{target}/"))
            .stdout
    };
    assert_eq!(fetch(&address), "page of the container\n");
    assert_eq!(fetch(&format!("{gateway}:8080")), "page of the container\n");

    // UDP.
    daemon.detached("echo", &["-p", "9090:9000/udp"], "sleep 1000");
    let echo = daemon.answer_datagrams("echo", 9000);
    eventually("the datagram is answered", || {
        daemon.ask("127.0.0.1:9090", "hello\n").as_deref() == Some("answer to hello\n")
    });

    drop(echo);

    // Taken ports are refused, and the refused container is not half started.
    let taken = daemon.gamut(&[
        "run", "-d", "--name", "late", "-p", "8080:80", "busybox", "sleep", "1000",
    ]);
    let error = taken.fails(125);
    assert!(error.contains("8080"), "{error}");
    assert_ne!(daemon.inspect("late")["State"]["Status"], "running");

    // Gone with the container, and free again.
    daemon.ok(&["rm", "-f", "web"]);
    assert!(daemon.fetch("127.0.0.1:8080").is_none());
    daemon.ok(&["start", "late"]);
    daemon.finish();
}

/// `-p FIRST-LAST:PORT` takes the first port that is free; two ranges go side by side.
#[test]
fn ranges_of_ports_are_published() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let serve = "echo page > /srv/index.html; exec httpd -f -p 80 -h /srv";
    for (name, expected) in [("one", "8000"), ("two", "8001"), ("three", "8002")] {
        daemon.detached(name, &["-p", "127.0.0.1:8000-8002:80"], serve);
        let ports = daemon.ok(&["port", name, "80"]);
        assert_eq!(ports, format!("127.0.0.1:{expected}"));
        let address = format!("127.0.0.1:{expected}");
        eventually("the page is served", || daemon.fetch(&address).is_some());
    }
    let full = daemon.gamut(&[
        "run",
        "-d",
        "-p",
        "127.0.0.1:8000-8002:80",
        "busybox",
        "true",
    ]);
    let error = full.fails(125);
    assert!(error.contains("8000") && error.contains("8002"), "{error}");
    let asked = daemon.inspect("two")["HostConfig"]["PortBindings"]["80/tcp"][0].take();
    assert_eq!(asked["HostPort"], "8000-8002");
    daemon.detached("pair", &["-p", "9000-9001:80-81"], serve);
    let ports = daemon.ok(&["port", "pair"]);
    assert_eq!(ports, "80/tcp -> 0.0.0.0:9000\n81/tcp -> 0.0.0.0:9001");
    daemon.finish();
}

/// `host.docker.internal`, also by `host-gateway` under another name.
#[test]
fn the_host_is_reached_by_its_name() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&["network", "create", "net"]);
    // A server of the host's own, and one that is published.
    let serve = "echo host > /srv/index.html; exec httpd -f -p 8090 -h /srv";
    daemon.detached("server", &["--network", "host"], serve);
    let published = "echo published > /srv/index.html; exec httpd -f -p 80 -h /srv";
    daemon.detached("web", &["-p", "8080:80"], published);
    eventually("both are served", || {
        daemon.fetch("127.0.0.1:8090").is_some() && daemon.fetch("127.0.0.1:8080").is_some()
    });
    for network in ["bridge", "net"] {
        for name in ["host.docker.internal", "machine"] {
            let fetch = |port: &str| {
                let script = format!("timeout 5 wget -q -O - http://{name}:{port}/");
                let options = ["--network", network, "--add-host", "machine:host-gateway"];
                daemon.shell(&options, &script)
            };
            for (port, page) in [("8090", "host\n"), ("8080", "published\n")] {
                let fetched = fetch(port);
                assert_eq!(fetched.stdout, page, "{network} {name}: {fetched:?}");
            }
        }
    }
    // The container itself, by its own published port.
    let itself = "timeout 5 wget -q -O - http://host.docker.internal:8080/";
    assert_eq!(daemon.ok(&["exec", "web", "sh", "-c", itself]), "published");
    daemon.finish();
}

#[test]
fn publish_all_finds_ports() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    daemon.ok(&["run", "-d", "--name", "web", "-P", "hello-http"]);
    let port = daemon.ok(&["port", "web"]);
    let host = port
        .lines()
        .next()
        .unwrap()
        .split(" -> ")
        .nth(1)
        .unwrap()
        .to_owned();
    let port = host.rsplit(':').next().unwrap().to_owned();
    eventually("the built-in server answers", || {
        daemon
            .fetch(&format!("127.0.0.1:{port}"))
            .is_some_and(|page| !page.is_empty())
    });
    // A port without a host's part is any free one.
    daemon.ok(&["run", "-d", "--name", "any", "-p", "80", "hello-http"]);
    let any = daemon.ok(&["port", "any", "80"]);
    assert!(
        any.starts_with("0.0.0.0:") && !any.starts_with("0.0.0.0:0"),
        "{any}"
    );
    daemon.finish();
}

#[test]
fn network_modes() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // none: loopback only.
    assert_eq!(
        daemon
            .shell(&["--network", "none"], "ls /sys/class/net")
            .ok(),
        "lo"
    );
    // host: the daemon's own.
    let own = daemon
        .shell(&["--network", "host"], "ip -o link show dev gamut0 | wc -l")
        .ok();
    assert_eq!(own, "1");
    // container: the other's loopback.
    daemon.detached(
        "web",
        &[],
        "cd /srv; echo shared > index.html; exec httpd -f -p 80 -h /srv",
    );
    eventually("its server is reached over loopback", || {
        let fetch = "wget -q -O - http://127.0.0.1/";
        daemon.shell(&["--network", "container:web"], fetch).stdout == "shared\n"
    });
    // The default: an address, a route, and a resolver configuration.
    let script = "ip route | grep -c default; test -s /etc/resolv.conf && echo resolv; ip -o -4 addr show dev eth0 | wc -l";
    assert_eq!(daemon.shell(&[], script).ok(), "1\nresolv\n1");
    let dns = daemon
        .shell(
            &["--dns", "192.0.2.53", "--dns-search", "corp.test"],
            "cat /etc/resolv.conf",
        )
        .ok();
    assert!(
        dns.contains("nameserver 192.0.2.53") && dns.contains("search corp.test"),
        "{dns}"
    );

    let networks = daemon.ok(&["network", "ls", "--format", "{{.Name}}"]);
    for name in ["bridge", "host", "none"] {
        assert!(networks.lines().any(|line| line == name), "{networks}");
    }
    let bridge = daemon.json(&["network", "inspect", "bridge"])[0].take();
    assert_eq!(
        bridge["Containers"].as_object().map(serde_json::Map::len),
        Some(1),
        "{bridge}"
    );
    for network in ["no-such-net", "container:nobody"] {
        let error = daemon
            .gamut(&["run", "--rm", "--network", network, "busybox", "true"])
            .fails(125);
        assert!(
            error.contains(network.trim_start_matches("container:")),
            "{error}"
        );
    }
    daemon.finish();
}

#[test]
fn addresses_are_given_back() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    for _ in 0..10 {
        let _ = daemon.shell(&[], "true").ok();
    }
    let bridge = daemon.json(&["network", "inspect", "bridge"])[0].take();
    assert_eq!(
        bridge["Containers"].as_object().map(serde_json::Map::len),
        Some(0),
        "{bridge}"
    );
    daemon.finish();
}

//! The engine of an ordinary user.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use gamut_tests::{
    MACHINE_ADDRESS, Machine, NEIGHBOUR_ADDRESS, Namespaces, User, busybox, eventually, exchange,
};
use serde_json::{Value, json};

/// A user with the tests' image, loaded from an archive in docker's format.
fn with_busybox(machine: Machine) -> Option<User> {
    let archive = busybox()?;
    let user = User::new(machine)?;
    let import = user.gamut_with_input(&["import", "-", "busybox"], archive);
    assert_eq!(import.code, 0, "{import:#?}\n{}", user.log());
    Some(user)
}

/// Fetches the page at an address from within a network; `None` if nothing answers.
fn fetch(from: &Namespaces, address: &str) -> Option<String> {
    let address = address.parse().unwrap();
    from.inside(|| {
        let limit = Duration::from_secs(5);
        let stream = TcpStream::connect_timeout(&address, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        let answer = exchange(stream, "GET", "/", "text/plain", b"").ok()?;
        Some(answer.text())
    })
}

const WEB: &str =
    "mkdir -p /srv/web; echo page > /srv/web/index.html; exec httpd -f -vv -p 80 -h /srv/web";

#[test]
fn an_ordinary_user_runs_containers() {
    let Some(user) = with_busybox(Machine::Usual) else {
        return;
    };
    // Nobody has started a daemon.
    let hello = user.ok(&["run", "--rm", "hello-world"]);
    assert!(hello.contains("Hello from Gamut"), "{hello}");
    let info = user.ok(&["info", "--format", "{{json .SecurityOptions}}"]);
    assert!(info.contains("name=rootless"), "{info}");
    let root = user.ok(&["info", "--format", "{{.DockerRootDir}}"]);
    assert_eq!(
        root,
        format!("{}/.local/share/gamut", user.home().display())
    );

    // What the user says about registries counts at once.
    let settings = user.home().join(".config/gamut");
    fs::create_dir_all(&settings).unwrap();
    let text = r#"{"registries": {"docker.io": {"mirrors": ["https://mirror.example"]}}}"#;
    fs::write(settings.join("registries.json"), text).unwrap();
    let registries = user.ok(&["info", "--format", "{{json .RegistryConfig}}"]);
    assert!(
        registries.contains("https://mirror.example"),
        "{registries}"
    );

    // An archive goes out and comes in again.
    let path = user.home().join("image.tar").display().to_string();
    user.ok(&["save", "-o", &path, "busybox"]);
    user.ok(&["rmi", "busybox"]);
    assert!(user.ok(&["load", "-i", &path]).contains("busybox:latest"));

    // Root inside is the user outside, everybody else one of his subordinates.
    user.ok(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]);
    let script = "id -u; touch /root-file; chown alice /root-file; stat -c %u /root-file; \
                  stat -c %u /home/alice; awk '{print $2}' /proc/self/uid_map";
    let said = user.ok(&["exec", "one", "sh", "-c", script]);
    let first = user.first_subordinate();
    assert_eq!(said, format!("0\n1000\n1000\n{}\n{first}", user.uid()));
    let said = user.ok(&["exec", "-u", "alice", "one", "id"]);
    assert!(
        said.contains("uid=1000(alice)") && said.contains("50(staff)"),
        "{said}"
    );
    let pid: u32 = user
        .ok(&["inspect", "-f", "{{.State.Pid}}", "one"])
        .parse()
        .unwrap();
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_eq!(owner, user.uid());
    assert!(user.ok(&["top", "one"]).contains("sleep 1000"));

    // Logs, standard input, exit codes.
    user.ok(&["run", "--name", "said", "busybox", "echo", "logged"]);
    assert_eq!(user.ok(&["logs", "said"]), "logged");
    let piped = user.gamut_with_input(&["run", "--rm", "-i", "busybox", "cat"], b"through");
    assert_eq!(piped.ok(), "through");
    assert_eq!(
        user.gamut(&["run", "--rm", "busybox", "sh", "-c", "exit 7"])
            .code,
        7
    );

    // A volume takes what the image has, with its owners; a bind mount belongs to the user.
    let listed = user.ok(&[
        "run",
        "--rm",
        "-v",
        "kept:/home",
        "busybox",
        "ls",
        "-ln",
        "/home",
    ]);
    assert!(listed.contains("1000     1000"), "{listed}");
    let bind = format!("{}/shared:/shared", user.home().display());
    user.ok(&[
        "run",
        "--rm",
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "echo kept > /shared/file",
    ]);
    let file = user.home().join("shared/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
    assert_eq!(fs::metadata(&file).unwrap().uid(), user.uid());

    // What is written stays; what is removed from a layer stays removed; copies come out.
    user.ok(&[
        "run",
        "--name",
        "writer",
        "busybox",
        "sh",
        "-c",
        "rm -r /srv/site /data; mkdir /data; echo new > /data/n",
    ]);
    let out = user.home().join("out").display().to_string();
    user.ok(&["cp", "writer:/data", &out]);
    let names: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["n"]);
    user.ok(&["start", "-a", "writer"]);

    // A privileged container may mount, in its own namespaces.
    let mounted = user.ok(&[
        "run",
        "--rm",
        "--privileged",
        "busybox",
        "sh",
        "-c",
        "mount -t tmpfs x /tmp && echo yes",
    ]);
    assert_eq!(mounted, "yes");

    // Nothing of it is left when everything is removed and the daemon ends.
    let all = user.ok(&["ps", "-a", "-q"]);
    let mut remove = vec!["rm", "-f", "-v"];
    remove.extend(all.lines());
    user.ok(&remove);
    user.terminate_daemon();
    eventually("the helpers end with the last container", || {
        user.processes("").is_empty()
    });
}

#[test]
fn limits_without_control_groups_are_warned_about() {
    let Some(user) = with_busybox(Machine::Usual) else {
        return;
    };
    if user.ok(&["info", "--format", "{{.CgroupDriver}}"]) != "none" {
        gamut_tests::skipped("this machine delegates control groups to its users");
        return;
    }
    let limited = user.gamut(&[
        "run",
        "--rm",
        "-m",
        "32m",
        "--pids-limit",
        "20",
        "busybox",
        "echo",
        "runs",
    ]);
    assert_eq!(limited.ok(), "runs");
    for flag in ["--memory)", "--pids-limit)"] {
        assert!(limited.stderr.contains(flag), "{}", limited.stderr);
    }
    assert!(
        limited.stderr.contains("is discarded: "),
        "{}",
        limited.stderr
    );
    assert!(!limited.stderr.contains("--cpus"), "{}", limited.stderr);
    let plain = user.gamut(&["run", "--rm", "busybox", "true"]);
    assert_eq!(plain.stderr, "");

    // What needs a group says so.
    user.ok(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]);
    for command in [&["pause", "one"][..], &["update", "-m", "32m", "one"]] {
        let error = user.gamut(command).fails(1);
        assert!(error.contains("it has no control group: "), "{error}");
    }
    let stats = user.gamut(&["stats", "--no-stream", "one"]);
    assert!(
        stats.stderr.contains("it has no control group: "),
        "{stats:#?}"
    );
    user.ok(&["stop", "-t", "0", "one"]);
}

#[test]
fn published_ports_keep_the_source_address() {
    let Some(user) = with_busybox(Machine::Usual) else {
        return;
    };
    user.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:80",
        "busybox",
        "sh",
        "-c",
        WEB,
    ]);
    let remote = format!("{MACHINE_ADDRESS}:8080");
    eventually("the neighbour gets the page", || {
        fetch(user.neighbour(), &remote).as_deref() == Some("page\n")
    });
    // The server speaks of its clients on standard error.
    let logs = user.gamut(&["logs", "web"]).stderr;
    assert!(logs.contains(&format!("{NEIGHBOUR_ADDRESS}]:")), "{logs}");

    // The machine itself: over loopback, and by its own address.
    for address in ["127.0.0.1:8080", "127.0.0.1:8081", &remote] {
        let page = fetch(user.machine(), address);
        assert_eq!(page.as_deref(), Some("page\n"), "{address}");
    }
    // What is bound to loopback is not there for others.
    assert_eq!(
        fetch(user.neighbour(), &format!("{MACHINE_ADDRESS}:8081")),
        None
    );
    // Another container reaches it by its gateway.
    let gateway = user.ok(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "web"]);
    let script = format!("wget -q -O - http://{gateway}:8080/");
    assert_eq!(
        user.ok(&["run", "--rm", "busybox", "sh", "-c", &script]),
        "page"
    );

    // Taken by a process of the machine; not the user's to have; no address of the machine.
    let taken = user
        .machine()
        .inside(|| TcpListener::bind("0.0.0.0:9000").unwrap());
    let refusals = [
        ("9000:80", "port is already allocated"),
        ("8080:80", "port is already allocated"),
        ("80:80", "ip_unprivileged_port_start"),
        ("10.77.0.99:9001:80", "is not an address of this host"),
    ];
    for (publish, reason) in refusals {
        let error = user
            .gamut(&["run", "-d", "-p", publish, "busybox", "sleep", "9"])
            .fails(125);
        assert!(error.contains(reason), "{publish}: {error}");
    }
    drop(taken);

    // UDP, with the neighbour's address as well: answers come from the port that was asked.
    user.ok(&[
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        "9053:53/udp",
        "busybox",
        "sleep",
        "1000",
    ]);
    let pid = user.ok(&["inspect", "-f", "{{.State.Pid}}", "echo"]);
    let inside = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let answering = gamut_tests::Answering::start(&inside, 53);
    eventually("the datagram is answered", || {
        user.neighbour().inside(|| {
            let socket = UdpSocket::bind((NEIGHBOUR_ADDRESS, 0)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket.connect(format!("{MACHINE_ADDRESS}:9053")).unwrap();
            let mut answer = [0; 64];
            socket.send(b"hello").is_ok()
                && socket
                    .recv(&mut answer)
                    .is_ok_and(|count| &answer[..count] == b"answer to hello")
        })
    });
    drop(answering);

    // Any free port; all go with their container.
    user.ok(&[
        "run", "-d", "--name", "any", "-p", "80", "busybox", "sh", "-c", WEB,
    ]);
    let any = user.ok(&["port", "any", "80"]);
    let port = any.rsplit(':').next().unwrap().to_owned();
    eventually("the chosen port answers", || {
        fetch(user.neighbour(), &format!("{MACHINE_ADDRESS}:{port}")).is_some()
    });
    user.ok(&["rm", "-f", "web", "any", "echo"]);
    assert_eq!(fetch(user.neighbour(), &remote), None);
    assert_eq!(
        fetch(user.neighbour(), &format!("{MACHINE_ADDRESS}:{port}")),
        None
    );
}

#[test]
fn containers_reach_the_network_outside() {
    let Some(user) = with_busybox(Machine::Usual) else {
        return;
    };
    let server = user
        .neighbour()
        .inside(|| TcpListener::bind((NEIGHBOUR_ADDRESS, 7000)).unwrap());
    let serving = user.neighbour().spawn_inside(move || {
        let (mut stream, peer) = server.accept().unwrap();
        let mut question = [0; 6];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"from outside\n").unwrap();
        peer
    });
    let script = format!("(echo hello; sleep 1) | nc {NEIGHBOUR_ADDRESS} 7000");
    let answer = user.ok(&["run", "--rm", "busybox", "sh", "-c", &script]);
    assert_eq!(answer, "from outside");
    let peer = serving.join().unwrap();
    assert_eq!(peer.ip().to_string(), MACHINE_ADDRESS);
    // Services on the machine's loopback are not for containers.
    let service = user
        .machine()
        .inside(|| TcpListener::bind("127.0.0.1:7001").unwrap());
    let script = format!(
        "nc -w 2 {MACHINE_ADDRESS} 7001 </dev/null; nc -w 2 {NEIGHBOUR_ADDRESS} 7001 </dev/null"
    );
    let refused = user.gamut(&["run", "--rm", "busybox", "sh", "-c", &script]);
    assert_ne!(refused.code, 0, "{refused:#?}");
    service.set_nonblocking(true).unwrap();
    assert!(
        service.accept().is_err(),
        "a container got through to loopback"
    );
}

#[test]
fn containers_survive_the_daemon_and_its_helpers() {
    let Some(user) = with_busybox(Machine::Usual) else {
        return;
    };
    user.ok(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", WEB,
    ]);
    let pid = user.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let remote = format!("{MACHINE_ADDRESS}:8080");
    let answers = || fetch(user.neighbour(), &remote).as_deref() == Some("page\n");
    eventually("the port answers", answers);

    // The daemon: nothing notices, and the next one takes over.
    user.kill_9("gamut daemon");
    assert!(answers());
    assert_eq!(user.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]), pid);
    user.ok(&["exec", "web", "true"]);
    assert!(answers());

    // The forwarder and pasta are started again.
    user.kill_9("rootless-forwarder");
    eventually("the port answers again", answers);
    user.kill_9("pasta --config-net");
    eventually("pasta runs again", || {
        !user.processes("pasta --config-net").is_empty()
    });

    // The process outside, with the daemon: the namespaces are found again.
    user.kill_9("rootless-parent");
    user.kill_9("gamut daemon");
    assert_eq!(user.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]), pid);
    user.ok(&[
        "run", "-d", "--name", "second", "-p", "8082:80", "busybox", "sh", "-c", WEB,
    ]);
    assert!(answers());
    eventually("a port that is published now answers", || {
        fetch(user.neighbour(), &format!("{MACHINE_ADDRESS}:8082")).is_some()
    });
    // The two share a network: they live in the same namespaces.
    let address = user.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let page = user.ok(&[
        "exec",
        "second",
        "wget",
        "-q",
        "-O",
        "-",
        &format!("http://{address}/"),
    ]);
    assert_eq!(page, "page");

    // All of them at once: only supervisors are left in the namespaces.
    for helper in [
        "rootless-parent",
        "rootless-forwarder",
        "pasta --config-net",
        "gamut daemon",
    ] {
        user.kill_9(helper);
    }
    let page = user.ok(&[
        "exec",
        "second",
        "wget",
        "-q",
        "-O",
        "-",
        &format!("http://{address}/"),
    ]);
    assert_eq!(page, "page");
    eventually("the port answers after all", answers);
    assert_eq!(user.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]), pid);
}

#[test]
fn one_id_is_enough_for_one_user() {
    let Some(user) = with_busybox(Machine::WithoutSubordinateIds) else {
        return;
    };
    let info = user.gamut(&["info"]);
    let warnings = format!("{}{}", info.stdout, info.stderr);
    assert!(
        warnings.contains("/etc/subuid has no entry for carol") && warnings.contains("usermod"),
        "{warnings}"
    );
    // The image has files of others: they are root's now.
    let listed = user.ok(&["run", "--rm", "busybox", "stat", "-c", "%u", "/home/alice"]);
    assert_eq!(listed, "0");
    let error = user.gamut(&["run", "--rm", "-u", "alice", "busybox", "id"]);
    assert_ne!(error.code, 0, "{error:#?}");
    assert!(error.stderr.contains("1000"), "{error:#?}");
}

#[test]
fn without_pasta_there_is_a_network_but_no_outside() {
    let Some(user) = with_busybox(Machine::WithoutPasta) else {
        return;
    };
    let info = user.gamut(&["info"]);
    let warnings = format!("{}{}", info.stdout, info.stderr);
    assert!(warnings.contains("apt install passt"), "{warnings}");
    user.ok(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", WEB,
    ]);
    eventually("published ports need no pasta", || {
        fetch(user.machine(), "127.0.0.1:8080").as_deref() == Some("page\n")
    });
}

/// A bundle of the user's: the tests' image, mapped ids, and what is to be run.
fn bundle(user: &User, name: &str, mappings: &[(u32, u32, u32)], resources: &Value) -> String {
    let directory = user.home().join(name);
    let rootfs = directory.join("rootfs");
    fs::create_dir_all(&rootfs).unwrap();
    let mut archive = tar::Archive::new(busybox().unwrap());
    archive.set_preserve_ownerships(false);
    archive.unpack(&rootfs).unwrap();
    let list: Vec<Value> = mappings
        .iter()
        .map(|(inside, outside, size)| {
            json!({"containerID": inside, "hostID": outside, "size": size})
        })
        .collect();
    let namespaces = ["user", "pid", "mount", "ipc", "uts"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", "id -u; awk '{print $2, $3}' /proc/self/uid_map; touch /made"],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": namespaces, "uidMappings": list, "gidMappings": list,
            "resources": resources, "cgroupsPath": "/gamut-test-of-nobody/one",
        },
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let give = format!("chown -R {0}:{0} {1}", user.uid(), directory.display());
    let given = Command::new("sh").args(["-c", &give]).status().unwrap();
    assert!(given.success());
    directory.display().to_string()
}

#[test]
fn the_runtime_maps_what_the_user_may_map() {
    if busybox().is_none() {
        return;
    }
    let Some(user) = User::new(Machine::Usual) else {
        return;
    };
    let (uid, first) = (user.uid(), user.first_subordinate());
    let one = bundle(&user, "one", &[(0, uid, 1)], &json!({}));
    let output = user.runtime(&["run", "--bundle", &one, "one"]);
    assert_eq!(output.ok(), format!("0\n{uid} 1"));
    let made = fs::metadata(format!("{one}/rootfs/made")).unwrap();
    assert_eq!(made.uid(), uid);

    // More than his own takes newuidmap, and groups that are not his are done without.
    let limits = json!({"memory": {"limit": 64 << 20}});
    let many = bundle(&user, "many", &[(0, uid, 1), (1, first, 1000)], &limits);
    let output = user.runtime(&["run", "--bundle", &many, "many"]);
    assert_eq!(output.ok(), format!("0\n{uid} 1\n{first} 1000"));
    assert!(
        output.stderr.contains("memory is not limited: "),
        "{output:#?}"
    );

    let foreign = [(0, uid, 1), (1, first - 7, 9)];
    let foreign = bundle(&user, "foreign", &foreign, &json!({}));
    let error = user
        .runtime(&["run", "--bundle", &foreign, "foreign"])
        .fails(1);
    assert!(error.contains("/etc/subuid"), "{error}");
    assert_eq!(user.runtime(&["list", "-q"]).ok(), "");
}

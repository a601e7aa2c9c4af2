//! What client libraries count on, on the wire.

use gamut_tests::{Daemon, PATIENCE, eventually};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Begins a request that leaves HTTP.
fn ask(daemon: &Daemon, path: &str, body: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Begins a request that leaves HTTP and reads the head of its answer.
fn hijack(daemon: &Daemon, path: &str, body: &Value) -> UnixStream {
    let mut stream = ask(daemon, path, body);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

fn rest(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn exec(daemon: &Daemon, container: &str, body: &Value) -> String {
    let path = format!("/containers/{container}/exec");
    let made = daemon.http("POST", &path, &body.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["Id"].as_str().unwrap().to_owned()
}

fn json(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.http("GET", path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Actions of the events so far, of containers.
fn actions(daemon: &Daemon) -> Vec<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = now.unwrap().as_secs_f64();
    let answer = daemon.http("GET", &format!("/events?since=0&until={until:.6}"), "");
    let text = answer.text();
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter_map(|event| Some(event["Action"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn who_starts_an_exec_session_says_whether_it_gets_frames() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("box", &[], "exec sleep 1000");
    let body = json!({"Cmd": ["printf", "hi"], "Tty": true, "AttachStdout": true});
    let start = |tty: bool| {
        let id = exec(&daemon, "box", &body);
        let path = format!("/exec/{id}/start");
        let output = rest(hijack(&daemon, &path, &json!({"Tty": tty})));
        let session = json(&daemon, &format!("/exec/{id}/json"));
        assert_eq!(
            (&session["Running"], &session["ExitCode"]),
            (&json!(false), &json!(0))
        );
        output
    };
    assert_eq!(start(true), b"hi");
    assert_eq!(start(false), b"\x01\0\0\0\0\0\0\x02hi");
    daemon.finish();
}

#[test]
fn output_does_not_come_before_the_head_is_read() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("box", &[], "echo before; exec sleep 1000");
    let id = exec(
        &daemon,
        "box",
        &json!({"Cmd": ["echo", "hi"], "AttachStdout": true}),
    );
    eventually("it has spoken", || daemon.ok(&["logs", "box"]) == "before");
    for (path, output) in [
        (format!("/exec/{id}/start"), &b"hi\n"[..]),
        ("/containers/box/attach?logs=1&stdout=1".into(), b"before\n"),
    ] {
        let mut stream = ask(&daemon, &path, &json!({}));
        // A client that is slow, and reads the head through a large buffer.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let mut head = [0; 8192];
        let count = stream.read(&mut head).unwrap();
        let head = String::from_utf8_lossy(&head[..count]).into_owned();
        assert!(
            head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        assert_eq!(rest(stream)[8..], *output, "{path}");
    }
    daemon.finish();
}

#[test]
fn keys_detach_a_client_and_nothing_else() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&["run", "-dit", "--name", "box", "busybox", "cat"]);
    let attach = "/containers/box/attach?stream=1&stdin=1&stdout=1";
    // The default keys, and others, which leave the default ones to the process.
    for (keys, input) in [
        ("", &b"\x10\x11"[..]),
        ("&detachKeys=ctrl-x,b", b"\x10\x11\x18b"),
    ] {
        let mut stream = hijack(&daemon, &format!("{attach}{keys}"), &Value::Null);
        stream.write_all(input).unwrap();
        rest(stream);
        assert_eq!(daemon.inspect("box")["State"]["Running"], true);
    }
    let count = |action: &str| {
        let actions = actions(&daemon);
        actions.iter().filter(|one| *one == action).count()
    };
    assert_eq!(count("detach"), 2);
    let body = json!({"Cmd": ["cat"], "Tty": true, "AttachStdin": true, "AttachStdout": true});
    let id = exec(&daemon, "box", &body);
    let mut stream = hijack(&daemon, &format!("/exec/{id}/start"), &json!({"Tty": true}));
    stream.write_all(b"\x10").unwrap();
    stream.write_all(b"\x11").unwrap();
    rest(stream);
    assert_eq!(count("exec_detach"), 1);
    // As docker-py spells it.
    let mut body = body;
    body["detachKeys"] = json!("ctrl-p");
    let id = exec(&daemon, "box", &body);
    let path = format!("/exec/{id}/start");
    let mut stream = hijack(&daemon, &path, &json!({"Tty": true}));
    stream.write_all(b"\x10").unwrap();
    rest(stream);
    assert_eq!(count("exec_detach"), 2);
    let refused = daemon.http("POST", &format!("{attach}&detachKeys=ctrl-%C3%A9"), "");
    assert_eq!(refused.status, 400, "{}", refused.text());
    // Without a terminal they are input as any other.
    daemon.ok(&["run", "-di", "--name", "plain", "busybox", "cat"]);
    let path = "/containers/plain/attach?stream=1&stdin=1&stdout=1";
    let mut stream = hijack(&daemon, path, &Value::Null);
    stream.write_all(b"\x10\x11").unwrap();
    let mut frame = [0; 10];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x02\x10\x11");
    drop(stream);
    daemon.finish();
}

#[test]
fn a_wait_ends_with_a_run_also_if_another_follows() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("again", &["--restart", "always"], "sleep 1; exit 3");
    assert_eq!(daemon.ok(&["wait", "again"]), "3");
    daemon.finish();
}

#[test]
fn links_tell_of_what_they_lead_to_until_they_are_removed() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let offers = ["-e", "FOO=1=2", "--expose", "80"];
    daemon.detached("db", &offers, "exec sleep 1000");
    let tells = "env > /told; exec sleep 1000";
    daemon.detached(
        "web",
        &["--link", "db:the-db", "-e", "THE_DB_ENV_BAR=own"],
        tells,
    );
    let address = daemon.inspect("db")["NetworkSettings"]["IPAddress"].take();
    let address = address.as_str().unwrap();
    let expected = [
        format!("THE_DB_PORT=tcp://{address}:80"),
        format!("THE_DB_PORT_80_TCP_ADDR={address}"),
        "THE_DB_NAME=/web/the-db".to_owned(),
        "THE_DB_ENV_FOO=1=2".to_owned(),
        "THE_DB_ENV_BAR=own".to_owned(),
    ];
    eventually("the environment is told", || {
        let told = daemon.gamut(&["exec", "web", "cat", "/told"]).stdout;
        expected
            .iter()
            .all(|line| told.lines().any(|one| one == line))
    });
    let inside = daemon.ok(&["exec", "web", "env"]);
    assert!(inside.contains("THE_DB_NAME=/web/the-db"), "{inside}");

    let names = || {
        let list = json(&daemon, "/containers/json");
        let db = list
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["Names"][0] == "/db");
        db.unwrap()["Names"].clone()
    };
    assert_eq!(names(), json!(["/db", "/web/the-db"]));
    assert_eq!(json(&daemon, "/containers/web/the-db/json")["Name"], "/db");
    let hosts = || daemon.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(hosts().contains("the-db"));

    let remove = || {
        daemon
            .http("DELETE", "/containers/web/the-db?link=1", "")
            .status
    };
    assert_eq!(remove(), 204);
    assert_eq!(names(), json!(["/db"]));
    assert!(!hosts().contains("the-db"), "{}", hosts());
    assert_eq!(daemon.lines(&["ps", "-q"]).len(), 2);
    assert_eq!(remove(), 404);
    daemon.finish();
}

#[test]
fn what_was_asked_for_is_shown() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let create = |body: Value| daemon.http("POST", "/containers/create", &body.to_string());
    let made = create(json!({
        "Image": "busybox", "Env": ["PATH", "ONE=1"],
        "HostConfig": {"Runtime": "runc", "Isolation": "default", "VolumeDriver": "other"},
    }));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json()["Id"].as_str().unwrap().to_owned();
    let shown = daemon.inspect(&made);
    for (field, value) in [
        ("Runtime", "runc"),
        ("Isolation", "default"),
        ("VolumeDriver", "other"),
    ] {
        assert_eq!(shown["HostConfig"][field], value);
    }
    let environment = &shown["Config"]["Env"];
    assert_eq!(environment, &json!(["ONE=1", "PATH"]));
    // docker-py names the runtime beside the image.
    let made = create(json!({"Image": "busybox", "Runtime": "io.containerd.runc.v2"}));
    let made = made.json()["Id"].as_str().unwrap().to_owned();
    assert_eq!(
        daemon.inspect(&made)["HostConfig"]["Runtime"],
        "io.containerd.runc.v2"
    );
    let realtime = |runtime: u64| {
        // As docker-py spells it.
        let host = json!({"CPURealtimePeriod": 1000, "CPURealtimeRuntime": runtime});
        create(json!({"Image": "busybox", "HostConfig": host}))
    };
    let made = realtime(500).json()["Id"].as_str().unwrap().to_owned();
    let host = daemon.inspect(&made)["HostConfig"].take();
    assert_eq!(host["CpuRealtimePeriod"], 1000);
    assert_eq!(host["CpuRealtimeRuntime"], 500);
    assert_eq!(realtime(1001).status, 400);
    // The driver counts for what has to be made, and there is no other.
    for host in [json!({"Binds": ["fresh:/data"]}), json!({})] {
        let mut body = json!({"Image": "busybox", "Volumes": {"/kept": {}}, "HostConfig": host});
        body["HostConfig"]["VolumeDriver"] = json!("other");
        let refused = create(body);
        assert_eq!(refused.status, 404, "{}", refused.text());
        assert!(
            refused.text().contains("plugin \\\"other\\\" not found"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "");
    let refused =
        create(json!({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "asdf"}}}));
    assert!(
        refused
            .text()
            .contains("no log driver named 'asdf' is registered"),
        "{}",
        refused.text()
    );
    daemon.finish();
}

#[test]
fn link_local_addresses_are_given() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let body = |address: &str| {
        let config = json!({"IPAMConfig": {"LinkLocalIPs": [address]}});
        json!({
            "Image": "busybox", "Cmd": ["sleep", "1000"],
            "NetworkingConfig": {"EndpointsConfig": {"bridge": config}},
        })
        .to_string()
    };
    let refused = daemon.http("POST", "/containers/create", &body("10.0.0.9"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    let made = daemon.http("POST", "/containers/create?name=box", &body("169.254.8.8"));
    assert_eq!(made.status, 201, "{}", made.text());
    daemon.ok(&["start", "box"]);
    let addresses = daemon.ok(&["exec", "box", "ip", "-o", "addr", "show", "eth0"]);
    assert!(addresses.contains("inet 169.254.8.8/16"), "{addresses}");
    let place = daemon.inspect("box")["NetworkSettings"]["Networks"]["bridge"].take();
    assert_eq!(
        place["IPAMConfig"],
        json!({"LinkLocalIPs": ["169.254.8.8"]})
    );
    daemon.finish();
}

#[test]
fn networks_are_described_as_they_were_asked_for() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    for (name, ipam, options) in [
        ("one", json!({"Config": []}), Value::Null),
        ("two words", json!({"Options": {}}), json!({})),
        ("three", json!({"Options": {"a": "b"}}), json!({"a": "b"})),
    ] {
        let body = json!({"Name": name, "IPAM": ipam}).to_string();
        let made = daemon.http("POST", "/networks/create", &body);
        assert_eq!(made.status, 201, "{}", made.text());
        let path = format!("/networks/{}", name.replace(' ', "%20"));
        let shown = json(&daemon, &path);
        assert_eq!(
            (&shown["Name"], &shown["IPAM"]["Options"]),
            (&json!(name), &options)
        );
    }
    daemon.ok(&["create", "--name", "box", "busybox", "true"]);
    let body = json!({"Container": "box", "EndpointConfig": {"MacAddress": "02:42:ac:11:00:02"}});
    let path = "/networks/two%20words/connect";
    let connected = daemon.http("POST", path, &body.to_string());
    assert_eq!(connected.status, 200, "{}", connected.text());
    let places = daemon.inspect("box")["NetworkSettings"]["Networks"].take();
    assert_eq!(places["two words"]["MacAddress"], "02:42:ac:11:00:02");
    daemon.finish();
}

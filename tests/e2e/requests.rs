//! Requests on Docker's paths that other engines' tests of this API make (podman's `test/apiv2`),
//! with the answers that Docker gives to them: where the two differ, Docker's count.

use gamut_tests::{Daemon, Response};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// A request with a body of JSON, or none.
fn ask(daemon: &Daemon, method: &str, target: &str, body: &Value) -> Response {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    daemon.http(method, target, &body)
}

#[track_caller]
fn expect(daemon: &Daemon, method: &str, target: &str, body: &Value, status: u16) -> Response {
    let answer = ask(daemon, method, target, body);
    assert_eq!(
        answer.status,
        status,
        "{method} {target} {body}: {}",
        answer.text()
    );
    answer
}

#[track_caller]
fn get(daemon: &Daemon, target: &str) -> Value {
    expect(daemon, "GET", target, &Value::Null, 200).json()
}

/// Makes a container, returns what inspect says of it, and removes it.
#[track_caller]
fn made(daemon: &Daemon, mut body: Value) -> Value {
    body["Image"] = json!("busybox");
    let answer = expect(daemon, "POST", "/containers/create", &body, 201).json();
    let id = answer["Id"].as_str().unwrap().to_owned();
    let inspected = get(daemon, &format!("/containers/{id}/json"));
    let target = format!("/containers/{id}?v=true");
    expect(daemon, "DELETE", &target, &Value::Null, 204);
    inspected
}

fn filters(value: &Value) -> String {
    let text = value.to_string();
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    format!("filters={}", escaped.collect::<String>())
}

#[test]
fn what_create_makes_of_a_request() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let both = made(
        &daemon,
        json!({"Entrypoint": ["echo"], "Cmd": ["param1", "param2"]}),
    );
    assert_eq!(both["Config"]["Entrypoint"], json!(["echo"]));
    assert_eq!(both["Config"]["Cmd"], json!(["param1", "param2"]));
    assert_eq!(both["Path"], "echo");
    assert_eq!(both["Args"], json!(["param1", "param2"]));

    // The command of the image does not go with another entry point.
    let entry = made(&daemon, json!({"Entrypoint": ["echo", "param1"]}));
    assert_eq!(entry["Config"]["Entrypoint"], json!(["echo", "param1"]));
    assert!(entry["Config"]["Cmd"].is_null() || entry["Config"]["Cmd"] == json!([]));
    assert_eq!(
        (&entry["Path"], &entry["Args"]),
        (&json!("echo"), &json!(["param1"]))
    );

    let volume = made(&daemon, json!({"Volumes": {"/test": {}}}));
    assert_eq!(volume["Mounts"][0]["Destination"], "/test");
    assert_eq!(volume["Mounts"][0]["Type"], "volume");
    // docker-py names the place of a bind among the volumes as well.
    let bind = made(
        &daemon,
        json!({"Volumes": {"/test/": {}}, "HostConfig": {"Binds": ["/tmp:/test/:ro"]}}),
    );
    assert_eq!(bind["Mounts"].as_array().unwrap().len(), 1, "{bind}");
    assert_eq!(bind["Mounts"][0]["RW"], false);

    let limits = made(
        &daemon,
        json!({"HostConfig": {"Ulimits": [{"Name": "cpu", "Soft": 1, "Hard": 2}], "NanoCpus": 500_000_000}}),
    );
    assert_eq!(limits["HostConfig"]["Ulimits"][0]["Hard"], 2);
    assert_eq!(limits["HostConfig"]["NanoCpus"], 500_000_000);

    // As the docker client of version 25 and later sends it.
    let place = json!({"IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "",
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
        "DriverOpts": null, "DNSNames": null});
    let network = made(
        &daemon,
        json!({"HostConfig": {"NetworkMode": "default"},
            "NetworkingConfig": {"EndpointsConfig": {"default": place}}}),
    );
    assert_eq!(network["HostConfig"]["NetworkMode"], "bridge");

    let words = json!([
        "CMD",
        "/usr/bin/test",
        "--arg=value with spaces",
        "another arg"
    ]);
    let health = made(
        &daemon,
        json!({"Cmd": ["top"], "Healthcheck": {"Test": words}}),
    );
    assert_eq!(health["Config"]["Healthcheck"]["Test"], words);

    // 493 is 0755, which JSON cannot say.
    let scratch = json!([{"Type": "tmpfs", "Target": "/mnt/scratch",
        "TmpfsOptions": {"SizeBytes": 1024, "Mode": 493}}]);
    let tmpfs = made(&daemon, json!({"HostConfig": {"Mounts": scratch}}));
    let options = &tmpfs["HostConfig"]["Mounts"][0]["TmpfsOptions"];
    assert_eq!(options["SizeBytes"], 1024, "{tmpfs}");
    assert_eq!(options["Mode"], 493, "{tmpfs}");
    let bind = json!([{"Type": "bind", "Source": "/tmp", "Target": "/mnt"}]);
    let bind = made(&daemon, json!({"HostConfig": {"Mounts": bind}}));
    assert_eq!(bind["Mounts"][0]["Source"], "/tmp");
    assert_eq!(bind["HostConfig"]["Mounts"][0]["Target"], "/mnt");

    let notes = made(
        &daemon,
        json!({"HostConfig": {"annotations": {"foo": "bar", "zoo": "boo"}}}),
    );
    assert_eq!(
        notes["HostConfig"]["Annotations"],
        json!({"foo": "bar", "zoo": "boo"})
    );
    let other = "/containers/create?platform=linux/aarch64";
    expect(&daemon, "POST", other, &json!({"Image": "busybox"}), 404);
    daemon.finish();
}

#[test]
fn filters_of_lists_and_prunes() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    for kind in ["containers", "images"] {
        for bad in ["garb1age}", "{\"label\":[\"testl"] {
            let bad = bad.replace('"', "%22").replace('{', "%7B");
            for (method, target) in [("GET", "json"), ("POST", "prune")] {
                let target = format!("/{kind}/{target}?filters={bad}");
                expect(&daemon, method, &target, &Value::Null, 400);
            }
        }
    }
    for kind in ["volumes", "networks"] {
        for target in ["GET /K", "POST /K/prune"] {
            let (method, target) = target.split_once(' ').unwrap();
            let target = format!("{}?filters=garb1age%7D", target.replace('K', kind));
            expect(&daemon, method, &target, &Value::Null, 400);
        }
    }
    // What a prune does not know is refused: it would remove more than was meant.
    for (kind, names) in [
        ("containers", &["name", "id", "network"][..]),
        ("volumes", &["name", "driver", "scope"]),
        ("networks", &["name", "driver"]),
        ("images", &["name", "reference"]),
    ] {
        for name in names {
            let target = format!("/{kind}/prune?{}", filters(&json!({*name: ["any"]})));
            let answer = expect(&daemon, "POST", &target, &Value::Null, 400);
            assert!(
                answer.text().contains("invalid filter"),
                "{}",
                answer.text()
            );
        }
    }

    for (name, labels) in [("alpha", json!({"abc": ""})), ("beta", json!({}))] {
        let body = json!({"Name": name, "Labels": labels, "IPAM": {"Config": []}});
        expect(&daemon, "POST", "/networks/create", &body, 201);
        expect(&daemon, "POST", "/networks/create", &body, 409);
        let unchecked = json!({"Name": name, "CheckDuplicate": false});
        expect(&daemon, "POST", "/networks/create", &unchecked, 409);
    }
    let found = |filter: Value| -> Vec<String> {
        let list = get(&daemon, &format!("/networks?{}", filters(&filter)));
        let mut names: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["Name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(found(json!({"name": ["alpha", "beta"]})), ["alpha", "beta"]);
    assert_eq!(found(json!({"label": ["abc"]})), ["alpha"]);
    // In the form of old clients.
    assert_eq!(found(json!({"label": {"abc": true}})), ["alpha"]);
    assert_eq!(found(json!({"name": ["absent"]})), Vec::<String>::new());
    let both = format!("/networks?{}", filters(&json!({"dangling": ["true", "0"]})));
    expect(&daemon, "GET", &both, &Value::Null, 400);
    let long_ago = format!("/networks/prune?{}", filters(&json!({"until": ["500000"]})));
    expect(&daemon, "POST", &long_ago, &Value::Null, 200);
    assert_eq!(found(json!({"label": ["abc"]})), ["alpha"]);
    let far_off = format!(
        "/networks/prune?{}",
        filters(&json!({"until": ["5000000000"]}))
    );
    expect(&daemon, "POST", &far_off, &Value::Null, 200);
    assert_eq!(
        found(json!({"name": ["alpha", "beta"]})),
        Vec::<String>::new()
    );
    expect(&daemon, "GET", "/networks/absent", &Value::Null, 404);
    daemon.finish();
}

/// Waits for `ends`; `then` happens once the head of the answer is there, which comes first.
fn waited(daemon: &Daemon, condition: &str, then: impl FnOnce()) -> Value {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream
        .set_read_timeout(Some(gamut_tests::PATIENCE))
        .unwrap();
    let head = format!(
        "POST /containers/ends/wait?condition={condition} HTTP/1.1\r\nHost: d\r\n\
         Connection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    then();
    let mut body = String::new();
    stream.read_to_string(&mut body).unwrap();
    let (begin, end) = (body.find('{').unwrap(), body.rfind('}').unwrap());
    serde_json::from_str(&body[begin..=end]).unwrap()
}

#[test]
fn waits_health_and_archives() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let none = Value::Null;
    let post = |target: &str, status: u16| expect(&daemon, "POST", target, &Value::Null, status);
    post("/containers/absent/wait?condition=next-exit", 404);
    daemon.ok(&["create", "--name", "ends", "busybox", "sh", "-c", "exit 3"]);
    post("/containers/ends/wait?condition=absent", 400);
    assert_eq!(
        post("/containers/ends/wait?condition=not-running", 200).json()["StatusCode"],
        0
    );
    for (condition, then) in [
        ("next-exit", &["start", "ends"][..]),
        ("removed", &["rm", "ends"]),
    ] {
        let answer = waited(&daemon, condition, || drop(daemon.gamut(then).ok()));
        assert_eq!(answer["StatusCode"], 3, "{condition}: {answer}");
        assert!(answer["Error"].is_null(), "{condition}: {answer}");
    }
    post("/containers/ends/wait?condition=next-exit", 404);

    daemon.ok(&["create", "--name", "plain", "busybox", "top"]);
    daemon.ok(&[
        "create",
        "--name",
        "checked",
        "--health-cmd",
        "true",
        "busybox",
        "top",
    ]);
    let health = |version: &str, name: &str| {
        let filter = filters(&json!({"name": [name]}));
        let target = format!("/v{version}/containers/json?all=true&{filter}");
        get(&daemon, &target)[0]["Health"].clone()
    };
    assert_eq!(health("1.52", "plain")["Status"], "none");
    assert!(health("1.44", "checked").is_null());

    // A second kill finds nothing to kill; a time limit of -1 is none.
    daemon.ok(&["start", "plain"]);
    post("/containers/plain/stop?t=0", 204);
    post("/containers/plain/kill", 409);
    post("/containers/plain/stop?t=-1", 304);
    expect(&daemon, "DELETE", "/images/busybox", &none, 409);

    let stat = |target: &str| ask(&daemon, "HEAD", target, &Value::Null);
    assert_eq!(stat("/containers/absent/archive?path=%2F").status, 404);
    assert_eq!(
        stat("/containers/plain/archive?path=%2Fnon%2Fexistent").status,
        404
    );
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    header.set_uid(1042);
    header.set_gid(1043);
    let appended = archive.append_data(&mut header, "hello.txt", &b"Hello\n"[..]);
    appended.unwrap();
    let archive = archive.into_inner().unwrap();
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    let target = "/containers/plain/archive?path=%2Ftmp%2F";
    let put = gamut_tests::exchange(stream, "PUT", target, "application/x-tar", &archive);
    assert_eq!(put.unwrap().status, 200);
    let back = expect(
        &daemon,
        "GET",
        "/containers/plain/archive?path=%2Ftmp%2Fhello.txt",
        &none,
        200,
    );
    assert!(back.header("x-docker-container-path-stat").is_some());
    let mut back = tar::Archive::new(&back.body[..]);
    let entry = back.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("hello.txt"));
    assert_eq!(
        (entry.header().uid().unwrap(), entry.header().gid().unwrap()),
        (1042, 1043)
    );
    daemon.ok(&["rm", "plain", "checked"]);

    for version in ["1.43", "1.44"] {
        let usage = get(&daemon, &format!("/v{version}/system/df"));
        let has_virtual_size = usage["Images"][0].get("VirtualSize").is_some();
        assert_eq!(has_virtual_size, version == "1.43", "{usage}");
    }
    for (target, shared) in [("/images/json", -1), ("/images/json?shared-size=true", 0)] {
        assert_eq!(get(&daemon, target)[0]["SharedSize"], shared);
    }
    daemon.finish();
}

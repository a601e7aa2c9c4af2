//! The operations of the Docker Engine API, in the oldest version, those of the clients in use, and
//! the newest. Where `GAMUT_TEST_SWAGGER` names moby's `api/docs`, each JSON answer is held against
//! the description of its version.

use gamut_tests::swagger::{self, Operation, Problem, Swagger};
use gamut_tests::{Daemon, Response, eventually};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const VERSIONS: [&str; 5] = ["1.24", "1.40", "1.41", "1.44", "1.55"];
/// What Gamut says beyond the description, and, of committed images, dockerd.
const OWN_FIELDS: [&str; 8] = [
    ".Parent",
    ".StartedAt",
    ".Isolation",
    ".Machine",
    "[].Form",
    "[].Unikernels",
    ".Form",
    ".Unikernels",
];

/// Where the oldest description contradicts what dockerd answered then.
const MISDESCRIBED_IN_1_25: [&str; 9] = [
    ".HostConfig.PortBindings.* is no object",
    ".HostConfig.RestartPolicy.Name is none of its values: \"no\"",
    ".NetworkSettings.Ports is no array",
    ".IPAM.Options is no array",
    "[].IPAM.Options is no array",
    ".Containers[] is no array",
    "status 404 is not described",
    "status 409 is not described",
    "status 503 is not described",
];

/// Whether an answer is as it should be after all. Fields of later versions are told to clients of
/// earlier ones, as dockerd does; in the newest every field has to be known.
fn is_well(problem: &Problem, swagger: &Swagger) -> bool {
    match problem {
        Problem::Undescribed(field) => {
            swagger.version() < (1, 55) || OWN_FIELDS.contains(&field.as_str())
        }
        Problem::Wrong(text) => {
            swagger.version() == (1, 25)
                && MISDESCRIBED_IN_1_25
                    .iter()
                    .any(|known| text.starts_with(known))
        }
    }
}

/// A line for `GAMUT_TEST_RECORDS`, as `api-recorder` writes them.
fn record(version: &str, operation: &Operation, status: u16, bad: &[&Problem]) {
    let Some(path) = std::env::var_os("GAMUT_TEST_RECORDS") else {
        return;
    };
    let line = json!({
        "version": version, "method": operation.method, "operation": operation.path,
        "described": true, "status": status,
        "problems": bad.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    writeln!(file.unwrap(), "{line}").unwrap();
}

/// One version of a daemon's API.
struct Api<'d> {
    daemon: &'d Daemon,
    version: &'static str,
    swagger: Option<Swagger>,
    problems: Vec<String>,
}

impl<'d> Api<'d> {
    fn new(daemon: &'d Daemon, version: &'static str) -> Self {
        let wanted = swagger::parse_version(version).unwrap();
        Self {
            daemon,
            version,
            swagger: swagger::directory().map(|directory| Swagger::load(&directory, wanted)),
            problems: Vec::new(),
        }
    }

    fn since(&self, minor: u32) -> bool {
        swagger::parse_version(self.version).unwrap() >= (1, minor)
    }

    /// A request that must be answered with `status`.
    #[track_caller]
    fn ask(&mut self, method: &str, target: &str, body: &Value, status: u16) -> Response {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let versioned = format!("/v{}{target}", self.version);
        let answer = self.daemon.http(method, &versioned, &body);
        let text = String::from_utf8_lossy(&answer.body);
        let shown = text.get(..400).unwrap_or(&text);
        assert_eq!(answer.status, status, "{method} {versioned}: {shown}");
        // Nobody describes what is not there yet.
        let swagger = self.swagger.as_ref();
        let path = target.split('?').next().unwrap();
        if let Some(swagger) = swagger
            // Nor what a version does not have.
            && let Some(operation) = swagger.find(method, path)
        {
            let media_type = answer.header("content-type").unwrap_or_default();
            let mut problems = swagger.check(&operation, status, &media_type, &answer.body);
            problems.retain(|_| status != 501);
            let bad: Vec<&Problem> = problems
                .iter()
                .filter(|one| !is_well(one, swagger))
                .collect();
            record(self.version, &operation, status, &bad);
            for problem in bad {
                self.problems
                    .push(format!("{} {operation} {status}: {problem}", self.version));
            }
        }
        answer
    }

    fn get(&mut self, target: &str) -> Response {
        self.ask("GET", target, &Value::Null, 200)
    }

    fn post(&mut self, target: &str, status: u16) -> Response {
        self.ask("POST", target, &Value::Null, status)
    }

    fn create(&mut self, target: &str, body: &Value) -> Value {
        self.ask("POST", target, body, 201).json()
    }

    fn delete(&mut self, target: &str) {
        self.ask("DELETE", target, &Value::Null, 204);
    }
}

fn engine(api: &mut Api<'_>) {
    api.get("/_ping");
    api.ask("HEAD", "/_ping", &Value::Null, 200);
    assert_eq!(api.get("/version").json()["ApiVersion"], "1.55");
    api.get("/info");
    api.get("/system/df?verbose=1");
    api.get("/plugins");
    api.ask("GET", "/swarm", &Value::Null, 503);
    for kind in ["nodes", "services", "tasks"] {
        api.ask("GET", &format!("/{kind}"), &Value::Null, 503);
        api.ask("GET", &format!("/{kind}/x"), &Value::Null, 503);
    }
    api.ask("DELETE", "/services/x", &Value::Null, 503);
    let secrets = if api.since(25) { 503 } else { 404 };
    api.ask("GET", "/secrets", &Value::Null, secrets);
    api.ask("GET", "/plugins/absent/json", &Value::Null, 404);
    api.post("/build", 501);
    api.post("/session", 501);
    let attestations = if api.since(55) { 501 } else { 404 };
    api.ask(
        "GET",
        "/images/busybox/attestations",
        &Value::Null,
        attestations,
    );
    api.ask("GET", "/containers/absent/attach/ws", &Value::Null, 404);
    api.ask("GET", "/plugins/privileges?remote=x", &Value::Null, 501);
    api.post("/swarm/leave", 503);
    api.post("/swarm/init", 501);
    api.ask("GET", "/containers/x/checkpoints", &Value::Null, 501);
}

fn containers(api: &mut Api<'_>) {
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "Labels": {"a": "b"}, "StopTimeout": 1,
        "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3_600_000_000_000_i64},
        "HostConfig": {"Memory": 67_108_864, "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
            "Tmpfs": {"/run": ""}, "CapAdd": ["NET_ADMIN"], "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 100}]},
    });
    api.create("/containers/create?name=box", &body);
    api.post("/containers/box/start", 204);
    api.post("/containers/box/start", 304);
    api.get("/containers/json?all=1&size=1");
    let inspected = api.get("/containers/box/json?size=1").json();
    let has_address = inspected["NetworkSettings"].get("IPAddress").is_some();
    assert_eq!(has_address, !api.since(52), "{inspected}");
    assert_eq!(inspected["Isolation"], "container");
    api.get("/containers/box/top");
    api.get("/containers/box/stats?stream=0&one-shot=1");
    api.get("/containers/box/logs?stdout=1");
    api.get("/containers/box/changes");
    api.ask(
        "HEAD",
        "/containers/box/archive?path=/etc",
        &Value::Null,
        200,
    );
    api.get("/containers/box/archive?path=/etc/passwd");
    let exec = json!({"Cmd": ["true"], "AttachStdout": true});
    let exec = api.create("/containers/box/exec", &exec)["Id"].clone();
    let exec = exec.as_str().unwrap();
    let start = format!("/exec/{exec}/start");
    api.ask("POST", &start, &json!({"Detach": true}), 200);
    api.get(&format!("/exec/{exec}/json"));
    let update = json!({"Memory": 134_217_728, "MemorySwap": 268_435_456});
    api.ask("POST", "/containers/box/update", &update, 200);
    api.post("/containers/box/pause", 204);
    api.post("/containers/box/unpause", 204);
    api.post("/containers/box/rename?name=crate", 204);
    let made = api.create("/commit?container=crate&repo=made", &Value::Null);
    assert!(made["Id"].as_str().unwrap().starts_with("sha256:"));
    api.post("/containers/crate/restart?t=0", 204);
    let usage = api.get("/system/df?verbose=1").json();
    assert_eq!(usage.get("Images").is_some(), !api.since(52), "{usage}");
    let containers = usage
        .get("Containers")
        .or_else(|| usage["ContainerUsage"].get("Items"));
    assert_eq!(containers.unwrap()[0]["Names"][0], "/crate");
    if api.since(42) {
        let images = api.get("/system/df?type=image&verbose=1").json();
        assert_eq!(
            images.as_object().unwrap().len(),
            if api.since(52) { 1 } else { 2 }
        );
    }
    api.post("/containers/crate/kill", 204);
    api.post("/containers/crate/wait", 200);
    api.post("/containers/crate/kill", 409);
    api.get("/containers/crate/export");
    api.get("/containers/crate/json");
    api.get("/containers/crate/stats?stream=0&one-shot=1");
    api.ask("GET", "/containers/absent/json", &Value::Null, 404);
    api.delete("/containers/crate?v=1");
    if api.since(25) {
        api.post("/containers/prune", 200);
    }
}

fn images(api: &mut Api<'_>) {
    api.get("/images/json?all=1&digests=1&shared-size=1");
    api.get("/images/made/json");
    api.get("/images/made/history");
    api.post("/images/made/tag?repo=other&tag=2", 201);
    api.get("/images/other:2/get");
    api.get("/images/get?names=made&names=other:2");
    api.ask("DELETE", "/images/other:2", &Value::Null, 200);
    api.ask("DELETE", "/images/made", &Value::Null, 200);
    api.ask("GET", "/images/made/json", &Value::Null, 404);
    if api.since(25) {
        api.post("/images/prune", 200);
    }
}

fn volumes_and_networks(api: &mut Api<'_>) {
    api.create(
        "/volumes/create",
        &json!({"Name": "kept", "Labels": {"a": "b"}}),
    );
    api.get("/volumes");
    api.get("/volumes/kept");
    if api.since(42) {
        api.ask("PUT", "/volumes/kept?version=1", &Value::Null, 503);
    }
    api.delete("/volumes/kept");
    api.ask("GET", "/volumes/kept", &Value::Null, 404);
    let network = json!({"Name": "net", "CheckDuplicate": true, "Labels": {"a": "b"},
        "IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "IPRange": "10.77.0.128/25"}]}});
    api.create("/networks/create", &network);
    let body =
        json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "net"}});
    api.create("/containers/create?name=one", &body);
    api.post("/containers/one/start", 204);
    api.get("/networks");
    api.get("/networks/net");
    api.get("/networks/bridge");
    let inspected = api.get("/containers/one/json").json();
    let endpoint = &inspected["NetworkSettings"]["Networks"]["net"];
    let short = inspected["Id"].as_str().unwrap().get(..12);
    let has_short = endpoint["Aliases"]
        .as_array()
        .is_some_and(|names| names.iter().any(|name| name.as_str() == short));
    assert_eq!(has_short, !api.since(45), "{endpoint}");
    let container = json!({"Container": "one"});
    api.ask("POST", "/networks/bridge/connect", &container, 200);
    api.ask("POST", "/networks/bridge/disconnect", &container, 200);
    api.get("/containers/json");
    api.delete("/containers/one?force=1");
    api.delete("/networks/net");
    if api.since(25) {
        api.post("/networks/prune", 200);
        api.post("/volumes/prune", 200);
    }
    let events = api.get("/events?since=1&until=2");
    assert_eq!(events.text(), "");
    let media_type = events.header("content-type").unwrap();
    assert_eq!(
        media_type == "application/jsonl",
        api.since(52),
        "{media_type}"
    );
    // Of a container, which old versions told of in other fields.
    let filter = "filters=%7B%22type%22:%5B%22container%22%5D%7D";
    let events = api
        .get(&format!("/events?since=1&until=0s&{filter}"))
        .text();
    let first: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!(first.get("status").is_some(), !api.since(52), "{first}");
}

#[test]
fn all_versions_answer_as_described() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let mut problems = Vec::new();
    for version in VERSIONS {
        let mut api = Api::new(&daemon, version);
        engine(&mut api);
        containers(&mut api);
        images(&mut api);
        volumes_and_networks(&mut api);
        problems.append(&mut api.problems);
    }
    problems.sort();
    problems.dedup();
    assert!(problems.is_empty(), "{problems:#?}");
    daemon.finish();
}

#[test]
fn bad_input_is_refused_in_dockers_words() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("box", &[], "exec sleep 1000");
    let cases = [
        (
            "GET",
            "/v1.23/info",
            "",
            400,
            "client version 1.23 is too old",
        ),
        (
            "GET",
            "/v1.99/info",
            "",
            400,
            "client version 1.99 is too new",
        ),
        ("GET", "/nowhere", "", 404, "page not found"),
        (
            "POST",
            "/containers/create",
            "",
            400,
            "config cannot be empty",
        ),
        ("POST", "/containers/create", "{", 400, "invalid JSON"),
        ("POST", "/containers/create", "[]", 400, "invalid JSON"),
        (
            "POST",
            "/containers/create?name=box",
            r#"{"Image":"busybox"}"#,
            409,
            "Conflict. The container name \"/box\" is already in use by container",
        ),
        (
            "POST",
            "/containers/create",
            r#"{"Image":"absent"}"#,
            404,
            "No such image: absent:latest",
        ),
        (
            "GET",
            "/containers/json?filters=x",
            "",
            400,
            "invalid filter",
        ),
        (
            "GET",
            "/containers/json?filters=%7B%22no%22:%5B%22x%22%5D%7D",
            "",
            400,
            "invalid filter 'no'",
        ),
        ("GET", "/containers/json?limit=x", "", 400, "limit"),
        (
            "GET",
            "/containers/absent/json",
            "",
            404,
            "No such container: absent",
        ),
        (
            "POST",
            "/containers/box/wait?condition=x",
            "",
            400,
            "invalid condition: \"x\"",
        ),
        (
            "POST",
            "/containers/box/exec",
            "{}",
            400,
            "No exec command specified",
        ),
        ("POST", "/containers/box/kill?signal=NO", "", 400, "NO"),
        (
            "POST",
            "/exec/absent/start",
            "{}",
            404,
            "No such exec instance: absent",
        ),
        (
            "GET",
            "/system/df?type=no",
            "",
            400,
            "unknown object type: no",
        ),
        ("GET", "/events?since=9&until=3", "", 400, "cannot be after"),
        (
            "GET",
            "/events?since=soon",
            "",
            400,
            "invalid value for 'since'",
        ),
        ("GET", "/containers/box/attach/ws", "", 400, "WebSocket"),
        (
            "POST",
            "/swarm/leave",
            "",
            503,
            "This node is not part of a swarm",
        ),
        (
            "GET",
            "/services",
            "",
            503,
            "This node is not a swarm manager",
        ),
    ];
    for (method, target, body, status, message) in cases {
        let answer = daemon.http(method, target, body);
        assert_eq!(
            answer.status,
            status,
            "{method} {target}: {}",
            answer.text()
        );
        let told = answer.json()["message"].clone();
        let told = told.as_str().unwrap();
        assert!(told.contains(message), "{method} {target}: {told}");
    }
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    let form = b"{\"Image\":\"busybox\"}";
    let answer = gamut_tests::exchange(stream, "POST", "/containers/create", "text/plain", form);
    let answer = answer.unwrap();
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .text()
            .contains("unsupported Content-Type header (text/plain)")
    );
    daemon.ok(&["rm", "-f", "box"]);
    daemon.finish();
}

#[test]
fn every_answer_tells_of_the_engine() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    for (target, status) in [("/_ping", 200), ("/v1.40/nowhere", 404)] {
        let answer = daemon.http("GET", target, "");
        assert_eq!(answer.status, status);
        for (name, value) in [
            ("api-version", "1.55"),
            ("ostype", "linux"),
            ("docker-experimental", "false"),
        ] {
            assert_eq!(answer.header(name).as_deref(), Some(value), "{target}");
        }
        // Whoever reads it would build through this engine.
        assert_eq!(answer.header("builder-version"), None);
    }
    let ping = daemon.http("GET", "/_ping", "");
    assert_eq!(ping.text(), "OK");
    assert_eq!(ping.header("swarm").as_deref(), Some("inactive"));
    assert!(ping.header("cache-control").unwrap().contains("no-store"));
    daemon.finish();
}

/// A frame as a client sends it, with a mask of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[test]
fn attach_by_websocket() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let script = "while read l; do echo heard $l; echo err $l >&2; done; echo end";
    daemon.ok(&[
        "run", "-d", "-i", "--name", "talker", "busybox", "sh", "-c", script,
    ]);
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream
        .set_read_timeout(Some(gamut_tests::PATIENCE))
        .unwrap();
    let request = "GET /v1.44/containers/talker/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n\
        Host: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut got: Vec<u8> = Vec::new();
    let mut until = |stream: &mut UnixStream, wanted: &[u8]| {
        eventually("it comes", || {
            let mut buffer = [0; 4096];
            if !got.windows(wanted.len()).any(|window| window == wanted) {
                let count = stream.read(&mut buffer).unwrap();
                assert_ne!(count, 0, "closed early: {}", String::from_utf8_lossy(&got));
                got.extend_from_slice(&buffer[..count]);
            }
            got.windows(wanted.len()).any(|window| window == wanted)
        });
        String::from_utf8_lossy(&got).into_owned()
    };
    let head = until(&mut stream, b"\r\n\r\n").to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );

    stream.write_all(&frame(2, b"one\n")).unwrap();
    // Whole messages, without the headers of Docker's own streams, and of the streams asked for.
    until(&mut stream, b"\x82\x0aheard one\n");
    stream.write_all(&frame(9, b"there?")).unwrap();
    until(&mut stream, b"\x8a\x06there?");
    // In two pieces.
    let two = frame(1, b"two\n");
    stream.write_all(&two[..3]).unwrap();
    stream.write_all(&two[3..]).unwrap();
    let text = until(&mut stream, b"\x82\x0aheard two\n");
    assert!(!text.contains("err"), "{text}");
    stream.write_all(&frame(8, &[3, 0xe8])).unwrap();
    until(&mut stream, b"\x88\x02\x03\xe8");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(daemon.inspect("talker")["State"]["Running"], true);
    daemon.ok(&["rm", "-f", "talker"]);
    daemon.finish();
}

//! Hostile and broken input: each is refused with a clear error, writes nothing outside, and
//! leaves nothing half done.

use gamut_tests::{Daemon, Snapshot, busybox, eventually};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::image::{OciImage, append, digest, noise, tar_of};
use crate::registry::{Registry, Vice};

/// A file outside, which nobody may write, and what there was before.
struct Fence {
    daemon: Daemon,
    outside: PathBuf,
    before: Snapshot,
}

impl Fence {
    fn set() -> Option<Self> {
        let daemon = Daemon::with_busybox()?;
        let outside = daemon.directory().join("outside");
        fs::write(&outside, "untouched").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let before = daemon.snapshot_at_rest();
        Some(Self {
            daemon,
            outside,
            before,
        })
    }

    /// Nothing has been written and nothing is left.
    #[track_caller]
    fn holds(&self, what: &str) {
        assert_eq!(
            fs::read_to_string(&self.outside).unwrap(),
            "untouched",
            "{what}"
        );
        let due = Instant::now() + Duration::from_secs(10);
        loop {
            let difference = self.daemon.snapshot().difference(&self.before);
            if difference.is_empty() {
                return;
            }
            assert!(
                Instant::now() < due,
                "{what} has left {difference:#?}\n{}",
                self.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The command fails, says why in one of these words, and leaves nothing.
    #[track_caller]
    fn refuses(&self, what: &str, arguments: &[&str], input: &[u8], words: &[&str]) {
        let path = self.daemon.directory().join("input");
        fs::write(&path, input).unwrap();
        let path = path.display().to_string();
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|word| {
                if *word == "INPUT" {
                    path.as_str()
                } else {
                    *word
                }
            })
            .collect();
        let output = self.daemon.gamut(&arguments);
        println!("{what}: {} {}", output.code, output.stderr.trim());
        assert_ne!(output.code, 0, "{what} is taken: {output:#?}");
        let text = output.stderr.to_lowercase();
        assert!(
            words.iter().any(|word| text.contains(word)),
            "{what}: {output:#?}"
        );
        assert!(!text.contains("panick"), "{what}: {output:#?}");
        // A container that could be made and not be started is there to be looked at, as with
        // docker; it can be removed.
        for id in self.daemon.lines(&["ps", "-a", "-q"]) {
            self.daemon.ok(&["rm", "-f", "-v", &id]);
        }
        self.holds(what);
    }

    fn finish(self) {
        let output = self.daemon.gamut(&["system", "fsck"]);
        assert_eq!(output.code, 0, "{output:#?}");
        self.daemon.finish();
    }
}

/// Layers that try to get out, by what they try.
fn hostile_layers(outside: &str) -> Vec<(&'static str, Vec<u8>)> {
    use tar::EntryType as Kind;
    let mut list = Vec::new();
    let mut add = |what, entries: &[(&[u8], Kind, Option<&str>)]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, target) in entries {
            let content: &[u8] = if *kind == Kind::Regular {
                b"owned"
            } else {
                b""
            };
            append(&mut builder, path, *kind, *target, content);
        }
        list.push((what, builder.into_inner().unwrap()));
    };
    let climb = format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let climb = climb.as_bytes();
    add("a path with ..", &[(climb, Kind::Regular, None)]);
    add(
        "an absolute path",
        &[(outside.as_bytes(), Kind::Regular, None)],
    );
    add(
        "a file through an absolute link",
        &[
            (b"link", Kind::Symlink, Some(outside)),
            (b"link", Kind::Regular, None),
        ],
    );
    let directory = outside.rsplit_once('/').unwrap().0;
    add(
        "a file below a linked directory",
        &[
            (b"dir", Kind::Symlink, Some(directory)),
            (b"dir/outside", Kind::Regular, None),
        ],
    );
    add(
        "a hard link out",
        &[
            (b"hard", Kind::Link, Some(outside)),
            (b"hard", Kind::Regular, None),
        ],
    );
    add(
        "a whiteout through a link",
        &[
            (b"dir", Kind::Symlink, Some(directory)),
            (b"dir/.wh.outside", Kind::Regular, None),
        ],
    );
    list
}

#[test]
fn hostile_layers_stay_inside() {
    let Some(fence) = Fence::set() else { return };
    let daemon = &fence.daemon;
    for (what, layer) in hostile_layers(&fence.outside.display().to_string()) {
        // Whether it is refused or confined, nothing gets out and nothing is left.
        let path = daemon.directory().join("input");
        for verb in ["load", "import"] {
            let archive = match verb {
                "load" => OciImage::of(vec![layer.clone()]).archive("hostile:1"),
                _ => layer.clone(),
            };
            fs::write(&path, archive).unwrap();
            let path = path.display().to_string();
            let arguments: &[&str] = match verb {
                "load" => &["load", "-q", "-i", &path],
                _ => &["import", &path, "hostile:1"],
            };
            let output = daemon.gamut(arguments);
            println!("{verb} {what}: {} {}", output.code, output.stderr.trim());
            assert!(
                output.code == 0 || !output.stderr.is_empty(),
                "{what}: {output:#?}"
            );
            if output.code == 0 {
                daemon.ok(&["rmi", "hostile:1"]);
            }
            fence.holds(what);
        }
    }
    fence.finish();
}

#[test]
fn hostile_archives_are_copied_nowhere_but_inside() {
    let Some(mut fence) = Fence::set() else {
        return;
    };
    fence
        .daemon
        .ok(&["run", "-d", "--name", "target", "busybox", "sleep", "1000"]);
    fence.daemon.ok(&["exec", "target", "true"]);
    std::thread::sleep(Duration::from_millis(300));
    fence.before = fence.daemon.snapshot();
    let outside = fence.outside.display().to_string();
    for (what, archive) in hostile_layers(&outside) {
        let output = fence
            .daemon
            .gamut_with_input(&["cp", "-", "target:/tmp"], &archive);
        println!("cp {what}: {} {}", output.code, output.stderr.trim());
        assert_eq!(
            fs::read_to_string(&fence.outside).unwrap(),
            "untouched",
            "{what}"
        );
        assert_eq!(
            fence
                .daemon
                .gamut(&["exec", "target", "rm", "-rf", "/tmp/dir"])
                .code,
            0
        );
    }
    // Links that the container itself has set.
    let script = format!(
        "rm -rf /trap; ln -s {} /trap",
        fence.daemon.directory().display()
    );
    fence.daemon.ok(&["exec", "target", "sh", "-c", &script]);
    let archive = tar_of(&[("outside", b"owned")]);
    fence
        .daemon
        .gamut_with_input(&["cp", "-", "target:/trap"], &archive);
    let stolen = fence.daemon.gamut(&["cp", "target:/trap/outside", "-"]);
    assert!(!stolen.stdout.contains("untouched"), "{stolen:#?}");
    assert_eq!(fs::read_to_string(&fence.outside).unwrap(), "untouched");
    fence.daemon.ok(&["rm", "-f", "target"]);
    fence.finish();
}

#[test]
fn broken_archives_are_refused() {
    let Some(fence) = Fence::set() else { return };
    let image = OciImage::noisy(5, 2, 64 * 1024);
    let whole = image.archive("broken:1");
    let load = &["load", "-q", "-i", "INPUT"];
    let layer = digest(&image.layers[1]);
    for share in [1, 20, 50, 80, 95] {
        let cut = &whole[..whole.len() * share / 100];
        fence.refuses(
            &format!("an archive cut at {share} %"),
            load,
            cut,
            &["archive", "truncated", "ends", "manifest", "blob", "layer"],
        );
    }
    fence.refuses(
        "an empty archive",
        load,
        b"",
        &["archive", "empty", "image"],
    );
    fence.refuses(
        "noise",
        load,
        &noise(9, 100_000),
        &["archive", "tar", "header"],
    );
    fence.refuses(
        "a tar without an image",
        load,
        &tar_of(&[("file", b"x")]),
        &["image", "manifest", "index"],
    );
    let flipped = image.archive_with("broken:1", |name, blob| {
        let mut blob = blob.to_vec();
        if name == layer {
            let middle = blob.len() / 2;
            blob[middle] ^= 1;
        }
        blob
    });
    fence.refuses("a layer with another digest", load, &flipped, &["digest"]);
    let config = digest(&image.config);
    let bad_config = image.archive_with("broken:1", |name, blob| {
        if name == config {
            b"{}".to_vec()
        } else {
            blob.to_vec()
        }
    });
    fence.refuses(
        "a configuration with another digest",
        load,
        &bad_config,
        &["digest", "size"],
    );
    let mut lying = image.clone();
    lying.config = String::from_utf8(image.config.clone())
        .unwrap()
        .replace(&layer, &digest(b"other"))
        .into_bytes();
    lying.manifest = lying.manifest_value().to_string().into_bytes();
    fence.refuses(
        "a configuration that names another layer",
        load,
        &lying.archive("broken:1"),
        &["layer", "digest", "diff"],
    );
    let mut garbled = image.clone();
    garbled.config = b"{\"rootfs\": {\"type\": \"layers\", \"diff_ids\": 7}}".to_vec();
    garbled.manifest = garbled.manifest_value().to_string().into_bytes();
    fence.refuses(
        "a configuration that is none",
        load,
        &garbled.archive("broken:1"),
        &["config", "invalid", "malformed", "layer"],
    );
    fence.refuses(
        "an import of noise",
        &["import", "INPUT", "broken:1"],
        &noise(4, 50_000),
        &["tar", "archive", "header"],
    );
    fence.finish();
}

#[test]
fn dishonest_registries_are_refused() {
    let Some(fence) = Fence::set() else { return };
    let image = OciImage::noisy(11, 2, 256 * 1024);
    let vices: [(Vice, &[&str]); 7] = [
        (Vice::WrongLayer, &["digest"]),
        (Vice::WrongConfig, &["digest"]),
        (
            Vice::Cut,
            &[
                "cut",
                "ended",
                "closed",
                "incomplete",
                "connection",
                "bytes",
            ],
        ),
        (
            Vice::Longer,
            &["digest", "bytes", "size", "connection", "http"],
        ),
        (Vice::Garbage, &["http", "registry", "answer", "connection"]),
        (Vice::BadManifest, &["manifest", "json"]),
        (Vice::Missing, &["lacks", "incomplete"]),
    ];
    for (vice, words) in vices {
        let registry = Registry::start(&fence.daemon, &image, vice);
        let reference = format!("{}/bad/image:1", registry.address);
        let output = fence.daemon.gamut(&["pull", "-q", &reference]);
        println!("{vice:?}: {} {}", output.code, output.stderr.trim());
        registry.stop(&fence.daemon);
        if vice == Vice::Longer && output.code == 0 {
            // What was announced was right; what followed it was not looked at.
            fence.daemon.ok(&["rmi", &reference]);
        } else {
            assert_ne!(output.code, 0, "{vice:?} is taken");
            let text = output.stderr.to_lowercase();
            assert!(
                words.iter().any(|word| text.contains(word)),
                "{vice:?}: {output:#?}"
            );
        }
        fence.holds(&format!("{vice:?}"));
    }
    fence.finish();
}

#[test]
fn callers_that_hang_up_leave_nothing() {
    let Some(fence) = Fence::set() else { return };
    let image = OciImage::noisy(12, 3, 2 << 20);
    for vice in [Vice::Slow(20), Vice::Silent] {
        let registry = Registry::start(&fence.daemon, &image, vice);
        let reference = format!("{}/slow/image:1", registry.address);
        let session = fence.daemon.spawn(&["pull", &reference]);
        std::thread::sleep(Duration::from_millis(400));
        session.signal(libc::SIGKILL);
        session.wait();
        if vice == Vice::Silent {
            registry.stop(&fence.daemon);
            fence.holds("a hung-up pull from a silent registry");
        } else {
            fence.holds("a hung-up pull");
            registry.stop(&fence.daemon);
        }
    }
    // An upload that stops in the middle.
    let body = image.archive("cut:1");
    let mut stream = UnixStream::connect(fence.daemon.socket()).unwrap();
    write!(
        stream,
        "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(&body[..body.len() / 2]).unwrap();
    drop(stream);
    fence.holds("an upload that was cut");
    // Requests whose caller does not wait for the answer.
    let create = r#"{"Image": "busybox", "Cmd": ["sleep", "1000"]}"#;
    for pause_ms in [0, 1, 3, 10] {
        hang_up(
            &fence.daemon,
            "/containers/create?name=hung",
            create,
            pause_ms,
        );
        // Whoever hung up is not told when the create is over, or that it was never begun.
        let list = || fence.daemon.lines(&["ps", "-a", "-q", "--no-trunc"]);
        let due = Instant::now() + Duration::from_secs(2);
        while list().is_empty() && Instant::now() < due {
            std::thread::sleep(Duration::from_millis(20));
        }
        let made = list();
        assert!(made.len() <= 1, "{made:?}");
        if made.len() == 1 {
            hang_up(&fence.daemon, "/containers/hung/start", "", pause_ms);
            std::thread::sleep(Duration::from_millis(300));
            let state = fence.daemon.inspect("hung")["State"]["Status"].take();
            assert!(state == "running" || state == "created", "{state}");
        }
        fence.daemon.gamut(&["rm", "-f", "hung"]);
        fence.holds("a caller who hung up");
    }
    fence.finish();
}

fn hang_up(daemon: &Daemon, path: &str, body: &str, pause_ms: u64) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(pause_ms));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let Some(fence) = Fence::set() else { return };
    let daemon = &fence.daemon;
    let long = "a".repeat(5000);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let cases: Vec<(&str, String, String, &[u16])> = vec![
        ("GET", "/no/such/route".into(), String::new(), &[404]),
        ("PATCH", "/containers/json".into(), String::new(), &[404, 405]),
        ("GET", "/v9.99/containers/json".into(), String::new(), &[400]),
        ("GET", "/v1.x/containers/json".into(), String::new(), &[400, 404]),
        ("POST", "/containers/create".into(), "{".into(), &[400]),
        ("POST", "/containers/create".into(), "[]".into(), &[400]),
        ("POST", "/containers/create".into(), "\"text\"".into(), &[400]),
        ("POST", "/containers/create".into(), deep, &[400]),
        ("POST", "/containers/create".into(), "{}".into(), &[400, 404]),
        ("POST", "/containers/create".into(), r#"{"Image": 7}"#.into(), &[400]),
        ("POST", "/containers/create".into(), r#"{"Image": "Not A Reference!"}"#.into(), &[400, 404]),
        ("POST", "/containers/create".into(), r#"{"Image": "nosuch:1"}"#.into(), &[404]),
        ("POST", "/containers/create?name=..%2F..%2Fetc".into(), r#"{"Image": "busybox"}"#.into(), &[400]),
        ("POST", format!("/containers/create?name={long}"), r#"{"Image": "busybox"}"#.into(), &[400]),
        ("POST", "/containers/create".into(), r#"{"Image": "busybox", "HostConfig": {"Memory": -5}}"#.into(), &[400]),
        ("POST", "/containers/create".into(), r#"{"Image": "busybox", "HostConfig": {"Binds": ["relative:/x"]}, "Volumes": {"../..": {}}}"#.into(), &[400]),
        ("POST", "/containers/create".into(), r#"{"Image": "busybox", "HostConfig": {"Binds": ["/:/"]}}"#.into(), &[400]),
        ("GET", "/containers/json?filters=%7B".into(), String::new(), &[400]),
        ("GET", "/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D".into(), String::new(), &[400]),
        ("GET", "/containers/json?filters=7".into(), String::new(), &[400]),
        ("GET", "/images/json?filters=%5B1%5D".into(), String::new(), &[400]),
        ("GET", "/events?since=yesterday&until=1".into(), String::new(), &[400]),
        ("GET", "/containers/nosuch/json".into(), String::new(), &[404]),
        ("GET", "/containers/%2e%2e/json".into(), String::new(), &[400, 404]),
        ("GET", "/containers/%00%ff/json".into(), String::new(), &[400, 404]),
        ("POST", "/containers/nosuch/start".into(), String::new(), &[404]),
        ("DELETE", "/volumes/..%2f..%2fetc".into(), String::new(), &[400, 404]),
        ("POST", "/volumes/create".into(), r#"{"Name": "../escape"}"#.into(), &[400]),
        ("POST", "/exec/nosuch/start".into(), "{}".into(), &[404]),
        ("POST", "/images/create?fromImage=UPPER%20CASE".into(), String::new(), &[400, 404]),
    ];
    for (method, path, body, expected) in cases {
        let answer = daemon.http(method, &path, &body);
        let text = answer.text();
        let short: String = path.chars().take(60).collect();
        println!("{method} {short}: {} {}", answer.status, text.trim());
        assert!(
            expected.contains(&answer.status),
            "{method} {short}: {} {text}",
            answer.status
        );
        assert!(
            text.contains("message"),
            "{method} {short} is refused without a word"
        );
    }
    // More than anybody needs, announced and not.
    let oversize = format!(
        r#"{{"Image": "busybox", "Cmd": ["{}"]}}"#,
        "x".repeat(32 << 20)
    );
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let _ = write!(
        stream,
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        oversize.len()
    );
    let _ = stream.write_all(oversize.as_bytes());
    let mut answer = [0; 12];
    if stream.read_exact(&mut answer).is_ok() {
        assert_eq!(&answer[..10], b"HTTP/1.1 4", "an oversize body is taken");
    }
    // What is no HTTP at all.
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let _ = stream.write_all(&noise(3, 4096));
    drop(stream);
    assert_eq!(daemon.http("GET", "/_ping", "").status, 200);
    fence.holds("requests that make no sense");
    fence.finish();
}

#[test]
fn flags_and_references_that_make_no_sense_are_refused() {
    let Some(fence) = Fence::set() else { return };
    let cases: &[(&[&str], &[&str])] = &[
        (&["run", "--no-such-flag", "busybox"], &["--no-such-flag"]),
        (&["no-such-verb"], &["no-such-verb"]),
        (&["run", "--memory", "lots", "busybox"], &["lots", "memory"]),
        (&["run", "--memory", "1k", "busybox", "true"], &["memory"]),
        (&["run", "--cpus", "-1", "busybox"], &["cpus"]),
        (&["run", "--cpus", "1000", "busybox", "true"], &["cpus"]),
        (
            &["run", "--restart", "sometimes", "busybox"],
            &["sometimes", "restart"],
        ),
        (
            &["run", "--rm", "--restart", "always", "busybox"],
            &["restart", "autoremove"],
        ),
        (&["run", "-p", "99999:80", "busybox"], &["port", "99999"]),
        (
            &["run", "-v", "relative/path:/x", "busybox"],
            &["relative/path"],
        ),
        (
            &["run", "-v", "/a:relative", "busybox"],
            &["absolute", "relative"],
        ),
        (&["run", "--network", "nosuch", "busybox"], &["nosuch"]),
        (
            &["run", "--network", "container:nosuch", "busybox"],
            &["nosuch"],
        ),
        (&["run", "--isolation", "magic", "busybox"], &["magic"]),
        (&["run", "--cap-add", "NOSUCH", "busybox"], &["nosuch"]),
        (
            &["run", "--security-opt", "seccomp=/nonexistent", "busybox"],
            &["nonexistent", "seccomp"],
        ),
        (
            &["run", "--ulimit", "nofile=many", "busybox"],
            &["many", "ulimit"],
        ),
        (
            &["run", "--sysctl", "kernel.hostname=x", "busybox", "true"],
            &["sysctl", "kernel.hostname"],
        ),
        (
            &["run", "--device", "/dev/nonexistent", "busybox", "true"],
            &["nonexistent"],
        ),
        (
            &["run", "--stop-signal", "SIGNOSUCH", "busybox"],
            &["signosuch"],
        ),
        (
            &["run", "--user", "nosuchuser", "--rm", "busybox", "true"],
            &["nosuchuser"],
        ),
        (
            &["run", "-w", "/etc/passwd", "--rm", "busybox", "true"],
            &["/etc/passwd"],
        ),
        (
            &["run", "--rm", "busybox", "/nonexistent"],
            &["nonexistent"],
        ),
        (
            &["run", "--rm", "busybox", "/etc/not-executable"],
            &["permission", "denied", "executable"],
        ),
        (&["run", "Bad Reference"], &["reference", "bad"]),
        (
            &["pull", "fault/UPPER"],
            &["reference", "lowercase", "lower"],
        ),
        (
            &["pull", "127.0.0.1:1/nobody:1"],
            &["127.0.0.1:1", "refused", "connect"],
        ),
        (
            &["pull", "busybox@sha256:1234"],
            &["digest", "reference", "sha256"],
        ),
        (&["tag", "busybox", "Bad:Tag:Here"], &["reference"]),
        (&["rmi", "nosuch:1"], &["nosuch"]),
        (&["rm", "nosuch"], &["nosuch"]),
        (&["exec", "nosuch", "true"], &["nosuch"]),
        (&["cp", "nosuch:/x", "/tmp/never"], &["nosuch"]),
        (&["volume", "create", "../escape"], &["escape"]),
        (&["volume", "rm", "nosuch"], &["nosuch"]),
        (&["load", "-i", "/nonexistent"], &["nonexistent"]),
        (
            &["logs", "--since", "whenever", "nosuch"],
            &["whenever", "since", "nosuch"],
        ),
    ];
    for (arguments, words) in cases {
        fence.refuses(&arguments.join(" "), arguments, b"", words);
    }
    fence.finish();
}

#[test]
fn slow_readers_hold_up_nobody() {
    let Some(fence) = Fence::set() else { return };
    let daemon = &fence.daemon;
    let talk = |lines: u32| {
        format!(
            "i=0; while [ $i -lt {lines} ]; do echo line $i of a very long story; i=$((i+1)); done"
        )
    };
    let open = |method: &str, path: &str| {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0";
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n\r\n"
        )
        .unwrap();
        stream
    };
    let has_ended = |name: &str| daemon.inspect(name)["State"]["Status"] == "exited";
    // Who follows the log and does not read it holds up nobody.
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "talker",
        "busybox",
        "sh",
        "-c",
        &talk(60_000),
    ]);
    let following = open("GET", "/containers/talker/logs?follow=1&stdout=1");
    eventually("the talker ends though its log is not read", || {
        has_ended("talker")
    });
    assert!(
        daemon
            .ok(&["logs", "--tail", "1", "talker"])
            .contains("line 59999")
    );
    drop(following);
    // Who is attached and does not read holds up that container's output, as a full pipe does, and
    // nothing else; once he has gone, it goes on.
    daemon.ok(&[
        "create",
        "--name",
        "held",
        "busybox",
        "sh",
        "-c",
        &talk(60_000),
    ]);
    let attached = open("POST", "/containers/held/attach?stream=1&stdout=1&stderr=1");
    std::thread::sleep(Duration::from_millis(200));
    daemon.ok(&["start", "held"]);
    assert_eq!(
        daemon.ok(&["run", "--rm", "busybox", "echo", "others go on"]),
        "others go on"
    );
    assert_eq!(
        daemon.ok(&["exec", "held", "echo", "so does exec"]),
        "so does exec"
    );
    drop(attached);
    eventually("the talker ends when its reader has gone", || {
        has_ended("held")
    });
    assert!(
        daemon
            .ok(&["logs", "--tail", "1", "held"])
            .contains("line 59999")
    );
    daemon.ok(&["rm", "-f", "talker", "held"]);
    fence.holds("slow readers");
    fence.finish();
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let Some(mut daemon) = Daemon::start() else {
        return;
    };
    let Some(rootfs) = busybox() else { return };
    // The data root on a file system of its own, in the daemon's mount namespace only.
    daemon.kill_9();
    let data = daemon.data_root();
    let mount = |arguments: &[&str]| {
        let output = daemon.command("mount").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    mount(&[
        "-t",
        "tmpfs",
        "-o",
        "size=16m",
        "small",
        &data.display().to_string(),
    ]);
    daemon.restart();
    daemon.import(rootfs, "busybox", &["CMD [\"sh\"]"]);
    let running = daemon.ok(&["run", "-d", "--name", "running", "busybox", "sleep", "1000"]);
    // An image that does not fit.
    let archive = daemon.directory().join("big.tar");
    fs::write(&archive, OciImage::noisy(21, 2, 12 << 20).archive("big:1")).unwrap();
    let archive = archive.display().to_string();
    let used = || {
        let path = data.display().to_string();
        let output = daemon.command("du").args(["-sk", &path]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = used();
    let failed = daemon.gamut(&["load", "-q", "-i", &archive]);
    assert_ne!(failed.code, 0);
    assert!(
        failed.stderr.to_lowercase().contains("no space"),
        "{failed:#?}"
    );
    eventually("what did not fit is gone", || used() <= before + 16);
    // Not a byte is left.
    let path = data.join("ballast").display().to_string();
    let fill = || {
        let of = format!("of={path}");
        daemon
            .command("dd")
            .args(["if=/dev/zero", &of, "bs=4k"])
            .output()
            .unwrap();
    };
    fill();
    let refused = daemon.gamut(&["create", "--name", "one-more", "busybox"]);
    assert_ne!(refused.code, 0, "{refused:#?}");
    assert!(
        refused.stderr.to_lowercase().contains("no space"),
        "{refused:#?}"
    );
    assert_ne!(daemon.gamut(&["volume", "create", "one-more"]).code, 0);
    assert_eq!(
        daemon.lines(&["ps", "-a", "-q", "--no-trunc"]),
        std::slice::from_ref(&running)
    );
    assert!(daemon.lines(&["volume", "ls", "-q"]).is_empty());
    // What runs is managed all the same.
    fill();
    daemon.gamut(&["stop", "-t", "0", "running"]);
    let state = daemon.inspect("running")["State"].take();
    println!("stopped on a full disk: {state}");
    daemon.command("rm").args(["-f", &path]).output().unwrap();
    daemon.gamut(&["stop", "-t", "0", "running"]);
    eventually("it is stopped", || {
        daemon.inspect("running")["State"]["Status"] == "exited"
    });
    daemon.ok(&["start", "running"]);
    let fsck = daemon.gamut(&["system", "fsck"]);
    assert_eq!(fsck.stdout.trim(), "no problems found", "{fsck:#?}");
    daemon.ok(&["rm", "-f", "running"]);
    daemon.remove_all();
    daemon.terminate();
    assert!(daemon.processes().is_empty());
}

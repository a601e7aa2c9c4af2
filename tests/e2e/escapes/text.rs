//! Text of a container's or a client's choice that ends up on terminals and in logs.

use gamut_tests::{Bundle, Daemon, Output, Session, hostile, target_binary};

/// Clears the screen, sets the title, goes to a new line and claims to be the engine.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;title\u{7}\nERROR gamut: all is lost\r";

/// What a command shows on a terminal, without colours of its own.
fn on_terminal(daemon: &Daemon, words: &[&str]) -> Output {
    let mut command = daemon.command(target_binary());
    let mut output = Session::start_on_terminal(command.args(words).env("NO_COLOR", "1")).wait();
    output.stdout = output.stdout.replace("\r\n", "\n");
    output
}

const NONE: [char; 0] = [];

/// Bytes by which text can do something to a terminal, or end a line.
fn control(text: &str) -> Vec<char> {
    let is_harmful = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().filter(is_harmful).collect()
}

#[test]
fn no_line_of_the_engines_log_is_written_by_others() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    daemon.detached("here", &[], "exec sleep 1000");
    let encoded: String = HOSTILE.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let json = serde_json::json!(HOSTILE).to_string();
    for (method, path, body) in [
        (
            "POST",
            format!("/containers/create?name={encoded}"),
            "{\"Image\":\"busybox\"}".to_owned(),
        ),
        ("GET", format!("/containers/{encoded}/json"), String::new()),
        ("DELETE", format!("/volumes/{encoded}"), String::new()),
        ("GET", format!("/{encoded}"), String::new()),
        (
            "POST",
            "/containers/create".to_owned(),
            format!("{{\"Image\":{json}}}"),
        ),
        (
            "POST",
            "/volumes/create".to_owned(),
            format!("{{\"Name\":{json}}}"),
        ),
        (
            "POST",
            format!("/images/create?fromImage={encoded}"),
            String::new(),
        ),
        (
            "POST",
            format!("/containers/here/exec?x={encoded}"),
            format!("{{\"Cmd\":[{json}]}}"),
        ),
        (
            "PUT",
            format!("/containers/here/archive?path=/{encoded}"),
            String::new(),
        ),
        (
            "POST",
            format!("/containers/here/kill?signal={encoded}"),
            String::new(),
        ),
    ] {
        let answer = daemon.http(method, &path, &body);
        println!("{method} {path}: {}", answer.text());
    }
    for words in [
        ["run", "--rm", "busybox", HOSTILE].as_slice(),
        &["run", "--rm", "--entrypoint", HOSTILE, "busybox"],
        &["run", "--rm", "-u", HOSTILE, "busybox"],
        &["run", "--rm", "-h", HOSTILE, "busybox"],
        &[
            "run",
            "--rm",
            "--add-host",
            "x:1.2.3.4\n5.6.7.8 bank",
            "busybox",
        ],
        &[
            "run",
            "--rm",
            "--dns-search",
            "x\nnameserver 5.6.7.8",
            "busybox",
        ],
        &[
            "run",
            "--rm",
            "-v",
            "/tmp:/proc/\nERROR gamut: all is lost",
            "busybox",
        ],
        &["exec", "here", HOSTILE],
        &["exec", "-u", HOSTILE, "here", "true"],
        &[
            "exec",
            "-w",
            "/\u{1b}[2J\nERROR gamut: all is lost",
            "here",
            "true",
        ],
    ] {
        let output = daemon.gamut(words);
        assert_ne!(output.code, 0, "{words:?}: {output:#?}");
    }
    daemon.ok(&["rm", "-f", "here"]);
    let log = daemon.log();
    assert!(
        !log.lines().any(|line| line.starts_with("ERROR gamut")),
        "{log}"
    );
    assert_eq!(control(&log), NONE, "{log:?}");
    daemon.finish();
}

/// CVE-2017-5226's way: a terminal that was handed on is typed on.
#[test]
fn nothing_can_be_typed_on_the_callers_terminal() {
    let Some(rootfs) = hostile() else { return };
    let Some(bundle) = Bundle::new(rootfs, &["/bin/attacker", "type"]) else {
        return;
    };
    let mut command = bundle.command(&["run", "--bundle", &bundle.path(), "a"]);
    let output = Session::start_on_terminal(&mut command).wait();
    assert!(output.stdout.contains("done"), "{output:#?}");
    assert!(!output.stdout.contains("GOT"), "{output:#?}");
}

#[test]
fn what_an_image_or_container_says_of_itself_does_nothing_to_the_terminal() {
    let Some(rootfs) = hostile() else { return };
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let archive = rootfs.file("data/\u{1b}[2J\u{7}", 0o644, b"x").finish();
    let label = format!("LABEL note=\"{}\"", "x\u{1b}[2J\u{7}");
    let command = serde_json::json!(["sh", "-c", format!("echo {HOSTILE}; exec sleep 1000")]);
    let changes = [label.as_str(), &format!("CMD {command}")];
    daemon.import(&archive, "busybox", &changes);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "here",
        "--label",
        &format!("l={HOSTILE}"),
        "busybox",
    ]);
    let script = "sleep 1000; true";
    daemon.ok(&[
        "run", "-d", "--name", "two", "busybox", "sh", "-c", script, HOSTILE,
    ]);
    for words in [
        ["ps", "-a", "--no-trunc"].as_slice(),
        &["ps", "-a", "--format", "{{.Command}} {{.Labels}}"],
        &["inspect", "here"],
        &["images", "--no-trunc"],
        &["history", "--no-trunc", "busybox"],
        &["top", "here"],
        &["top", "two"],
        &["system", "df", "-v"],
        &["system", "dump"],
    ] {
        let output = on_terminal(&daemon, words);
        assert_eq!(output.code, 0, "{words:?}: {output:#?}");
        let text = &output.stdout;
        assert_eq!(control(text), NONE, "{words:?}: {text:?}");
    }
    // Errors that repeat what the image wanted.
    daemon.import(
        &archive,
        "bad",
        &[&format!("ENTRYPOINT {}", serde_json::json!([HOSTILE]))],
    );
    let output = on_terminal(&daemon, &["run", "--rm", "bad"]);
    assert_eq!(control(&output.stdout), NONE, "{output:#?}");
    let output = daemon.gamut(&["run", "--rm", "bad"]);
    assert!(output.code != 0, "{output:#?}");
    assert_eq!(control(&output.stderr), NONE, "{output:#?}");
    daemon.finish();
}

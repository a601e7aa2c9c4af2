//! `gamut run`: what the workload gets, and what the caller gets back.

use gamut_tests::Daemon;

#[test]
fn hello_world_runs() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let output = daemon.ok(&["run", "--rm", "hello-world"]);
    assert!(output.contains("Hello"), "{output}");
    daemon.finish();
}

#[test]
fn exit_codes_tell_who_failed() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // The workload: its own code, or 128 and the signal.
    assert_eq!(daemon.shell(&[], "exit 0").code, 0);
    assert_eq!(daemon.shell(&[], "exit 3").code, 3);
    assert_eq!(daemon.shell(&[], "exit 255").code, 255);
    assert_eq!(daemon.shell(&["--init"], "kill -TERM $$").code, 143);

    // The command: not executable, not there.
    let refused = daemon.gamut(&["run", "--rm", "busybox", "/etc/not-executable"]);
    let error = refused.fails(126);
    assert!(error.contains("/etc/not-executable"), "{error}");
    let missing = daemon.gamut(&["run", "--rm", "busybox", "no-such-command"]);
    let error = missing.fails(127);
    assert!(error.contains("no-such-command"), "{error}");

    // The engine: bad flags, bad images.
    let error = daemon
        .gamut(&["run", "--no-such-flag", "busybox"])
        .fails(125);
    assert!(error.contains("--no-such-flag"), "{error}");
    let _ = daemon
        .gamut(&["run", "--memory", "lots", "busybox"])
        .fails(125);
    let error = daemon.gamut(&["run", "--rm", "UPPER/case"]).fails(125);
    assert!(error.contains("UPPER/case"), "{error}");
    let missing = daemon.gamut(&["run", "--pull", "never", "--rm", "no-such-image"]);
    let error = missing.fails(125);
    assert!(error.contains("no-such-image"), "{error}");

    // None of them has left a container.
    assert_eq!(daemon.ok(&["ps", "-a", "-q"]), "");
    daemon.finish();
}

#[test]
fn output_and_input_are_the_workloads() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let output = daemon.shell(&[], "echo to stdout; echo to stderr >&2");
    assert_eq!(output.stdout, "to stdout\n");
    assert_eq!(output.stderr, "to stderr\n");

    // Without -i there is no input, with it every byte arrives.
    let line = ["run", "--rm", "busybox", "cat"];
    assert_eq!(daemon.gamut_with_input(&line, b"unseen").ok(), "");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let count = daemon.gamut_with_input(&["run", "--rm", "-i", "busybox", "sha256sum"], &bytes);
    let expected = {
        let mut session = gamut_tests::Session::start(&mut std::process::Command::new("sha256sum"));
        session.write_bytes(&bytes);
        session.close_stdin();
        session.wait().ok()
    };
    assert_eq!(count.ok(), expected);

    // Much output is complete though nobody waits for it to be read.
    let much = daemon.shell(&[], "seq 1 200000");
    assert_eq!(much.stdout.lines().count(), 200_000);
    assert_eq!(much.stdout.lines().last(), Some("200000"));
    daemon.finish();
}

#[test]
fn the_process_is_as_the_flags_say() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let shell = |options: &[&str], script: &str| daemon.shell(options, script).ok();

    assert_eq!(shell(&["-e", "COLOUR=blue"], "echo $COLOUR"), "blue");
    assert_eq!(shell(&["-e", "A=1", "-e", "A=2"], "echo $A"), "2");
    let names = shell(
        &["-e", "NOT_SET_ANYWHERE"],
        "env | cut -d= -f1 | sort | xargs",
    );
    assert!(!names.contains("NOT_SET_ANYWHERE"), "{names}");
    assert!(names.contains("HOME") && names.contains("PATH"), "{names}");
    let file = daemon.directory().join("environment");
    std::fs::write(&file, "# comment\nFRUIT=pear and apple\n").unwrap();
    let file = file.display().to_string();
    assert_eq!(
        shell(&["--env-file", &file], "echo $FRUIT"),
        "pear and apple"
    );

    assert_eq!(shell(&[], "pwd"), "/");
    assert_eq!(shell(&["-w", "/srv"], "pwd"), "/srv");
    assert_eq!(shell(&["-w", "/made/for/it"], "pwd"), "/made/for/it");

    assert_eq!(shell(&[], "id -u; id -g").replace('\n', ":"), "0:0");
    let by_name = shell(&["-u", "alice"], "id -un; id -u; id -g; id -G; echo $HOME");
    assert_eq!(
        by_name.replace('\n', ","),
        "alice,1000,1000,1000 50,/home/alice"
    );
    assert_eq!(
        shell(&["-u", "bob:staff"], "echo $(id -u):$(id -g)"),
        "1001:50"
    );
    assert_eq!(
        shell(&["-u", "4242:4343"], "echo $(id -u):$(id -g)"),
        "4242:4343"
    );
    let added = shell(
        &["-u", "bob", "--group-add", "staff", "--group-add", "77"],
        "id -G",
    );
    assert_eq!(added, "1001 50 77");
    let nobody = daemon.gamut(&["run", "--rm", "-u", "nosuch", "busybox", "true"]);
    let error = nobody.stderr.clone();
    assert!(nobody.code == 125 || nobody.code == 126, "{nobody:#?}");
    assert!(error.contains("nosuch"), "{error}");

    let entrypoint = ["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"];
    assert_eq!(daemon.ok(&entrypoint), "a b");

    let own = shell(&["--hostname", "crater"], "hostname; cat /etc/hostname");
    assert_eq!(own, "crater\ncrater");
    let hosts = shell(&["--hostname", "crater"], "grep -w crater /etc/hosts");
    assert!(hosts.ends_with("crater"), "{hosts}");
    let hosts = shell(&["--add-host", "db:10.9.8.7"], "grep -w db /etc/hosts");
    assert!(hosts.starts_with("10.9.8.7"), "{hosts}");
    daemon.finish();
}

#[test]
fn images_say_what_runs_unless_told_otherwise() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(archive) = gamut_tests::busybox() else {
        return;
    };
    let changes = [
        "ENTRYPOINT [\"echo\", \"entry\"]",
        "CMD [\"command\"]",
        "ENV GREETING=hello",
        "WORKDIR /srv",
        "USER alice",
        "LABEL origin=test",
        "EXPOSE 8080/tcp",
    ];
    daemon.import(archive, "tool:1", &changes);
    assert_eq!(daemon.ok(&["run", "--rm", "tool:1"]), "entry command");
    assert_eq!(
        daemon.ok(&["run", "--rm", "tool:1", "other"]),
        "entry other"
    );
    let script = "echo $GREETING; pwd; id -un";
    let shell = ["run", "--rm", "--entrypoint", "sh", "tool:1", "-c", script];
    assert_eq!(daemon.ok(&shell), "hello\n/srv\nalice");
    let overridden = [
        "run",
        "--rm",
        "-u",
        "0",
        "-w",
        "/",
        "-e",
        "GREETING=bye",
        "--entrypoint",
        "sh",
        "tool:1",
        "-c",
        script,
    ];
    assert_eq!(daemon.ok(&overridden), "bye\n/\nroot");
    daemon.ok(&["create", "--name", "kept", "--label", "mine=yes", "tool:1"]);
    let labels = daemon.inspect("kept")["Config"]["Labels"].take();
    assert_eq!(labels["origin"], "test");
    assert_eq!(labels["mine"], "yes");
    daemon.finish();
}

#[test]
fn detached_containers_run_on_and_names_are_unique() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let id = daemon.ok(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]);
    assert_eq!(id.len(), 64, "{id}");
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let listed = daemon.ok(&["ps", "--format", "{{.ID}} {{.Names}} {{.State}}"]);
    assert_eq!(listed, format!("{} one running", &id[..12]));

    let conflict = daemon.gamut(&["run", "-d", "--name", "one", "busybox", "true"]);
    let error = conflict.fails(125);
    assert!(error.contains("one") && error.contains("in use"), "{error}");
    let error = daemon
        .gamut(&["run", "--name", "-bad-", "busybox"])
        .fails(125);
    assert!(error.contains("-bad-"), "{error}");

    // By full id, by a unique prefix, by name.
    for name in [id.as_str(), &id[..12], &id[..4], "one"] {
        assert_eq!(daemon.inspect(name)["Id"], id.as_str());
    }
    // Without a name it gets one.
    let second = daemon.ok(&["run", "-d", "--label", "x=y", "busybox", "sleep", "1000"]);
    let name = daemon.inspect(&second)["Name"].take();
    assert!(name.as_str().is_some_and(|name| name.len() > 4), "{name}");

    // --cidfile tells it to scripts, and is never overwritten.
    let file = daemon.directory().join("cid");
    let path = file.display().to_string();
    let third = daemon.ok(&["run", "-d", "--cidfile", &path, "busybox", "true"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), third);
    let again = daemon.gamut(&["run", "-d", "--cidfile", &path, "busybox", "true"]);
    let _ = again.fails(125);

    daemon.ok(&["rm", "-f", "one"]);
    let _ = daemon.gamut(&["inspect", "one"]).fails(1);
    let _ = daemon.gamut(&["rm", "one"]).fails(1);
    daemon.finish();
}

#[test]
fn rm_removes_everything_after_the_end() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("brief", &["--rm", "-v", "/anonymous"], "sleep 0.3");
    assert_eq!(daemon.lines(&["volume", "ls", "-q"]).len(), 1);
    gamut_tests::eventually("the container removes itself", || {
        daemon.ok(&["ps", "-a", "-q"]).is_empty()
    });
    gamut_tests::eventually("its anonymous volume goes, too", || {
        daemon.ok(&["volume", "ls", "-q"]).is_empty()
    });
    let twice = daemon.gamut(&["run", "--rm", "--restart", "always", "busybox", "true"]);
    let error = twice.fails(125);
    assert!(
        error.contains("--rm") && error.contains("--restart"),
        "{error}"
    );
    daemon.finish();
}

#[test]
fn the_root_filesystem_is_as_the_flags_say() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let shell = |options: &[&str], script: &str| daemon.shell(options, script).ok();

    // Writes stay in the container.
    assert_eq!(
        shell(&[], "echo mine > /data/notes; cat /data/notes"),
        "mine"
    );
    assert_eq!(shell(&[], "cat /data/notes"), "notes of the image");

    // Read-only, with places to write.
    let refused = shell(&["--read-only"], "touch /data/x 2>&1; true");
    assert!(refused.contains("Read-only file system"), "{refused}");
    let script = "touch /run/x && stat -f -c %T /run && stat -c %a /run && df -k /run | tail -1";
    let options = ["--read-only", "--tmpfs", "/run:size=2m,mode=711"];
    let tmpfs = shell(&options, script);
    let lines: Vec<_> = tmpfs.lines().collect();
    assert_eq!(lines[0], "tmpfs");
    assert_eq!(lines[1], "711");
    assert!(
        lines[2].split_whitespace().any(|word| word == "2048"),
        "{tmpfs}"
    );
    let noexec = "cp /bin/busybox /run/; /run/busybox true 2>&1; true";
    let refused = shell(&["--tmpfs", "/run"], noexec);
    assert!(refused.contains("Permission denied"), "{refused}");

    // /dev has what programs expect.
    let devices = shell(
        &[],
        "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done",
    );
    assert_eq!(
        devices.replace('\n', " "),
        "null zero full random urandom tty"
    );
    assert_eq!(
        shell(&[], "readlink /dev/fd; readlink /dev/stdin"),
        "/proc/self/fd\n/proc/self/fd/0"
    );
    assert_eq!(
        shell(
            &["--shm-size", "1m"],
            "df -k /dev/shm | tail -1 | awk '{print $2}'"
        ),
        "1024"
    );
    daemon.finish();
}

#[test]
fn an_init_reaps_and_forwards_signals() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // The workload is the child of process 1, not process 1.
    let pids = daemon.shell(
        &["--init"],
        "echo $$; (sleep 0.1 &) ; sleep 0.4; ps -o stat | grep -c Z; true",
    );
    let pids = pids.ok();
    let mut lines = pids.lines();
    assert_ne!(lines.next(), Some("1"), "{pids}");
    assert_eq!(lines.next(), Some("0"), "{pids}");

    // Without an init, a shell as process 1 ignores SIGTERM; with it, it dies at once.
    daemon.detached("quick", &["--init"], "sleep 1000");
    let begun = std::time::Instant::now();
    daemon.ok(&["stop", "--time", "30", "quick"]);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    assert_eq!(daemon.inspect("quick")["State"]["ExitCode"], 143);
    daemon.finish();
}

//! The process: user, capabilities, limits, filter, terminal, init, and its failures.

use crate::Case;
use crate::rig::{Rig, end, kill, piped, read_all, read_until, run, run_with, start, wait};
use gamut_abi::control::FailureKind;
use gamut_abi::plan::{Capabilities, Rlimit, Seccomp, TerminalSize, User};
use gamut_abi::resources::{Limit, Resources};
use gamut_cgroup::{Group, Hierarchies};
use gamut_container::{CreateOptions, Stdio, create, exec};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub const CASES: &[Case] = &[
    ("process_user_lookup", user_lookup),
    ("process_home_and_cwd", home_and_cwd),
    ("process_capabilities", capabilities),
    ("process_ambient", ambient),
    ("process_rlimits", rlimits),
    ("process_oom_score", oom_score),
    ("process_seccomp", seccomp),
    ("process_no_new_privileges", no_new_privileges),
    ("process_terminal", terminal),
    ("process_exec_terminal", exec_terminal),
    ("process_init", init),
    ("process_init_signals", init_signals),
    ("process_exec_errors", exec_errors),
    ("process_abort", abort),
    ("process_dies_with_parent", dies_with_parent),
    ("process_signals_are_reset", signals_are_reset),
    ("process_streams_can_be_reopened", streams_can_be_reopened),
    ("process_group", group),
    ("process_latency", latency),
];

fn lookup(spec: &str) -> User {
    User::Lookup {
        spec: spec.to_owned(),
        additional_groups: Vec::new(),
    }
}

fn user_lookup(rig: &mut Rig) {
    let mut plan = rig.plan(&["id"]);
    for (spec, wanted) in [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        (
            "app",
            "uid=1000(app) gid=1001(app) groups=1001(app),2000(data)",
        ),
        (
            "1000:data",
            "uid=1000(app) gid=2000(data) groups=2000(data)",
        ),
        ("4242", "uid=4242 gid=0(root) groups=0(root)"),
        ("4242:99", "uid=4242 gid=99 groups=99"),
    ] {
        plan.process.user = lookup(spec);
        assert_eq!(run(&plan).output.trim(), wanted);
    }
    plan.process.user = lookup("nobody");
    let error = run_with(&plan, &[]).unwrap_err();
    assert_eq!(
        error.message,
        "unable to find user nobody: no matching entries in passwd file"
    );
}

fn home_and_cwd(rig: &mut Rig) {
    let mut plan = rig.script("echo $HOME; pwd; umask");
    plan.process.user = lookup("app");
    plan.process.cwd = String::from("/home/app");
    plan.process.umask = Some(0o77);
    assert_eq!(run(&plan).output, "/home/app\n/home/app\n0077\n");
    plan.process.env.push("HOME=/x".into());
    plan.process.user = User::Numeric {
        uid: 0,
        gid: 0,
        additional_gids: vec![],
    };
    plan.process.umask = None;
    assert_eq!(run(&plan).output, "/x\n/home/app\n0022\n");
    plan.process.cwd = String::from("/not/there");
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(
        error.message.contains("working directory /not/there"),
        "{error}"
    );
}

fn status(output: &str, field: &str) -> u64 {
    let line = output.lines().find(|line| line.starts_with(field)).unwrap();
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

fn capabilities(rig: &mut Rig) {
    let mut plan = rig.plan(&["cat", "/proc/self/status"]);
    let outcome = run(&plan);
    for field in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(
            status(&outcome.output, field),
            crate::rig::DOCKER_CAPABILITIES
        );
    }
    plan.process.user = lookup("app");
    let outcome = run(&plan);
    assert_eq!(status(&outcome.output, "CapEff"), 0);
    assert_eq!(status(&outcome.output, "CapPrm"), 0);
    assert_eq!(
        status(&outcome.output, "CapBnd"),
        crate::rig::DOCKER_CAPABILITIES
    );
    // All there are: what the engine does not hold itself is left out, with a warning.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let all = (1 << 41) - 1;
    plan.process.user = lookup("");
    plan.process.capabilities = Some(Capabilities {
        bounding: all,
        effective: all,
        permitted: all,
        inheritable: 0,
        ambient: 0,
    });
    let outcome = run(&plan);
    assert_eq!(status(&outcome.output, "CapEff"), status(&own, "CapPrm"));
    if status(&own, "CapBnd") == all {
        println!("SKIPPED: part of process_capabilities: this machine lacks no capability");
    } else {
        assert!(
            outcome
                .warnings
                .iter()
                .any(|text| text.contains("SYS_RESOURCE"))
        );
    }
}

fn ambient(rig: &mut Rig) {
    let mut plan = rig.plan(&["cat", "/proc/self/status"]);
    let bind_service = 1 << 10;
    plan.process.user = lookup("app");
    plan.process.capabilities = Some(Capabilities {
        bounding: bind_service,
        effective: bind_service,
        permitted: bind_service,
        inheritable: bind_service,
        ambient: bind_service,
    });
    let outcome = run(&plan);
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&outcome.output, field), bind_service, "{field}");
    }
}

fn rlimits(rig: &mut Rig) {
    let mut plan = rig.script("ulimit -n; ulimit -Hn; ulimit -c");
    let limit = |resource: u32, soft, hard| Rlimit {
        resource,
        soft,
        hard,
    };
    plan.process.rlimits = vec![
        limit(libc::RLIMIT_NOFILE, 256, 512),
        limit(libc::RLIMIT_CORE, 0, 0),
    ];
    let outcome = run(&plan);
    assert_eq!(outcome.output, "256\n512\n0\n");
    assert!(outcome.warnings.is_empty());
    plan.process.rlimits = vec![limit(libc::RLIMIT_NOFILE, 1 << 29, 1 << 29)];
    match run_with(&plan, &[]) {
        Ok(outcome) if outcome.warnings.is_empty() => {
            println!("SKIPPED: part of process_rlimits: this machine may raise limits");
        }
        Ok(outcome) => assert!(
            outcome.warnings[0].contains("NOFILE"),
            "{:?}",
            outcome.warnings
        ),
        Err(error) => panic!("{error}"),
    }
    plan.process.rlimits = vec![limit(libc::RLIMIT_NOFILE, 2, 1)];
    assert_eq!(run_with(&plan, &[]).unwrap_err().kind, FailureKind::Invalid);
}

fn oom_score(rig: &mut Rig) {
    let mut plan = rig.plan(&["cat", "/proc/self/oom_score_adj"]);
    plan.process.oom_score_adj = Some(321);
    assert_eq!(run(&plan).output, "321\n");
    plan.process.oom_score_adj = Some(-900);
    let outcome = run(&plan);
    assert!(outcome.output == "-900\n" || outcome.warnings[0].contains("oom_score_adj"));
}

/// A filter under which `mkdir` and `mkdirat` fail with `EXDEV`.
fn no_mkdir() -> Seccomp {
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let [c0, c1] = code.to_ne_bytes();
        let [k0, k1, k2, k3] = k.to_ne_bytes();
        u64::from_ne_bytes([c0, c1, jt, jf, k0, k1, k2, k3])
    };
    let number = |number: libc::c_long| u32::try_from(number).unwrap();
    Seccomp {
        program: vec![
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 1, 0, number(libc::SYS_mkdirat)),
            instruction(0x15, 0, 1, number(libc::SYS_mkdir)),
            instruction(0x06, 0, 0, 0x0005_0000 | libc::EXDEV.unsigned_abs()),
            instruction(0x06, 0, 0, 0x7fff_0000),
        ],
        flags: 0,
    }
}

fn seccomp(rig: &mut Rig) {
    for (nnp, user) in [(false, ""), (true, ""), (false, "app"), (true, "app")] {
        let mut plan =
            rig.script("mkdir /tmp/x; grep -E 'Seccomp:|CapPrm|NoNewPrivs' /proc/self/status");
        plan.process.no_new_privileges = nnp;
        plan.process.user = lookup(user);
        plan.process.seccomp = Some(no_mkdir());
        let outcome = run(&plan);
        assert!(
            outcome.output.contains("Invalid cross-device link"),
            "{}",
            outcome.output
        );
        assert!(outcome.output.contains("Seccomp:\t2"), "{}", outcome.output);
        assert!(
            outcome
                .output
                .contains(&format!("NoNewPrivs:\t{}", u8::from(nnp)))
        );
        let wanted = if user.is_empty() {
            crate::rig::DOCKER_CAPABILITIES
        } else {
            0
        };
        assert_eq!(status(&outcome.output, "CapPrm"), wanted);
    }
    let mut plan = rig.plan(&["true"]);
    plan.process.seccomp = Some(Seccomp {
        program: vec![0xffff],
        flags: 0,
    });
    assert!(
        run_with(&plan, &[])
            .unwrap_err()
            .message
            .contains("seccomp")
    );
    plan.process.seccomp = Some(Seccomp {
        program: no_mkdir().program,
        flags: 8,
    });
    assert_eq!(
        run_with(&plan, &[]).unwrap_err().kind,
        FailureKind::Unsupported
    );
}

fn no_new_privileges(rig: &mut Rig) {
    let mut plan = rig.plan(&["grep", "NoNewPrivs", "/proc/self/status"]);
    plan.process.no_new_privileges = true;
    assert_eq!(run(&plan).output, "NoNewPrivs:\t1\n");
}

fn terminal(rig: &mut Rig) {
    let mut plan = rig.script(
        "tty; stty size; test -c /dev/console && stat -c %u /dev/pts/0; read line; echo got $line; echo x > /dev/tty",
    );
    plan.process.terminal = Some(TerminalSize {
        rows: 33,
        columns: 101,
    });
    plan.process.user = lookup("app");
    let created = create(&plan, &[], Stdio::Null, None, CreateOptions::default()).unwrap();
    let running = created.start().unwrap();
    let master = running.terminal.unwrap();
    let mut terminal = fs::File::from(master.try_clone().unwrap());
    // The terminal echoes what is typed at once: typing waits for the output before it.
    let before = read_until(&mut terminal, "1000\r\n");
    assert_eq!(before, "/dev/pts/0\r\n33 101\r\n1000\r\n");
    terminal.write_all(b"hello\n").unwrap();
    drop(terminal);
    let after = read_all(master);
    assert_eq!(after, "hello\r\ngot hello\r\nx\r\n");
    assert_eq!(wait(running.pid), 0);
}

fn exec_terminal(rig: &mut Rig) {
    let plan = rig.plan(&["sleep", "100"]);
    let running = start(&plan);
    let mut process = plan.process.clone();
    process.args = ["sh", "-c", "tty; stty size"].map(String::from).to_vec();
    process.terminal = Some(TerminalSize {
        rows: 10,
        columns: 20,
    });
    let child = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        Stdio::Null,
        None,
    )
    .unwrap();
    let output = read_all(child.terminal.unwrap());
    assert_eq!(output, "/dev/pts/0\r\n10 20\r\n");
    assert_eq!(wait(child.pid), 0);
    end(running);
}

fn init(rig: &mut Rig) {
    let mut plan = rig.script("echo $$; (sleep 0.05 & ) ; sleep 0.2; ps -o stat | grep -c '^Z'; ls /proc/1/fd | wc -l; grep CapEff /proc/1/status; exit 5");
    plan.process.init = true;
    plan.process.seccomp = Some(no_mkdir());
    let outcome = run(&plan);
    assert_eq!(outcome.code, 5, "{}", outcome.output);
    assert!(outcome.output.starts_with("2\n0\n"), "{}", outcome.output);
    assert_eq!(
        status(&outcome.output, "CapEff"),
        crate::rig::DOCKER_CAPABILITIES
    );
    plan.process.args = vec!["sh".into(), "-c".into(), "kill -KILL $$".into()];
    assert_eq!(run(&plan).code, 137);
    plan.process.args = vec!["nope".into()];
    let error = run_with(&plan, &[]).unwrap_err();
    assert_eq!(error.kind, FailureKind::ExecutableNotFound);
    plan.process.args = vec![
        "sh".into(),
        "-c".into(),
        "tty; echo > /dev/tty; exit 3".into(),
    ];
    plan.process.terminal = Some(TerminalSize::default());
    let created = create(&plan, &[], Stdio::Null, None, CreateOptions::default()).unwrap();
    let running = created.start().unwrap();
    assert!(read_all(running.terminal.unwrap()).contains("/dev/pts/0"));
    assert_eq!(wait(running.pid), 3);
}

fn init_signals(rig: &mut Rig) {
    let mut plan =
        rig.script("trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    plan.process.init = true;
    let (stdio, output) = piped();
    let created = create(&plan, &[], stdio, None, CreateOptions::default()).unwrap();
    let running = created.start().unwrap();
    let mut reader = fs::File::from(output);
    let mut line = [0; 6];
    reader.read_exact(&mut line).unwrap();
    kill(running.pid, libc::SIGTERM);
    assert_eq!(read_all(reader.into()), "term\n");
    assert_eq!(wait(running.pid), 9);
}

fn exec_errors(rig: &mut Rig) {
    for (program, kind) in [
        ("nope", FailureKind::ExecutableNotFound),
        ("/no/such/file", FailureKind::ExecutableNotFound),
        ("notexec", FailureKind::ExecutableDenied),
        ("/bin", FailureKind::ExecutableDenied),
        ("/bin/notexec", FailureKind::ExecutableDenied),
        ("/bin/text", FailureKind::ExecutableDenied),
        ("/bin/script", FailureKind::ExecutableNotFound),
        ("", FailureKind::ExecutableNotFound),
    ] {
        let plan = rig.plan(&[program]);
        let layer = rig.layer();
        for (name, content) in [("text", "no program"), ("script", "#!/no/interpreter\n")] {
            let path = format!("{layer}/bin/{name}");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
        }
        let error = run_with(&plan, &[]).unwrap_err();
        assert_eq!(error.kind, kind, "{program}: {error}");
    }
    assert_eq!(
        run_with(&rig.plan(&[]), &[]).unwrap_err().kind,
        FailureKind::Invalid
    );
}

fn abort(rig: &mut Rig) {
    let created = create(
        &rig.plan(&["true"]),
        &[],
        Stdio::Null,
        None,
        CreateOptions::default(),
    )
    .unwrap();
    let pid = created.pid;
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    created.abort();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

fn dies_with_parent(rig: &mut Rig) {
    let plan = rig.plan(&["sleep", "100"]);
    let (read, write) = crate::rig::pipe();
    // SAFETY: single-threaded; the child ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let running = start(&plan);
        fs::File::from(write)
            .write_all(&running.pid.to_ne_bytes())
            .unwrap();
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    drop(write);
    let mut pid = [0; 4];
    fs::File::from(read).read_exact(&mut pid).unwrap();
    wait(child.cast_unsigned());
    let path = format!("/proc/{}/cmdline", u32::from_ne_bytes(pid));
    for _ in 0..100 {
        if fs::read_to_string(&path).unwrap_or_default().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the container outlived its parent");
}

fn signals_are_reset(rig: &mut Rig) {
    // SAFETY: plain calls with a valid set; undone below.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
    let outcome = run(&rig.plan(&["grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"]));
    // SAFETY: as above.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGHUP, libc::SIG_DFL);
    }
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(status(&outcome.output, field), 0, "{}", outcome.output);
    }
}

fn streams_can_be_reopened(rig: &mut Rig) {
    let mut plan = rig.script("echo one > /dev/stdout; echo two > /proc/self/fd/2");
    plan.process.user = lookup("app");
    assert_eq!(run(&plan).output, "one\ntwo\n");
}

fn group(rig: &mut Rig) {
    let hierarchies = match Hierarchies::detect() {
        Ok(hierarchies) => hierarchies,
        Err(error) => {
            println!("SKIPPED: process_group: no control groups here: {error}");
            return;
        }
    };
    let group = Group::at(&hierarchies, &format!("/gamut-test-{}", std::process::id())).unwrap();
    group.create().unwrap();
    let resources = Resources {
        pids_max: Some(Limit::Value(20)),
        ..Resources::default()
    };
    group.apply(&resources).unwrap();
    let mut plan = rig.plan(&["sleep", "100"]);
    plan.readonly_paths.clear();
    let created = create(
        &plan,
        &[],
        Stdio::Null,
        Some(&group),
        CreateOptions::default(),
    )
    .unwrap();
    assert_eq!(group.processes().unwrap(), [created.pid]);
    let running = created.start().unwrap();
    let mut process = plan.process.clone();
    process.args =
        ["sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true"]
            .map(String::from)
            .to_vec();
    let (stdio, output): (Stdio, OwnedFd) = piped();
    assert!(output.as_raw_fd() > 0);
    let child = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        stdio,
        Some(&group),
    )
    .unwrap();
    let output = read_all(output);
    assert_eq!(wait(child.pid), 0);
    end(running);
    group.remove().unwrap();
    assert!(
        output.contains("pids:/\n") || output.starts_with("0::/\n"),
        "{output}"
    );
    assert!(output.ends_with("20\n"), "{output}");
    assert!(!group.exists());
}

/// Says how long it takes; the machine is shared, so nothing is asserted.
fn latency(rig: &mut Rig) {
    let plan = rig.plan(&["true"]);
    let mut times_us: Vec<[u128; 3]> = Vec::new();
    for _ in 0..40 {
        let begin = std::time::Instant::now();
        let created = create(&plan, &[], Stdio::Null, None, CreateOptions::default()).unwrap();
        let create_us = begin.elapsed().as_micros();
        let running = created.start().unwrap();
        let start_us = begin.elapsed().as_micros();
        assert_eq!(wait(running.pid), 0);
        times_us.push([create_us, start_us, begin.elapsed().as_micros()]);
    }
    for (index, what) in ["created", "executed", "exited"].iter().enumerate() {
        let mut column: Vec<u128> = times_us.iter().map(|row| row[index]).collect();
        column.sort_unstable();
        println!(
            "        {what}: minimum {} us, median {} us",
            column[0], column[20]
        );
    }
}

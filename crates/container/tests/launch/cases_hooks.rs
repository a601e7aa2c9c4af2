//! Hooks, and descriptors that are handed on to the program.

use crate::Case;
use crate::rig::{self, Rig, read_all, run, run_with, wait};
use gamut_abi::hooks::{Hook, Hooks};
use gamut_abi::plan::Seccomp;
use gamut_container::{CreateOptions, ExecOptions, Stdio, create, exec_with, run_hooks};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub const CASES: &[Case] = &[
    ("hooks_of_the_host", hooks_of_the_host),
    ("hooks_run_in_order_and_in_their_places", hooks_in_order),
    ("a_hook_inside_is_confined", hook_inside_is_confined),
    ("a_hook_that_fails_stops_the_container", hook_fails),
    ("extra_files_become_three_and_following", extra_files),
];

fn hook(script: &str) -> Hook {
    Hook {
        path: String::from("/bin/sh"),
        args: ["sh", "-c", script].map(String::from).to_vec(),
        env: None,
        timeout_s: None,
    }
}

fn hooks_of_the_host(_rig: &mut Rig) {
    let run = |hooks: &[Hook]| run_hooks(hooks, "prestart", "{\"pid\":1}", "/tmp");
    let with_env = Hook {
        env: Some(vec![String::from("A=b")]),
        ..hook("test \"$(cat)\" = '{\"pid\":1}' && test $A = b && test $PWD = /tmp && test -z $B")
    };
    run(&[with_env]).unwrap();
    // Without an environment of its own it has that of whoever runs it.
    let (name, _) = std::env::vars()
        .find(|(name, value)| !value.is_empty() && !["PATH", "PWD", "_"].contains(&&**name))
        .unwrap();
    run(&[hook(&format!("test -n \"${name}\""))]).unwrap();
    let marker = std::env::temp_dir().join(format!("gamut-hook-{}", std::process::id()));
    let last = hook(&format!("touch {}", marker.display()));
    let error = run(&[hook("true"), hook("echo why >&2; exit 3"), last]).unwrap_err();
    assert!(
        error.message.contains("error running prestart hook #1:"),
        "{error}"
    );
    assert!(error.message.contains("exit status 3"), "{error}");
    assert!(error.message.contains("stderr: why"), "{error}");
    assert!(!marker.exists());
    let slow = Hook {
        timeout_s: Some(1),
        ..hook("exec sleep 1000")
    };
    let error = run(&[slow]).unwrap_err();
    assert!(error.message.contains("timeout of 1s"), "{error}");
    let missing = Hook {
        path: String::from("/nonexistent/hook"),
        ..hook("")
    };
    let error = run(&[missing]).unwrap_err();
    assert!(error.message.contains("no such file"), "{error}");
}

fn hooks_in_order(rig: &mut Rig) {
    let log = std::env::temp_dir().join(format!("gamut-hooks-{}", std::process::id()));
    let host = |name: &str| {
        hook(&format!(
            "echo {name} $(cat) $(readlink /proc/self/ns/mnt) >> {}",
            log.display()
        ))
    };
    let mut plan = rig.script("cat /started; echo program");
    plan.hooks = Some(Hooks {
        state: String::from("{\"id\":\"t\""),
        bundle: String::from("/tmp"),
        prestart: vec![host("prestart")],
        create_runtime: vec![host("createRuntime")],
        create_container: vec![host("createContainer"), hook("test -e proc/self/stat")],
        start_container: vec![hook("(echo startContainer; cat; echo) > /started")],
        ..Hooks::default()
    });
    let created = create(&plan, &[], Stdio::Null, None, CreateOptions::default()).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    let own = fs::read_link("/proc/self/ns/mnt")
        .unwrap()
        .display()
        .to_string();
    let lines: Vec<&str> = text.lines().collect();
    let state = |pid| format!("{{\"id\":\"t\",\"status\":\"creating\",\"pid\":{pid}}}");
    assert_eq!(lines[0], format!("prestart {} {own}", state(created.pid)));
    assert_eq!(
        lines[1],
        format!("createRuntime {} {own}", state(created.pid))
    );
    assert!(
        lines[2].starts_with(&format!("createContainer {} ", state(1))),
        "{text}"
    );
    assert!(!lines[2].contains(&own), "{text}");
    assert_eq!(lines.len(), 3);
    created.abort();
    let state = "{\"id\":\"t\",\"status\":\"created\",\"pid\":1}";
    assert_eq!(
        run(&plan).output,
        format!("startContainer\n{state}\nprogram\n")
    );
    fs::remove_file(&log).unwrap();
}

fn hook_inside_is_confined(rig: &mut Rig) {
    /// `return SECCOMP_RET_ERRNO | EPERM` for mkdir(2) and mkdirat(2) of x86-64, else allow.
    fn filter() -> Seccomp {
        let instruction = |code: u16, on_true: u8, on_false: u8, value: u32| {
            let mut bytes = [0; 8];
            bytes[..2].copy_from_slice(&code.to_ne_bytes());
            bytes[2..4].copy_from_slice(&[on_true, on_false]);
            bytes[4..].copy_from_slice(&value.to_ne_bytes());
            u64::from_ne_bytes(bytes)
        };
        Seccomp {
            program: vec![
                instruction(0x20, 0, 0, 0),
                instruction(0x15, 2, 0, 83),
                instruction(0x15, 1, 0, 258),
                instruction(0x06, 0, 0, 0x7fff_0000),
                instruction(0x06, 0, 0, 0x0005_0001),
            ],
            flags: 0,
        }
    }
    let mut plan = rig.script("echo never");
    plan.process.seccomp = Some(filter());
    plan.hooks = Some(Hooks {
        state: String::from("{\"id\":\"t\""),
        start_container: vec![hook("mkdir /made")],
        ..Hooks::default()
    });
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("not permitted"), "{error}");
    plan.process.seccomp = None;
    assert_eq!(run(&plan).output, "never\n");
}

fn hook_fails(rig: &mut Rig) {
    for name in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let mut plan = rig.script("echo never");
        let failing = vec![hook("exit 9")];
        let mut hooks = Hooks {
            state: String::from("{\"id\":\"t\""),
            ..Hooks::default()
        };
        match name {
            "prestart" => hooks.prestart = failing,
            "createRuntime" => hooks.create_runtime = failing,
            "createContainer" => hooks.create_container = failing,
            _ => hooks.start_container = failing,
        }
        plan.hooks = Some(hooks);
        let error = run_with(&plan, &[]).unwrap_err();
        let expected = format!("error running {name} hook #0: /bin/sh: exit status 9");
        assert!(error.message.contains(&expected), "{name}: {error}");
    }
}

fn extra_files(rig: &mut Rig) {
    let files: Vec<OwnedFd> = ["/etc/group", "/etc/passwd"]
        .map(|path| OwnedFd::from(fs::File::open(path).unwrap()))
        .into_iter()
        .collect();
    let script = "for n in 3 4 5; do readlink /proc/self/fd/$n || echo none; done";
    let expected = "/etc/group\n/etc/passwd\nnone\n";
    let plan = rig.script(script);
    let (stdio, output) = rig::piped();
    let options = CreateOptions {
        extra_files: &files,
        ..CreateOptions::default()
    };
    let running = create(&plan, &[], stdio, None, options)
        .unwrap()
        .start()
        .unwrap();
    assert_eq!(read_all(output), expected);
    wait(running.pid);
    let container = rig::start(&rig.plan(&["sleep", "100"]));
    let (stdio, output) = rig::piped();
    let child = exec_with(
        container.pidfd.as_fd(),
        container.pid,
        &plan.process,
        &plan,
        stdio,
        None,
        ExecOptions {
            extra_files: &files,
            ..ExecOptions::default()
        },
    )
    .unwrap();
    assert_eq!(read_all(output), expected);
    wait(child.pid);
    rig::end(container);
    assert!(Path::new("/etc/group").exists());
}

//! Starts, ends, restarts and crashes of real containers.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use gamut_abi::control::{Attach, Event, FailureKind, Reply, RestartPolicy, Verb};
use gamut_abi::resources::{Limit, Resources};
use gamut_abi::status::State;
use gamut_supervisor::{Client, ClientError, is_alive, read_status};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn process_exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn created_then_started_then_exited() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("exit 7");
    sandbox.try_launch(Vec::new()).unwrap();
    assert_eq!(sandbox.status().state, State::Created);
    assert!(is_alive(&sandbox.run_directory()).unwrap());
    let mut watcher = sandbox.watch();
    let pid = sandbox.just_start();
    let events = events_until(&mut watcher, is_final);
    assert!(
        matches!(
            &events[..],
            [Event::Status(status), Event::Started { pid: started, .. }, Event::Exited { exit, .. }]
                if status.state == State::Created && *started == pid && exit.code == 7
        ),
        "{events:?}"
    );
    assert_eq!(watcher.next().unwrap(), None);
    let status = sandbox.wait_exit();
    assert_eq!((status.exit.unwrap().code, status.pid), (7, 0));
    assert!(!sandbox.run_directory().join("control.sock").exists());
}

#[test]
fn launch_can_start_at_once_and_nobody_inherits_anything_strange() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new(
        "cat /proc/self/status /proc/self/oom_score_adj; echo /proc/self/fd/*; umask; pwd",
    );
    sandbox.launch.start = true;
    sandbox.try_launch(Vec::new()).unwrap();
    sandbox.wait_exit();
    let log = sandbox.log();
    for expected in [
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        " F 0022",
        " F /\n",
        " F 0\n",
    ] {
        assert!(log.contains(expected), "{expected} is missing in {log}");
    }
    let descriptors = log
        .lines()
        .find(|line| line.contains("/proc/self/fd/0"))
        .unwrap();
    assert!(descriptors.split(' ').count() <= 7, "{descriptors}");
}

#[test]
fn signals_end_a_process_with_128_and_their_number() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("exec sleep 60");
    sandbox.launch.plan.process.init = true;
    sandbox.start();
    assert_eq!(
        kind(sandbox.request(Verb::Signal {
            signal: 99,
            all: false
        })),
        FailureKind::Invalid
    );
    sandbox
        .request(Verb::Signal {
            signal: libc::SIGKILL,
            all: false,
        })
        .unwrap();
    let exit = sandbox.wait_exit().exit.unwrap();
    assert_eq!(
        (exit.code, exit.signal, exit.out_of_memory),
        (137, 9, false)
    );
}

#[test]
fn a_missing_program_is_told_apart() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("");
    sandbox.launch.plan.process = process(&["/bin/nothing"]);
    let refused = sandbox.try_launch(Vec::new()).map(|_| Reply::Done);
    assert_eq!(kind(refused), FailureKind::ExecutableNotFound);
    wait_until("the supervisor to leave", || {
        !is_alive(&sandbox.run_directory()).unwrap()
    });
    sandbox.assert_no_group();
}

#[test]
fn a_launch_that_cannot_work_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("");
    sandbox.launch.attach.push(OUTPUT);
    let refused = sandbox.try_launch(Vec::new()).map(|_| Reply::Done);
    assert_eq!(kind(refused), FailureKind::Invalid);
    sandbox.launch.attach.clear();
    sandbox.launch.log.as_mut().unwrap().path = "/nowhere/log".to_owned();
    let refused = sandbox.try_launch(Vec::new()).map(|_| Reply::Done);
    assert_eq!(kind(refused), FailureKind::System);
    wait_until("the supervisor to leave", || {
        !is_alive(&sandbox.run_directory()).unwrap()
    });
    sandbox.assert_no_group();
    assert!(!sandbox.run_directory().join("control.sock").exists());
}

#[test]
fn stop_asks_first_and_kills_later() {
    if !possible() {
        return;
    }
    let mut polite = Sandbox::new("trap 'exit 5' TERM; while :; do sleep 0.02; done");
    polite.start();
    std::thread::sleep(Duration::from_millis(100));
    polite
        .request(Verb::Stop {
            signal: libc::SIGTERM,
            timeout_ms: Some(10_000),
        })
        .unwrap();
    assert_eq!(polite.wait_exit().exit.unwrap().code, 5);

    let mut deaf = Sandbox::new("trap '' TERM; while :; do sleep 0.02; done");
    deaf.start();
    let mut patient = deaf.connect();
    let waiting = std::thread::spawn(move || {
        patient.request(
            Verb::Stop {
                signal: libc::SIGTERM,
                timeout_ms: None,
            },
            &[],
        )
    });
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    deaf.request(Verb::Stop {
        signal: libc::SIGTERM,
        timeout_ms: Some(300),
    })
    .unwrap();
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_eq!(waiting.join().unwrap().unwrap(), Reply::Done);
    assert_eq!(deaf.wait_exit().exit.unwrap().code, 137);
}

#[test]
fn stop_before_the_start_gives_up() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("true");
    sandbox.try_launch(Vec::new()).unwrap();
    sandbox
        .request(Verb::Stop {
            signal: libc::SIGTERM,
            timeout_ms: None,
        })
        .unwrap();
    assert_eq!(sandbox.wait_exit().exit, None);
}

#[test]
fn on_failure_restarts_so_often_and_keeps_one_log() {
    if !possible() {
        return;
    }
    let mut sandbox =
        Sandbox::new("echo run; exit 2").restart(RestartPolicy::OnFailure { maximum_retries: 2 });
    sandbox.try_launch(Vec::new()).unwrap();
    let mut watcher = sandbox.watch();
    let begin = Instant::now();
    sandbox.just_start();
    let events = events_until(&mut watcher, is_final);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    let delays: Vec<Option<u64>> = events
        .iter()
        .filter_map(|event| match event {
            Event::Exited { restart_in_ms, .. } => Some(*restart_in_ms),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [Some(100), Some(200), None]);
    assert_eq!(sandbox.wait_exit().restart_count, 2);
    assert_eq!(sandbox.log_lines().len(), 3);
}

#[test]
fn a_stop_cancels_a_pending_restart() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("exit 0").restart(RestartPolicy::Always);
    sandbox.start();
    wait_until("three restarts", || sandbox.status().restart_count >= 3);
    wait_until("a pending restart", || {
        sandbox.status().state == State::Restarting
    });
    sandbox
        .request(Verb::Stop {
            signal: libc::SIGTERM,
            timeout_ms: Some(1_000),
        })
        .unwrap();
    assert_eq!(sandbox.wait_exit().exit.unwrap().code, 0);

    let mut sandbox = Sandbox::new("exit 1").restart(RestartPolicy::Always);
    sandbox.start();
    wait_until("a pending restart", || {
        let status = sandbox.status();
        status.restart_count >= 2 && status.state == State::Restarting
    });
    sandbox
        .request(Verb::Signal {
            signal: libc::SIGTERM,
            all: false,
        })
        .unwrap();
    sandbox.wait_exit();
}

#[test]
fn killing_the_supervisor_kills_the_container() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("sleep 60");
    let pid = sandbox.start();
    let supervisor = sandbox.status().supervisor_pid;
    // SAFETY: no pointers; the process is this test's own.
    unsafe { libc::kill(i32::try_from(supervisor).unwrap(), libc::SIGKILL) };
    wait_until("the container to die", || !process_exists(pid));
    assert!(!is_alive(&sandbox.run_directory()).unwrap());
    assert_eq!(sandbox.status().state, State::Running);
    assert!(matches!(
        Client::connect(&sandbox.run_directory()),
        Err(ClientError::Io { .. })
    ));
    // What a daemon does with the remains.
    let cgroup = sandbox.launch.plan.cgroup.clone().unwrap();
    let hierarchies = gamut_cgroup::Hierarchies::detect().unwrap();
    gamut_cgroup::Group::at(&hierarchies, &cgroup.path)
        .unwrap()
        .remove()
        .unwrap();
}

#[test]
fn the_daemon_may_go_and_come() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("read line; echo $line").stdin(true);
    sandbox.start();
    sandbox.client = None;
    std::thread::sleep(Duration::from_millis(100));
    sandbox.client = Some(sandbox.connect());
    let Reply::Status(status) = sandbox.request(Verb::Status).unwrap() else {
        panic!()
    };
    assert_eq!(status.state, State::Running);
    let mut stream = sandbox.attach(ALL);
    stream.write_all(b"back\n").unwrap();
    assert_eq!(demultiplex(&mut stream).0, b"back\n");
    sandbox.wait_exit();
}

#[test]
fn what_is_never_started_goes_with_the_daemon() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("true");
    sandbox.try_launch(Vec::new()).unwrap();
    let begin = Instant::now();
    sandbox.client = None;
    let status = sandbox.wait_exit();
    assert!(
        begin.elapsed() > Duration::from_secs(9),
        "{:?}",
        begin.elapsed()
    );
    assert!(status.error.contains("nobody"), "{status:?}");
}

#[test]
fn out_of_memory_is_told() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("x=a; while :; do x=$x$x; done");
    let resources = &mut sandbox.launch.plan.cgroup.as_mut().unwrap().resources;
    resources.memory.max_bytes = Some(Limit::Value(16 << 20));
    sandbox.try_launch(Vec::new()).unwrap();
    let mut watcher = sandbox.watch();
    sandbox.just_start();
    let events = events_until(&mut watcher, is_final);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::OutOfMemory { .. })),
        "{events:?}"
    );
    let exit = sandbox.wait_exit().exit.unwrap();
    assert!(exit.out_of_memory && exit.code == 137, "{exit:?}");
}

#[test]
fn out_of_memory_of_a_grandchild_is_told_while_the_container_runs() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("(x=a; while :; do x=$x$x; done); sleep 60");
    let resources = &mut sandbox.launch.plan.cgroup.as_mut().unwrap().resources;
    resources.memory.max_bytes = Some(Limit::Value(16 << 20));
    sandbox.try_launch(Vec::new()).unwrap();
    let mut watcher = sandbox.watch();
    sandbox.just_start();
    let begin = Instant::now();
    events_until(&mut watcher, |event| {
        matches!(event, Event::OutOfMemory { .. })
    });
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(sandbox.status().state, State::Running);
}

#[test]
fn update_changes_limits_and_policy() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("sleep 0.3; exit 1").restart(RestartPolicy::Always);
    sandbox.start();
    let resources = Resources {
        pids_max: Some(Limit::Value(77)),
        ..Resources::default()
    };
    let restart = Some(RestartPolicy::Never);
    sandbox
        .request(Verb::Update {
            resources: Some(Box::new(resources)),
            restart,
        })
        .unwrap();
    let path = &sandbox.launch.plan.cgroup.as_ref().unwrap().path;
    let file = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .map(|root| format!("{root}{path}/pids.max"))
        .into_iter()
        .find_map(|file| std::fs::read_to_string(file).ok());
    assert_eq!(file.as_deref(), Some("77\n"));
    assert_eq!(sandbox.wait_exit().restart_count, 0);
}

#[test]
fn nonsense_closes_only_the_connection_that_sent_it() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("sleep 60");
    sandbox.start();
    let path = sandbox.run_directory().join("control.sock");
    for nonsense in [
        &b"hello, world"[..],
        b"GM\x01\0\x04\0\0\0\xff\xff\xff\xff",
        b"GM\x01\0\xff\xff\xff\xff",
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(nonsense).unwrap();
        // An answer that says why, then the end (a reset, where something was left unread).
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let reply: Reply = gamut_abi::wire::decode(&answer).unwrap();
        assert!(
            matches!(reply, Reply::Failed(failure) if failure.kind == FailureKind::Unsupported)
        );
    }
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(b"GM\x01").unwrap();
    let attach = Verb::Attach(Attach {
        stdin: false,
        stdout: true,
        stderr: true,
    });
    assert_eq!(kind(sandbox.request(attach)), FailureKind::Invalid);
    let null = std::fs::File::open("/dev/null").unwrap();
    let client = sandbox.client.as_mut().unwrap();
    for _ in 0..100 {
        client.request(Verb::Status, &[null.as_fd(); 200]).unwrap();
    }
    let supervisor = read_status(&sandbox.run_directory())
        .unwrap()
        .unwrap()
        .supervisor_pid;
    let open = std::fs::read_dir(format!("/proc/{supervisor}/fd"))
        .unwrap()
        .count();
    assert!(open < 40, "{open} descriptors are open");
}

#[test]
fn a_long_run_directory_is_no_obstacle() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("echo fine");
    let long = sandbox
        .directory
        .path()
        .join("d".repeat(120))
        .join("e".repeat(120));
    std::fs::create_dir_all(&long).unwrap();
    sandbox.launch.run_directory = long.to_str().unwrap().to_owned();
    sandbox.try_launch(Vec::new()).unwrap();
    sandbox.client = Some(sandbox.connect());
    sandbox.just_start();
    sandbox.wait_exit();
}

#[test]
fn a_container_without_pid_namespace_leaves_nobody_behind_and_restarts() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("sleep 61 & echo $!; exit 2")
        .restart(RestartPolicy::OnFailure { maximum_retries: 1 });
    let kind = gamut_abi::plan::NamespaceKind::Pid;
    sandbox
        .launch
        .plan
        .namespaces
        .retain(|namespace| namespace.kind != kind);
    sandbox.start();
    let status = sandbox.wait_exit();
    assert_eq!(
        (status.restart_count, status.exit.unwrap().code),
        (1, 2),
        "{status:?}"
    );
    let lines = sandbox.log_lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (_, _, pid) in lines {
        assert!(
            !process_exists(pid.parse().unwrap()),
            "process {pid} is left behind"
        );
    }
}

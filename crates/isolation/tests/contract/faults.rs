//! What must hold when things go wrong.

use super::support::{Checks, Rig};
use gamut_abi::status::State;
use gamut_isolation::contract::{Endpoint, SandboxSpec};
use gamut_isolation::{ContainerLevel, Context, Error, Isolation};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ID: &str = "bbbb000000000000000000000000000000000000000000000000000000000001";
const OTHER: &str = "bbbb000000000000000000000000000000000000000000000000000000000002";
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

pub fn run(rig: &Rig) {
    bad_configurations_leave_nothing(rig);
    callers_that_hang_up_are_told_so(rig);
    a_long_stop_blocks_nobody(rig);
    missing_programs_have_a_code(rig);
    created_workloads_can_be_stopped(rig);
}

fn bad_configurations_leave_nothing(rig: &Rig) {
    let context = Context::default();
    let without_sandbox = rig
        .level
        .create(&context, rig.workload(ID, rig.config("true")));
    assert!(matches!(
        without_sandbox,
        Err(Error::NotFound {
            object: "sandbox",
            ..
        })
    ));
    rig.prepare(&context, ID);
    let mut config = rig.config("true");
    config["process"]["cwd"] = json!("relative");
    let refused = rig.level.create(&context, rig.workload(ID, config));
    assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == "process.cwd"));
    assert_eq!(rig.level.list().unwrap(), Vec::<String>::new());
    assert_eq!(rig.level.status(ID).unwrap(), None);
    rig.level.delete(&context, ID).unwrap();
}

fn callers_that_hang_up_are_told_so(rig: &Rig) {
    let cancelled = Context {
        cancelled: Arc::new(AtomicBool::new(true)),
        ..Context::default()
    };
    let late = Context {
        deadline: Some(Instant::now()),
        ..Context::default()
    };
    let level = &*rig.level;
    let host = || SandboxSpec {
        id: ID.to_owned(),
        endpoint: Endpoint::Host,
    };
    for (context, is_cancelled) in [(&cancelled, true), (&late, false)] {
        for refused in [
            level.prepare(context, host()),
            level
                .create(context, rig.workload(ID, rig.config("true")))
                .map(|_| ()),
            level.start(context, ID).map(|_| ()),
            level.signal(context, ID, None, libc::SIGTERM, false),
            level.stop(context, ID, libc::SIGTERM, None),
            level.pause(context, ID),
            level.stats(context, ID).map(|_| ()),
            level.delete(context, ID),
        ] {
            match refused {
                Err(Error::Cancelled { .. }) if is_cancelled => {}
                Err(Error::Timeout { .. }) if !is_cancelled => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(level.list().unwrap(), Vec::<String>::new());
}

fn a_long_stop_blocks_nobody(rig: &Rig) {
    let context = Context::default();
    let level = &*rig.level;
    let mut client = rig.run(&context, ID, STUBBORN);
    client.expect("ready\n");
    let deadline = Some(Instant::now() + Duration::from_millis(400));
    let hurried = Context {
        deadline,
        ..Context::default()
    };
    let hung_up = Arc::new(AtomicBool::new(false));
    let patient = Context {
        cancelled: Arc::clone(&hung_up),
        ..Context::default()
    };
    thread::scope(|scope| {
        let stop = scope.spawn(|| level.stop(&hurried, ID, libc::SIGTERM, None));
        let other_stop = scope.spawn(|| level.stop(&patient, ID, libc::SIGTERM, None));
        thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        assert_eq!(level.status(ID).unwrap().unwrap().state, State::Running);
        level
            .signal(&context, ID, None, libc::SIGCONT, false)
            .unwrap();
        level.pause(&context, ID).unwrap();
        level.resume(&context, ID).unwrap();
        assert!(
            begun.elapsed() < Duration::from_millis(300),
            "blocked by the stop"
        );
        let stopped = stop.join().unwrap();
        assert!(matches!(stopped, Err(Error::Timeout { .. })), "{stopped:?}");
        hung_up.store(true, Ordering::Relaxed);
        let stopped = other_stop.join().unwrap();
        assert!(
            matches!(stopped, Err(Error::Cancelled { .. })),
            "{stopped:?}"
        );
    });
    let begun = Instant::now();
    level.stop(&context, ID, libc::SIGTERM, Some(100)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(level.status(ID).unwrap().unwrap().exit.unwrap().code, 137);
    level.delete(&context, ID).unwrap();
    // A running workload is deleted as well.
    let client = rig.run(&context, ID, STUBBORN);
    level.delete(&context, ID).unwrap();
    client.expect_end();
    assert_eq!(level.status(ID).unwrap(), None);
}

fn missing_programs_have_a_code(rig: &Rig) {
    let context = Context::default();
    rig.prepare(&context, ID);
    let mut config = rig.config("");
    config["process"]["args"] = json!(["no-such-program"]);
    // Whether create or start finds out is the level's choice.
    let started = rig
        .level
        .create(&context, rig.workload(ID, config))
        .and_then(|_| rig.level.start(&context, ID));
    assert!(
        matches!(started, Err(Error::ExecutableNotFound(_))),
        "{started:?}"
    );
    rig.level.delete(&context, ID).unwrap();
    assert_eq!(rig.level.list().unwrap(), Vec::<String>::new());
}

fn created_workloads_can_be_stopped(rig: &Rig) {
    let context = Context::default();
    rig.prepare(&context, ID);
    rig.level
        .create(&context, rig.workload(ID, rig.config("true")))
        .unwrap();
    for _ in 0..2 {
        rig.level
            .stop(&context, ID, libc::SIGTERM, Some(1_000))
            .unwrap();
        assert_eq!(rig.level.status(ID).unwrap().unwrap().state, State::Exited);
    }
    rig.level.delete(&context, ID).unwrap();
    rig.prepare(&context, ID);
    rig.level
        .create(&context, rig.workload(ID, rig.config("true")))
        .unwrap();
    rig.level.delete(&context, ID).unwrap();
    assert_eq!(rig.level.status(ID).unwrap(), None);
}

/// What only containers have: mounts that fail, supervisors that die, daemons that come back.
pub fn of_containers(rig: &Rig, checks: &Checks) {
    failed_mounts_leave_nothing(rig, checks);
    the_death_of_a_supervisor_is_noticed(rig);
    another_daemon_finds_everything(rig, checks);
    networks_are_shared(rig);
    further_processes_are_filtered(rig);
}

fn failed_mounts_leave_nothing(rig: &Rig, checks: &Checks) {
    let context = Context::default();
    rig.prepare(&context, ID);
    let mut config = rig.config("true");
    config["mounts"][0] = json!({"destination": "/x", "type": "bind", "source": "/no/such/place"});
    let failed = rig
        .level
        .create(&context, rig.workload(ID, config))
        .unwrap_err();
    assert!(
        gamut_spec::error::chain(&failed).contains("/no/such/place"),
        "{failed:?}"
    );
    assert_eq!(rig.level.list().unwrap(), Vec::<String>::new());
    let hierarchies = gamut_cgroup::Hierarchies::detect().unwrap();
    let group = format!("{}/{ID}", checks.cgroup_parent);
    assert!(
        !gamut_cgroup::Group::at(&hierarchies, &group)
            .unwrap()
            .exists()
    );
    // The sandbox is still prepared: the next attempt works.
    rig.level
        .create(&context, rig.workload(ID, rig.config("true")))
        .unwrap();
    rig.level.delete(&context, ID).unwrap();
}

fn the_death_of_a_supervisor_is_noticed(rig: &Rig) {
    let context = Context::default();
    let mut client = rig.run(&context, ID, STUBBORN);
    client.expect("ready\n");
    let status = rig.level.status(ID).unwrap().unwrap();
    let supervisor = i32::try_from(status.supervisor_pid).unwrap();
    // SAFETY: kill only takes numbers; the supervisor is this test's own.
    assert_eq!(unsafe { libc::kill(supervisor, libc::SIGKILL) }, 0);
    let begun = Instant::now();
    let status = loop {
        let status = rig.level.status(ID).unwrap().unwrap();
        if status.state == State::Exited {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.exit.unwrap().code, 137);
    assert!(rig.level.start(&context, ID).is_err());
    rig.level.delete(&context, ID).unwrap();
    rig.level.delete(&context, ID).unwrap();
    assert_eq!(rig.level.list().unwrap(), Vec::<String>::new());
}

fn another_daemon_finds_everything(rig: &Rig, checks: &Checks) {
    let context = Context::default();
    let mut client = rig.run(&context, ID, STUBBORN);
    client.expect("ready\n");
    let again = ContainerLevel::new(checks.options.clone()).unwrap();
    assert_eq!(again.list().unwrap(), [ID]);
    assert_eq!(again.status(ID).unwrap(), rig.level.status(ID).unwrap());
    assert!(again.stats(&context, ID).unwrap().pids.current >= 1);
    again.stop(&context, ID, libc::SIGTERM, Some(10)).unwrap();
    assert_eq!(
        rig.level.status(ID).unwrap().unwrap().exit.unwrap().code,
        137
    );
    again.delete(&context, ID).unwrap();
    rig.level.delete(&context, ID).unwrap();
}

fn networks_are_shared(rig: &Rig) {
    let context = Context::default();
    let level = &*rig.level;
    let mut client = rig.run(&context, ID, STUBBORN);
    client.expect("ready\n");
    let endpoint = Endpoint::Workload(ID.to_owned());
    level
        .prepare(
            &context,
            SandboxSpec {
                id: OTHER.to_owned(),
                endpoint,
            },
        )
        .unwrap();
    level
        .create(&context, rig.workload(OTHER, rig.config(STUBBORN)))
        .unwrap();
    level.start(&context, OTHER).unwrap();
    let network = |id: &str| {
        let pid = level.status(id).unwrap().unwrap().pid;
        std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
    };
    assert_eq!(network(ID), network(OTHER));
    assert_ne!(
        network(ID),
        std::fs::read_link("/proc/self/ns/net").unwrap()
    );
    level.delete(&context, OTHER).unwrap();
    level.delete(&context, ID).unwrap();
    let endpoint = Endpoint::Workload(ID.to_owned());
    level
        .prepare(
            &context,
            SandboxSpec {
                id: OTHER.to_owned(),
                endpoint,
            },
        )
        .unwrap();
    let orphan = level.create(&context, rig.workload(OTHER, rig.config("true")));
    assert!(matches!(orphan, Err(Error::NotFound { .. })), "{orphan:?}");
    level.delete(&context, OTHER).unwrap();
}

/// A further process runs under the filter of the first, after a restart of the daemon, too.
fn further_processes_are_filtered(rig: &Rig) {
    let context = Context::default();
    let mut client = rig.run(&context, ID, STUBBORN);
    client.expect("ready\n");
    let mut process = rig.config("cat /proc/self/status")["process"].clone();
    process["noNewPrivileges"] = json!(true);
    let exec = gamut_isolation::contract::ExecSpec {
        id: "e1".to_owned(),
        process: serde_json::from_value(process).unwrap(),
        user: None,
        attach: Some(super::support::OUTPUT),
    };
    let (mut output, attached) = super::support::Client::new();
    rig.level
        .exec(&context, ID, exec, Some(attached.stream))
        .unwrap();
    output.expect("Seccomp:\t2");
    rig.level.delete(&context, ID).unwrap();
}

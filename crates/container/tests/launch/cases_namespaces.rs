//! Namespaces: made, joined, mapped.

use crate::Case;
use crate::rig::{Rig, end, piped, read_all, run, run_with, start, wait};
use gamut_abi::plan::{IdMapping, Namespace, NamespaceKind, NamespaceSource, TimeOffset, User};
use gamut_container::exec;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

pub const CASES: &[Case] = &[
    ("namespaces_all_new", all_new),
    ("namespaces_user", user_namespace),
    ("namespaces_time_offset", time_offset),
    ("namespaces_join_by_path", join_by_path),
    ("namespaces_join_by_descriptor", join_by_descriptor),
    ("namespaces_join_user", join_user),
    ("namespaces_exec", exec_into),
    ("namespaces_exec_user", exec_into_user),
    ("namespaces_refused", refused),
];

const KINDS: [&str; 7] = ["mnt", "net", "pid", "ipc", "uts", "cgroup", "time"];

fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn all_new(rig: &mut Rig) {
    let outcome = run(&rig.script(
        "echo pid $$; hostname; for n in mnt net pid ipc uts cgroup time user; do readlink /proc/self/ns/$n; done; ls /sys/class/net; ifconfig lo | grep -c UP; ls -l /proc/self/fd | wc -l; mount",
    ));
    assert_eq!(outcome.code, 0, "{}", outcome.output);
    assert!(
        outcome.output.starts_with("pid 1\nbox\n"),
        "{}",
        outcome.output
    );
    for kind in KINDS {
        assert!(
            !outcome.output.contains(&own(kind)),
            "{kind} is shared: {}",
            outcome.output
        );
    }
    assert!(outcome.output.contains(&own("user")));
    assert!(outcome.output.contains("\nlo\n1\n"), "{}", outcome.output);
    // Nothing of the host shows in the mount table.
    assert!(
        !outcome.output.contains(rig.base.to_str().unwrap()),
        "{}",
        outcome.output
    );
    assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
}

fn map_user(plan: &mut gamut_abi::plan::Plan) {
    plan.namespaces.push(Namespace {
        kind: NamespaceKind::User,
        source: NamespaceSource::New,
    });
    let mapping = vec![IdMapping {
        container_id: 0,
        host_id: 100_000,
        size: 65536,
    }];
    plan.uid_mappings = mapping.clone();
    plan.gid_mappings = mapping;
}

fn mapped_rig(rig: &Rig) {
    for name in ["upper", "work"] {
        std::os::unix::fs::chown(rig.path(name), Some(100_000), Some(100_000)).unwrap();
    }
}

fn user_namespace(rig: &mut Rig) {
    mapped_rig(rig);
    fs::write(rig.path("shared"), "from the host\n").unwrap();
    let mut plan = rig.script(
        "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; echo > /dev/null && cat /shared; touch /x && stat -c %u /x; umount /proc/kcore 2>&1; grep CapEff /proc/self/status",
    );
    map_user(&mut plan);
    plan.mounts
        .push(crate::rig::bind(&rig.path("shared"), "/shared"));
    let outcome = run(&plan);
    assert!(outcome.output.starts_with("0\n"), "{}", outcome.output);
    assert!(
        outcome.output.contains("100000      65536"),
        "{}",
        outcome.output
    );
    assert!(!outcome.output.contains(&own("user")));
    assert!(
        outcome.output.contains("from the host\n0\n"),
        "{}",
        outcome.output
    );
    let meta = fs::metadata(format!("{}/x", rig.path("upper"))).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 100_000);
    plan.process.user = User::Lookup {
        spec: "app".into(),
        additional_groups: vec![],
    };
    plan.process.args = ["id".into()].to_vec();
    let outcome = run(&plan);
    assert_eq!(
        outcome.output.trim(),
        "uid=1000(app) gid=1001(app) groups=1001(app),2000(data)"
    );
    plan.process.user = User::Numeric {
        uid: 70_000,
        gid: 0,
        additional_gids: vec![],
    };
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("does not map"), "{error}");
}

fn time_offset(rig: &mut Rig) {
    let mut plan = rig.plan(&["cat", "/proc/uptime"]);
    plan.time_offsets = vec![
        TimeOffset {
            boottime: true,
            seconds: 8_640_000,
            nanoseconds: 0,
        },
        TimeOffset {
            boottime: false,
            seconds: 8_640_000,
            nanoseconds: 0,
        },
    ];
    let outcome = run(&plan);
    let uptime: f64 = outcome.output.split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 8_640_000.0, "{}", outcome.output);
    map_user(&mut plan);
    mapped_rig(rig);
    let outcome = run(&plan);
    assert!(outcome.output.starts_with("8"), "{}", outcome.output);
}

fn join_by_path(rig: &mut Rig) {
    let first = start(&rig.plan(&["sleep", "100"]));
    rig.reset();
    let mut plan =
        rig.script("hostname; ps; for n in net pid ipc uts; do readlink /proc/self/ns/$n; done");
    plan.hostname = None;
    for namespace in &mut plan.namespaces {
        let file = match namespace.kind {
            NamespaceKind::Network => "net",
            NamespaceKind::Pid => "pid",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            _ => continue,
        };
        namespace.source = NamespaceSource::Path(format!("/proc/{}/ns/{file}", first.pid));
    }
    let outcome = run(&plan);
    assert!(outcome.output.starts_with("box\n"), "{}", outcome.output);
    assert!(outcome.output.contains("sleep 100"), "{}", outcome.output);
    for file in ["net", "pid", "ipc", "uts"] {
        let link = fs::read_link(format!("/proc/{}/ns/{file}", first.pid)).unwrap();
        assert!(
            outcome.output.contains(link.to_str().unwrap()),
            "{file}: {}",
            outcome.output
        );
    }
    end(first);
}

fn join_by_descriptor(rig: &mut Rig) {
    let first = start(&rig.plan(&["sleep", "100"]));
    rig.reset();
    let mut plan = rig.plan(&["readlink", "/proc/self/ns/net"]);
    for namespace in &mut plan.namespaces {
        if namespace.kind == NamespaceKind::Network {
            namespace.source = NamespaceSource::Descriptor(0);
        }
    }
    let path = format!("/proc/{}/ns/net", first.pid);
    let descriptor: OwnedFd = fs::File::open(&path).unwrap().into();
    let outcome = run_with(&plan, &[descriptor]).unwrap();
    assert_eq!(
        outcome.output.trim(),
        fs::read_link(path).unwrap().to_str().unwrap()
    );
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("no descriptor"), "{error}");
    end(first);
}

fn join_user(rig: &mut Rig) {
    mapped_rig(rig);
    let mut plan = rig.plan(&["sleep", "100"]);
    map_user(&mut plan);
    let first = start(&plan);
    rig.reset();
    mapped_rig(rig);
    let mut plan = rig.script("id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/net");
    for (kind, file) in [
        (NamespaceKind::User, "user"),
        (NamespaceKind::Network, "net"),
    ] {
        plan.namespaces.retain(|namespace| namespace.kind != kind);
        plan.namespaces.push(Namespace {
            kind,
            source: NamespaceSource::Path(format!("/proc/{}/ns/{file}", first.pid)),
        });
    }
    let outcome = run(&plan);
    for file in ["user", "net"] {
        let link = fs::read_link(format!("/proc/{}/ns/{file}", first.pid)).unwrap();
        assert!(
            outcome.output.contains(link.to_str().unwrap()),
            "{file}: {}",
            outcome.output
        );
    }
    // A network namespace of the host's joined by a container with users of its own.
    rig.reset();
    mapped_rig(rig);
    let mut plan = rig.plan(&["readlink", "/proc/self/ns/net"]);
    map_user(&mut plan);
    plan.mounts
        .retain(|mount| !mount.destination.starts_with("/sys"));
    for namespace in &mut plan.namespaces {
        if namespace.kind == NamespaceKind::Network {
            namespace.source = NamespaceSource::Path(String::from("/proc/self/ns/net"));
        }
    }
    assert_eq!(run(&plan).output.trim(), own("net"));
    let running = {
        plan.process.args = vec!["sleep".into(), "100".into()];
        start(&plan)
    };
    let mut process = plan.process.clone();
    process.args = vec!["readlink".into(), "/proc/self/ns/net".into()];
    let (stdio, output) = piped();
    let child = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        stdio,
        None,
    )
    .unwrap();
    assert_eq!(read_all(output).trim(), own("net"));
    assert_eq!(wait(child.pid), 0);
    end(running);
    end(first);
}

fn exec_into(rig: &mut Rig) {
    let plan = rig.plan(&["sleep", "100"]);
    let running = start(&plan);
    let mut process = plan.process.clone();
    process.args = ["sh", "-c", "hostname; id -u; pwd; ps | grep -c 'sleep 100'; readlink /proc/1/ns/net; ls /proc/self/fd | wc -l; exit 7"]
        .map(String::from)
        .to_vec();
    process.cwd = String::from("/tmp");
    process.user = User::Lookup {
        spec: "app".into(),
        additional_groups: vec![],
    };
    let (stdio, output) = piped();
    let child = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        stdio,
        None,
    )
    .unwrap();
    let text = read_all(output);
    assert!(text.starts_with("box\n1000\n/tmp\n"), "{text}");
    assert!(text.ends_with("\n4\n"), "descriptors leaked: {text}");
    assert_eq!(wait(child.pid), 7);
    process.args = vec!["nope".into()];
    let error = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        gamut_container::Stdio::Null,
        None,
    )
    .unwrap_err();
    assert_eq!(
        error.kind,
        gamut_abi::control::FailureKind::ExecutableNotFound,
        "{error}"
    );
    crate::rig::kill(running.pid, libc::SIGKILL);
    wait(running.pid);
    let error = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        gamut_container::Stdio::Null,
        None,
    )
    .unwrap_err();
    assert_eq!(
        error.kind,
        gamut_abi::control::FailureKind::State,
        "{error}"
    );
}

fn exec_into_user(rig: &mut Rig) {
    mapped_rig(rig);
    let mut plan = rig.plan(&["sleep", "100"]);
    map_user(&mut plan);
    let running = start(&plan);
    let mut process = plan.process.clone();
    process.args = ["sh", "-c", "id -u; cat /proc/self/uid_map"]
        .map(String::from)
        .to_vec();
    let (stdio, output) = piped();
    let child = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        stdio,
        None,
    )
    .unwrap();
    let text = read_all(output);
    assert!(text.starts_with("0\n") && text.contains("100000"), "{text}");
    assert_eq!(wait(child.pid), 0);
    end(running);
}

fn refused(rig: &mut Rig) {
    let mut plan = rig.plan(&["true"]);
    plan.namespaces
        .retain(|namespace| namespace.kind != NamespaceKind::Uts);
    assert!(
        run_with(&plan, &[])
            .unwrap_err()
            .message
            .contains("uts namespace")
    );
    let mut plan = rig.plan(&["true"]);
    plan.sysctls = vec![("kernel.panic".into(), "1".into())];
    assert!(
        run_with(&plan, &[])
            .unwrap_err()
            .message
            .contains("whole machine")
    );
    let mut plan = rig.plan(&["true"]);
    plan.namespaces.push(plan.namespaces[0].clone());
    assert!(run_with(&plan, &[]).unwrap_err().message.contains("twice"));
    let mut plan = rig.script("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni");
    plan.sysctls = vec![
        ("net.ipv4.ip_default_ttl".into(), "42".into()),
        ("kernel.shmmni".into(), "99".into()),
    ];
    assert_eq!(run(&plan).output, "42\n99\n");
}

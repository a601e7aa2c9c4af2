//! What other OCI runtimes and the newest runtime specification settle where there is a choice.

use super::tests::{config, good, options, refused};
use super::*;
use gamut_abi::resources::{Limit, access};
use serde_json::json;

#[test]
fn a_bind_replaces_the_flags_of_its_source_where_that_is_asked_for() {
    let bind = |words: &[&str], exact_bind_flags| {
        let spec = config(json!({"mounts": [{"destination": "/a", "type": "bind",
            "source": "/s", "options": words}]}));
        let options = CompileOptions {
            exact_bind_flags,
            ..options()
        };
        let mount = compile(&spec, options).unwrap().plan.mounts.remove(0);
        let flags = (mount.attributes_set, mount.attributes_clear);
        (flags, mount.implied_clear)
    };
    assert_eq!(bind(&["ro", "rbind"], true), ((1, 0), Some(0x0020_000e)));
    assert_eq!(bind(&["rw"], true), ((0, 1), Some(0x0020_000e)));
    assert_eq!(bind(&["rbind", "rprivate"], true), ((0, 0), None));
    // What a recursive word sets is not cleared before.
    assert_eq!(
        bind(&["bind", "ro", "rnosuid"], true),
        ((3, 0), Some(0x0020_000c))
    );
    assert_eq!(bind(&["ro"], false), ((1, 0), None));
    let tmpfs = good(json!({"mounts": [{"destination": "/a", "type": "tmpfs"}]}));
    assert_eq!(tmpfs.plan.mounts[0].implied_clear, None);
}

#[test]
fn a_limit_of_processes_counts_from_zero() {
    for (limit, wanted) in [(0, Limit::Value(1)), (-1, Limit::Max), (7, Limit::Value(7))] {
        let compiled = good(json!({"linux": {"resources": {"pids": {"limit": limit}}}}));
        let resources = compiled.plan.cgroup.unwrap().resources;
        assert_eq!(resources.pids_max, Some(wanted));
    }
}

#[test]
fn all_access_to_a_device_can_be_denied_by_a_letter() {
    let rule = |allow| {
        json!({"linux": {"resources": {"devices": [
            {"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "rwa"}]}}})
    };
    let devices = good(rule(false)).plan.cgroup.unwrap().resources.devices;
    assert_eq!((devices[1].allow, devices[1].access), (false, access::ALL));
    assert_eq!(refused(rule(true)), "linux.resources.devices[0].access");
}

#[test]
fn errors_of_a_memory_policy_are_in_known_words() {
    for (policy, wanted) in [
        (
            json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
            "mode requires 0 nodes but got 8",
        ),
        (
            json!({"mode": "MPOL_BIND"}),
            "mode requires at least one node but got 0",
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
            "invalid memory policy nodes \"0-9876543210\"",
        ),
    ] {
        let spec = config(json!({"linux": {"memoryPolicy": policy}}));
        let error = compile(&spec, options()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(error.contains("linux.memoryPolicy.nodes"), "{error}");
    }
}

#[test]
fn the_agent_hears_of_a_further_process_that_the_container_is_running() {
    let spec = config(
        json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/agent", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}}}),
    );
    let process = spec.process().clone().unwrap();
    let exec = compile_exec(&spec, "c1", Path::new("/b"), &process).unwrap();
    let first = compile(&spec, options()).unwrap();
    for (plan, status) in [(exec.plan, "running"), (first.plan, "creating")] {
        let state = plan.process.seccomp_listener.unwrap().state.join("5");
        let wanted = format!("\"status\":\"{status}\"");
        assert!(state.contains(&wanted), "{state}");
    }
}

#[test]
fn a_container_may_share_the_mounts_of_its_caller() {
    let plan = good(json!({"linux": {"namespaces": [{"type": "pid"}]}})).plan;
    let kinds: Vec<_> = plan.namespaces.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [NamespaceKind::Pid]);
    for field in ["maskedPaths", "readonlyPaths"] {
        let patch = json!({"linux": {"namespaces": [{"type": "pid"}], field: ["/proc/sys"]}});
        assert_eq!(refused(patch), format!("linux.{field}"));
    }
    let layers = CompileOptions {
        root: RootSource::Layers {
            lower: vec![PathBuf::from("/l")],
            writable: PathBuf::from("/w"),
            volatile: false,
        },
        ..options()
    };
    let spec = config(json!({"linux": {"namespaces": [{"type": "pid"}]}}));
    let error = compile(&spec, layers).unwrap_err().to_string();
    assert!(error.contains("linux.namespaces"), "{error}");
}

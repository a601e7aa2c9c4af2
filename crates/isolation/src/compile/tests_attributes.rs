//! What a process and a mount are besides their names: priorities, labels, mapped ids.

use super::tests::{config, good, refused};
use super::*;
use gamut_abi::plan::{
    ExecCpuAffinity, IdMapping, IoPriority, MemoryPolicy, MountIdmap, Scheduler,
};
use serde_json::{Value, json};

fn process(patch: &Value) -> plan::Process {
    good(json!({ "process": patch })).plan.process
}

#[test]
fn priorities_become_the_kernels_numbers() {
    let compiled = process(&json!({
        "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 3},
        "scheduler": {"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_RESET_ON_FORK"]},
        "execCPUAffinity": {"initial": "0-1", "final": "3"},
        "apparmorProfile": "docker-default",
        "selinuxLabel": "a:b:c:s0"}));
    assert_eq!(
        compiled.io_priority,
        Some(IoPriority { class: 1, level: 3 })
    );
    let fifo = Scheduler {
        policy: 1,
        flags: 1,
        priority: 10,
        ..Scheduler::default()
    };
    assert_eq!(compiled.scheduler, Some(fifo));
    let affinity = ExecCpuAffinity {
        initial: vec![3],
        last: vec![8],
    };
    assert_eq!(compiled.exec_cpu_affinity, Some(affinity));
    assert_eq!(compiled.apparmor_profile.as_deref(), Some("docker-default"));
    assert_eq!(compiled.selinux_label.as_deref(), Some("a:b:c:s0"));
    let deadline = process(&json!({"scheduler": {"policy": "SCHED_DEADLINE",
        "runtime": 1, "deadline": 2, "period": 3}}));
    let times = deadline
        .scheduler
        .map(|s| (s.policy, s.runtime_ns, s.deadline_ns, s.period_ns));
    assert_eq!(times, Some((6, 1, 2, 3)));
}

#[test]
fn wrong_priorities_are_named() {
    for (patch, field) in [
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice"),
        (json!({"policy": "SCHED_OTHER", "priority": 1}), "priority"),
        (json!({"policy": "SCHED_RR"}), "priority"),
        (json!({"policy": "SCHED_BATCH", "runtime": 1}), "runtime"),
        (json!({"policy": "SCHED_ISO"}), "policy"),
        (
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"]}),
            "flags[0]",
        ),
    ] {
        assert_eq!(
            refused(json!({"process": {"scheduler": patch}})),
            format!("process.scheduler.{field}")
        );
    }
    assert_eq!(
        refused(json!({"process": {"execCPUAffinity": {"final": "9000"}}})),
        "process.execCPUAffinity.final"
    );
}

#[test]
fn memory_policy_and_personality() {
    let compiled = good(json!({"linux": {
        "memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX32"}}}));
    let policy = MemoryPolicy {
        mode: 3 | 1 << 15,
        nodes: vec![3],
    };
    assert_eq!(compiled.plan.memory_policy, Some(policy));
    assert_eq!(compiled.plan.personality, Some(8));
    for (mode, nodes) in [("MPOL_BIND", ""), ("MPOL_LOCAL", "0")] {
        assert_eq!(
            refused(json!({"linux": {"memoryPolicy": {"mode": mode, "nodes": nodes}}})),
            "linux.memoryPolicy.nodes"
        );
    }
}

#[test]
fn ids_of_binds_are_mapped() {
    let mapping = |container_id, host_id, size| IdMapping {
        container_id,
        host_id,
        size,
    };
    let own = good(
        json!({"mounts": [{"destination": "/a", "source": "/s", "options": ["rbind", "ridmap"],
        "uidMappings": [{"containerID": 1, "hostID": 2, "size": 3}],
        "gidMappings": [{"containerID": 4, "hostID": 5, "size": 6}]}]}),
    );
    let wanted = MountIdmap {
        uid_mappings: vec![mapping(1, 2, 3)],
        gid_mappings: vec![mapping(4, 5, 6)],
        recursive: true,
    };
    assert_eq!(own.plan.mounts[0].idmap, Some(wanted));
    let user = json!({"linux": {
        "namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]},
        "mounts": [{"destination": "/a", "source": "/s", "options": ["bind", "idmap"]}]});
    let mount = good(user.clone()).plan.mounts.remove(0);
    let as_container = MountIdmap {
        uid_mappings: Vec::new(),
        gid_mappings: Vec::new(),
        recursive: false,
    };
    assert_eq!(mount.idmap, Some(as_container));
    // Shared layers are mapped for the user namespace too.
    let mut options = tests::options();
    options.root = RootSource::Layers {
        lower: vec![PathBuf::from("/l")],
        writable: PathBuf::from("/w"),
        volatile: false,
    };
    let compiled = compile(&config(user), options).unwrap();
    assert!(matches!(
        compiled.plan.root.source,
        plan::RootSource::Overlay {
            idmapped: true,
            userxattr: false,
            ..
        }
    ));
}

#[test]
fn network_and_rdma_become_limits() {
    let Compiled { plan, warnings, .. } = good(json!({"linux": {"resources": {
        "network": {"classID": 1_048_577, "priorities": [{"name": "eth0", "priority": 5}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3}, "mlx5_0": {"hcaObjects": 4}},
        "memory": {"kernelTCP": 100, "limit": 200, "checkBeforeUpdate": true},
        "blockIO": {"leafWeight": 10}}}}));
    let resources = plan.cgroup.unwrap().resources;
    assert_eq!(resources.network_class, Some(0x10_0001));
    assert_eq!(resources.network_priorities, [("eth0".to_owned(), 5)]);
    let rdma: Vec<_> = resources
        .rdma
        .iter()
        .map(|limit| (limit.device.as_str(), limit.handles, limit.objects))
        .collect();
    assert_eq!(rdma, [("mlx5_0", None, Some(4)), ("mlx5_1", Some(3), None)]);
    let tcp = Some(gamut_abi::resources::Limit::Value(100));
    assert_eq!(resources.memory.tcp_max_bytes, tcp);
    assert!(resources.memory.check_before_update);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("leafWeight"), "{warnings:?}");
}

#[test]
fn groups_are_delegated_where_the_container_may_write() {
    let owner = |options: Value, kinds: Value| {
        good(json!({"linux": {"namespaces": kinds,
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]},
            "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": options}]}))
        .plan
        .cgroup
        .unwrap()
        .owner
    };
    let all = json!([{"type": "mount"}, {"type": "user"}, {"type": "cgroup"}]);
    assert_eq!(owner(json!(["rw"]), all.clone()), Some(1000));
    assert_eq!(owner(json!(["ro"]), all), None);
    let shared = json!([{"type": "mount"}, {"type": "user"}]);
    assert_eq!(owner(json!([]), shared), None);
}

#[test]
fn interfaces_move_into_a_network_of_the_containers_own() {
    let plan = good(json!({"linux": {"netDevices": {"eth1": {}, "eth0": {"name": "net0"}}}})).plan;
    let names: Vec<_> = plan
        .network_devices
        .iter()
        .map(|device| (device.name.as_str(), device.container_name.as_str()))
        .collect();
    assert_eq!(names, [("eth0", "net0"), ("eth1", "eth1")]);
    for (devices, field) in [
        (json!({"a/b": {}}), "linux.netDevices.a/b"),
        (
            json!({"eth0": {"name": "0123456789abcdef"}}),
            "linux.netDevices.eth0.name",
        ),
    ] {
        assert_eq!(refused(json!({"linux": {"netDevices": devices}})), field);
    }
    let host = json!({"linux": {"namespaces": [{"type": "mount"}], "netDevices": {"eth0": {}}}});
    assert_eq!(refused(host), "linux.netDevices.eth0");
}

use super::*;
use gamut_abi::plan::{MountKind, NamespaceSource, User};
use gamut_abi::resources::{DeviceKind, Limit};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A small whole configuration, with `patch` merged in (RFC 7386).
pub(super) fn config(patch: Value) -> Spec {
    let mut base = json!({
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
        "linux": {"namespaces": [
            {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
            {"type": "network"}
        ]}
    });
    merge(&mut base, patch);
    serde_json::from_value(base).unwrap()
}

fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, patch) => *base = patch,
    }
}

pub(super) fn options() -> CompileOptions {
    CompileOptions {
        id: "c1".to_owned(),
        root: RootSource::Directory(PathBuf::from("/rootfs")),
        mount_point: PathBuf::from("/run/gamut/mnt"),
        bundle: None,
        exact_bind_flags: false,
        network: Network::Config,
        cgroup_path: Some("/gamut/c1".to_owned()),
        process: ProcessOptions::default(),
        is_host_network: |path| path == Path::new("/proc/1/ns/net"),
    }
}

pub(super) fn good(patch: Value) -> Compiled {
    compile(&config(patch), options()).unwrap()
}

/// The field that is refused.
pub(super) fn refused(patch: Value) -> String {
    match compile(&config(patch), options()) {
        Err(Error::Invalid { field, problem }) => {
            assert!(!problem.is_empty());
            field
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_small_configuration_compiles_with_safe_defaults() {
    let Compiled {
        plan,
        descriptors,
        warnings,
    } = good(json!({}));
    assert!(descriptors.is_empty() && warnings.is_empty());
    assert_eq!(
        plan.process.capabilities,
        Some(plan::Capabilities::default())
    );
    assert_eq!(
        plan.process.user,
        User::Numeric {
            uid: 0,
            gid: 0,
            additional_gids: vec![]
        }
    );
    assert!(plan.default_devices && !plan.root.readonly);
    let rules = plan.cgroup.unwrap().resources.devices;
    assert!(!rules[0].allow && rules[0].kind == DeviceKind::All);
    assert!(
        rules[1..]
            .iter()
            .all(|rule| rule.allow && rule.kind != DeviceKind::All)
    );
}

#[test]
fn the_default_configuration_of_the_specification_compiles() {
    compile(&Spec::default(), options()).unwrap();
}

#[test]
fn wrong_fields_are_named() {
    for (patch, field) in [
        (json!({"ociVersion": "2.0.0"}), "ociVersion"),
        (json!({"linux": null}), "linux"),
        (json!({"process": null}), "process"),
        (
            json!({"hooks": {"prestart": [{"path": "x"}]}}),
            "hooks.prestart[0].path",
        ),
        (
            json!({"hooks": {"poststop": [{"path": "/x"}, {"path": "/x", "timeout": 0}]}}),
            "hooks.poststop[1].timeout",
        ),
        // Nobody could tell them where the bundle is.
        (json!({"hooks": {"poststart": [{"path": "/x"}]}}), "hooks"),
        (json!({"process": {"args": []}}), "process.args"),
        (json!({"process": {"args": [""]}}), "process.args"),
        (
            json!({"process": {"args": ["a", "b\u{0}"]}}),
            "process.args[1]",
        ),
        (json!({"process": {"env": ["A=1", "B"]}}), "process.env[1]"),
        (json!({"process": {"env": ["=1"]}}), "process.env[0]"),
        (json!({"process": {"cwd": "x"}}), "process.cwd"),
        (
            json!({"process": {"user": {"umask": 512}}}),
            "process.user.umask",
        ),
        (
            json!({"process": {"oomScoreAdj": 1001}}),
            "process.oomScoreAdj",
        ),
        (
            json!({"process": {"apparmorProfile": "p\u{0}"}}),
            "process.apparmorProfile",
        ),
        (
            json!({"process": {"selinuxLabel": "l\u{0}"}}),
            "process.selinuxLabel",
        ),
        (
            json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 8}}}),
            "process.ioPriority.priority",
        ),
        (
            json!({"process": {"terminal": true, "consoleSize": {"height": 65536, "width": 1}}}),
            "process.consoleSize.height",
        ),
        (
            json!({"process": {"rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
                {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]}}),
            "process.rlimits[1].type",
        ),
        (
            json!({"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}}),
            "process.rlimits[0].soft",
        ),
        (
            json!({"process": {"capabilities": {"effective": ["CAP_CHOWN"]}}}),
            "process.capabilities.effective",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "user"}]}}),
            "linux.namespaces",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}),
            "linux.namespaces[1].type",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "mount", "path": "/x"}]}}),
            "linux.namespaces[0].path",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "pid", "path": "x"}]}}),
            "linux.namespaces[1].path",
        ),
        (
            json!({"hostname": "h", "linux": {"namespaces": [{"type": "mount"}]}}),
            "hostname",
        ),
        (json!({"hostname": "h".repeat(65)}), "hostname"),
        (
            json!({"domainname": "d", "linux": {"namespaces": [
                {"type": "mount"}, {"type": "uts", "path": "/proc/1/ns/uts"}]}}),
            "domainname",
        ),
        (
            json!({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}),
            "linux.uidMappings",
        ),
        (
            json!({"linux": {"timeOffsets": {"monotonic": {"secs": 1}}}}),
            "linux.timeOffsets",
        ),
        (
            json!({"linux": {"mountLabel": "l\u{0}"}}),
            "linux.mountLabel",
        ),
        (json!({"linux": {"intelRdt": {}}}), "linux.intelRdt"),
        (
            json!({"linux": {"personality": {"domain": "LINUX32", "flags": ["X"]}}}),
            "linux.personality.flags",
        ),
        (
            json!({"linux": {"rootfsPropagation": "up"}}),
            "linux.rootfsPropagation",
        ),
        (
            json!({"linux": {"maskedPaths": ["/a", "b"]}}),
            "linux.maskedPaths[1]",
        ),
        (
            json!({"linux": {"devices": [{"path": "/dev/x", "type": "a"}]}}),
            "linux.devices[0].type",
        ),
        (
            json!({"linux": {"devices": [{"path": "/dev/x", "type": "c", "major": 4096}]}}),
            "linux.devices[0].major",
        ),
        (
            json!({"linux": {"devices": [{"path": "x", "type": "p"}]}}),
            "linux.devices[0].path",
        ),
    ] {
        assert_eq!(refused(patch.clone()), field, "{patch}");
    }
}

#[test]
fn wrong_limits_are_named() {
    for (limits, field) in [
        (json!({"memory": {"limit": -2}}), "memory.limit"),
        (json!({"memory": {"swap": 5}}), "memory.swap"),
        (json!({"memory": {"limit": 10, "swap": 5}}), "memory.swap"),
        (json!({"memory": {"swappiness": 101}}), "memory.swappiness"),
        (json!({"memory": {"kernelTCP": -2}}), "memory.kernelTCP"),
        (json!({"cpu": {"period": 10}}), "cpu.period"),
        (json!({"cpu": {"quota": 10}}), "cpu.quota"),
        (json!({"cpu": {"cpus": "3-1"}}), "cpu.cpus"),
        (json!({"cpu": {"mems": "a"}}), "cpu.mems"),
        (json!({"blockIO": {"weight": 5}}), "blockIO.weight"),
        (
            json!({"blockIO": {"throttleReadIOPSDevice": [{"major": -1, "minor": 0, "rate": 1}]}}),
            "blockIO.throttleReadIOPSDevice[0].major",
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "2XB", "limit": 1}]}),
            "hugepageLimits[0].pageSize",
        ),
        (
            json!({"network": {"priorities": [{"name": "a b", "priority": 1}]}}),
            "network.priorities[0].name",
        ),
        (json!({"rdma": {"mlx": {}}}), "rdma.mlx"),
        (json!({"rdma": {"m x": {"hcaHandles": 1}}}), "rdma.m x"),
        (
            json!({"unified": {"../memory.max": "1"}}),
            "unified.../memory.max",
        ),
        (
            json!({"unified": {"cgroup.kill": "1"}}),
            "unified.cgroup.kill",
        ),
        (
            json!({"devices": [{"allow": true, "access": "x"}]}),
            "devices[0].access",
        ),
        (
            json!({"devices": [{"allow": true, "type": "p"}]}),
            "devices[0].type",
        ),
    ] {
        let patch = json!({"linux": {"resources": limits}});
        assert_eq!(refused(patch), format!("linux.resources.{field}"));
    }
}

#[test]
fn swap_is_counted_alone() {
    let swap = |memory: Value| {
        good(json!({"linux": {"resources": {"memory": memory}}}))
            .plan
            .cgroup
            .unwrap()
            .resources
            .memory
            .swap_max_bytes
    };
    assert_eq!(
        swap(json!({"limit": 10, "swap": 30})),
        Some(Limit::Value(20))
    );
    assert_eq!(
        swap(json!({"limit": 10, "swap": 10})),
        Some(Limit::Value(0))
    );
    assert_eq!(swap(json!({"limit": 10, "swap": -1})), Some(Limit::Max));
    assert_eq!(swap(json!({"limit": 10, "swap": 0})), None);
    assert_eq!(swap(json!({"limit": 10})), None);
    assert_eq!(swap(json!({"limit": -1})), Some(Limit::Max));
    assert_eq!(swap(json!({})), None);
}

#[test]
fn throttles_of_one_device_are_joined() {
    let io = good(json!({"linux": {"resources": {"blockIO": {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 100}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 2}]
    }}}}))
    .plan
    .cgroup
    .unwrap()
    .resources
    .io;
    assert_eq!(io.weight, Some(500));
    assert_eq!(io.devices.len(), 2);
    assert_eq!(io.devices[0].weight, Some(100));
    assert_eq!(io.devices[0].read_bytes_per_second, Some(1));
    assert_eq!(io.devices[1].write_operations_per_second, Some(2));
}

#[test]
fn sysctls_need_a_namespace_of_their_own() {
    let compiled = good(json!({"linux": {"sysctl": {
        "net/ipv4/ip_forward": "1", "kernel.shmmax": "5", "fs.mqueue.msg_max": "9"
    }}}));
    assert_eq!(compiled.plan.sysctls[2].0, "net.ipv4.ip_forward");
    for name in [
        "vm.swappiness",
        "kernel.panic",
        "net",
        "net.//.vm.x",
        "user.max_user_namespaces",
    ] {
        let patch = json!({"linux": {"sysctl": {name: "1"}}});
        assert_eq!(refused(patch), format!("linux.sysctl.{name}"));
    }
    let host_network = |path| {
        json!({"linux": {
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "namespaces": [{"type": "mount"}, {"type": "network", "path": path}]
        }})
    };
    assert_eq!(
        refused(host_network("/proc/1/ns/net")),
        "linux.sysctl.net.ipv4.ip_forward"
    );
    good(host_network("/run/netns/other"));
    let spec = config(json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}));
    let host = CompileOptions {
        network: Network::Host,
        ..options()
    };
    compile(&spec, host).unwrap_err();
}

#[test]
fn the_network_of_the_sandbox_comes_as_a_descriptor() {
    let descriptor = || Network::Descriptor(std::fs::File::open("/dev/null").unwrap().into());
    let sandbox = || CompileOptions {
        network: descriptor(),
        ..options()
    };
    let compiled = compile(&config(json!({})), sandbox()).unwrap();
    assert_eq!(compiled.descriptors.len(), 1);
    let network: Vec<_> = compiled
        .plan
        .namespaces
        .iter()
        .filter(|namespace| namespace.kind == NamespaceKind::Network)
        .collect();
    assert_eq!(network.len(), 1);
    assert_eq!(network[0].source, NamespaceSource::Descriptor(0));
    let path = config(json!({"linux": {"namespaces": [
        {"type": "mount"}, {"type": "network", "path": "/x"}]}}));
    compile(&path, sandbox()).unwrap_err();
    let host = CompileOptions {
        network: Network::Host,
        ..options()
    };
    let plan = compile(&config(json!({})), host).unwrap().plan;
    assert!(
        plan.namespaces
            .iter()
            .all(|namespace| namespace.kind != NamespaceKind::Network)
    );
}

#[test]
fn id_mappings_are_checked() {
    let patch = |mappings: Value| {
        json!({"linux": {
            "namespaces": [{"type": "mount"}, {"type": "user"}],
            "uidMappings": mappings,
            "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]
        }})
    };
    let mapping = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    good(patch(json!([
        mapping(0, 1000, 1),
        mapping(1, 100_000, 65_535)
    ])));
    for (mappings, field) in [
        (json!([]), "linux.uidMappings"),
        (json!([mapping(0, 0, 0)]), "linux.uidMappings[0].size"),
        (json!([mapping(u32::MAX, 0, 2)]), "linux.uidMappings[0]"),
        (
            json!([mapping(0, 0, 10), mapping(9, 100, 1)]),
            "linux.uidMappings[1]",
        ),
        (
            json!([mapping(0, 0, 10), mapping(100, 9, 1)]),
            "linux.uidMappings[1]",
        ),
    ] {
        assert_eq!(refused(patch(mappings)), field);
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "callers write the value in place"
)]
fn one_mount(mount: Value) -> plan::Mount {
    good(json!({"mounts": [mount]})).plan.mounts.remove(0)
}

#[test]
fn mounts_of_each_kind() {
    let bind = one_mount(json!({"destination": "/a", "type": "none", "source": "/s",
        "options": ["rbind", "ro", "nosuid"]}));
    assert_eq!(
        bind.kind,
        MountKind::Bind {
            source: "/s".to_owned(),
            recursive: true,
            subpath: String::new(),
        }
    );
    let part = one_mount(json!({"destination": "/a", "type": "bind", "source": "/s",
        "options": ["rbind", "x-gamut.subpath=a, b/c"]}));
    let MountKind::Bind { subpath, .. } = part.kind else {
        panic!("a bind");
    };
    assert_eq!(subpath, "a, b/c");
    assert_eq!((bind.attributes_set, bind.attributes_recursive), (3, false));
    assert_eq!(bind.propagation, None);
    let shared = one_mount(json!({"destination": "/a", "type": "bind", "source": "/s",
        "options": ["rshared"]}));
    assert_eq!(shared.propagation, Some((Propagation::Shared, true)));
    let tmpfs = one_mount(json!({"destination": "/t", "type": "tmpfs",
        "options": ["size=65536k", "mode=1777", "noexec", "tmpcopyup"]}));
    assert_eq!(
        tmpfs.kind,
        MountKind::Filesystem {
            fstype: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            options: vec![
                ("size".to_owned(), Some("65536k".to_owned())),
                ("mode".to_owned(), Some("1777".to_owned())),
            ],
            copy_up: true,
        }
    );
    let cgroup = one_mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
        "options": ["ro", "nosuid", "private"]}));
    assert_eq!(cgroup.kind, MountKind::Cgroup);
    let unified = one_mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup2"}));
    assert_eq!(unified.kind, MountKind::CgroupUnified);
    let rro = one_mount(json!({"destination": "/a", "source": "/s", "options": ["rbind", "rro"]}));
    assert_eq!(
        (rro.attributes_set, rro.recursive_attributes),
        (0, Some((1, 0)))
    );
    let mixed = one_mount(json!({"destination": "/a", "source": "/s",
        "options": ["rbind", "rro", "nodev"]}));
    assert_eq!(
        (mixed.attributes_set, mixed.recursive_attributes),
        (4, Some((1, 0)))
    );
}

#[test]
fn destinations_are_inside_the_container() {
    // Relative to its root (runtime-spec), or with the root's own path before it (runc).
    for (destination, inside) in [
        ("a/b", "/a/b"),
        ("/rootfs/a", "/a"),
        ("/rootfsa", "/rootfsa"),
    ] {
        let mount = one_mount(json!({"destination": destination, "type": "tmpfs"}));
        assert_eq!(mount.destination, inside);
    }
}

#[test]
fn wrong_mounts_are_named() {
    for (mount, field) in [
        (json!({"destination": "", "type": "proc"}), "destination"),
        (
            json!({"destination": "/rootfs", "type": "proc"}),
            "destination",
        ),
        (
            json!({"destination": "/a/..", "type": "proc"}),
            "destination",
        ),
        (json!({"destination": "/a"}), "type"),
        (json!({"destination": "/a", "type": "bind"}), "source"),
        (
            json!({"destination": "/a", "type": "bind", "source": "s"}),
            "source",
        ),
        (
            json!({"destination": "/a", "type": "bind", "source": "/s", "options": ["x"]}),
            "options[0]",
        ),
        (
            json!({"destination": "/a", "type": "proc", "options": [""]}),
            "options[0]",
        ),
        (
            json!({"destination": "/a", "type": "proc", "options": ["remount"]}),
            "options[0]",
        ),
        (
            json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}),
            "options",
        ),
        (
            json!({"destination": "/a", "type": "cgroup", "options": ["x"]}),
            "options[0]",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["size=1x"]}),
            "options[0]",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["ro", "mode=9"]}),
            "options[1]",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["bogus"]}),
            "options[0]",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["rbind", "idmap"]}),
            "options",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}),
            "options",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind"], "uidMappings": [
            {"containerID": 0, "hostID": 0, "size": 1}]}),
            "gidMappings",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind"],
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 0, "size": 0}]}),
            "gidMappings[0].size",
        ),
        (
            json!({"destination": "/proc", "type": "tmpfs"}),
            "destination",
        ),
        (
            json!({"destination": "/x/../proc", "type": "tmpfs"}),
            "destination",
        ),
        (
            json!({"destination": "/proc/self", "type": "tmpfs"}),
            "destination",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "uidMappings": [
            {"containerID": 0, "hostID": 0, "size": 1}]}),
            "uidMappings",
        ),
    ] {
        let patch = json!({"mounts": [mount]});
        assert_eq!(
            refused(patch.clone()),
            format!("mounts[0].{field}"),
            "{patch}"
        );
    }
}

#[test]
fn nothing_is_made_in_the_hosts_dev() {
    let patch = json!({
        "mounts": [{"destination": "/dev/", "source": "/dev", "options": ["rbind"]}],
        "linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]}
    });
    let plan = good(patch).plan;
    assert!(!plan.default_devices && plan.devices.is_empty());
}

#[test]
fn users_by_number_and_by_name() {
    let spec = config(json!({"process": {"user": {"uid": 5, "gid": 6, "additionalGids": [7]}}}));
    let user = |process: ProcessOptions| {
        compile(
            &spec,
            CompileOptions {
                process,
                ..options()
            },
        )
        .unwrap()
        .plan
        .process
        .user
    };
    assert_eq!(
        user(ProcessOptions::default()),
        User::Numeric {
            uid: 5,
            gid: 6,
            additional_gids: vec![7]
        }
    );
    assert_eq!(
        user(ProcessOptions {
            user: Some("www".to_owned()),
            ..ProcessOptions::default()
        }),
        User::Lookup {
            spec: "www".to_owned(),
            additional_groups: vec!["7".to_owned()]
        }
    );
    let groups = vec!["audio".to_owned()];
    assert_eq!(
        user(ProcessOptions {
            additional_groups: groups,
            ..ProcessOptions::default()
        }),
        User::Lookup {
            spec: "5:6".to_owned(),
            additional_groups: vec!["audio".to_owned(), "7".to_owned()]
        }
    );
}

#[test]
fn capabilities_become_bits() {
    let compiled = good(json!({"process": {"capabilities": {
        "bounding": ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"],
        "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
        "ambient": ["CAP_KILL"]
    }}}));
    let sets = compiled.plan.process.capabilities.unwrap();
    assert_eq!(sets.bounding, 1 | 1 << 40);
    assert_eq!(
        (sets.permitted, sets.effective, sets.ambient),
        (1 << 5, 1 << 5, 0)
    );
    assert_eq!(compiled.warnings.len(), 1);
    let unknown = json!({"user": {}, "cwd": "/", "capabilities": {"bounding": ["CAP_NOPE"]}});
    let error = serde_json::from_value::<oci_spec::runtime::Process>(unknown).unwrap_err();
    assert!(error.to_string().contains("CAP_NOPE"));
}

#[test]
fn control_group_paths() {
    for (path, clean) in [
        ("/a//b/", Some("/a/b")),
        ("a", Some("/a")),
        ("/", None),
        ("/a/../b", None),
    ] {
        assert_eq!(cgroup_path("f", path).ok().as_deref(), clean, "{path}");
    }
    let group = |path: &str| {
        let spec = config(json!({"linux": {"cgroupsPath": path}}));
        let options = CompileOptions {
            cgroup_path: None,
            ..options()
        };
        compile(&spec, options).map(|compiled| {
            let group = compiled.plan.cgroup.unwrap();
            (group.path, group.systemd)
        })
    };
    assert_eq!(
        group("a-b.slice:p:n").unwrap(),
        ("/a.slice/a-b.slice/p-n.scope".to_owned(), true)
    );
    assert_eq!(group("/a:b:c").unwrap(), ("/a:b:c".to_owned(), false));
    group("a:b:c").unwrap_err();
    let spec = config(json!({"linux": {"resources": {"pids": {"limit": 5}}}}));
    compile(
        &spec,
        CompileOptions {
            cgroup_path: None,
            ..options()
        },
    )
    .unwrap_err();
}

#[test]
fn a_root_of_layers_becomes_an_overlay() {
    let layers = |lower: &[&str]| CompileOptions {
        root: RootSource::Layers {
            lower: lower.iter().map(PathBuf::from).collect(),
            writable: PathBuf::from("/w"),
            volatile: true,
        },
        ..options()
    };
    let source = |lower: &[&str]| {
        compile(&config(json!({})), layers(lower))
            .unwrap()
            .plan
            .root
            .source
    };
    assert!(matches!(
        source(&["/l2", "/l1"]),
        plan::RootSource::Overlay { lower, upper: Some(upper), volatile: true, userxattr: false, .. }
            if lower == ["/l2", "/l1"] && upper == "/w/upper"
    ));
    assert_eq!(
        source(&[]),
        plan::RootSource::Directory {
            path: "/w/upper".to_owned()
        }
    );
}

#[test]
fn filters_are_compiled_once() {
    let patch = json!({"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"}]
    }}});
    let first = good(patch.clone()).plan.process.seccomp.unwrap();
    assert!(!first.program.is_empty());
    assert_eq!(good(patch).plan.process.seccomp.unwrap(), first);
    assert_eq!(
        refused(json!({"linux": {"seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}}})),
        "linux.seccomp.listenerPath"
    );
}

/// JSON that looks like pieces of a configuration.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        "[a-z/.,=:0-9]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let keys = prop::sample::select(vec![
            "process",
            "linux",
            "mounts",
            "namespaces",
            "resources",
            "memory",
            "cpu",
            "limit",
            "swap",
            "type",
            "path",
            "options",
            "destination",
            "source",
            "sysctl",
            "devices",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..6).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        fuzz_config(&bytes);
    }

    #[test]
    fn any_configuration_comes_back(patch in any_json()) {
        let mut base = serde_json::to_value(config(json!({}))).unwrap();
        merge(&mut base, patch);
        fuzz_config(base.to_string().as_bytes());
    }

    #[test]
    fn mount_words_never_set_and_clear_a_flag_at_once(
        words in prop::collection::vec(
            prop::sample::select(vec!["ro", "rw", "nosuid", "suid", "dev", "nodev", "noatime",
                "atime", "strictatime", "relatime", "nostrictatime", "noexec"]), 0..8)
    ) {
        let mount = one_mount(json!({"destination": "/a", "type": "bind", "source": "/s",
            "options": words}));
        const ATIME: u64 = 0x70;
        prop_assert_eq!(mount.attributes_set & mount.attributes_clear & !ATIME, 0);
        // mount_setattr(2): an access time mode is set only together with clearing the field.
        prop_assert!(mount.attributes_set & ATIME == 0 || mount.attributes_clear & ATIME == ATIME);
    }

    #[test]
    fn swap_plus_memory_is_what_was_asked_for(memory in 1..i64::MAX / 2, swap in 0..i64::MAX / 2) {
        let memory_and_swap = memory + swap;
        let compiled = good(json!({"linux": {"resources": {
            "memory": {"limit": memory, "swap": memory_and_swap}}}}));
        let swap_alone = compiled.plan.cgroup.unwrap().resources.memory.swap_max_bytes;
        prop_assert_eq!(swap_alone, Some(Limit::Value(u64::try_from(swap).unwrap())));
    }
}

//! The model in the files of v2 and of v1, on directory trees that only look like hierarchies.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use gamut_abi::resources::{HugetlbLimit, IoDevice, Limit, RdmaLimit, Resources};
use gamut_cgroup::{Controller, Group, Hierarchies, HierarchyRoot, Mode};
use std::path::{Path, PathBuf};

struct Tree {
    directory: tempfile::TempDir,
    group: Group,
}

impl Tree {
    fn new(v2: bool, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = HierarchyRoot {
            path: directory.path().to_str().unwrap().to_owned(),
            v2,
            controllers: vec![
                Controller::Cpu,
                Controller::Cpuset,
                Controller::Memory,
                Controller::Pids,
                Controller::Io,
                Controller::Hugetlb,
                Controller::Rdma,
                Controller::NetCls,
                Controller::NetPrio,
            ],
        };
        let hierarchies = Hierarchies::with_roots(&[root]).unwrap();
        assert_eq!(hierarchies.mode(), if v2 { Mode::V2 } else { Mode::V1 });
        let group = Group::at(&hierarchies, "/gamut/one").unwrap();
        for parent in ["", "gamut"] {
            std::fs::create_dir_all(directory.path().join(parent)).unwrap();
            std::fs::write(
                directory.path().join(parent).join("cgroup.subtree_control"),
                "",
            )
            .unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                std::fs::write(directory.path().join(parent).join(file), "0-3\n").unwrap();
            }
        }
        std::fs::create_dir_all(directory.path().join("gamut/one")).unwrap();
        let tree = Self { directory, group };
        for (file, text) in files {
            std::fs::write(tree.path().join(file), text).unwrap();
        }
        tree
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("gamut/one")
    }

    /// Every file of the group that is not empty, as `NAME: TEXT` lines.
    fn golden(&self) -> String {
        let mut lines: Vec<String> = std::fs::read_dir(self.path())
            .unwrap()
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (!text.is_empty()).then(|| format!("{name}: {}\n", text.trim_end()))
            })
            .collect();
        lines.sort();
        lines.concat()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn everything() -> Resources {
    let mut resources = Resources::default();
    resources.cpu.shares = Some(2048);
    resources.cpu.quota_us = Some(Limit::Value(150_000));
    resources.cpu.period_us = Some(100_000);
    resources.cpu.burst_us = Some(1000);
    resources.cpu.idle = Some(0);
    resources.cpu.realtime_runtime_us = Some(1);
    resources.cpu.cpuset_cpus = Some("0-1".into());
    resources.cpu.cpuset_mems = Some("0".into());
    resources.memory.max_bytes = Some(Limit::Value(1 << 30));
    resources.memory.swap_max_bytes = Some(Limit::Value(1 << 29));
    resources.memory.reservation_bytes = Some(Limit::Value(1 << 20));
    resources.memory.high_bytes = Some(Limit::Max);
    resources.memory.swappiness = Some(10);
    resources.pids_max = Some(Limit::Max);
    resources.io.weight = Some(1000);
    resources.io.devices = vec![IoDevice {
        major: 8,
        minor: 16,
        weight: Some(10),
        read_bytes_per_second: Some(1_000_000),
        write_bytes_per_second: Some(0),
        read_operations_per_second: None,
        write_operations_per_second: Some(7),
    }];
    resources.hugetlb = vec![HugetlbLimit {
        page_size: "2MB".into(),
        limit_bytes: 4 << 20,
    }];
    resources
}

#[test]
fn everything_in_v2() {
    let files = [
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "cpu.idle",
        "cpuset.cpus",
        "cpuset.mems",
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "memory.high",
        "pids.max",
        "io.max",
        "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max",
        "cpu.uclamp.max",
    ]
    .map(|file| (file, ""));
    let tree = Tree::new(true, &files);
    let mut resources = everything();
    resources.unified = vec![("cpu.uclamp.max".into(), "50".into())];
    let warnings = tree.group.apply(&resources).unwrap();
    assert_eq!(
        tree.golden(),
        "\
cpu.idle: 0
cpu.max.burst: 1000
cpu.max: 150000 100000
cpu.uclamp.max: 50
cpu.weight: 200
cpuset.cpus: 0-1
cpuset.mems: 0
hugetlb.2MB.max: 4194304
hugetlb.2MB.rsvd.max: 4194304
io.max: 8:16 rbps=1000000 wbps=max wiops=7
memory.high: max
memory.low: 1048576
memory.max: 1073741824
memory.swap.max: 536870912
pids.max: max
"
    );
    assert_eq!(
        warnings,
        [
            "the real-time budget is not in force: cgroup v2 has no counterpart of it",
            "the swappiness is not in force: cgroup v2 has no counterpart of it",
            "the block I/O weight is not in force: the kernel has no io.bfq.weight or io.weight here",
            "the block I/O weight is not in force: the kernel has no io.bfq.weight or io.weight here",
        ]
    );
}

#[test]
fn everything_in_v1() {
    let unlimited = "9223372036854771712\n";
    let files = [
        ("cpu.shares", ""),
        ("cpu.cfs_quota_us", ""),
        ("cpu.cfs_period_us", ""),
        ("cpu.cfs_burst_us", ""),
        ("cpu.idle", ""),
        ("cpuset.cpus", ""),
        ("cpuset.mems", ""),
        ("memory.limit_in_bytes", unlimited),
        ("memory.soft_limit_in_bytes", ""),
        ("memory.swappiness", ""),
        ("pids.max", ""),
        ("blkio.bfq.weight", ""),
        ("blkio.throttle.read_bps_device", ""),
        ("blkio.throttle.write_bps_device", ""),
        ("blkio.throttle.write_iops_device", ""),
        ("hugetlb.2MB.limit_in_bytes", ""),
    ];
    let tree = Tree::new(false, &files);
    let warnings = tree.group.apply(&everything()).unwrap();
    assert_eq!(
        tree.golden(),
        "\
blkio.bfq.weight: 1000
blkio.throttle.read_bps_device: 8:16 1000000
blkio.throttle.write_bps_device: 8:16 0
blkio.throttle.write_iops_device: 8:16 7
cpu.cfs_burst_us: 1000
cpu.cfs_period_us: 100000
cpu.cfs_quota_us: 150000
cpu.idle: 0
cpu.shares: 2048
cpuset.cpus: 0-1
cpuset.mems: 0
hugetlb.2MB.limit_in_bytes: 4194304
memory.limit_in_bytes: 1073741824\n854771712
memory.soft_limit_in_bytes: 1048576
memory.swappiness: 10
pids.max: max
"
        // The tree's files keep the tail of what was there before, the kernel's do not.
        .replace("\n854771712", "854771712")
    );
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings[0].contains("cpu.rt_runtime_us"), "{warnings:?}");
    assert!(warnings[1].contains("swapaccount=0"), "{warnings:?}");
    assert!(warnings[2].contains("memory.high"), "{warnings:?}");
    assert!(warnings[3].contains("blkio.weight_device"), "{warnings:?}");
}

#[test]
fn weights_are_given_in_either_scale() {
    let tree = Tree::new(
        true,
        &[
            ("io.weight", ""),
            ("cpu.weight", ""),
            ("cpu.max", "20000 50000\n"),
        ],
    );
    let mut resources = Resources::default();
    resources.cpu.weight = Some(333);
    resources.cpu.shares = Some(2);
    resources.cpu.period_us = Some(10_000);
    resources.io.weight = Some(500);
    assert_eq!(tree.group.apply(&resources).unwrap(), Vec::<String>::new());
    assert_eq!(
        tree.golden(),
        "cpu.max: 20000 10000\ncpu.weight: 333\nio.weight: default 4950\n"
    );
    let tree = Tree::new(true, &[("io.weight", ""), ("io.bfq.weight", "")]);
    resources = Resources::default();
    resources.io.weight = Some(500);
    tree.group.apply(&resources).unwrap();
    assert_eq!(tree.golden(), "io.bfq.weight: default 500\n");
}

#[test]
fn controllers_are_enabled_on_the_way_down() {
    let tree = Tree::new(true, &[]);
    tree.group.create().unwrap();
    let wanted = "+cpu +cpuset +memory +pids +io +hugetlb +rdma";
    let root = tree.directory.path();
    assert_eq!(read(&root.join("cgroup.subtree_control")), wanted);
    assert_eq!(read(&root.join("gamut/cgroup.subtree_control")), wanted);
    assert!(!root.join("gamut/one/cgroup.subtree_control").exists());
}

#[test]
fn a_new_cpuset_gets_its_parents_processors() {
    let tree = Tree::new(false, &[("cpuset.cpus", "\n"), ("cpuset.mems", "\n")]);
    tree.group.create().unwrap();
    assert_eq!(tree.golden(), "cpuset.cpus: 0-3\ncpuset.mems: 0-3\n");
}

#[test]
fn names_cannot_leave_the_group() {
    let tree = Tree::new(true, &[]);
    for name in ["../x", "a/b", "", ".", "..", "a\0b"] {
        let resources = Resources {
            unified: vec![(name.into(), "1".into())],
            ..Resources::default()
        };
        assert!(tree.group.apply(&resources).is_err(), "{name:?}");
        let resources = Resources {
            hugetlb: vec![HugetlbLimit {
                page_size: name.into(),
                limit_bytes: 0,
            }],
            ..Resources::default()
        };
        assert!(tree.group.apply(&resources).is_err(), "{name:?}");
    }
}

#[test]
fn statistics_of_v2_are_read() {
    let tree = Tree::new(
        true,
        &[
            (
                "cpu.stat",
                "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 5\nnr_throttled 2\nthrottled_usec 9\n",
            ),
            ("memory.current", "100\n"),
            ("memory.peak", "200\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "5\n"),
            ("memory.stat", "anon 1\nfile 2\ninactive_file 3\n"),
            ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 4\n"),
            ("pids.current", "3\n"),
            ("pids.max", "10\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n",
            ),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.max", "4194304\n"),
            ("hugetlb.2MB.events", "max 8\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
        ],
    );
    let stats = tree.group.stats().unwrap();
    assert_eq!(
        (stats.cpu.usage_ns, stats.cpu.user_ns, stats.cpu.system_ns),
        (7000, 4000, 3000)
    );
    assert_eq!(
        (
            stats.cpu.periods,
            stats.cpu.throttled_periods,
            stats.cpu.throttled_ns
        ),
        (5, 2, 9000)
    );
    assert_eq!(stats.memory.usage_bytes, 100);
    assert_eq!(stats.memory.max_usage_bytes, 200);
    assert_eq!(stats.memory.limit_bytes, Limit::Max);
    assert_eq!(
        (
            stats.memory.anonymous_bytes,
            stats.memory.cache_bytes,
            stats.memory.inactive_file_bytes
        ),
        (1, 2, 3)
    );
    assert_eq!(
        (
            stats.memory.limit_failures,
            stats.memory.oom_kills,
            stats.memory.swap_bytes
        ),
        (6, 4, 5)
    );
    assert_eq!(tree.group.oom_kill_count(), 4);
    assert_eq!(
        (stats.pids.current, stats.pids.limit),
        (3, Limit::Value(10))
    );
    assert_eq!(stats.io.len(), 1);
    assert_eq!(stats.hugetlb.len(), 1);
    assert_eq!(stats.hugetlb[0].limit_failures, 8);
}

#[test]
fn rdma_and_packets_are_limited() {
    let resources = Resources {
        rdma: vec![RdmaLimit {
            device: "mlx5_0".into(),
            handles: Some(2),
            objects: Some(2000),
        }],
        network_class: Some(0x10_0001),
        network_priorities: vec![("eth0".into(), 5)],
        ..Resources::default()
    };
    let tree = Tree::new(
        false,
        &[
            ("rdma.max", ""),
            ("net_cls.classid", ""),
            ("net_prio.ifpriomap", ""),
        ],
    );
    let warnings = tree.group.apply(&resources).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        tree.golden(),
        "net_cls.classid: 1048577\nnet_prio.ifpriomap: eth0 5\n\
         rdma.max: mlx5_0 hca_handle=2 hca_object=2000\n"
    );
    // A machine without the controllers refuses, before anything else is set.
    let directory = tempfile::tempdir().unwrap();
    let root = HierarchyRoot {
        path: directory.path().to_str().unwrap().to_owned(),
        v2: true,
        controllers: vec![Controller::Pids],
    };
    std::fs::create_dir(directory.path().join("one")).unwrap();
    std::fs::write(directory.path().join("one/pids.max"), "").unwrap();
    let group = Group::at(&Hierarchies::with_roots(&[root]).unwrap(), "/one").unwrap();
    let wanted = Resources {
        pids_max: Some(Limit::Value(1)),
        rdma: resources.rdma,
        network_class: Some(1),
        ..Resources::default()
    };
    let error = group.apply(&wanted).unwrap_err();
    assert!(error.to_string().contains("net_cls"), "{error}");
    assert_eq!(read(&directory.path().join("one/pids.max")), "");
    let wanted = Resources {
        network_class: None,
        ..wanted
    };
    let warnings = group.apply(&wanted).unwrap();
    assert!(warnings[0].contains("RDMA"), "{warnings:?}");
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_on_request() {
    for (v2, usage, file) in [
        (true, "memory.current", "memory.max"),
        (false, "memory.usage_in_bytes", "memory.limit_in_bytes"),
    ] {
        let tree = Tree::new(v2, &[(usage, "5000\n"), (file, "")]);
        let mut resources = Resources::default();
        resources.memory.max_bytes = Some(Limit::Value(4096));
        resources.memory.check_before_update = true;
        let error = tree.group.apply(&resources).unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
        assert_eq!(read(&tree.path().join(file)), "");
        resources.memory.check_before_update = false;
        tree.group.apply(&resources).unwrap();
        assert!(read(&tree.path().join(file)).starts_with("4096"));
    }
}

#[test]
fn a_group_is_delegated_by_its_files() {
    use std::os::unix::fs::MetadataExt;
    let files = [("cgroup.procs", ""), ("memory.max", "")];
    let tree = Tree::new(true, &files);
    // SAFETY: cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: only root gives files away");
        return;
    }
    tree.group.delegate(1234).unwrap();
    let owner = |name: &str| tree.path().join(name).metadata().unwrap().uid();
    assert_eq!((owner("."), owner("cgroup.procs")), (1234, 1234));
    assert_eq!(owner("memory.max"), 0);
    // On v1 nothing changes hands.
    let tree = Tree::new(false, &files);
    tree.group.delegate(1234).unwrap();
    assert_eq!(tree.path().metadata().unwrap().uid(), 0);
}

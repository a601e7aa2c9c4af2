//! Limits in force on a machine with cgroup v2 alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{TestGroup, is_root, run, text};
use gamut_abi::resources::{HugetlbLimit, IoDevice, Limit, Resources};
use gamut_cgroup::{Controller, Hierarchies, Mode};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// The hierarchies, if `/sys/fs/cgroup` is a cgroup2 that root may use.
fn v2() -> Option<Hierarchies> {
    let found = Hierarchies::detect().ok()?;
    let on_the_usual_place = found
        .roots()
        .iter()
        .any(|root| root.v2 && root.path == "/sys/fs/cgroup");
    if !is_root() || found.mode() != Mode::V2 || !on_the_usual_place {
        eprintln!("SKIPPED: /sys/fs/cgroup is not cgroup2 here, or the tests do not run as root");
        return None;
    }
    Some(found)
}

#[test]
fn every_controller_reaches_the_group() {
    let Some(hierarchies) = v2() else { return };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let file = format!("/sys/fs/cgroup{}/cgroup.controllers", test.group.path());
    let names = std::fs::read_to_string(file).unwrap();
    for controller in hierarchies.controllers() {
        if let Some(name) = controller.name_v2() {
            assert!(
                names.split_whitespace().any(|word| word == name),
                "{name}: {names}"
            );
        }
    }
}

/// A file of the group, without the newline at its end.
fn file(test: &TestGroup, name: &str) -> String {
    let path = format!("/sys/fs/cgroup{}/{name}", test.group.path());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().to_owned()
}

/// A whole disk with more than 64 MiB: its name and its numbers.
fn disk() -> Option<(String, u32, u32)> {
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        let name = entry.file_name().into_string().ok()?;
        let virtual_disk = ["loop", "ram", "zram", "dm-", "md", "sr"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        let sectors: u64 = read("size")?.trim().parse().ok()?;
        if virtual_disk || sectors < (64 << 20) / 512 {
            continue;
        }
        let numbers = read("dev")?;
        let (major, minor) = numbers.trim().split_once(':')?;
        return Some((name, major.parse().ok()?, minor.parse().ok()?));
    }
    None
}

#[test]
fn a_disk_is_read_as_slowly_as_asked_for() {
    let Some(hierarchies) = v2() else { return };
    let Some((name, major, minor)) = disk() else {
        eprintln!("SKIPPED: no disk to read from");
        return;
    };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mut resources = Resources::default();
    resources.io.devices = vec![IoDevice {
        major,
        minor,
        weight: None,
        read_bytes_per_second: Some(2 << 20),
        write_bytes_per_second: Some(1 << 20),
        read_operations_per_second: None,
        write_operations_per_second: Some(100),
    }];
    assert_eq!(test.group.apply(&resources).unwrap(), Vec::<String>::new());
    let wanted = format!("{major}:{minor} rbps=2097152 wbps=1048576 riops=max wiops=100");
    assert_eq!(file(&test, "io.max"), wanted);
    // 6 MiB that nobody has read: 3 s, less what the kernel lets through at the start.
    let start = Instant::now();
    let script =
        format!("exec dd if=/dev/{name} of=/dev/null bs=1M count=6 skip=48 iflag=direct 2>&1");
    let output = run(&test.group, &script);
    let took = start.elapsed();
    assert!(output.status.success(), "{output:?}");
    assert!(took > Duration::from_secs(2), "{took:?}");
    let stats = test.group.stats().unwrap();
    let counted = stats
        .io
        .iter()
        .find(|io| (io.major, io.minor) == (major, minor));
    assert!(counted.unwrap().read_bytes >= 6 << 20, "{:?}", stats.io);
    // Lifted.
    resources.io.devices[0].read_bytes_per_second = Some(0);
    resources.io.devices[0].write_bytes_per_second = Some(0);
    resources.io.devices[0].write_operations_per_second = Some(0);
    test.group.apply(&resources).unwrap();
    assert_eq!(file(&test, "io.max"), "");
}

#[test]
fn huge_pages_are_limited() {
    let Some(hierarchies) = v2() else { return };
    if !hierarchies.has(Controller::Hugetlb)
        || !std::path::Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists()
    {
        eprintln!("SKIPPED: no hugetlb controller, or no huge pages of 2 MiB");
        return;
    }
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let resources = Resources {
        hugetlb: vec![HugetlbLimit {
            page_size: "2MB".into(),
            limit_bytes: 4 << 20,
        }],
        ..Resources::default()
    };
    assert_eq!(test.group.apply(&resources).unwrap(), Vec::<String>::new());
    assert_eq!(file(&test, "hugetlb.2MB.max"), "4194304");
    assert_eq!(file(&test, "hugetlb.2MB.rsvd.max"), "4194304");
    let stats = test.group.stats().unwrap();
    let page = stats.hugetlb.iter().find(|one| one.page_size == "2MB");
    assert_eq!(page.unwrap().usage_bytes, 0);
}

#[test]
fn limits_are_in_force() {
    let Some(hierarchies) = v2() else { return };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mut resources = Resources::default();
    resources.cpu.shares = Some(2048);
    resources.cpu.quota_us = Some(Limit::Value(20_000));
    resources.cpu.period_us = Some(100_000);
    resources.cpu.cpuset_cpus = Some("0".into());
    resources.memory.max_bytes = Some(Limit::Value(32 << 20));
    resources.memory.swap_max_bytes = Some(Limit::Value(0));
    resources.pids_max = Some(Limit::Value(20));
    resources.unified = vec![("memory.oom.group".into(), "1".into())];
    let warnings = test.group.apply(&resources).unwrap();
    eprintln!("warnings: {warnings:?}");
    let read = |name: &str| file(&test, name);
    assert_eq!(read("cpu.max"), "20000 100000");
    assert_eq!(read("cpu.weight"), "200");
    assert_eq!(read("memory.max"), "33554432");
    assert_eq!(read("pids.max"), "20");
    assert_eq!(read("memory.oom.group"), "1");
    let output = run(
        &test.group,
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done",
    );
    assert_eq!(text(&output), "done\n");
    let stats = test.group.stats().unwrap();
    assert!(stats.cpu.throttled_periods > 0, "{:?}", stats.cpu);
    let output = run(
        &test.group,
        "exec dd if=/dev/zero of=/dev/null bs=64M count=1",
    );
    assert_eq!(output.status.signal(), Some(9), "{output:?}");
    assert!(test.group.oom_kill_count() >= 1);
    assert!(hierarchies.has(Controller::Devices) && hierarchies.has(Controller::Freezer));
}

#[test]
fn a_delegated_group_is_its_owners_to_divide() {
    use std::os::unix::fs::MetadataExt;
    let Some(hierarchies) = v2() else { return };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    test.group.delegate(1234).unwrap();
    let owner = |name: &str| {
        let path = format!("/sys/fs/cgroup{}/{name}", test.group.path());
        std::fs::metadata(path).unwrap().uid()
    };
    for name in [
        ".",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.threads",
    ] {
        assert_eq!(owner(name), 1234, "{name}");
    }
    for name in ["memory.max", "cpu.max", "pids.max"] {
        assert_eq!(owner(name), 0, "{name}");
    }
}

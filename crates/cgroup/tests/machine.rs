//! Groups on the hierarchies of the machine that runs the tests, whichever it has.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{TestGroup, go, is_root, run, shell, text};
use gamut_abi::resources::{DeviceKind, DeviceRule, Limit, Resources, access};
use gamut_cgroup::{Controller, Group, Hierarchies, Mode, list_children};
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

fn hierarchies() -> Option<Hierarchies> {
    if !is_root() {
        eprintln!("SKIPPED: making control groups needs root");
        return None;
    }
    match Hierarchies::detect() {
        Ok(found) => Some(found),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

/// The first directory in which a group exists, for looking at raw files.
fn raw(hierarchies: &Hierarchies, controller: Controller, path: &str, file: &str) -> String {
    let root = hierarchies
        .roots()
        .into_iter()
        .find(|root| root.controllers.contains(&controller))
        .unwrap();
    let file = format!("{}{path}/{file}", root.path);
    std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .trim()
        .to_owned()
}

#[test]
fn a_group_is_made_found_and_removed_everywhere() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    assert!(!test.group.exists());
    test.group.create().unwrap();
    test.group.create().unwrap();
    assert!(test.group.exists());
    for root in hierarchies.roots() {
        assert!(std::path::Path::new(&format!("{}{}", root.path, test.group.path())).is_dir());
    }
    assert_eq!(
        list_children(&hierarchies, test.parent_path()).unwrap(),
        ["one"]
    );
    test.group.remove().unwrap();
    test.group.remove().unwrap();
    assert!(!test.group.exists());
    assert_eq!(
        list_children(&hierarchies, test.parent_path()).unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let roots = hierarchies.roots();
    let directory = tempfile::tempdir().unwrap();
    // The last hierarchy is a directory in which the parent's name is taken by a file.
    let mut broken = roots.clone();
    broken.push(gamut_cgroup::HierarchyRoot {
        path: directory.path().to_str().unwrap().to_owned(),
        v2: false,
        controllers: vec![Controller::Hugetlb],
    });
    let name = format!("gamut-test-broken-{}", std::process::id());
    std::fs::write(directory.path().join(&name), "").unwrap();
    let broken = Hierarchies::with_roots(&broken).unwrap();
    let group = Group::at(&broken, &format!("/{name}/one")).unwrap();
    let error = group.create().unwrap_err();
    assert_eq!(error.errno(), 20, "{error}");
    for root in roots {
        let path = format!("{}/{name}", root.path);
        assert!(!std::path::Path::new(&path).exists(), "{path}");
    }
}

/// The hierarchy by which systemd follows its services on v1, if the machine has it.
fn systemd_hierarchy() -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.ends_with("name=systemd"))?;
    line.split(' ').nth(4).map(str::to_owned)
}

#[test]
fn processes_are_followed_in_the_hierarchy_of_systemd() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let Some(top) = systemd_hierarchy() else {
        eprintln!("SKIPPED: no hierarchy name=systemd is mounted");
        return;
    };
    // It limits nothing, so it is none of those that are shown, and makes no hybrid of v2.
    assert!(hierarchies.roots().iter().all(|root| root.path != top));
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let directory = format!("{top}{}", test.group.path());
    assert!(std::path::Path::new(&directory).is_dir());
    let mut child = shell(&test.group, "read x");
    let procs = format!("{directory}/cgroup.procs");
    let inside = std::fs::read_to_string(procs).unwrap();
    assert_eq!(inside.trim(), child.id().to_string());
    go(&mut child);
    child.wait().unwrap();
    // Gone behind our back: nothing depends on it.
    std::fs::remove_dir(&directory).unwrap();
    assert!(run(&test.group, "true").status.success());
    test.group.remove().unwrap();
}

/// The kernel wants the runtime below the period at every moment.
#[test]
fn realtime_limits_change_in_either_direction() {
    let Some(hierarchies) = hierarchies().filter(|found| found.mode() != Mode::V2) else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let limits = |period, runtime| {
        let mut resources = Resources::default();
        resources.cpu.realtime_period_us = period;
        resources.cpu.realtime_runtime_us = Some(runtime);
        resources
    };
    if !test
        .parent()
        .apply(&limits(None, 500_000))
        .unwrap()
        .is_empty()
    {
        eprintln!("SKIPPED: this machine has no real-time budget to give");
        return;
    }
    for (period, runtime) in [(900_001, 300_001), (10_000, 3_000), (100_000, 20_000)] {
        let warnings = test.group.apply(&limits(Some(period), runtime)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let read = |file| raw(&hierarchies, Controller::Cpu, &test.group.path(), file);
        assert_eq!(read("cpu.rt_period_us"), period.to_string());
        assert_eq!(read("cpu.rt_runtime_us"), runtime.to_string());
    }
}

/// What removes one group may tidy up the parent that it shares with others, which are being made.
#[test]
fn siblings_come_and_go_below_a_parent_that_is_tidied_up() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    let churn = |name: &str| {
        let group = Group::at(&hierarchies, &format!("{}/{name}", test.parent_path())).unwrap();
        for turn in 0..300 {
            group
                .create()
                .unwrap_or_else(|error| panic!("{name}, turn {turn}: {error}"));
            group.remove().unwrap();
            for root in hierarchies.roots() {
                // Refused while the other thread's group is in it.
                let _ = std::fs::remove_dir(format!("{}{}", root.path, test.parent_path()));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| churn("one"));
        scope.spawn(|| churn("two"));
    });
}

#[test]
fn processes_join_and_can_be_killed_in_nested_groups() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let inner = Group::at(&hierarchies, &format!("{}/deep/er", test.group.path())).unwrap();
    inner.create().unwrap();
    let mut child = shell(&inner, "sleep 1000");
    assert_eq!(test.group.processes().unwrap(), [child.id()]);
    go(&mut child);
    let error = Group::at(&hierarchies, &test.group.path()).unwrap();
    test.group.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    error.remove().unwrap();
    assert!(!inner.exists());
    // A group that is gone: nothing to kill, nothing in it.
    test.group.kill().unwrap();
    assert_eq!(test.group.processes().unwrap(), Vec::<u32>::new());
    assert!(test.group.add_process(1).is_err());
    assert!(test.group.stats().is_err());
    assert!(test.group.freeze().is_err());
}

#[test]
fn a_busy_group_is_not_removed() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mut child = shell(&test.group, "true");
    let error = test.group.remove().unwrap_err();
    assert_eq!(error.errno(), 16);
    assert!(
        error.to_string().contains("processes are still in it"),
        "{error}"
    );
    go(&mut child);
    child.wait().unwrap();
    test.group.remove().unwrap();
}

#[test]
fn freezing_stops_and_thawing_resumes() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    freeze_and_thaw(&hierarchies);
}

fn freeze_and_thaw(hierarchies: &Hierarchies) {
    let test = TestGroup::new(hierarchies);
    test.group.create().unwrap();
    let mut child = shell(&test.group, "echo done");
    test.group.freeze().unwrap();
    assert!(test.group.is_frozen().unwrap());
    go(&mut child);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none());
    test.group.thaw().unwrap();
    assert!(!test.group.is_frozen().unwrap());
    assert_eq!(text(&child.wait_with_output().unwrap()), "done\n");
    // Frozen processes can be killed.
    let mut child = shell(&test.group, "sleep 1000");
    test.group.freeze().unwrap();
    test.group.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn v1_alone_freezes_and_kills_as_well() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    if hierarchies.mode() == Mode::V2 {
        eprintln!("SKIPPED: no cgroup v1 hierarchy is mounted");
        return;
    }
    let mut roots = hierarchies.roots();
    roots.retain(|root| !root.v2);
    let v1 = Hierarchies::with_roots(&roots).unwrap();
    assert_eq!(v1.mode(), Mode::V1);
    freeze_and_thaw(&v1);
    let group = Group::at(&v1, "/gamut-test-unified").unwrap();
    let resources = Resources {
        unified: vec![("memory.high".into(), "1".into())],
        ..Resources::default()
    };
    let error = group.apply(&resources).unwrap_err();
    assert!(error.to_string().contains("cgroup v1 only"), "{error}");
}

#[test]
fn memory_and_swap_go_up_and_down() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    if !hierarchies.has(Controller::Memory) {
        eprintln!("SKIPPED: no memory controller");
        return;
    }
    let v1 = hierarchies.mode() != Mode::V2;
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mib = |count: u64| count << 20;
    // (limit, swap) and what memory plus swap is then.
    let steps = [
        (
            Some(Limit::Value(mib(64))),
            Some(Limit::Value(0)),
            Some(mib(64)),
        ),
        (
            Some(Limit::Value(mib(128))),
            Some(Limit::Value(mib(64))),
            Some(mib(192)),
        ),
        (Some(Limit::Value(mib(96))), None, Some(mib(160))),
        (Some(Limit::Value(mib(256))), None, Some(mib(320))),
        (None, Some(Limit::Value(mib(1))), Some(mib(257))),
        (Some(Limit::Value(mib(64))), Some(Limit::Max), None),
        (
            Some(Limit::Value(mib(512))),
            Some(Limit::Value(0)),
            Some(mib(512)),
        ),
        (Some(Limit::Max), Some(Limit::Max), None),
    ];
    for (max_bytes, swap_max_bytes, both) in steps {
        let mut resources = Resources::default();
        resources.memory.max_bytes = max_bytes;
        resources.memory.swap_max_bytes = swap_max_bytes;
        let warnings = test.group.apply(&resources).unwrap();
        eprintln!("{max_bytes:?} {swap_max_bytes:?} {warnings:?}");
        if let Some(limit) = max_bytes {
            assert_eq!(test.group.stats().unwrap().memory.limit_bytes, limit);
        }
        if v1 && warnings.is_empty() {
            let file = "memory.memsw.limit_in_bytes";
            let memsw: u64 = raw(&hierarchies, Controller::Memory, &test.group.path(), file)
                .parse()
                .unwrap();
            assert_eq!((memsw < 1 << 62).then_some(memsw), both);
        }
    }
}

#[test]
fn a_memory_limit_kills_and_is_counted() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    if !hierarchies.has(Controller::Memory) {
        eprintln!("SKIPPED: no memory controller");
        return;
    }
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mut resources = Resources::default();
    resources.memory.max_bytes = Some(Limit::Value(16 << 20));
    // Some kernels do not count failures of memory plus swap, so swap is limited only if need be.
    let has_swap =
        std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1);
    if has_swap {
        resources.memory.swap_max_bytes = Some(Limit::Value(0));
    }
    test.group.apply(&resources).unwrap();
    assert_eq!(test.group.oom_kill_count(), 0);
    let output = run(
        &test.group,
        "exec dd if=/dev/zero of=/dev/null bs=64M count=1",
    );
    assert_eq!(output.status.signal(), Some(9), "{output:?}");
    assert_eq!(test.group.oom_kill_count(), 1);
    let stats = test.group.stats().unwrap();
    assert_eq!(stats.memory.oom_kills, 1);
    assert!(has_swap || stats.memory.limit_failures > 0);
    assert!(stats.memory.max_usage_bytes > 8 << 20);
    assert!(!stats.memory.details.is_empty());
}

#[test]
fn cpu_limits_are_set_and_measured() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    if !hierarchies.has(Controller::Cpu) {
        eprintln!("SKIPPED: no cpu controller");
        return;
    }
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mut resources = Resources::default();
    resources.cpu.weight = Some(50);
    resources.cpu.quota_us = Some(Limit::Value(20_000));
    resources.cpu.period_us = Some(100_000);
    resources.cpu.burst_us = Some(10_000);
    if hierarchies.has(Controller::Cpuset) {
        resources.cpu.cpuset_cpus = Some("0".into());
    }
    assert_eq!(test.group.apply(&resources).unwrap(), Vec::<String>::new());
    if hierarchies.mode() != Mode::V2 {
        let path = test.group.path();
        assert_eq!(
            raw(&hierarchies, Controller::Cpu, &path, "cpu.shares"),
            "512"
        );
        assert_eq!(
            raw(&hierarchies, Controller::Cpu, &path, "cpu.cfs_burst_us"),
            "10000"
        );
    }
    // Down: period, quota and burst below the old values, then the quota lifted.
    resources.cpu.quota_us = Some(Limit::Value(5_000));
    resources.cpu.period_us = Some(50_000);
    resources.cpu.burst_us = Some(1_000);
    test.group.apply(&resources).unwrap();
    let output = run(
        &test.group,
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
    );
    assert!(output.status.success());
    let cpu = test.group.stats().unwrap().cpu;
    assert!(cpu.throttled_periods > 0 && cpu.throttled_ns > 0, "{cpu:?}");
    assert!(cpu.usage_ns > 1_000_000, "{cpu:?}");
    let mut lifted = Resources::default();
    lifted.cpu.quota_us = Some(Limit::Max);
    test.group.apply(&lifted).unwrap();
    let mut wrong = Resources::default();
    wrong.cpu.cpuset_cpus = Some("9999".into());
    if hierarchies.has(Controller::Cpuset) {
        let error = test.group.apply(&wrong).unwrap_err();
        assert!(error.path().ends_with("cpuset.cpus"), "{error}");
        assert_eq!(error.value(), Some("9999"));
    }
}

#[test]
fn what_the_machine_lacks_is_a_warning() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mut resources = Resources::default();
    resources.cpu.realtime_runtime_us = Some(100_000);
    let warnings = test.group.apply(&resources).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("the real-time budget is not in force: "),
        "{warnings:?}"
    );
    // But not on a group that is gone.
    test.group.remove().unwrap();
    resources = Resources::default();
    resources.pids_max = Some(Limit::Value(5));
    if hierarchies.has(Controller::Pids) {
        assert_eq!(test.group.apply(&resources).unwrap_err().errno(), 2);
    }
}

#[test]
fn the_task_limit_holds() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    if !hierarchies.has(Controller::Pids) {
        eprintln!("SKIPPED: no pids controller");
        return;
    }
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let resources = Resources {
        pids_max: Some(Limit::Value(1)),
        ..Resources::default()
    };
    test.group.apply(&resources).unwrap();
    let stats = test.group.stats().unwrap().pids;
    assert_eq!(stats.limit, Limit::Value(1));
    let output = run(&test.group, "/bin/true; echo survived");
    assert!(!text(&output).contains("survived"), "{output:?}");
}

fn device(allow: bool, minor: Option<u32>, bits: u8) -> DeviceRule {
    DeviceRule {
        allow,
        kind: if minor.is_some() {
            DeviceKind::Character
        } else {
            DeviceKind::All
        },
        major: minor.map(|_| 1),
        minor,
        access: bits,
    }
}

fn devices_are_restricted(hierarchies: &Hierarchies) {
    let script = "(: </dev/null) 2>&- && echo null; (: </dev/zero) 2>&- && echo zero; \
                  (: >/dev/zero) 2>&- && echo zero-write; (: </dev/full) 2>&- && echo full; true";
    let test = TestGroup::new(hierarchies);
    test.group.create().unwrap();
    let everything = "null\nzero\nzero-write\nfull\n";
    assert_eq!(text(&run(&test.group, script)), everything);
    let mut resources = Resources {
        devices: vec![
            device(false, None, access::ALL),
            device(true, Some(3), access::ALL),
            device(true, Some(5), access::READ),
        ],
        ..Resources::default()
    };
    test.group.apply(&resources).unwrap();
    assert_eq!(text(&run(&test.group, script)), "null\nzero\n");
    // An update replaces the list: zero may be written now, full read, null is gone.
    resources.devices = vec![
        device(false, None, access::ALL),
        device(true, Some(5), access::READ | access::WRITE),
        device(true, Some(7), access::READ),
    ];
    test.group.apply(&resources).unwrap();
    assert_eq!(text(&run(&test.group, script)), "zero\nzero-write\nfull\n");
    // Everything but one, which an allow-list cannot say.
    resources.devices = vec![
        device(true, None, access::ALL),
        device(false, Some(5), access::WRITE),
    ];
    test.group.apply(&resources).unwrap();
    assert_eq!(text(&run(&test.group, script)), "null\nzero\nfull\n");
}

#[test]
fn device_rules_hold() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    devices_are_restricted(&hierarchies);
}

#[test]
fn device_rules_hold_in_v2_by_program() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let mut roots = hierarchies.roots();
    roots.retain(|root| root.v2);
    for root in &mut roots {
        // Nothing is to be enabled in the machine's root group for this.
        root.controllers.clear();
    }
    if roots.is_empty() {
        eprintln!("SKIPPED: no cgroup v2 hierarchy is mounted");
        return;
    }
    devices_are_restricted(&Hierarchies::with_roots(&roots).unwrap());
}

#[test]
fn the_v2_directory_takes_new_processes() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    assert!(test.group.directory_v2().is_none());
    test.group.create().unwrap();
    assert_eq!(
        test.group.directory_v2().is_some(),
        hierarchies.mode() != Mode::V1
    );
}

#[test]
fn cost_of_a_group() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let test = TestGroup::new(&hierarchies);
    test.group.create().unwrap();
    let mut times = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for number in 0..50 {
        let start = Instant::now();
        let group = Group::at(&hierarchies, &format!("{}/{number}", test.parent_path())).unwrap();
        group.create().unwrap();
        times[0].push(start.elapsed());
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let start = Instant::now();
        let joined = group.add_process(child.id());
        times[1].push(start.elapsed());
        drop(joined);
        child.wait().unwrap();
        let start = Instant::now();
        group.stats().unwrap();
        times[2].push(start.elapsed());
        let start = Instant::now();
        group.remove().unwrap();
        times[3].push(start.elapsed());
    }
    for (name, list) in ["create", "join", "stats", "remove"].iter().zip(&mut times) {
        list.sort_unstable();
        eprintln!(
            "{name}: median {} us, minimum {} us, {} hierarchies",
            list[25].as_micros(),
            list[0].as_micros(),
            hierarchies.roots().len()
        );
    }
    let start = Instant::now();
    Hierarchies::detect().unwrap();
    eprintln!("detect: {} us", start.elapsed().as_micros());
}

/// A delegated root is told from the machine's own by its files, so this works on a hybrid
/// machine's v2 hierarchy, too.
#[test]
fn the_root_of_a_delegated_subtree_is_vacated() {
    let Some(hierarchies) = hierarchies() else {
        return;
    };
    let Some(machine) = hierarchies.roots().into_iter().find(|root| root.v2) else {
        eprintln!("SKIPPED: there is no v2 hierarchy");
        return;
    };
    let delegate = |test: &TestGroup| {
        test.group.create().unwrap();
        let root = format!("{}{}", machine.path, test.group.path());
        let delegated = Hierarchies::with_roots(&[gamut_cgroup::HierarchyRoot {
            path: root.clone(),
            v2: true,
            controllers: vec![Controller::Pids],
        }]);
        (root, delegated.unwrap())
    };
    let empty = TestGroup::new(&hierarchies);
    let (root, delegated) = delegate(&empty);
    assert!(!delegated.vacate_root().unwrap(), "there is nobody");
    assert!(!std::path::Path::new(&root).join("init").exists());
    let test = TestGroup::new(&hierarchies);
    let (root, delegated) = delegate(&test);
    let mut children = [shell(&test.group, "true"), shell(&test.group, "true")];
    assert!(delegated.vacate_root().unwrap());
    let read = |name: &str| std::fs::read_to_string(format!("{root}/{name}")).unwrap();
    assert_eq!(read("cgroup.procs"), "");
    let moved = read("init/cgroup.procs");
    for child in &children {
        assert!(
            moved.lines().any(|pid| pid == child.id().to_string()),
            "{moved}"
        );
        // Whoever joins the container goes where its first process is.
        assert!(test.group.directory_v2_of(child.id()).is_some());
    }
    assert!(test.group.directory_v2_of(std::process::id()).is_none());
    assert!(!delegated.vacate_root().unwrap());
    for child in &mut children {
        go(child);
        child.wait().unwrap();
    }
}

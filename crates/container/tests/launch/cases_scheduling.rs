//! Priorities, processors, memory policy, execution domain, keyrings and labels.

use crate::Case;
use crate::rig::{Rig, end, piped, read_all, run, run_with, start, wait};
use gamut_abi::control::FailureKind;
use gamut_abi::plan::{ExecCpuAffinity, IoPriority, MemoryPolicy, Scheduler};
use gamut_container::exec;
use std::os::fd::AsFd;

pub const CASES: &[Case] = &[
    ("scheduling_io_priority", io_priority),
    ("scheduling_policy", policy),
    ("scheduling_exec_affinity", exec_affinity),
    ("scheduling_memory_policy", memory_policy),
    ("scheduling_personality", personality),
    ("scheduling_keyring", keyring),
    ("scheduling_labels_are_refused", labels),
];

fn io_priority(rig: &mut Rig) {
    let mut plan = rig.plan(&["ionice", "-p", "1"]);
    plan.process.io_priority = Some(IoPriority { class: 2, level: 7 });
    assert_eq!(run(&plan).output, "best-effort: prio 7\n");
    plan.process.io_priority = Some(IoPriority { class: 3, level: 0 });
    assert!(run(&plan).output.starts_with("idle"));
    plan.process.io_priority = Some(IoPriority { class: 7, level: 0 });
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("process.ioPriority"), "{error}");
}

fn policy(rig: &mut Rig) {
    // Fields 19 and 41 of stat: nice value and policy.
    let mut plan = rig.script("cut -d' ' -f19,41 /proc/self/stat");
    let batch = Scheduler {
        policy: 3,
        nice: 5,
        ..Scheduler::default()
    };
    plan.process.scheduler = Some(batch);
    assert_eq!(run(&plan).output, "5 3\n");
    plan.process.scheduler = Some(Scheduler {
        policy: 5,
        ..Scheduler::default()
    });
    assert_eq!(run(&plan).output, "0 5\n");
    plan.process.scheduler = Some(Scheduler {
        priority: 7,
        ..batch
    });
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("process.scheduler"), "{error}");
}

fn exec_affinity(rig: &mut Rig) {
    let plan = rig.plan(&["sleep", "100"]);
    let running = start(&plan);
    let mut process = plan.process.clone();
    process.args = ["grep", "Cpus_allowed_list", "/proc/self/status"]
        .map(String::from)
        .to_vec();
    process.exec_cpu_affinity = Some(ExecCpuAffinity {
        initial: vec![1],
        last: Vec::new(),
    });
    let mut allowed = || {
        let (stdio, output) = piped();
        let init = running.pidfd.as_fd();
        let child = exec(init, running.pid, &process, &plan, stdio, None).unwrap();
        let text = read_all(output);
        assert_eq!(wait(child.pid), 0);
        process.exec_cpu_affinity = Some(ExecCpuAffinity {
            initial: vec![1],
            last: vec![2],
        });
        text
    };
    assert_eq!(allowed(), "Cpus_allowed_list:\t0\n");
    if std::thread::available_parallelism().unwrap().get() > 1 {
        assert_eq!(allowed(), "Cpus_allowed_list:\t1\n");
    }
    process.exec_cpu_affinity = Some(ExecCpuAffinity {
        initial: vec![0, 0, 0, 1 << 63],
        last: Vec::new(),
    });
    let error = exec(
        running.pidfd.as_fd(),
        running.pid,
        &process,
        &plan,
        gamut_container::Stdio::Null,
        None,
    )
    .unwrap_err();
    assert!(error.message.contains("execCPUAffinity.initial"), "{error}");
    end(running);
}

fn memory_policy(rig: &mut Rig) {
    let mut plan = rig.script("head -1 /proc/self/numa_maps");
    plan.memory_policy = Some(MemoryPolicy {
        mode: 2,
        nodes: vec![1],
    });
    let outcome = run(&plan);
    assert!(outcome.output.contains(" bind:0"), "{}", outcome.output);
    plan.memory_policy = Some(MemoryPolicy {
        mode: 2,
        nodes: vec![1 << 63],
    });
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("linux.memoryPolicy"), "{error}");
}

fn personality(rig: &mut Rig) {
    let mut plan = rig.plan(&["sleep", "100"]);
    plan.personality = Some(8);
    let running = start(&plan);
    let mut process = plan.process.clone();
    process.args = vec![String::from("uname"), String::from("-m")];
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
    assert_eq!(read_all(output), "i686\n");
    wait(child.pid);
    end(running);
    plan.process.args = process.args;
    assert_eq!(run(&plan).output, "i686\n");
    plan.personality = Some(0);
    assert_eq!(run(&plan).output, "x86_64\n");
}

fn keyring(rig: &mut Rig) {
    // SAFETY: plain calls; the key is readable for its length. Descriptions end with NUL.
    let id = unsafe {
        // Join a new session keyring, and put a key into it that only its possessors can see.
        libc::syscall(libc::SYS_keyctl, 1, std::ptr::null::<u8>());
        let id = libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            c"gamut-test-key".as_ptr(),
            c"x".as_ptr(),
            1,
            -3,
        );
        libc::syscall(libc::SYS_keyctl, 5, id, 0x3f00_0000);
        id
    };
    assert!(id > 0, "this kernel has keys");
    let mut plan = rig.script("grep -c gamut-test-key /proc/keys");
    plan.masked_paths.clear();
    assert_eq!(run(&plan).output, "0\n");
    plan.process.inherit_keyring = true;
    assert_eq!(run(&plan).output, "1\n");
}

fn labels(rig: &mut Rig) {
    let has = |path: &str, text: &str| {
        std::fs::read_to_string(path).is_ok_and(|content| content.contains(text))
    };
    let plan = rig.plan(&["true"]);
    if !has("/sys/module/apparmor/parameters/enabled", "Y") {
        let mut plan = plan.clone();
        plan.process.apparmor_profile = Some(String::from("docker-default"));
        let error = run_with(&plan, &[]).unwrap_err();
        assert_eq!(error.kind, FailureKind::Unsupported);
        assert!(error.message.contains("process.apparmorProfile"), "{error}");
        plan.process.apparmor_profile = Some(String::from("unconfined"));
        run(&plan);
    }
    if !has("/proc/filesystems", "selinuxfs") {
        let mut plan = plan.clone();
        plan.process.selinux_label = Some(String::from("system_u:system_r:container_t:s0"));
        let error = run_with(&plan, &[]).unwrap_err();
        assert!(error.message.contains("process.selinuxLabel"), "{error}");
        plan.process.selinux_label = None;
        plan.mount_label = Some(String::from("system_u:object_r:container_file_t:s0"));
        let error = run_with(&plan, &[]).unwrap_err();
        assert!(error.message.contains("linux.mountLabel"), "{error}");
    }
}

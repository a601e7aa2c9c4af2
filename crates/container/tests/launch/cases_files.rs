//! Root file systems, mounts, and what hostile images make of them.

use crate::Case;
use crate::rig::{Rig, bind, end, filesystem, run, run_with, start};
use gamut_abi::control::FailureKind;
use gamut_abi::plan::{DeviceNode, MountKind, Propagation, RootSource};
use std::fs;
use std::os::unix::fs::symlink;

pub const CASES: &[Case] = &[
    ("files_overlay_300_layers", three_hundred_layers),
    ("files_overlay_restart", restart_on_the_same_layer),
    ("files_directory_root", directory_root),
    ("files_read_only_root", read_only_root),
    ("files_masked_and_readonly", masked_and_readonly),
    ("files_tmpfs", tmpfs),
    ("files_binds", binds),
    ("files_symlink_attacks", symlink_attacks),
    ("files_foreign_links", foreign_links),
    ("files_proc_is_protected", proc_is_protected),
    ("files_devices", devices),
    ("files_cgroup_mount", cgroup_mount),
    ("files_mount_errors", mount_errors),
    ("files_no_host_paths", no_host_paths),
];

fn lowers(plan: &mut gamut_abi::plan::Plan) -> &mut Vec<String> {
    match &mut plan.root.source {
        RootSource::Overlay { lower, .. } => lower,
        RootSource::Directory { .. } => panic!("not an overlay"),
    }
}

fn three_hundred_layers(rig: &mut Rig) {
    let mut plan =
        rig.script("ls /layers | wc -l; cat /top; grep overlay /proc/mounts | grep -c ' / '");
    let mut layers = Vec::new();
    for number in 0..300 {
        let layer = rig.path(&format!(
            "a-rather-long-name-of-a-layer-directory/{number:064}"
        ));
        fs::create_dir_all(format!("{layer}/layers")).unwrap();
        fs::write(format!("{layer}/layers/{number}"), "").unwrap();
        fs::write(format!("{layer}/top"), number.to_string()).unwrap();
        layers.push(layer);
    }
    layers.reverse();
    layers.push(rig.layer());
    *lowers(&mut plan) = layers;
    assert_eq!(run(&plan).output, "300\n2991\n");
}

fn restart_on_the_same_layer(rig: &mut Rig) {
    let plan = rig.script("cat /kept; echo yes > /kept");
    run(&plan);
    assert_eq!(run(&plan).output, "yes\n");
}

fn directory_root(rig: &mut Rig) {
    let root = rig.path("root");
    let copy = std::process::Command::new("cp")
        .args(["-a", &rig.layer(), &root])
        .status();
    assert!(copy.unwrap().success());
    let mut plan = rig.script("touch /made; ls /");
    plan.root.source = RootSource::Directory { path: root.clone() };
    let outcome = run(&plan);
    assert!(outcome.output.contains("made"), "{}", outcome.output);
    assert!(fs::metadata(format!("{root}/made")).is_ok());
}

fn read_only_root(rig: &mut Rig) {
    let mut plan = rig.script("touch /x; touch /tmp/new/y && echo written; pwd");
    plan.root.readonly = true;
    plan.mounts.push(filesystem("/tmp/new", "tmpfs", &[]));
    plan.process.cwd = String::from("/made/for/it");
    plan.process.create_cwd = true;
    let outcome = run(&plan);
    assert!(
        outcome.output.contains("Read-only file system"),
        "{}",
        outcome.output
    );
    assert!(
        outcome.output.ends_with("written\n/made/for/it\n"),
        "{}",
        outcome.output
    );
    // Without an upper directory the overlay itself is read-only; its mount points must exist.
    let layer = rig.path("points");
    for directory in ["proc", "dev", "sys", "tmp/new", "made/for/it"] {
        fs::create_dir_all(format!("{layer}/{directory}")).unwrap();
    }
    plan.root.source = RootSource::Overlay {
        lower: vec![layer, rig.layer()],
        upper: None,
        work: None,
        volatile: false,
        userxattr: false,
        idmapped: false,
    };
    let outcome = run(&plan);
    assert!(
        outcome.output.contains("Read-only file system"),
        "{}",
        outcome.output
    );
}

fn masked_and_readonly(rig: &mut Rig) {
    let mut plan = rig.script(
        "wc -c < /proc/version; wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/shmmni; echo x > /ro/sub/file; touch /sys/firmware/x; grep -c ' /proc/scsi ' /proc/mounts; ls -A /secret",
    );
    plan.masked_paths.push("/proc/version".into());
    plan.mounts.push(filesystem("/ro", "tmpfs", &[]));
    plan.mounts.push(filesystem("/ro/sub", "tmpfs", &[]));
    plan.readonly_paths.push("/ro".into());
    plan.mounts.push(filesystem("/secret", "tmpfs", &[]));
    plan.mounts.push(filesystem("/secret/inner", "tmpfs", &[]));
    plan.masked_paths.push("/secret".into());
    let outcome = run(&plan);
    assert!(
        outcome.output.starts_with("0\n0\n0\n"),
        "{}",
        outcome.output
    );
    assert_eq!(
        outcome.output.matches("Read-only file system").count(),
        3,
        "{}",
        outcome.output
    );
    assert!(!outcome.output.contains("inner"), "{}", outcome.output);
}

fn tmpfs(rig: &mut Rig) {
    let layer = rig.path("image");
    fs::create_dir_all(format!("{layer}/data/deep")).unwrap();
    fs::write(format!("{layer}/data/deep/file"), "content").unwrap();
    symlink("deep/file", format!("{layer}/data/link")).unwrap();
    std::os::unix::fs::chown(format!("{layer}/data/deep/file"), Some(1000), Some(1001)).unwrap();
    let mut plan = rig.script(
        "cat /data/link; stat -c '%u:%g %a' /data/deep/file; stat -c %a /data /plain; df -k /plain | tail -1; touch /frozen/x; touch /data/x && echo writable",
    );
    lowers(&mut plan).insert(0, layer);
    let mut copied = filesystem("/data", "tmpfs", &[("size", "1m")]);
    if let MountKind::Filesystem { copy_up, .. } = &mut copied.kind {
        *copy_up = true;
    }
    plan.mounts.push(copied);
    plan.mounts.push(filesystem(
        "/plain",
        "tmpfs",
        &[("mode", "0711"), ("size", "64k")],
    ));
    let mut frozen = filesystem("/frozen", "tmpfs", &[]);
    frozen.attributes_set |= libc::MOUNT_ATTR_RDONLY;
    plan.mounts.push(frozen);
    plan.mounts.push(filesystem("/frozen/inner", "tmpfs", &[]));
    let outcome = run(&plan);
    assert!(
        outcome
            .output
            .starts_with("content1000:1001 644\n755\n711\n"),
        "{}",
        outcome.output
    );
    assert!(outcome.output.contains(" 64 "), "{}", outcome.output);
    assert!(
        outcome.output.contains("Read-only file system"),
        "{}",
        outcome.output
    );
    assert!(outcome.output.ends_with("writable\n"), "{}", outcome.output);
}

fn binds(rig: &mut Rig) {
    let source = rig.path("volume");
    fs::create_dir_all(&source).unwrap();
    fs::write(format!("{source}/file"), "hello\n").unwrap();
    let mut plan = rig.script(
        "cat /v/file /etc/one /var/run/x/file; echo more >> /v/file; echo no > /ro/file; grep -o ' /v .*shared' /proc/self/mountinfo; echo end",
    );
    plan.mounts.push(bind(&source, "/v"));
    plan.mounts
        .push(bind(&format!("{source}/file"), "/etc/one"));
    let mut read_only = bind(&source, "/ro");
    read_only.attributes_set = libc::MOUNT_ATTR_RDONLY;
    read_only.attributes_recursive = true;
    read_only.propagation = Some((Propagation::Slave, false));
    plan.mounts.push(read_only);
    // A link to a directory that the image does not have.
    let layer = rig.path("image");
    fs::create_dir_all(format!("{layer}/var")).unwrap();
    symlink("/run", format!("{layer}/var/run")).unwrap();
    lowers(&mut plan).insert(0, layer);
    plan.mounts.push(bind(&source, "/var/run/x"));
    let outcome = run(&plan);
    assert!(
        outcome.output.starts_with("hello\nhello\nhello\n"),
        "{}",
        outcome.output
    );
    assert!(
        outcome.output.contains("Read-only file system"),
        "{}",
        outcome.output
    );
    assert!(outcome.output.ends_with("end\n"), "{}", outcome.output);
    assert_eq!(
        fs::read_to_string(format!("{source}/file")).unwrap(),
        "hello\nmore\n"
    );
    plan.mounts.push(bind("/no/such/path", "/v2"));
    let error = run_with(&plan, &[]).unwrap_err();
    assert_eq!(
        error.message,
        "error during container init: error mounting \"/no/such/path\" to rootfs at \"/v2\": bind it: no such file or directory",
    );
}

/// A bind from another container's root: its links do not lead to files of the host.
fn foreign_links(rig: &mut Rig) {
    let victim = rig.path("victim");
    fs::create_dir_all(&victim).unwrap();
    let layer = rig.path("image");
    fs::create_dir_all(format!("{layer}/place")).unwrap();
    fs::write(format!("{layer}/place/inside"), "").unwrap();
    symlink(&victim, format!("{layer}/trap")).unwrap();
    let mut plan = rig.plan(&["sleep", "100"]);
    lowers(&mut plan).insert(0, layer);
    let donor = start(&plan);
    let of_donor = |path: &str| format!("/proc/{}/root/{path}", donor.pid);
    let mut plan = rig.script("ls /mnt");
    if let RootSource::Overlay { upper, work, .. } = &mut plan.root.source {
        for (directory, name) in [(upper, "upper2"), (work, "work2")] {
            fs::create_dir_all(rig.path(name)).unwrap();
            *directory = Some(rig.path(name));
        }
    }
    plan.mounts.push(bind(&of_donor("place"), "/mnt"));
    assert_eq!(run(&plan).output, "inside\n");
    plan.mounts.pop();
    plan.mounts.push(bind(&of_donor("trap"), "/mnt"));
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("error mounting \"/proc/"), "{error}");
    end(donor);
}

fn symlink_attacks(rig: &mut Rig) {
    let victim = rig.path("victim");
    fs::create_dir_all(&victim).unwrap();
    let layer = rig.path("image");
    fs::create_dir_all(&layer).unwrap();
    symlink("/", format!("{layer}/to-root")).unwrap();
    symlink("../../../../../../../..", format!("{layer}/up")).unwrap();
    symlink(&victim, format!("{layer}/absolute")).unwrap();
    symlink("/proc/self/fd", format!("{layer}/magic")).unwrap();
    symlink("/proc/1/root", format!("{layer}/pidroot")).unwrap();
    let source = rig.path("volume");
    fs::create_dir_all(&source).unwrap();
    fs::write(format!("{source}/flag"), "").unwrap();
    let mut plan = rig.script("ls -d /made1/flag /made2/flag; ls /absolute/");
    lowers(&mut plan).insert(0, layer);
    plan.mounts.push(bind(&source, "/to-root/made1"));
    plan.mounts.push(bind(&source, "/up/made2"));
    plan.mounts.push(bind(&source, "/absolute"));
    let outcome = run(&plan);
    assert_eq!(outcome.output, "/made1/flag\n/made2/flag\nflag\n");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert!(!fs::exists("/made1").unwrap() && !fs::exists("/made2").unwrap());
    // Magic links lead out of any root.
    for target in ["/magic/3/x", "/pidroot/x", "/proc/self/root/x"] {
        let mut bad = plan.clone();
        bad.mounts.push(bind(&source, target));
        let error = run_with(&bad, &[]).unwrap_err();
        assert!(error.message.contains(target), "{error}");
    }
    let mut bad = plan.clone();
    bad.process.cwd = String::from("/proc/self/fd/3");
    assert!(run_with(&bad, &[]).is_err());
}

fn proc_is_protected(rig: &mut Rig) {
    let source = rig.path("volume");
    fs::create_dir_all(&source).unwrap();
    fs::write(format!("{source}/meminfo"), "fake\n").unwrap();
    let mut plan = rig.plan(&["cat", "/proc/meminfo"]);
    plan.mounts
        .push(bind(&format!("{source}/meminfo"), "/proc/meminfo"));
    assert_eq!(run(&plan).output, "fake\n");
    for target in ["/proc", "/proc/self/attr", "/proc/sys", "/link/sys"] {
        let mut bad = rig.plan(&["true"]);
        let layer = rig.path("image");
        fs::create_dir_all(&layer).unwrap();
        let _ = symlink("/proc", format!("{layer}/link"));
        lowers(&mut bad).insert(0, layer);
        bad.mounts.push(bind(&source, target));
        let error = run_with(&bad, &[]).unwrap_err();
        assert_eq!(error.kind, FailureKind::Invalid, "{target}: {error}");
        assert!(error.message.contains("/proc"), "{error}");
    }
    // An image whose /proc is a link.
    rig.reset();
    let layer = rig.path("linked");
    fs::create_dir_all(format!("{layer}/elsewhere")).unwrap();
    symlink("/elsewhere", format!("{layer}/proc")).unwrap();
    let mut bad = rig.plan(&["true"]);
    lowers(&mut bad).insert(0, layer);
    let error = run_with(&bad, &[]).unwrap_err();
    assert!(error.message.contains("ordinary directory"), "{error}");
}

fn devices(rig: &mut Rig) {
    let mut plan = rig.script(
        "for d in null zero full random urandom tty extra; do test -c /dev/$d || echo no $d; done; echo x > /dev/null; head -c 4 /dev/zero | wc -c; ls -l /dev/ptmx /dev/fd /dev/stdin | wc -l; stat -c '%u %g %a %t:%T' /dev/extra; test -p /dev/deep/fifo && echo fifo; readlink /dev/ptmx",
    );
    let node = |path: &str, kind, major, minor| DeviceNode {
        path: path.to_owned(),
        kind,
        major,
        minor,
        mode: 0o640,
        uid: 7,
        gid: 8,
    };
    plan.devices = vec![
        node("/dev/extra", b'c', 1, 3),
        node("/dev/deep/fifo", b'p', 0, 0),
    ];
    let outcome = run(&plan);
    assert_eq!(outcome.output, "4\n3\n7 8 640 1:3\nfifo\npts/ptmx\n");
    // An image cannot pass off something else as a device.
    plan.mounts
        .retain(|mount| !mount.destination.starts_with("/dev"));
    let layer = rig.path("image");
    fs::create_dir_all(format!("{layer}/dev")).unwrap();
    fs::write(format!("{layer}/dev/null"), "trap").unwrap();
    lowers(&mut plan).insert(0, layer);
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("/dev/null"), "{error}");
}

fn cgroup_mount(rig: &mut Rig) {
    let mut plan = rig.script(
        "ls /sys/fs/cgroup | tr '\\n' ' '; touch /sys/fs/cgroup/x; mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x; cat /proc/self/cgroup",
    );
    let outcome = run(&plan);
    assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
    assert!(outcome.output.contains("Read-only"), "{}", outcome.output);
    assert!(outcome.output.contains("0::/\n"), "{}", outcome.output);
    let hierarchies = fs::read_to_string("/proc/self/cgroup").unwrap();
    for line in hierarchies.lines() {
        let controllers = line.split(':').nth(1).unwrap();
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        if hierarchies.lines().count() > 1 && !name.is_empty() {
            assert!(outcome.output.contains(name), "{name}: {}", outcome.output);
        }
    }
    plan.namespaces
        .retain(|namespace| namespace.kind != gamut_abi::plan::NamespaceKind::Cgroup);
    let outcome = run(&plan);
    assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
    assert!(outcome.output.contains("Read-only"), "{}", outcome.output);
}

fn mount_errors(rig: &mut Rig) {
    let mut plan = rig.plan(&["true"]);
    plan.mounts
        .push(filesystem("/run", "tmpfs", &[("size", "zz")]));
    let error = run_with(&plan, &[]).unwrap_err();
    assert_eq!(
        error.message,
        "error during container init: error mounting \"tmpfs\" to rootfs at \"/run\": mount tmpfs: invalid argument (option size=zz)"
    );
    assert_eq!(error.errno, libc::EINVAL);
    let mut plan = rig.plan(&["true"]);
    plan.mounts.push(filesystem("/run", "nosuchfs", &[]));
    assert!(
        run_with(&plan, &[])
            .unwrap_err()
            .message
            .contains("does not know")
    );
    let mut plan = rig.plan(&["true"]);
    plan.mounts.push(filesystem("relative", "tmpfs", &[]));
    assert_eq!(run_with(&plan, &[]).unwrap_err().kind, FailureKind::Invalid);
    let mut plan = rig.plan(&["true"]);
    lowers(&mut plan).push("/no/such/layer".into());
    assert!(
        run_with(&plan, &[])
            .unwrap_err()
            .message
            .contains("/no/such/layer")
    );
    let mut plan = rig.plan(&["true"]);
    plan.mounts.push(filesystem("/etc/passwd", "tmpfs", &[]));
    assert!(
        run_with(&plan, &[])
            .unwrap_err()
            .message
            .contains("not a directory")
    );
}

fn no_host_paths(rig: &mut Rig) {
    let outcome = run(&rig.script("cat /proc/self/mountinfo; ls -l /proc/self/fd /proc/1/fd"));
    assert!(
        !outcome.output.contains(rig.base.to_str().unwrap()),
        "{}",
        outcome.output
    );
    assert!(!outcome.output.contains("memfd"), "{}", outcome.output);
}

//! Flags of binds, binds of places inside the container, and roots that follow the host.

use crate::Case;
use crate::rig::{Rig, bind, filesystem, run, run_with};
use gamut_abi::plan::{
    IdMapping, Mount, MountIdmap, Namespace, NamespaceKind, NamespaceSource, Plan, Propagation,
    RootSource,
};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

pub const CASES: &[Case] = &[
    ("binds_have_just_their_flags", exact_flags),
    ("binds_keep_locked_flags", locked_flags),
    ("binds_map_ids_of_places_inside", ids_inside),
    ("mounts_tmpfs_shows_its_mode", tmpfs_mode),
    ("mounts_slave_root", slave_root),
];

fn shell(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status();
    assert!(status.unwrap().success(), "{script}");
}

/// A mount on itself with these options, until it is dropped.
struct Source(String);

impl Source {
    fn new(rig: &Rig, options: &str) -> Self {
        let path = rig.path("source");
        fs::create_dir_all(&path).unwrap();
        shell(&format!(
            "mount -t tmpfs tmpfs {path}; mount -o remount,bind,{options} {path}"
        ));
        Self(path)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        shell(&format!("umount -l {}", self.0));
    }
}

fn exact(source: &Source, set: u64, clear: u64) -> Mount {
    let all = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC
        | libc::MOUNT_ATTR_NOSYMFOLLOW;
    let mut mount = bind(&source.0, "/v");
    mount.attributes_set = set;
    mount.attributes_clear = clear;
    mount.implied_clear = Some(all & !set & !clear);
    mount
}

/// The options of the mount at `/v` as the container sees them.
const OPTIONS: &str = "grep ' /v ' /proc/self/mountinfo | cut -d' ' -f6";

fn map_user(plan: &mut Plan) {
    plan.namespaces.push(Namespace {
        kind: NamespaceKind::User,
        source: NamespaceSource::New,
    });
    let mapping = [IdMapping {
        container_id: 0,
        host_id: 100_000,
        size: 65536,
    }];
    plan.uid_mappings = mapping.to_vec();
    plan.gid_mappings = mapping.to_vec();
}

fn exact_flags(rig: &mut Rig) {
    let source = Source::new(rig, "ro,nosuid,nodev,noexec,noatime,nosymfollow");
    for (set, clear, wanted) in [
        (libc::MOUNT_ATTR_RDONLY, 0, "ro,noatime"),
        (libc::MOUNT_ATTR_NODEV, 0, "rw,nodev,noatime"),
        (0, libc::MOUNT_ATTR_NOEXEC, "rw,noatime"),
        (0, libc::MOUNT_ATTR__ATIME, "rw,relatime"),
    ] {
        let mut plan = rig.script(OPTIONS);
        plan.mounts.push(exact(&source, set, clear));
        assert_eq!(run(&plan).output.trim(), wanted, "{set:x} {clear:x}");
    }
    let mut plan = rig.script(OPTIONS);
    plan.mounts.push(bind(&source.0, "/v"));
    let all = "ro,nosuid,nodev,noexec,noatime,nosymfollow";
    assert_eq!(run(&plan).output.trim(), all);
}

fn locked_flags(rig: &mut Rig) {
    for name in ["upper", "work"] {
        chown(rig.path(name), Some(100_000), Some(100_000)).unwrap();
    }
    let source = Source::new(rig, "ro,nosuid,noatime,nosymfollow");
    let mut plan = rig.script(OPTIONS);
    map_user(&mut plan);
    plan.mounts.push(exact(&source, libc::MOUNT_ATTR_NODEV, 0));
    assert_eq!(run(&plan).output.trim(), "ro,nosuid,nodev,noatime");
    for (clear, wanted) in [
        (libc::MOUNT_ATTR_NOSUID, "nosuid"),
        (libc::MOUNT_ATTR__ATIME, "access times"),
    ] {
        plan.mounts.pop();
        plan.mounts.push(exact(&source, 0, clear));
        let error = run_with(&plan, &[]).unwrap_err();
        assert_eq!(error.errno, libc::EPERM);
        assert!(
            error.message.contains(&format!("user namespace: {wanted}")),
            "{error}"
        );
    }
}

/// A bind of what an earlier mount shows inside the container, whose ids are mapped: the parent
/// does it, also for a container that may not.
fn ids_inside(rig: &mut Rig) {
    let root = rig.path("root");
    shell(&format!("cp -a {} {root}", rig.layer()));
    let volume = rig.path("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(format!("{volume}/file"), "x").unwrap();
    chown(format!("{volume}/file"), Some(7), Some(7)).unwrap();
    fs::create_dir_all(format!("{root}/first")).unwrap();
    fs::create_dir_all(format!("{root}/second")).unwrap();
    shell(&format!("chown 100000:100000 {root} {root}/*"));
    for user in [false, true] {
        let mut plan = rig.script("stat -c %u:%g /second/file");
        plan.root.source = RootSource::Directory { path: root.clone() };
        if user {
            map_user(&mut plan);
        }
        let mut mapped = bind(&format!("{root}/first"), "/second");
        let mapping = |host_id| {
            vec![IdMapping {
                container_id: 7,
                host_id,
                size: 1,
            }]
        };
        mapped.idmap = Some(MountIdmap {
            uid_mappings: mapping(100_009),
            gid_mappings: mapping(100_010),
            recursive: false,
        });
        plan.mounts.push(bind(&volume, "/first"));
        plan.mounts.push(mapped);
        let wanted = if user { "9:10\n" } else { "100009:100010\n" };
        assert_eq!(run(&plan).output, wanted);
    }
}

fn tmpfs_mode(rig: &mut Rig) {
    let layer = rig.path("covered");
    for (name, mode) in [("plain", 0o2710), ("sticky", 0o1777)] {
        let directory = format!("{layer}/{name}");
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(directory, PermissionsExt::from_mode(mode)).unwrap();
    }
    let mut plan = rig.script(
        "stat -c %a /plain /sticky /new; grep -E ' /(plain|sticky|new) ' /proc/mounts | cut -d' ' -f2,4",
    );
    let RootSource::Overlay { lower, .. } = &mut plan.root.source else {
        panic!("not an overlay");
    };
    lower.insert(0, layer);
    for destination in ["/plain", "/sticky", "/new"] {
        let mut mount = filesystem(destination, "tmpfs", &[]);
        mount.attributes_set = libc::MOUNT_ATTR_NODEV;
        plan.mounts.push(mount);
    }
    let output = run(&plan).output;
    let shown: Vec<&str> = output
        .lines()
        .map(|line| line.split(",inode").next().unwrap())
        .collect();
    assert_eq!(
        shown,
        [
            "2710",
            "1777",
            "1777",
            "/plain rw,nodev,relatime,mode=2710",
            "/sticky rw,nodev,relatime",
            "/new rw,nodev,relatime"
        ],
        "{output}"
    );
}

/// A root that follows the host's mounts, if those are shared.
fn slave_root(rig: &mut Rig) {
    let root = rig.path("shared");
    fs::create_dir_all(&root).unwrap();
    shell(&format!(
        "mount --bind {root} {root}; mount --make-shared {root}; cp -a {}/. {root}",
        rig.layer()
    ));
    let mut plan = rig.script("cut -d' ' -f5,7 /proc/self/mountinfo | grep '^/ '");
    plan.root.source = RootSource::Directory { path: root.clone() };
    plan.root.propagation = Propagation::Slave;
    plan.root.propagation_recursive = false;
    let output = run(&plan).output;
    shell(&format!("umount -l {root}"));
    assert!(output.starts_with("/ master:"), "{output}");
}

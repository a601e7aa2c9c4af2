//! Id-mapped mounts and layers, recursive attributes, propagation.

use crate::Case;
use crate::rig::{Rig, bind, filesystem, run, run_with};
use gamut_abi::plan::{
    IdMapping, MountIdmap, Namespace, NamespaceKind, NamespaceSource, Plan, Propagation, RootSource,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

pub const CASES: &[Case] = &[
    ("idmap_own_mappings", own_mappings),
    ("idmap_as_the_container", as_the_container),
    ("idmap_recursive", recursive),
    ("idmap_layers", layers),
    ("idmap_directory_root", directory_root),
    ("idmap_refused", refused),
    ("mounts_recursive_attributes", recursive_attributes),
    ("mounts_unbindable_root", unbindable_root),
    ("mounts_shared_and_slave", shared_and_slave),
];

fn mapping(container_id: u32, host_id: u32, size: u32) -> Vec<IdMapping> {
    vec![IdMapping {
        container_id,
        host_id,
        size,
    }]
}

fn map_user(plan: &mut Plan) {
    plan.namespaces.push(Namespace {
        kind: NamespaceKind::User,
        source: NamespaceSource::New,
    });
    plan.uid_mappings = mapping(0, 100_000, 65536);
    plan.gid_mappings = mapping(0, 100_000, 65536);
}

/// A directory with a file, both of user 7 and group 8.
fn volume(rig: &Rig) -> String {
    let source = rig.path("volume");
    fs::create_dir_all(&source).unwrap();
    fs::write(format!("{source}/file"), "x").unwrap();
    chown(format!("{source}/file"), Some(7), Some(8)).unwrap();
    chown(&source, Some(7), Some(8)).unwrap();
    fs::set_permissions(&source, PermissionsExt::from_mode(0o777)).unwrap();
    source
}

fn own_mappings(rig: &mut Rig) {
    let source = volume(rig);
    let mut plan = rig.script("stat -c %u:%g /v/file /plain/file; touch /v/new; stat -c %u /v/new");
    plan.mounts.push(bind(&source, "/plain"));
    let mut mapped = bind(&source, "/v");
    let mut uids = mapping(7, 1007, 1);
    uids.extend(mapping(4000, 0, 1));
    mapped.idmap = Some(MountIdmap {
        uid_mappings: uids,
        gid_mappings: mapping(0, 1000, 100),
        recursive: false,
    });
    plan.mounts.push(mapped);
    // The group that runs this, 0, has no place in the mapping, so nothing can be made.
    let outcome = run(&plan);
    assert!(
        outcome.output.starts_with("1007:1008\n7:8\n") && outcome.output.contains("too large"),
        "{}",
        outcome.output
    );
    if let Some(idmap) = &mut plan.mounts.last_mut().unwrap().idmap {
        idmap.gid_mappings = mapping(0, 0, 100);
    }
    assert_eq!(run(&plan).output, "1007:8\n7:8\n0\n");
    assert_eq!(fs::metadata(format!("{source}/new")).unwrap().uid(), 4000);
}

fn as_the_container(rig: &mut Rig) {
    for name in ["upper", "work"] {
        chown(rig.path(name), Some(100_000), Some(100_000)).unwrap();
    }
    let source = volume(rig);
    let mut plan = rig.script("stat -c %u:%g /v/file /plain/file; touch /v/new; stat -c %u /v/new");
    map_user(&mut plan);
    plan.mounts.push(bind(&source, "/plain"));
    let mut mapped = bind(&source, "/v");
    mapped.idmap = Some(MountIdmap {
        uid_mappings: Vec::new(),
        gid_mappings: Vec::new(),
        recursive: false,
    });
    plan.mounts.push(mapped);
    assert_eq!(run(&plan).output, "7:8\n65534:65534\n0\n");
    // What root of the container makes is root's on the disk.
    assert_eq!(fs::metadata(format!("{source}/new")).unwrap().uid(), 0);
}

fn recursive(rig: &mut Rig) {
    let source = volume(rig);
    let below = format!("{source}/below");
    fs::create_dir(&below).unwrap();
    let other = rig.path("other");
    fs::create_dir(&other).unwrap();
    let mounted = Mounted::bind(&other, &below);
    fs::write(format!("{below}/file"), "x").unwrap();
    chown(format!("{below}/file"), Some(7), Some(7)).unwrap();
    let mut plan = rig.script("stat -c %u /v/file /v/below/file");
    let mut mapped = bind(&source, "/v");
    for (recursive, wanted) in [(false, "9\n7\n"), (true, "9\n9\n")] {
        mapped.idmap = Some(MountIdmap {
            uid_mappings: mapping(7, 9, 1),
            gid_mappings: mapping(7, 9, 1),
            recursive,
        });
        plan.mounts.retain(|mount| mount.destination != "/v");
        plan.mounts.push(mapped.clone());
        assert_eq!(run(&plan).output, wanted);
    }
    drop(mounted);
}

fn layers(rig: &mut Rig) {
    for name in ["upper", "work"] {
        chown(rig.path(name), Some(100_000), Some(100_000)).unwrap();
    }
    let layer = rig.path("image");
    fs::create_dir_all(format!("{layer}/data")).unwrap();
    fs::write(format!("{layer}/data/file"), "from the layer").unwrap();
    chown(format!("{layer}/data/file"), Some(7), Some(8)).unwrap();
    // Only root of the host gets here.
    let private = rig.path("upper") + "/..";
    fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    let mut plan = rig.script(
        "stat -c %u:%g /bin /data/file; cat /data/file; echo >> /data/file && stat -c %u /data/file; grep -c layers /proc/self/mountinfo",
    );
    map_user(&mut plan);
    if let RootSource::Overlay {
        lower,
        idmapped,
        userxattr,
        ..
    } = &mut plan.root.source
    {
        lower.insert(0, layer.clone());
        *idmapped = true;
        *userxattr = true;
    }
    let outcome = run(&plan);
    assert_eq!(
        outcome.output, "0:0\n7:8\nfrom the layer7\n0\n",
        "{:?}",
        outcome.warnings
    );
    // The layer is as it was; the copy in the writable layer has the container's ids.
    assert_eq!(fs::metadata(format!("{layer}/data/file")).unwrap().uid(), 7);
    let copy = fs::metadata(format!("{}/data/file", rig.path("upper"))).unwrap();
    assert_eq!(copy.uid(), 100_007);
}

fn directory_root(rig: &mut Rig) {
    let root = rig.path("root");
    let copy = Command::new("cp")
        .args(["-a", &rig.layer(), &root])
        .status();
    assert!(copy.unwrap().success());
    // Only root of the host gets here.
    let private = rig.path("upper") + "/..";
    fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    let mut plan = rig.script("stat -c %u /bin; cat /proc/self/uid_map");
    map_user(&mut plan);
    plan.root.source = RootSource::Directory { path: root };
    // A directory is shown as it is: its files are of a user whom the container does not know.
    for directory in ["proc", "dev", "sys"] {
        fs::create_dir(format!("{}/{directory}", rig.path("root"))).unwrap();
    }
    let outcome = run(&plan);
    assert!(outcome.output.starts_with("65534\n"), "{}", outcome.output);
    assert!(outcome.output.contains("100000"), "{}", outcome.output);
}

fn refused(rig: &mut Rig) {
    let mut plan = rig.plan(&["true"]);
    let mut mapped = bind("/proc", "/v");
    mapped.idmap = Some(MountIdmap {
        uid_mappings: mapping(0, 1, 1),
        gid_mappings: mapping(0, 1, 1),
        recursive: false,
    });
    plan.mounts.push(mapped);
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("does not support"), "{error}");
    if let Some(idmap) = &mut plan.mounts.last_mut().unwrap().idmap {
        idmap.uid_mappings.clear();
        idmap.gid_mappings.clear();
    }
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("it has none"), "{error}");
}

/// A mount that goes again, whatever the case does. The table of mounts is this process's own.
struct Mounted(String);

impl Mounted {
    fn tmpfs(path: &str) -> Self {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs", path])
            .status();
        assert!(status.unwrap().success());
        Self(path.to_owned())
    }

    fn bind(source: &str, path: &str) -> Self {
        let status = Command::new("mount")
            .args(["--bind", source, path])
            .status();
        assert!(status.unwrap().success());
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn recursive_attributes(rig: &mut Rig) {
    let source = rig.path("volume");
    let below = format!("{source}/below");
    fs::create_dir_all(&below).unwrap();
    let mounted = Mounted::tmpfs(&below);
    let mut plan = rig
        .script("grep ' /v' /proc/self/mountinfo | cut -d' ' -f5,6; touch /v/x; touch /v/below/x");
    let mut volume = bind(&source, "/v");
    volume.attributes_set = libc::MOUNT_ATTR_NOSUID;
    volume.recursive_attributes = Some((
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME,
        libc::MOUNT_ATTR__ATIME,
    ));
    plan.mounts.push(volume);
    let outcome = run(&plan);
    assert!(
        outcome
            .output
            .starts_with("/v ro,nosuid,noatime\n/v/below ro,noatime\n"),
        "{}",
        outcome.output
    );
    assert_eq!(outcome.output.matches("Read-only").count(), 2);
    // Recursive ones come last.
    let volume = plan.mounts.last_mut().unwrap();
    volume.attributes_set = libc::MOUNT_ATTR_RDONLY;
    volume.recursive_attributes = Some((0, libc::MOUNT_ATTR_RDONLY));
    assert_eq!(run(&plan).output.matches("rw,").count(), 2);
    drop(mounted);
}

fn unbindable_root(rig: &mut Rig) {
    let source = rig.path("volume");
    fs::create_dir_all(&source).unwrap();
    let mut plan = rig.script("mkdir /a; mount --bind / /a; mount --bind /v /a && echo bound");
    plan.process.capabilities = None;
    plan.mounts.push(bind(&source, "/v"));
    plan.root.propagation = Propagation::Unbindable;
    plan.root.propagation_recursive = false;
    let outcome = run(&plan);
    assert!(
        outcome.output.contains("Invalid argument"),
        "{}",
        outcome.output
    );
    assert!(outcome.output.ends_with("bound\n"), "{}", outcome.output);
}

fn shared_and_slave(rig: &mut Rig) {
    let mut plan = rig.script(
        "cut -d' ' -f5,7-8 /proc/self/mountinfo | sed 's/:[0-9]*//g' | grep -E '^/[vspu]? '",
    );
    let source = rig.path("volume");
    fs::create_dir_all(&source).unwrap();
    let mounted = Mounted::tmpfs(&source);
    let status = Command::new("mount")
        .args(["--make-shared", &source])
        .status();
    assert!(status.unwrap().success());
    for (destination, propagation) in [
        ("/v", None),
        ("/s", Some((Propagation::Shared, true))),
        ("/p", Some((Propagation::Private, true))),
        ("/u", Some((Propagation::Unbindable, false))),
    ] {
        let mut volume = bind(&source, destination);
        volume.propagation = propagation;
        plan.mounts.push(volume);
    }
    plan.mounts.push(filesystem("/other", "tmpfs", &[]));
    plan.root.propagation = Propagation::Slave;
    let outcome = run(&plan);
    drop(mounted);
    let mut lines: Vec<&str> = outcome.output.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "/ - overlay",
            "/p - tmpfs",
            "/s shared -",
            "/u unbindable -",
            "/v master -"
        ]
    );
}

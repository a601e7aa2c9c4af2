//! Containers whose root is an ordinary user of the host.

use super::support::{Client, Rig};
use gamut_isolation::Context;
use gamut_isolation::contract::{Endpoint, RootSource, SandboxSpec};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const ID: &str = "cccc000000000000000000000000000000000000000000000000000000000001";

/// One image for every user: its layers are mapped, and so is what is written, which has the ids of
/// the inside on disk.
pub fn layers_are_shared_by_users(rig: &Rig) {
    let context = Context::default();
    let data = tempfile::tempdir().unwrap();
    fs::set_permissions(data.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let writable = data.path().join("writable");
    fs::create_dir(&writable).unwrap();
    let sandbox = SandboxSpec {
        id: ID.to_owned(),
        endpoint: Endpoint::Host,
    };
    rig.level.prepare(&context, sandbox).unwrap();
    let mut config = rig.config(
        "before=$(busybox stat -c %u:%g / /marker); echo more >> /marker; echo made > /made; \
         echo $before $(busybox stat -c %u:%g /marker /made) $(cat /proc/self/uid_map)",
    );
    let mappings = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    config["linux"]["uidMappings"] = mappings.clone();
    config["linux"]["gidMappings"] = mappings;
    config["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
        {"type": "user"}
    ]);
    // A sysfs takes a network namespace of the container's own.
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
    let mut workload = rig.workload(ID, config);
    workload.root = RootSource::Layers {
        lower: vec![rig.root.clone()],
        writable: writable.clone(),
        volatile: true,
    };
    let (mut client, attached) = Client::new();
    workload.attached.push(attached);
    rig.level.create(&context, workload).unwrap();
    rig.level.start(&context, ID).unwrap();
    client.expect("0:0 0:0 0:0 0:0 0 200000 65536\n");
    client.expect_end();
    rig.level.delete(&context, ID).unwrap();
    let owner = |name: &str| {
        fs::metadata(writable.join("upper").join(name))
            .unwrap()
            .uid()
    };
    assert_eq!((owner("."), owner("made"), owner("marker")), (0, 0, 0));
    assert_eq!(fs::metadata(rig.root.join("marker")).unwrap().uid(), 0);
    assert_eq!(fs::read_to_string(rig.root.join("marker")).unwrap(), "here");
}

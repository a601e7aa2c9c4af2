//! Layers and mounts put together.

use super::*;
use crate::files::archive::{Refusal, prepare_writable, writable_directory};
use crate::files::copy::from_layers;
use crate::files::view::{Bind, Parts, View};
use std::ffi::CString;
use std::path::PathBuf;

pub(super) fn device(directory: &Path, name: &str, number: (u32, u32)) {
    let directory = File::open(directory).unwrap();
    let name = CString::new(name).unwrap();
    gamut_image::layer::sys::mknod(directory.as_fd(), &name, libc::S_IFCHR | 0o600, number)
        .unwrap();
}

/// Two layers, topmost first: `/srv/data` is in both, `/opt` links to it.
pub(super) fn layers(stage: &Path) -> [PathBuf; 2] {
    let (upper, lower) = (stage.join("l2"), stage.join("l1"));
    write(&lower.join("srv/data/base"), "base");
    write(&lower.join("srv/data/hidden"), "hidden");
    write(&lower.join("srv/data/emptied/gone"), "gone");
    write(&lower.join("file"), "a file");
    symlink("/srv", lower.join("opt")).unwrap();
    write(&upper.join("srv/data/top"), "top");
    device(&upper.join("srv/data"), "hidden", (0, 0));
    device(&upper.join("srv/data"), "null", (1, 3));
    write(&upper.join("srv/data/emptied/new"), "new");
    set_xattr(
        &upper.join("srv/data/emptied"),
        "trusted.overlay.opaque",
        b"y",
    );
    fs::hard_link(
        upper.join("srv/data/top"),
        upper.join("srv/data/emptied/again"),
    )
    .unwrap();
    set_xattr(&upper.join("srv/data/top"), "user.colour", b"red");
    let sparse = File::create(upper.join("srv/data/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"x", 32 << 20).unwrap();
    fs::set_permissions(upper.join("srv/data"), PermissionsExt::from_mode(0o1750)).unwrap();
    std::os::unix::fs::chown(upper.join("srv/data"), Some(33), Some(34)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
    File::open(upper.join("srv/data/emptied"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    [upper, lower]
}

pub(super) fn content(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(super) fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn a_volume_gets_what_the_layers_have_together() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let layers = layers(stage.path());
    let before = mounts();
    // The second through a link in the image.
    for destination in ["/srv/data", "/opt/data/"] {
        let target = tempfile::tempdir().unwrap();
        let target = target.path();
        from_layers(&layers, destination, target).unwrap();
        assert_eq!(
            content(target),
            ["base", "emptied", "null", "sparse", "top"]
        );
        assert_eq!(content(&target.join("emptied")), ["again", "new"]);
        let like = fs::metadata(target).unwrap();
        assert_eq!(
            (like.uid(), like.gid(), like.mode() & 0o7777),
            (33, 34, 0o1750)
        );
        let top = fs::metadata(target.join("top")).unwrap();
        assert_eq!(
            top.ino(),
            fs::metadata(target.join("emptied/again")).unwrap().ino()
        );
        assert_eq!(xattr(&target.join("top"), "user.colour").unwrap(), b"red");
        assert_eq!(
            xattr(&target.join("emptied"), "trusted.overlay.opaque"),
            None
        );
        let emptied = fs::metadata(target.join("emptied")).unwrap();
        assert_eq!((emptied.mtime(), emptied.mtime_nsec()), (1_000_000_000, 5));
        assert_eq!(
            fs::metadata(target.join("null")).unwrap().rdev(),
            libc::makedev(1, 3)
        );
        let sparse = fs::metadata(target.join("sparse")).unwrap();
        assert_eq!(sparse.len(), 64 << 20);
        assert!(sparse.blocks() * 512 < 1 << 20, "holes are kept");
    }
    assert_eq!(mounts(), before);
}

#[test]
fn one_layer_shows_no_marks() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let [top, _] = layers(stage.path());
    let target = tempfile::tempdir().unwrap();
    from_layers(&[top], "/srv/data", target.path()).unwrap();
    assert_eq!(content(target.path()), ["emptied", "null", "sparse", "top"]);
    assert_eq!(
        xattr(&target.path().join("emptied"), "trusted.overlay.opaque"),
        None
    );
}

#[test]
fn nothing_to_copy_is_no_error() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let layers = layers(stage.path());
    symlink(stage.path(), layers[0].join("escape")).unwrap();
    write(&stage.path().join("outside/file"), "x");
    let target = tempfile::tempdir().unwrap();
    let before = fs::metadata(target.path()).unwrap().mode();
    for destination in [
        "/missing",
        "/file",
        "/file/below",
        "/escape/outside",
        "/srv/data/hidden",
    ] {
        from_layers(&layers, destination, target.path()).unwrap();
        from_layers(&[], destination, target.path()).unwrap();
        assert_eq!(content(target.path()), [""; 0], "{destination}");
    }
    assert_eq!(fs::metadata(target.path()).unwrap().mode(), before);
}

fn bind(source: &Path, destination: &str, readonly: bool) -> Bind {
    Bind {
        source: source.to_owned(),
        destination: destination.to_owned(),
        readonly,
        subpath: String::new(),
        recursive: true,
        make: true,
    }
}

#[test]
fn an_idle_container_is_shown_with_its_mounts() {
    if !is_root() {
        return;
    }
    // The writable layer must be on a file system that overlayfs takes.
    let stage = tempfile::tempdir().unwrap();
    let layers = layers(stage.path());
    let container = stage.path().join("container");
    fs::create_dir(&container).unwrap();
    prepare_writable(&container, &layers).unwrap();
    let (volume, fixed) = (stage.path().join("volume"), stage.path().join("fixed"));
    write(&volume.join("kept"), "in the volume");
    write(&fixed.join("kept"), "read-only");
    write(&stage.path().join("one"), "one file");
    let binds = [
        bind(&volume, "/opt/volume", false),
        bind(&fixed, "/new/fixed", true),
        bind(&stage.path().join("one"), "/new/one", false),
        bind(&stage.path().join("missing"), "/left-out", false),
        Bind {
            make: false,
            ..bind(&volume, "/not/made", false)
        },
    ];
    let before = mounts();
    let parts = Parts {
        layers: &layers,
        copy: None,
        writable: Some(&container),
        binds: &binds,
        readonly: false,
    };
    let view = match View::open(&parts) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            println!("SKIPPED: no overlay on {}: {error}", stage.path().display());
            return;
        }
        view => view.unwrap(),
    };
    assert_eq!(mounts(), before, "nothing of it is seen here");

    let mut bytes = Vec::new();
    pack(view.root(), &Asked::parse("/srv"), &mut bytes).unwrap();
    let names = names(&bytes);
    assert!(names.contains(&"srv/volume/kept".to_owned()), "{names:?}");
    assert!(names.contains(&"srv/data/base".to_owned()), "{names:?}");
    assert!(!names.contains(&"srv/data/hidden".to_owned()), "{names:?}");

    let refusal = |path: &str| match writable_directory(view.root(), &Asked::parse(path)) {
        Ok(()) => String::new(),
        Err(Refusal::Stated(error)) => format!("{:?}: {}", error.kind(), error.full_message()),
        Err(Refusal::Unreachable(error)) => format!("{:?}", error.kind()),
    };
    assert_eq!(refusal("/"), "");
    assert_eq!(refusal("/srv/volume"), "");
    assert_eq!(
        refusal("/new/fixed"),
        "Forbidden: mounted volume is marked read-only"
    );
    assert_eq!(
        refusal("/file"),
        "InvalidArgument: extraction point is not a directory"
    );
    assert_eq!(refusal("/missing"), "NotFound");

    let put = |bytes: &[u8]| extract(view.root(), b"", &mut &bytes[..], Options::default());
    put(&archive(&[
        (file("opt/volume/new"), "to the volume"),
        (file("srv/data/new"), "to the writable layer"),
    ]))
    .unwrap();
    let refused = put(&archive(&[(file("new/fixed/kept"), "overwritten")])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    // A mount point cannot be replaced.
    let refused = put(&archive(&[(file("new/one"), "overwritten")])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    drop(view);

    assert_eq!(
        fs::read_to_string(volume.join("new")).unwrap(),
        "to the volume"
    );
    assert_eq!(fs::read_to_string(fixed.join("kept")).unwrap(), "read-only");
    assert_eq!(
        fs::read_to_string(stage.path().join("one")).unwrap(),
        "one file"
    );
    let upper = container.join("upper");
    assert_eq!(
        fs::read_to_string(upper.join("srv/data/new")).unwrap(),
        "to the writable layer"
    );
    assert!(!layers[1].join("srv/data/new").exists());
    assert_eq!(content(&upper.join("new")), ["fixed", "one"]);
    assert!(!upper.join("not").exists() && !upper.join("left-out").exists());

    // A read-only root, and the writable layer is free again.
    let view = View::open(&Parts {
        readonly: true,
        ..parts
    })
    .unwrap();
    let root = writable_directory(view.root(), &Asked::parse("/srv"));
    assert!(
        matches!(root, Err(Refusal::Stated(error)) if error.kind() == ErrorKind::Forbidden
        && error.full_message() == "container rootfs is marked read-only")
    );
    assert!(writable_directory(view.root(), &Asked::parse("/srv/volume")).is_ok());
    drop(view);
    assert_eq!(mounts(), before);
}

//! Whiteouts, opaque directories and implied ones, judged by overlayfs itself.

use super::*;

#[test]
fn whiteouts_hide_lower_layers_only() {
    let place = Place::new();
    let device = Entry::new("forged", Kind::CharacterDevice, 0o644);
    let layer = Layer::new()
        .file(".wh.gone", "")
        .file(".wh.own", "")
        .file("own", "mine")
        .file("own2", "mine")
        .file(".wh.own2", "")
        .file(".wh.dir", "")
        .file("dir/x", "x")
        .directory("dir2")
        .file(".wh.dir2", "")
        .file(".wh.dir3", "")
        .directory("dir3")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/x", "x")
        .file(".wh..wh.plnk/1.2", "aufs")
        .file(".wh..wh.aufs", "")
        .entry(&device, &[]);
    let extracted = place.extract(layer).unwrap();
    assert!(place.is_whiteout("gone") && place.is_whiteout("forged"));
    assert_eq!(place.read("own") + &place.read("own2"), "minemine");
    for path in ["dir", "dir2", "dir3", "opaque"] {
        assert_eq!(
            place.xattr(path, c"trusted.overlay.opaque"),
            Some(b"y".to_vec()),
            "{path}"
        );
    }
    assert!(!place.target().join(".wh..wh.plnk").exists());
    assert_eq!(extracted.implied_directories, [PathBuf::new()]);
}

/// Mounts the layers in a mount namespace of its own and lists what is seen.
fn overlay(lowers: &[&Path], option: &str) -> Option<String> {
    let merged = tempfile::tempdir().unwrap();
    let lowers: Vec<_> = lowers.iter().map(|path| path.to_str().unwrap()).collect();
    let script = format!(
        "mount -t overlay overlay -o ro,lowerdir={}{option} {} || exit 77; cd {} && find . | sort",
        lowers.join(":"),
        merged.path().display(),
        merged.path().display()
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        other => {
            println!("SKIPPED: overlayfs cannot be mounted here: {other:?}");
            None
        }
    }
}

#[test]
fn overlayfs_understands_the_whiteouts() {
    let lower = Layer::new()
        .file("a/1", "")
        .file("a/2", "")
        .file("b/1", "")
        .file("c/1", "")
        .file("d/1", "")
        .file("e/1", "")
        .file("keep", "")
        .bytes();
    let upper = || {
        Layer::new()
            .file("a/.wh.1", "")
            .file("b/.wh..wh..opq", "")
            .file("b/2", "")
            .file(".wh.c", "")
            .file("e/.wh.1", "")
            .file("e/.wh..wh..opq", "")
            .file("e/2", "")
            .file(".wh.d", "")
            .file("d/2", "")
            .bytes()
    };
    let expected = ".\n./a\n./a/2\n./b\n./b/2\n./d\n./d/2\n./e\n./e/2\n./keep\n";
    for (whiteouts, overlay_xattrs, option) in [
        (Whiteouts::Device, OverlayXattrs::Trusted, ""),
        (Whiteouts::Xattr, OverlayXattrs::Trusted, ""),
        (Whiteouts::Xattr, OverlayXattrs::User, ",userxattr"),
        (Whiteouts::Device, OverlayXattrs::User, ",userxattr"),
    ] {
        let options = ExtractOptions {
            whiteouts,
            overlay_xattrs,
            ..ExtractOptions::default()
        };
        let (below, above) = (Place::new(), Place::new());
        below.extract_with(&lower, &options).unwrap();
        above.extract_with(&upper(), &options).unwrap();
        if let Some(seen) = overlay(&[&above.target(), &below.target()], option) {
            assert_eq!(seen, expected, "{options:?}");
        }
    }
}

#[test]
fn an_opaque_root_hides_all_lower_layers() {
    let (below, above) = (Place::new(), Place::new());
    below
        .extract(Layer::new().file("a/1", "").file("b", "").file("c/1", ""))
        .unwrap();
    let extracted = above
        .extract(
            Layer::new()
                .file(".wh..wh..opq", "")
                .file("a/2", "")
                .file("new", ""),
        )
        .unwrap();
    adopt_implied_directories(
        &above.target(),
        &extracted.implied_directories,
        &[below.target()],
    )
    .unwrap();
    if let Some(seen) = overlay(&[&above.target(), &below.target()], "") {
        assert_eq!(seen, ".\n./a\n./a/2\n./new\n");
    }
}

#[test]
fn implied_directories_take_after_the_layers_below() {
    let owned = |path: &str, uid, mode| {
        let mut entry = Entry::new(path, Kind::Directory, mode);
        (entry.uid, entry.mtime.seconds) = (uid, 99);
        entry.xattrs = vec![(b"user.x".to_vec(), b"1".to_vec())];
        entry
    };
    let (bottom, middle, top) = (Place::new(), Place::new(), Place::new());
    bottom
        .extract(
            Layer::new()
                .entry(&owned("./", 5, 0o711), &[])
                .entry(&owned("a", 1, 0o700), &[])
                .entry(&owned("a/b", 2, 0o1777), &[])
                .entry(&owned("hidden/d", 3, 0o700), &[])
                .entry(&owned("opaque/d", 3, 0o700), &[]),
        )
        .unwrap();
    let implied = middle
        .extract(
            Layer::new()
                .file(".wh.hidden", "")
                .file("opaque/.wh..wh..opq", "")
                .file("a/x", ""),
        )
        .unwrap()
        .implied_directories;
    adopt_implied_directories(&middle.target(), &implied, &[bottom.target()]).unwrap();
    let implied = top
        .extract(
            Layer::new()
                .file("a/b/x", "")
                .file("hidden/d/x", "")
                .file("opaque/d/x", ""),
        )
        .unwrap()
        .implied_directories;
    let lowers = [middle.target(), bottom.target()];
    adopt_implied_directories(&top.target(), &implied, &lowers).unwrap();
    for (path, uid, mode) in [
        ("", 5, 0o711),
        ("a", 1, 0o700),
        ("a/b", 2, 0o1777),
        ("hidden", 0, 0o755),
        ("hidden/d", 0, 0o755),
        ("opaque/d", 0, 0o755),
    ] {
        let metadata = top.target().join(path).metadata().unwrap();
        assert_eq!(
            (metadata.uid(), metadata.mode() & 0o7777),
            (uid, mode),
            "{path}"
        );
        assert_eq!(metadata.mtime() == 99, uid != 0, "{path}");
        assert_eq!(top.xattr(path, c"user.x").is_some(), uid != 0, "{path}");
    }
}

//! Layers put together by copying are what overlayfs shows of them.

use super::views::{content, device, layers, mounts};
use super::*;
use crate::files::merge;
use crate::files::view::View;
use std::path::PathBuf;

/// A third layer, which replaces directories by files and the other way round.
fn three_layers(stage: &Path) -> Vec<PathBuf> {
    let [middle, lowest] = layers(stage);
    let top = stage.join("l3");
    write(&lowest.join("was-directory/below"), "x");
    write(&lowest.join("was-file"), "x");
    write(&lowest.join("was-link/below"), "x");
    write(&lowest.join("shown/again/lowest"), "x");
    write(&middle.join("shown/again/middle"), "x");
    write(&lowest.join("by-attribute/hidden"), "x");
    write(&lowest.join("by-attribute/kept"), "x");
    write(&top.join("was-directory"), "a file now");
    write(&top.join("was-file/new"), "x");
    symlink("/srv", top.join("was-link")).unwrap();
    write(&top.join("shown/again/top"), "x");
    write(&top.join("by-attribute/hidden"), "");
    set_xattr(
        &top.join("by-attribute/hidden"),
        "trusted.overlay.whiteout",
        b"y",
    );
    set_xattr(&top.join("by-attribute"), "trusted.overlay.opaque", b"x");
    // Hidden in the middle, made anew on top: nothing of the lowest shines through.
    write(&lowest.join("renewed/old"), "x");
    device(&middle, "renewed", (0, 0));
    write(&top.join("renewed/new"), "x");
    vec![top, middle, lowest]
}

#[test]
fn a_copy_is_what_overlayfs_shows() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let layers = three_layers(stage.path());
    let before = mounts();
    let target = stage.path().join("copy");
    merge::layers(&layers, &target).unwrap();
    assert_eq!(mounts(), before, "nothing is mounted for it");
    assert_eq!(
        content(&target.join("shown/again")),
        ["lowest", "middle", "top"]
    );
    assert_eq!(content(&target.join("renewed")), ["new"]);
    assert_eq!(content(&target.join("by-attribute")), ["kept"]);

    let view = View::of_layers(&layers).unwrap();
    let mut shown = Vec::new();
    pack(view.root(), &Asked::parse("/."), &mut shown).unwrap();
    let copied = packed(&target, "/.").unwrap();
    assert_eq!(names(&copied), names(&shown));
    // Owners, modes, times, attributes, links and content, byte by byte.
    assert!(copied == shown, "the archives differ");

    let sparse = fs::metadata(target.join("srv/data/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "holes are kept");
    for (layer, marked) in [
        (&layers[0], "by-attribute"),
        (&layers[1], "srv/data/emptied"),
    ] {
        assert!(xattr(&layer.join(marked), "trusted.overlay.opaque").is_some());
        assert_eq!(xattr(&target.join(marked), "trusted.overlay.opaque"), None);
    }
}

/// What an overlayfs before Linux 6.7 takes for marks of layers that lie on it.
#[test]
fn marks_of_users_are_understood() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let (top, lower) = (stage.path().join("l2"), stage.path().join("l1"));
    write(&lower.join("hidden"), "x");
    write(&lower.join("kept"), "x");
    write(&lower.join("emptied/gone"), "x");
    write(&top.join("hidden"), "");
    set_xattr(&top.join("hidden"), "user.overlay.whiteout", b"y");
    write(&top.join("emptied/new"), "x");
    set_xattr(&top.join("emptied"), "user.overlay.opaque", b"y");
    let target = stage.path().join("copy");
    merge::layers(&[top, lower], &target).unwrap();
    assert_eq!(content(&target), ["emptied", "kept"]);
    assert_eq!(content(&target.join("emptied")), ["new"]);
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let [top, _] = layers(stage.path());
    let target = stage.path().join("copy");
    let missing = stage.path().join("missing");
    assert!(merge::layers(&[top.clone(), missing], &target).is_err());
    assert!(!target.exists());
    // Nor does it touch what is there.
    write(&target.join("own"), "x");
    assert!(merge::layers(&[top], &target).is_err());
    assert_eq!(content(&target), ["own"]);
}

//! What changed, and layers made of it.

use super::views::device;
use super::*;
use crate::files::changes::{Change, ChangeKind, Trees, changes, pack_changes};
use crate::files::node::Node;
use crate::files::view::{Parts, View};
use crate::files::walk::{Next, walk};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Changes in a writable layer above others, topmost first.
fn told(upper: &Path, layers: &[PathBuf]) -> Vec<Change> {
    let all = [&[upper.to_owned()], layers].concat();
    let (merged, lower) = (
        View::of_layers(&all).unwrap(),
        View::of_layers(layers).unwrap(),
    );
    changes(&Trees {
        upper: File::open(upper).unwrap().as_fd(),
        merged: merged.root(),
        lower: lower.root(),
        has_lower_marks: lower.is_bare(),
    })
    .unwrap()
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| {
            let kind = match change.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{kind} /{}", change.path.escape_ascii())
        })
        .collect()
}

/// The changes as an unpacked layer.
fn layer(upper: &Path, layers: &[PathBuf], target: &Path) {
    let all = [&[upper.to_owned()], layers].concat();
    let merged = View::of_layers(&all).unwrap();
    let mut archive = Vec::new();
    pack_changes(merged.root(), &told(upper, layers), &mut archive).unwrap();
    let options = gamut_image::layer::ExtractOptions::default();
    gamut_image::layer::extract(&archive[..], target, &options).unwrap();
}

/// Everything that an image keeps of a tree.
fn listing(layers: &[PathBuf]) -> BTreeMap<String, String> {
    let view = View::of_layers(layers).unwrap();
    let mut found = BTreeMap::new();
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    walk(view.root(), &mut |path, node: &Node| {
        let name = path.escape_ascii().to_string();
        let stat = &node.stat;
        let mut line = format!(
            "{:o} {}:{} {:x}",
            stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev
        );
        if !node.is_directory() {
            // A directory's time changes with what is in it.
            line += &format!(" {}.{}", stat.st_mtime, stat.st_mtime_nsec);
            let same = first.entry(stat.st_ino).or_insert_with(|| name.clone());
            line += &format!(" is {same}");
        }
        if stat.st_mode & libc::S_IFMT == libc::S_IFLNK {
            line += &format!(" -> {}", node.link_target()?.escape_ascii());
        }
        if stat.st_mode & libc::S_IFMT == libc::S_IFREG {
            let mut content = Vec::new();
            node.reader()?.read_to_end(&mut content)?;
            line += &format!(" {content:?}");
        }
        let mut xattrs = node.xattrs(crate::files::pack::is_kept)?;
        xattrs.sort();
        line += &format!(" {xattrs:?}");
        found.insert(name, line);
        Ok(Next::Descend)
    })
    .unwrap();
    found
}

/// Changes in a copy of layers.
fn told_of_copy(copy: &Path, layers: &[PathBuf]) -> Vec<Change> {
    let (merged, lower) = (
        View::of_layers(&[copy.to_owned()]).unwrap(),
        View::of_layers(layers).unwrap(),
    );
    changes(&Trees {
        upper: merged.root(),
        merged: merged.root(),
        lower: lower.root(),
        has_lower_marks: true,
    })
    .unwrap()
}

#[test]
fn a_copy_of_layers_differs_by_what_was_changed_in_it() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let stage = stage.path();
    let (copy, top, base) = (stage.join("copy"), stage.join("l2"), stage.join("l1"));
    for name in [
        "tree/deep/file",
        "gone",
        "hidden",
        "emptied/a",
        "old/inside",
    ] {
        write(&base.join(name), "x");
    }
    fs::hard_link(base.join("tree/deep/file"), base.join("linked")).unwrap();
    write(&top.join("tree/second"), "x");
    write(&top.join("emptied/b"), "x");
    set_xattr(&top.join("emptied"), "trusted.overlay.opaque", b"y");
    device(&top, "hidden", (0, 0));
    let marked = top.join("marked");
    write(&marked, "");
    set_xattr(&marked, "user.overlay.whiteout", b"y");
    let layers = [top, base.clone()];
    crate::files::merge::layers(&layers, &copy).unwrap();
    assert_eq!(lines(&told_of_copy(&copy, &layers)), [""; 0]);

    write(&copy.join("tree/deep/file"), "other");
    write(&copy.join("emptied/a"), "again");
    write(&copy.join("hidden"), "again");
    fs::remove_file(copy.join("gone")).unwrap();
    fs::rename(copy.join("old"), copy.join("new")).unwrap();
    let expected = [
        "C /emptied",
        "A /emptied/a",
        "D /gone",
        "A /hidden",
        "C /linked",
        "A /new",
        "A /new/inside",
        "D /old",
        "C /tree",
        "C /tree/deep",
        "C /tree/deep/file",
    ];
    assert_eq!(lines(&told_of_copy(&copy, &layers)), expected);
    // A single layer is looked at as it is, marks and all.
    let single = [base];
    let second = stage.join("second");
    device(&single[0], "of-the-layer", (0, 0));
    crate::files::merge::layers(&single, &second).unwrap();
    assert_eq!(lines(&told_of_copy(&second, &single)), [""; 0]);
}

#[test]
fn every_mark_of_overlayfs_is_understood() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let stage = stage.path();
    let (upper, top, base) = (stage.join("upper"), stage.join("l2"), stage.join("l1"));
    write(&base.join("same"), "same");
    write(&base.join("gone"), "gone");
    write(&base.join("tree/deep/file"), "file");
    write(&base.join("emptied/a"), "a");
    write(&base.join("emptied/b/c"), "c");
    write(&base.join("old/inside"), "inside");
    write(&base.join("becomes-file/x"), "x");
    write(&base.join("becomes-directory"), "x");
    write(&top.join("second"), "second");
    // A name that the image itself hides is not there to be deleted.
    write(&base.join("hidden"), "hidden");
    device(&top, "hidden", (0, 0));

    fs::create_dir(&upper).unwrap();
    device(&upper, "gone", (0, 0));
    device(&upper, "hidden", (0, 0));
    device(&upper, "becomes-file", (1, 3));
    write(&upper.join("becomes-directory/y"), "y");
    write(&upper.join("emptied/new"), "new");
    set_xattr(&upper.join("emptied"), "trusted.overlay.opaque", b"y");
    write(&upper.join("tree/deep/file"), "other");
    // A directory that was renamed: its content is still where it was.
    fs::create_dir(upper.join("new")).unwrap();
    set_xattr(&upper.join("new"), "trusted.overlay.redirect", b"/old");
    device(&upper, "old", (0, 0));
    // Copied up, but the same in all that counts.
    write(&upper.join("second"), "second");
    let time = fs::metadata(top.join("second"))
        .unwrap()
        .modified()
        .unwrap();
    File::options()
        .write(true)
        .open(upper.join("second"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let layers = [top, base];
    assert_eq!(
        lines(&told(&upper, &layers)),
        [
            "C /becomes-directory",
            "A /becomes-directory/y",
            "C /becomes-file",
            "C /emptied",
            "D /emptied/a",
            "D /emptied/b",
            "A /emptied/new",
            "D /gone",
            "A /new",
            "A /new/inside",
            "D /old",
            "C /tree",
            "C /tree/deep",
            "C /tree/deep/file",
        ]
    );
    let target = stage.join("layer");
    layer(&upper, &layers, &target);
    let before = listing(&[&[upper], &layers[..]].concat());
    let after = listing(&[&[target], &layers[..]].concat());
    assert_eq!(before, after);
}

#[test]
fn one_layer_below_with_marks_of_its_own() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let (upper, base) = (stage.path().join("upper"), stage.path().join("base"));
    write(&base.join("d/kept"), "kept");
    device(&base.join("d"), "mark", (0, 0));
    write(&upper.join("d/new"), "new");
    assert_eq!(lines(&told(&upper, &[base])), ["C /d", "A /d/new"]);
}

#[test]
fn a_further_name_of_a_file_of_the_image_stays_one() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let stage = stage.path();
    let base = stage.join("base");
    write(&base.join("first"), "text");
    for name in ["upper", "work"] {
        fs::create_dir(stage.join(name)).unwrap();
    }
    let layers = [base];
    let view = View::open(&Parts {
        layers: &layers,
        writable: Some(stage),
        ..Parts::default()
    })
    .unwrap();
    let root = PathBuf::from(crate::files::node::handle_text(view.root()));
    fs::hard_link(root.join("first"), root.join("second")).unwrap();
    drop(view);
    let upper = stage.join("upper");
    assert_eq!(lines(&told(&upper, &layers)), ["C /first", "A /second"]);
    let target = stage.join("layer");
    layer(&upper, &layers, &target);
    assert_eq!(fs::metadata(target.join("first")).unwrap().nlink(), 2);
}

#[test]
fn what_the_engine_mounts_there_is_no_change() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let (upper, base) = (stage.path().join("upper"), stage.path().join("base"));
    write(&base.join("bin/sh"), "sh");
    for name in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        write(&upper.join(name), "");
    }
    for name in ["proc", "sys", "dev/pts", "dev/shm"] {
        fs::create_dir_all(upper.join(name)).unwrap();
    }
    let layers = [base];
    assert!(told(&upper, &layers).is_empty());
    let merged = View::of_layers(&[std::slice::from_ref(&upper), &layers[..]].concat()).unwrap();
    let mut archive = Vec::new();
    assert!(!pack_changes(merged.root(), &[], &mut archive).unwrap());
    drop(merged);
    // What a container puts there is.
    write(&upper.join("etc/hosts"), "127.0.0.1 me");
    write(&upper.join("dev/log"), "");
    assert_eq!(
        lines(&told(&upper, &layers)),
        ["A /dev", "A /dev/log", "A /etc", "A /etc/hosts"]
    );
}

#[test]
fn names_of_whiteouts_are_left_out_of_a_layer() {
    if !is_root() {
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let (upper, base) = (stage.path().join("upper"), stage.path().join("base"));
    write(&base.join("victim"), "victim");
    write(&upper.join(".wh.victim"), "");
    write(&upper.join(".wh..wh..opq"), "");
    let target = stage.path().join("layer");
    layer(&upper, std::slice::from_ref(&base), &target);
    assert!(listing(&[target, base]).contains_key("victim"));
}

/// xorshift: the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        let names: Vec<&str> = (0..depth)
            .map(|_| ["a", "b", "c", "d"][usize::try_from(self.below(4)).unwrap()])
            .collect();
        names.join("/")
    }
}

/// One change of whatever is there; what cannot be done is not.
fn change(root: &Path, random: &mut Random) {
    let path = root.join(random.path());
    let other = root.join(random.path());
    let number = random.below(1000);
    let _ = match random.below(12) {
        0 | 1 => fs::write(&path, format!("{number}")),
        2 => fs::create_dir_all(&path),
        3 => fs::remove_dir_all(&path),
        4 => fs::remove_file(&path),
        5 => fs::rename(&path, &other),
        6 => fs::hard_link(&path, &other),
        7 => symlink(format!("{number}"), &path),
        8 => fs::set_permissions(
            &path,
            PermissionsExt::from_mode(0o500 + u32::try_from(number % 64).unwrap()),
        ),
        9 => std::os::unix::fs::lchown(&path, Some(7), Some(9)),
        10 => File::open(&path).and_then(|file| {
            let name = std::ffi::CString::new("user.number").unwrap();
            gamut_image::layer::sys::fset_xattr(file.as_fd(), &name, number.to_string().as_bytes())
        }),
        // Removed and made again: opaque.
        _ => fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)),
    };
}

#[test]
fn layers_of_random_changes_give_what_was_seen() {
    if !is_root() {
        return;
    }
    for seed in 1..=60_u64 {
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let stage = tempfile::tempdir().unwrap();
        let stage = stage.path();
        let (base, top) = (stage.join("base"), stage.join("top"));
        for layer in [&base, &top] {
            fs::create_dir(layer).unwrap();
            for _ in 0..12 {
                let path = layer.join(random.path());
                if fs::create_dir_all(path.parent().unwrap()).is_ok() {
                    let _ = fs::write(&path, format!("{seed} {}", path.display()));
                }
            }
        }
        let layers = [top, base];
        for name in ["upper", "work"] {
            fs::create_dir(stage.join(name)).unwrap();
        }
        let view = View::open(&Parts {
            layers: &layers,
            writable: Some(stage),
            ..Parts::default()
        })
        .unwrap();
        let root = PathBuf::from(crate::files::node::handle_text(view.root()));
        for _ in 0..40 {
            change(&root, &mut random);
        }
        drop(view);
        let upper = stage.join("upper");
        let target = stage.join("layer");
        layer(&upper, &layers, &target);
        let before = listing(&[std::slice::from_ref(&upper), &layers[..]].concat());
        let after = listing(&[&[target], &layers[..]].concat());
        assert_eq!(
            before,
            after,
            "seed {seed}: {:#?}",
            lines(&told(&upper, &layers))
        );
    }
}

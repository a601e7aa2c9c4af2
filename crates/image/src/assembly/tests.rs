//! Archives of every kind are unpacked and put together again.

use super::*;
use crate::blobs::Layout;
use crate::digest::Digest;
use crate::layer::{ExtractOptions, extract_recorded};
use crate::tar::{Entry, Kind, Writer};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Place {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        fs::create_dir(layout.ingest()).unwrap();
        Self { dir, layout }
    }

    fn fs(&self) -> std::path::PathBuf {
        self.dir.path().join("fs")
    }

    /// Unpacks, `piece_bytes` of the archive at a time, and keeps a recipe while that will do.
    fn take_in(&self, archive: &[u8], piece_bytes: usize) -> Option<Kept> {
        let mut keeper = Keeper::recipe(&self.layout).unwrap();
        let mut reader = BufReader::with_capacity(piece_bytes, archive);
        let options = ExtractOptions::here();
        extract_recorded(&mut reader, &self.fs(), &options, &mut keeper).ok()?;
        Some(keeper.finish().unwrap())
    }

    fn give_back(&self, kept: &Kept) -> std::io::Result<Vec<u8>> {
        let mut archive = Vec::new();
        if kept.is_recipe {
            assembled(&kept.blob.path, &self.fs())?.read_to_end(&mut archive)?;
        } else {
            archive = zstd::decode_all(File::open(&kept.blob.path).unwrap()).unwrap();
        }
        Ok(archive)
    }
}

fn assembled(recipe: &Path, files: &Path) -> std::io::Result<Assembled> {
    let root = OwnedFd::from(File::open(files).unwrap());
    Assembled::new(File::open(recipe).unwrap(), root, "layer l")
}

fn file(path: &str) -> Entry {
    Entry::new(path, Kind::File, 0o644)
}

fn link(kind: Kind, path: &str, target: &str) -> Entry {
    let mut entry = Entry::new(path, kind, 0o777);
    entry.link = target.into();
    entry
}

fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, content).unwrap();
    }
    writer.finish().unwrap()
}

#[track_caller]
fn comes_back(archive: &[u8], is_recipe: bool) {
    for piece_bytes in [1 << 18, 700] {
        let place = Place::new();
        let kept = place.take_in(archive, piece_bytes).unwrap();
        assert_eq!(kept.is_recipe, is_recipe);
        let blob = fs::read(&kept.blob.path).unwrap();
        assert_eq!(
            (kept.digest, kept.bytes),
            (Digest::of(&blob), blob.len() as u64)
        );
        assert!(
            place.give_back(&kept).unwrap() == archive,
            "another archive"
        );
    }
}

#[test]
fn every_kind_of_entry_comes_back() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(140));
    let mut locked = Entry::new("locked", Kind::File, 0);
    locked.xattrs = vec![(b"user.a".to_vec(), b"b".to_vec())];
    let mut owned = file("owned");
    (owned.uid, owned.gid) = (3_000_000_000, 7);
    let plain = archive(&[
        (Entry::new("d", Kind::Directory, 0o700), b""),
        (file("d/a"), &[1; 5000]),
        (file("./d//b"), b"odd name"),
        (file(&long), b"long name"),
        (link(Kind::HardLink, "hard", "d/a"), b""),
        (link(Kind::Symlink, "lib", "usr/lib"), b""),
        (Entry::new("usr/lib", Kind::Directory, 0o755), b""),
        (file("lib/through-a-link"), b"content"),
        (Entry::new("pipe", Kind::Fifo, 0o644), b""),
        (file(".wh.gone"), b""),
        (file("d/.wh.d"), b"whiteout with content"),
        (file("d/.wh..wh..opq"), b""),
        (file(".wh..wh.plnk/1"), &[2; 3000]),
        (file("empty"), b""),
        // To overlayfs a whiteout.
        (Entry::new("device", Kind::CharacterDevice, 0o644), b""),
        (locked, b"no one may read it"),
        (owned, &[3; 512]),
        // A directory once more only changes its metadata.
        (Entry::new("d", Kind::Directory, 0o755), b""),
    ]);
    comes_back(&plain, true);
    // What follows the end, or is missing there, too.
    comes_back(&[&plain[..], &[0; 9216], b"trailing"].concat(), true);
    comes_back(&plain[..plain.len() - 1024], true);
    comes_back(&archive(&[]), true);
    comes_back(b"", true);
}

#[test]
fn sparse_files_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    for piece in 0..40u64 {
        use std::os::unix::fs::FileExt;
        sparse
            .write_all_at(&[7; 5000], piece * 96 * 1024 + 32768)
            .unwrap();
    }
    for format in ["gnu", "posix"] {
        let output = std::process::Command::new("tar")
            .args(["-c", "-S", "--format", format, "-C"])
            .arg(dir.path())
            .arg("sparse")
            .output();
        let Ok(output) = output else {
            println!("SKIPPED: no tar program to make archives with");
            return;
        };
        assert!(output.status.success());
        assert!(output.stdout.len() < 1 << 20, "the fixture has no holes");
        comes_back(&output.stdout, true);
    }
}

#[test]
fn an_archive_that_replaces_its_files_is_kept_whole() {
    let (one, two) = ([1; 3000], [2; 70_000]);
    comes_back(
        &archive(&[(file("a"), &one), (file("b"), &two), (file("a"), &two)]),
        false,
    );
    // By a link, a directory, and a file in place of a directory with files.
    let directory = Entry::new("a", Kind::Directory, 0o755);
    for replacement in [link(Kind::Symlink, "a", "b"), directory.clone()] {
        comes_back(&archive(&[(file("a"), &one), (replacement, b"")]), false);
    }
    comes_back(
        &archive(&[(directory, b""), (file("a/b"), &two), (file("a"), &one)]),
        false,
    );
    // A whiteout holds no content: a file in its place is no reason.
    comes_back(&archive(&[(file(".wh.a"), b""), (file("a"), &one)]), true);
}

#[test]
fn changed_files_are_named() {
    type Change = (&'static str, fn(&Path), &'static str);
    let changes: &[Change] = &[
        (
            "content",
            |at| fs::write(at, [2; 5000]).unwrap(),
            "its content has changed",
        ),
        ("length", |at| fs::write(at, [1; 4999]).unwrap(), "shorter"),
        ("absence", |at| fs::remove_file(at).unwrap(), "No such file"),
        (
            "kind",
            |at| {
                fs::remove_file(at).unwrap();
                std::os::unix::fs::symlink("b", at).unwrap();
            },
            "Too many levels of symbolic links",
        ),
        (
            "directory",
            |at| {
                fs::remove_file(at).unwrap();
                fs::create_dir(at).unwrap();
            },
            "no regular file",
        ),
    ];
    for (what, change, expected) in changes {
        let place = Place::new();
        let entries = [(file("d/b"), &[1; 5000][..]), (file("d/a"), &[1; 5000])];
        let kept = place.take_in(&archive(&entries), 1 << 18).unwrap();
        change(&place.fs().join("d/a"));
        let error = place.give_back(&kept).unwrap_err().to_string();
        assert!(
            error.starts_with("layer l: unpacked file /d/a: "),
            "{what}: {error}"
        );
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn a_damaged_recipe_is_told() {
    let place = Place::new();
    let kept = place
        .take_in(&archive(&[(file("a"), b"a")]), 1 << 18)
        .unwrap();
    let whole = fs::read(&kept.blob.path).unwrap();
    let stream = zstd::decode_all(&whole[format::MAGIC.len()..]).unwrap();
    let packed = |stream: &[u8]| [format::MAGIC, &zstd::encode_all(stream, 1).unwrap()].concat();
    for damaged in [
        b"gamut-assembly 2\n".to_vec(),
        whole[..5].to_vec(),
        packed(&stream[..stream.len() - 1]),
        packed(&[&[9], &stream[..]].concat()),
    ] {
        fs::write(&kept.blob.path, damaged).unwrap();
        let error = place.give_back(&kept).unwrap_err().to_string();
        assert!(error.contains("recipe"), "{error}");
    }
}

#[test]
fn parts_are_read_however_cut() {
    use format::*;
    let mut bytes = Vec::new();
    let content = Content {
        path: b"a/b",
        offset: u64::MAX - 9,
        length: 9,
        crc32: 0x0102_0304,
    };
    let parts = [Part::Literal(&[5; 300]), Part::Content(content), Part::End];
    for part in parts {
        encode(part, &mut bytes);
    }
    fuzz_assembly(&bytes);
    let mut rest = &bytes[..];
    for part in parts {
        let (length, read) = decode(rest).unwrap().unwrap();
        assert_eq!(read, part);
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
    for malformed in [
        &[3][..],
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        &[1, 0xff, 0xff, 0xff, 1],
        &[2, 1, b'a', 0, 0, 0, 0, 0, 0],
    ] {
        assert!(decode(malformed).is_err(), "{malformed:?}");
    }
}

/// Few names, so that entries meet: replace, lead through and link to each other.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abc]", 1 => Just(".wh.a".to_owned()), 1 => Just(".wh..wh..opq".to_owned()),
        1 => Just(".wh..wh.x".to_owned()), 1 => "[a-z]{100,120}",
    ];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

prop_compose! {
    fn entry()(
        path in name(),
        target in name(),
        kind in prop_oneof![
            6 => Just(Kind::File), 2 => Just(Kind::Directory), 1 => Just(Kind::Symlink),
            1 => Just(Kind::HardLink), 1 => Just(Kind::Fifo), 1 => Just(Kind::CharacterDevice),
        ],
        mode in 0u32..0o10000,
        owner in prop_oneof![Just(0u32), any::<u16>().prop_map(u32::from)],
        has_attribute in any::<bool>(),
        content in proptest::collection::vec(any::<u8>(), 0..2000),
    ) -> (Entry, Vec<u8>) {
        let mut entry = Entry::new(path, kind, mode);
        entry.uid = owner;
        if matches!(kind, Kind::Symlink | Kind::HardLink) {
            entry.link = target.into_bytes();
        }
        if has_attribute && kind == Kind::File {
            entry.xattrs = vec![(b"user.k".to_vec(), b"v".to_vec())];
        }
        let content = if kind == Kind::File { content } else { Vec::new() };
        (entry, content)
    }
}

#[test]
fn what_can_be_unpacked_comes_back_bit_for_bit() {
    let config = ProptestConfig {
        cases: 400,
        ..ProptestConfig::default()
    };
    let input = (
        proptest::collection::vec(entry(), 0..8),
        1usize..4000,
        proptest::collection::vec(any::<u8>(), 0..700),
    );
    let (recipes, wholes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let result = TestRunner::new(config).run(&input, |(entries, piece_bytes, trailing)| {
        let entries: Vec<_> = entries
            .iter()
            .map(|(entry, content)| (entry.clone(), &content[..]))
            .collect();
        let mut archive = archive(&entries);
        archive.extend_from_slice(&trailing);
        let place = Place::new();
        // What extraction refuses is kept by nobody.
        if let Some(kept) = place.take_in(&archive, piece_bytes) {
            let count = if kept.is_recipe { &recipes } else { &wholes };
            count.fetch_add(1, Ordering::Relaxed);
            prop_assert!(place.give_back(&kept).unwrap() == archive);
        }
        Ok(())
    });
    result.unwrap();
    let counts = (recipes.into_inner(), wholes.into_inner());
    assert!(counts.0 > 50 && counts.1 > 10, "hardly tested: {counts:?}");
}

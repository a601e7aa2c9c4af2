//! Large layers that come plain are stored once, as their files, and their archives are put
//! together again from these.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use gamut_image::tar::{Entry, Kind, Writer};
use gamut_image::{Digest, ImageStore, NoProgress};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A layer that is above what is kept whole: files in directories, a hard link and more.
fn large_layer() -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    let mut append = |entry: &Entry, content: &[u8]| tar.append(entry, content).unwrap();
    append(&Entry::new("etc", Kind::Directory, 0o755), &[]);
    for number in 0..5 {
        let name = format!("etc/file{number}");
        append(
            &Entry::new(name, Kind::File, 0o640),
            &noise(number, 500_000),
        );
    }
    let mut link = Entry::new("hard", Kind::HardLink, 0o640);
    link.link = b"etc/file1".to_vec();
    append(&link, &[]);
    append(&Entry::new(".wh.gone", Kind::File, 0o644), &[]);
    tar.finish().unwrap()
}

fn base(seed: u64) -> Vec<u8> {
    tar(&[("base", &noise(seed, 10_000)), ("gone", b"")])
}

fn image() -> TestImage {
    TestImage::new(vec![base(70), large_layer()])
}

fn load(store: &ImageStore, image: &TestImage, tag: &str) {
    let archive = image.docker_archive(&[tag]);
    store.load(&archive[..], &NoProgress).unwrap();
}

fn save(store: &ImageStore, name: &str) -> Vec<u8> {
    let mut archive = Vec::new();
    store.save(&[name], &mut archive).unwrap();
    archive
}

fn save_error(store: &ImageStore, name: &str) -> String {
    gamut_spec::error::chain(&store.save(&[name], &mut Vec::new()).unwrap_err())
}

fn contains(archive: &[u8], layer: &[u8]) -> bool {
    // Members begin at whole blocks.
    let mut blocks = archive.chunks(512).enumerate();
    blocks.any(|(number, block)| {
        layer.starts_with(block) && archive[number * 512..].starts_with(layer)
    })
}

/// The unpacked files of the topmost layer.
fn top(store: &ImageStore, name: &str) -> PathBuf {
    store.layers(&store.get(name, None).unwrap()).unwrap()[0].clone()
}

fn blobs(store: &ImageStore) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.root().join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The recipe of the only large layer.
fn recipe(store: &ImageStore) -> PathBuf {
    let is_recipe = |path: &PathBuf| fs::read(path).unwrap().starts_with(b"gamut-assembly");
    let mut recipes = blobs(store).into_iter().filter(is_recipe);
    let found = recipes.next().expect("no recipe");
    assert!(recipes.next().is_none());
    found
}

fn problems(store: &ImageStore, repair: bool) -> String {
    let findings = store.fsck(repair).unwrap();
    assert!(findings.iter().all(|finding| finding.repaired == repair));
    let lines = findings
        .iter()
        .map(|one| format!("{}: {}\n", one.object, one.problem));
    lines.collect()
}

#[test]
fn a_large_plain_layer_is_stored_once_and_comes_back() {
    let (dir, store) = store();
    load(&store, &image(), "a:1");
    let largest = blobs(&store)
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .max();
    assert!(largest.unwrap() < 100_000, "{largest:?}");
    assert!(recipe(&store).metadata().unwrap().len() < 4096);
    assert_clean(&store);
    let saved = save(&store, "a:1");
    assert!(contains(&saved, &large_layer()) && contains(&saved, &base(70)));
    drop(store);
    let store = ImageStore::open(&dir.path().join("images")).unwrap();
    assert!(save(&store, "a:1") == saved);
    // A store that keeps the layers compressed, as they came, saves the same.
    let (_dir, other) = common::store();
    let archive = image().oci_archive("docker.io/library/a:1", &gzip);
    other.load(&archive[..], &NoProgress).unwrap();
    assert!(save(&other, "a:1") == saved);
}

#[test]
fn a_layer_is_used_above_others_and_outlives_its_first_image() {
    let (_dir, store) = store();
    let second = TestImage::new(vec![base(71), large_layer()]);
    load(&store, &image(), "a:1");
    // By its digest: taken from the store, without a look at the archive's own.
    let archive = second.oci_archive("docker.io/library/b:1", &<[u8]>::to_vec);
    store.load(&archive[..], &NoProgress).unwrap();
    assert_ne!(top(&store, "a:1"), top(&store, "b:1"));
    assert_clean(&store);
    store.remove("a:1", false, &|_| false).unwrap();
    assert!(contains(&save(&store, "b:1"), &large_layer()));
    assert_clean(&store);
    // And twice in one archive, and in one image.
    let twice = TestImage::new(vec![large_layer(), base(72), large_layer()]);
    load(&store, &twice, "c:1");
    assert!(contains(&save(&store, "c:1"), &large_layer()));
    assert_clean(&store);
    // Where one place is missing, it is unpacked again from the other.
    fs::remove_dir_all(top(&store, "b:1").parent().unwrap()).unwrap();
    assert_clean(&store);
    assert!(contains(&save(&store, "b:1"), &large_layer()));
    assert_eq!(read(&top(&store, "b:1"), "etc/file1"), noise(1, 500_000));
    assert_clean(&store);
}

#[test]
fn an_archive_that_replaces_its_own_files_is_kept_whole() {
    let (_dir, store) = store();
    let content = noise(1, 1_500_000);
    let layer = tar(&[
        ("a", &content),
        ("b", &content),
        ("a", b"small"),
        ("c", &content),
    ]);
    load(&store, &TestImage::new(vec![layer.clone()]), "a:1");
    let largest = blobs(&store)
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .max();
    assert!(largest.unwrap() > 1_000_000, "{largest:?}");
    assert_eq!(read(&top(&store, "a:1"), "a"), b"small");
    assert!(contains(&save(&store, "a:1"), &layer));
    assert_clean(&store);
}

#[test]
fn damage_is_found_named_and_put_right() {
    type Plant = (&'static str, fn(&Path), &'static str, bool);
    // What is damaged below the unpacked files, the words, and whether the image can be kept.
    let plants: &[Plant] = &[
        (
            "changed content",
            |at| fs::write(at.join("etc/file3"), noise(9, 500_000)).unwrap(),
            "unpacked file /etc/file3: its content has changed",
            false,
        ),
        (
            "missing file",
            |at| fs::remove_file(at.join("etc/file2")).unwrap(),
            "unpacked file /etc/file2: No such file",
            false,
        ),
        (
            "changed mode",
            |at| {
                fs::set_permissions(at.join("etc/file2"), PermissionsExt::from_mode(0o777))
                    .unwrap();
            },
            "/etc/file2 differs from the archive",
            true,
        ),
        (
            "additional file",
            |at| fs::write(at.join("more"), b"").unwrap(),
            "differs from the archive",
            true,
        ),
        (
            "half unpacked",
            |at| fs::remove_file(at.parent().unwrap().join("layer.json")).unwrap(),
            "half unpacked",
            true,
        ),
    ];
    for (what, plant, expected, is_kept) in plants {
        let (_dir, store) = store();
        load(&store, &image(), "a:1");
        plant(&top(&store, "a:1"));
        if !is_kept {
            let error = save_error(&store, "a:1");
            let digest = Digest::of(&large_layer()).to_string();
            assert!(
                error.contains(expected) && error.contains(&digest),
                "{what}: {error}"
            );
        }
        let found = problems(&store, false);
        assert!(found.contains(expected), "{what}: {found}");
        assert_eq!(found.contains("unusable"), !is_kept, "{what}: {found}");
        problems(&store, true);
        assert_clean(&store);
        assert_eq!(store.get("a:1", None).is_ok(), *is_kept, "{what}");
        load(&store, &image(), "a:1");
        assert_clean(&store);
        assert!(contains(&save(&store, "a:1"), &large_layer()), "{what}");
    }
}

#[test]
fn a_lost_recipe_comes_back_with_the_next_load() {
    type Plant = fn(&Path);
    let plants: &[Plant] = &[
        |recipe| fs::remove_file(recipe).unwrap(),
        |recipe| fs::write(recipe, b"gamut-assembly 1\nx").unwrap(),
    ];
    for plant in plants {
        let (_dir, store) = store();
        load(&store, &image(), "a:1");
        plant(&recipe(&store));
        let found = problems(&store, false);
        assert!(!found.contains("unusable"), "{found}");
        problems(&store, true);
        assert_clean(&store);
        // It still runs, but cannot be saved.
        assert_eq!(read(&top(&store, "a:1"), "etc/file1"), noise(1, 500_000));
        assert!(save_error(&store, "a:1").contains("load the image again"));
        load(&store, &image(), "a:1");
        assert_clean(&store);
        assert!(contains(&save(&store, "a:1"), &large_layer()));
    }
}

#[test]
fn damaged_files_are_unpacked_again_from_what_else_has_them() {
    let (_dir, store) = store();
    let second = TestImage::new(vec![base(71), large_layer()]);
    load(&store, &image(), "a:1");
    load(&store, &second, "b:1");
    fs::write(top(&store, "a:1").join("etc/file3"), b"x").unwrap();
    let found = problems(&store, true);
    assert!(
        found.contains("/etc/file3 differs") && !found.contains("unusable"),
        "{found}"
    );
    assert_clean(&store);
    assert!(contains(&save(&store, "a:1"), &large_layer()));
}

#[test]
fn stores_of_the_version_before_are_read() {
    let (dir, store) = store();
    // Small layers are kept as that version kept all.
    let small = TestImage::new(vec![base(70), tar(&[("own", &noise(3, 300_000))])]);
    load(&store, &small, "a:1");
    let saved = save(&store, "a:1");
    drop(store);
    let records = dir.path().join("images/references.json");
    let text = fs::read_to_string(&records).unwrap();
    assert!(text.contains("\"version\": 2"));
    fs::write(&records, text.replace("\"version\": 2", "\"version\": 1")).unwrap();
    let store = ImageStore::open(&dir.path().join("images")).unwrap();
    assert_clean(&store);
    assert!(save(&store, "a:1") == saved);
    load(&store, &image(), "b:1");
    assert!(
        fs::read_to_string(&records)
            .unwrap()
            .contains("\"version\": 2")
    );
    assert_clean(&store);
}

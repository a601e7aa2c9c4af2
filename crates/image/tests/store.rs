//! Names, removal, pruning, usage, damage, concurrency.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use gamut_image::{Digest, ImageStore, NoProgress, PruneFilter, Removal};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use std::fs;
use std::process::Command;

fn load(store: &ImageStore, seed: u64, tags: &[&str]) -> TestImage {
    let base = tar(&[("base", &noise(77, 300_000))]);
    let image = TestImage::new(vec![base, tar(&[("own", &noise(seed, 300_000))])]);
    store
        .load(&image.docker_archive(tags)[..], &NoProgress)
        .unwrap();
    image
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn images_are_found_by_every_kind_of_name() {
    let (_dir, store) = store();
    let image = load(&store, 1, &["a:1"]);
    let id = image.id();
    let hex = &id[7..];
    for name in [
        "a:1",
        "docker.io/library/a:1",
        &id,
        hex,
        &hex[..12],
        &id[..15],
        &format!("a@{id}"),
    ] {
        assert_eq!(store.get(name, None).unwrap().id, id, "{name}");
    }
    for name in ["a", "b:1", "sha256:", &"0".repeat(64)] {
        assert_eq!(
            store.get(name, None).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{name}"
        );
    }
    assert_eq!(
        store.get("A:1", None).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    let other = "linux/arm64".parse().unwrap();
    assert!(
        store
            .get("a:1", Some(&other))
            .unwrap_err()
            .to_string()
            .contains("linux/amd64")
    );
    // Enough images for every first digit to be ambiguous somewhere.
    for seed in 2..20 {
        load(&store, seed, &[]);
    }
    let ambiguous = (0..16u32).any(|digit| {
        let digit = char::from_digit(digit, 16).unwrap();
        store
            .get(&format!("sha256:{digit}"), None)
            .is_err_and(|error| error.to_string().contains("ambiguous"))
    });
    assert!(ambiguous);
}

#[test]
fn removal_follows_dockers_rules() {
    let (_dir, store) = store();
    let free = |_: &str| false;
    let used = |_: &str| true;
    let image = load(&store, 1, &["a:1", "a:2", "b:1"]);
    let other = load(&store, 2, &["c:1"]);
    assert_eq!(
        store.remove("a:1", false, &free).unwrap(),
        [Removal::Untagged("a:1".to_owned())]
    );
    let error = store.remove(&image.id(), false, &free).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Conflict && error.to_string().contains("multiple repositories")
    );
    assert!(store.remove("a:2", false, &used).is_ok());
    let error = store.remove("b:1", false, &used).unwrap_err();
    assert!(error.to_string().contains("must force"), "{error}");
    // Forced while in use: it loses its name and stays.
    assert_eq!(
        store.remove("b:1", true, &used).unwrap(),
        [Removal::Untagged("b:1".to_owned())]
    );
    assert!(
        store
            .remove(&image.id(), true, &used)
            .unwrap_err()
            .to_string()
            .contains("cannot be forced")
    );
    let removed = store.remove(&image.id(), false, &free).unwrap();
    assert_eq!(removed[0], Removal::Deleted(image.id()));
    assert_eq!(removed.len(), 2, "the shared layer stays: {removed:?}");
    assert_eq!(
        store
            .layers(&store.get("c:1", None).unwrap())
            .unwrap()
            .len(),
        2
    );
    assert_eq!(store.remove("c:1", false, &free).unwrap().len(), 4);
    assert_eq!(
        store.remove(&other.id(), false, &free).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_empty(&store);
}

#[test]
fn tags_move_and_survive_reopening() {
    let (dir, store) = store();
    let first = load(&store, 1, &["a:1"]);
    let second = load(&store, 2, &["b:1"]);
    store.tag("b:1", &reference("a:1")).unwrap();
    assert_eq!(store.get("a:1", None).unwrap().id, second.id());
    assert!(store.get(&first.id(), None).unwrap().repo_tags.is_empty());
    assert!(store.tag("nothere", &reference("x:1")).is_err());
    assert!(
        ImageStore::open(&dir.path().join("images"))
            .unwrap_err()
            .to_string()
            .contains("in use by another process")
    );
    drop(store);
    // What a crash leaves behind is gone after the next start.
    let root = dir.path().join("images");
    fs::create_dir_all(root.join("ingest/abc/fs")).unwrap();
    fs::write(root.join("blobs/sha256").join("0".repeat(64)), b"x").unwrap();
    fs::create_dir_all(root.join("layers").join("1".repeat(64)).join("fs")).unwrap();
    let store = ImageStore::open(&root).unwrap();
    assert_eq!(store.get("a:1", None).unwrap().repo_tags, ["a:1", "b:1"]);
    assert_clean(&store);
}

#[test]
fn prune_spares_what_is_named_used_or_filtered() {
    let (_dir, store) = store();
    let named = load(&store, 1, &["a:1"]);
    let dangling = load(&store, 2, &[]);
    let used = load(&store, 3, &[]);
    let in_use = |id: &str| id == used.id();
    let filter = PruneFilter {
        labels: vec![("a".to_owned(), Some("other".to_owned()))],
        ..PruneFilter::default()
    };
    assert!(
        store
            .prune(true, &in_use, &filter)
            .unwrap()
            .removals
            .is_empty()
    );
    let pruned = store
        .prune(false, &in_use, &PruneFilter::default())
        .unwrap();
    assert_eq!(pruned.removals, [Removal::Deleted(dangling.id())]);
    assert!(pruned.reclaimed_bytes > 300_000);
    let pruned = store.prune(true, &in_use, &PruneFilter::default()).unwrap();
    assert_eq!(
        pruned.removals,
        [
            Removal::Untagged("a:1".to_owned()),
            Removal::Deleted(named.id())
        ]
    );
    assert_clean(&store);
}

#[test]
fn usage_equals_du() {
    let (_dir, store) = store();
    load(&store, 1, &["a:1"]);
    load(&store, 2, &["b:1"]);
    let usage = store.disk_usage().unwrap();
    let output = Command::new("du")
        .args(["-s", "-B1"])
        .arg(store.root())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let du: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(usage.total_bytes, du);
    for image in &usage.images {
        assert!(
            image.shared_bytes > 600_000 && image.unique_bytes > 600_000,
            "{image:?}"
        );
    }
}

#[test]
fn every_planted_damage_is_found_and_repaired() {
    type Plant = (&'static str, fn(&ImageStore, &TestImage), &'static str);
    fn blob(store: &ImageStore, bytes: &[u8]) -> std::path::PathBuf {
        store
            .root()
            .join("blobs/sha256")
            .join(Digest::of(bytes).hex())
    }
    fn layer_blob(store: &ImageStore) -> std::path::PathBuf {
        fs::read_dir(store.root().join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .max_by_key(|path| fs::metadata(path).unwrap().len())
            .unwrap()
    }
    fn layer(store: &ImageStore) -> std::path::PathBuf {
        store.layers(&store.get("a:1", None).unwrap()).unwrap()[0]
            .parent()
            .unwrap()
            .to_owned()
    }
    let plants: &[Plant] = &[
        (
            "damaged layer blob",
            |s, _| fs::write(layer_blob(s), b"x").unwrap(),
            "damaged",
        ),
        (
            "missing layer blob",
            |s, _| fs::remove_file(layer_blob(s)).unwrap(),
            "missing",
        ),
        (
            "damaged configuration",
            |s, i| fs::write(blob(s, &i.config), b"{}").unwrap(),
            "damaged",
        ),
        (
            "missing configuration",
            |s, i| fs::remove_file(blob(s, &i.config)).unwrap(),
            "missing",
        ),
        (
            "half-unpacked layer",
            |s, _| fs::remove_file(layer(s).join("layer.json")).unwrap(),
            "half unpacked",
        ),
        (
            "changed file in a layer",
            |s, _| fs::write(layer(s).join("fs/own"), noise(8, 300_000)).unwrap(),
            "differs",
        ),
        (
            "missing file in a layer",
            |s, _| fs::remove_file(layer(s).join("fs/own")).unwrap(),
            "differs",
        ),
        (
            "orphan blob",
            |s, _| fs::write(blob(s, b"orphan"), b"orphan").unwrap(),
            "no image needs it",
        ),
        (
            "orphan layer",
            |s, _| fs::create_dir(s.root().join("layers").join("2".repeat(64))).unwrap(),
            "no image needs it",
        ),
        (
            "foreign file",
            |s, _| fs::write(s.root().join("blobs/sha256/README"), b"").unwrap(),
            "not named by a digest",
        ),
        (
            "stale ingest",
            |s, _| fs::write(s.root().join("ingest/x"), b"").unwrap(),
            "left over",
        ),
        (
            "records changed",
            |s, _| fs::write(s.root().join("references.json"), b"{").unwrap(),
            "not what this process has written",
        ),
    ];
    for (what, plant, expected) in plants {
        let (_dir, store) = store();
        let image = load(&store, 1, &["a:1"]);
        assert_clean(&store);
        plant(&store, &image);
        let found = store.fsck(false).unwrap();
        assert!(
            found
                .iter()
                .any(|finding| finding.problem.contains(expected)),
            "{what}: {found:#?}"
        );
        assert!(found.iter().all(|finding| !finding.repaired));
        let repaired = store.fsck(true).unwrap();
        assert!(
            repaired.iter().all(|finding| finding.repaired),
            "{what}: {repaired:#?}"
        );
        assert_clean(&store);
        // Loading again makes everything whole.
        load(&store, 1, &["a:1"]);
        assert_clean(&store);
        store
            .save(&["a:1"], &mut Vec::new())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn lost_records_are_rebuilt() {
    for lose in [true, false] {
        let (dir, store) = store();
        let image = load(&store, 1, &["a:1"]);
        store.tag("a:1", &reference("b:1")).unwrap();
        let root = store.root().to_owned();
        drop(store);
        if lose {
            fs::remove_file(root.join("references.json")).unwrap();
            fs::remove_file(root.join("references.previous.json")).unwrap();
        } else {
            fs::write(root.join("references.json"), b"\0\0").unwrap();
        }
        let store = ImageStore::open(&dir.path().join("images")).unwrap();
        assert!(
            store
                .load(&image.docker_archive(&[])[..], &NoProgress)
                .is_err()
        );
        store.fsck(true).unwrap();
        assert_clean(&store);
        assert_eq!(
            store.get(&image.id(), None).unwrap().repo_tags.is_empty(),
            lose
        );
        assert_eq!(
            store
                .layers(&store.get(&image.id(), None).unwrap())
                .unwrap()
                .len(),
            2
        );
    }
}

#[test]
fn loads_and_prunes_in_parallel_keep_every_image_whole() {
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for seed in 1..5 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..4 {
                    load(store, seed * 100 + round, &[&format!("i{seed}:{round}")]);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..30 {
                store
                    .prune(false, &|_| false, &PruneFilter::default())
                    .unwrap();
            }
        });
    });
    assert_eq!(store.list().unwrap().len(), 16);
    for summary in store.list().unwrap() {
        let image = store.get(&summary.id, None).unwrap();
        for layer in store.layers(&image).unwrap() {
            assert!(layer.is_dir());
        }
    }
    assert_clean(&store);
}

#[test]
fn absent_layers_are_unpacked_once() {
    let (_dir, store) = store();
    load(&store, 1, &["a:1"]);
    let image = store.get("a:1", None).unwrap();
    for layer in store.layers(&image).unwrap() {
        fs::remove_dir_all(layer.parent().unwrap()).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let layers = store.layers(&image).unwrap();
                assert_eq!(read(&layers[0], "own"), noise(1, 300_000));
            });
        }
    });
    assert_clean(&store);
}

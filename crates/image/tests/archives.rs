//! Loading, saving and importing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use gamut_image::{Digest, ImportOptions, NoProgress};
use gamut_spec::reference::Reference;
use serde_json::json;
use std::process::Command;

fn sample() -> TestImage {
    TestImage::new(vec![
        tar(&[("etc/name", b"lower"), ("big", &noise(1, 700_000))]),
        tar(&[("etc/other", b"upper"), ("small", b"x")]),
        vec![0; 1024],
    ])
}

#[test]
fn every_format_loads_to_the_same_image() {
    let image = sample();
    let plain = image.docker_archive(&["sample:1"]);
    let archives = [
        plain.clone(),
        gzip(&plain),
        zstd::encode_all(&plain[..], 1).unwrap(),
        image.oci_archive("example.com/sample:1", &gzip),
        image.oci_archive("example.com/sample:1", &|layer| {
            zstd::encode_all(layer, 1).unwrap()
        }),
        image.oci_archive("example.com/sample:1", &<[u8]>::to_vec),
    ];
    for (number, archive) in archives.iter().enumerate() {
        let (_dir, store) = store();
        let loaded = store.load(&archive[..], &NoProgress).unwrap();
        let name = if number < 3 {
            "sample:1"
        } else {
            "example.com/sample:1"
        };
        assert_eq!(loaded, [name]);
        let found = store.get(name, None).unwrap();
        assert_eq!(found.id, image.id());
        let layers = store.layers(&found).unwrap();
        assert_eq!(layers.len(), 3);
        assert_eq!(read(&layers[1], "etc/other"), b"upper");
        assert_eq!(read(&layers[2], "big"), noise(1, 700_000));
        assert_eq!(store.history(&found).len(), 3);
        assert_clean(&store);
        // Once more changes nothing.
        store.load(&archive[..], &NoProgress).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        assert_clean(&store);
    }
}

#[test]
fn members_may_come_in_any_order_and_be_linked() {
    use gamut_image::tar::{Entry, Kind, Writer};
    let image = TestImage::new(vec![tar(&[("a", &noise(2, 400_000))]); 2]);
    let mut tar = Writer::new(Vec::new());
    let manifest = json!([{ "Config": "./c.json", "RepoTags": null, "Layers": ["x/layer.tar", "y/layer.tar"] }]);
    let mut link = Entry::new("y/layer.tar", Kind::Symlink, 0o777);
    link.link = b"../x/layer.tar".to_vec();
    tar.append(&link, &[]).unwrap();
    tar.append(
        &Entry::new("manifest.json", Kind::File, 0o644),
        manifest.to_string().as_bytes(),
    )
    .unwrap();
    tar.append(
        &Entry::new("x/layer.tar", Kind::File, 0o644),
        &image.layers[0],
    )
    .unwrap();
    tar.append(&Entry::new("c.json", Kind::File, 0o644), &image.config)
        .unwrap();
    let (_dir, store) = store();
    assert_eq!(
        store.load(&tar.finish().unwrap()[..], &NoProgress).unwrap(),
        [image.id()]
    );
    let layers = store
        .layers(&store.get(&image.id(), None).unwrap())
        .unwrap();
    assert_eq!(layers.len(), 2);
    assert_eq!(read(&layers[0], "a"), read(&layers[1], "a"));
    assert_clean(&store);
}

#[test]
fn the_format_before_manifests_loads() {
    let (base, top) = ("a".repeat(64), "b".repeat(64));
    let files = vec![
        (format!("{top}/json"), json!({"id": top, "parent": base, "config": {"Cmd": ["x"]}, "architecture": "amd64", "os": "linux"}).to_string().into_bytes()),
        (format!("{top}/layer.tar"), tar(&[("two", b"2")])),
        (format!("{base}/json"), json!({"id": base, "container_config": {"Cmd": ["make", "base"]}}).to_string().into_bytes()),
        (format!("{base}/layer.tar"), tar(&[("one", b"1")])),
        ("repositories".to_owned(), json!({"old": {"latest": top}}).to_string().into_bytes()),
    ];
    let (_dir, store) = store();
    assert_eq!(
        store.load(&archive(&files)[..], &NoProgress).unwrap(),
        ["old:latest"]
    );
    let image = store.get("old", None).unwrap();
    assert_eq!(image.config.config.cmd.as_deref().unwrap(), ["x"]);
    assert_eq!(store.history(&image)[1].0.created_by, "make base");
    let layers = store.layers(&image).unwrap();
    assert_eq!(read(&layers[0], "two"), b"2");
}

#[test]
fn hostile_archives_leave_nothing() {
    let image = sample();
    let good = image.docker_archive(&["x:1"]);
    let wrong_layer = TestImage {
        config: image.config.clone(),
        layers: vec![
            tar(&[("evil", &noise(9, 600_000))]),
            image.layers[1].clone(),
            image.layers[2].clone(),
        ],
    };
    let mut wrong_config = image.docker_archive(&["x:1"]);
    let position = wrong_config
        .windows(9)
        .position(|window| window == b"/bin/true")
        .unwrap();
    wrong_config[position] = b'!';
    let bad_tag = image.docker_archive(&["UPPER:1"]);
    let missing = archive(&[(
        "manifest.json".to_owned(),
        br#"[{"Config":"gone.json","Layers":[]}]"#.to_vec(),
    )]);
    let mut oci = image.oci_archive("x/y:1", &gzip);
    let length = oci.len();
    oci[length - 200_000] ^= 0xff;
    let traversal =
        TestImage::new(vec![tar(&[("../../escape", &noise(3, 300_000))])]).docker_archive(&["x:1"]);
    let bomb = TestImage::new(vec![gzip(&vec![0u8; 1 << 20])]).docker_archive(&["x:1"]);
    for (what, bytes, expected) in [
        ("truncated", good[..good.len() / 2].to_vec(), "tar"),
        (
            "wrong layer",
            wrong_layer.docker_archive(&["x:1"]),
            "digest mismatch",
        ),
        ("wrong config", wrong_config, "digest mismatch"),
        ("bad tag", bad_tag, "lowercase"),
        ("missing", missing, "missing"),
        ("damaged blob", oci, ""),
        ("traversal", traversal, ""),
        ("not a layer", bomb, ""),
        (
            "no image",
            tar(&[("etc/passwd", b"")]),
            "not an image archive",
        ),
        ("empty", Vec::new(), "not an image archive"),
        ("garbage", noise(4, 10_000), ""),
        ("bzip2", b"BZh91AY&SY".to_vec(), "bzip2"),
    ] {
        let (dir, store) = store();
        let error = store.load(&bytes[..], &NoProgress).unwrap_err();
        let text = gamut_spec::error::chain(&error);
        assert!(text.contains(expected), "{what}: {text}");
        assert_empty(&store);
        assert!(
            !dir.path().join("escape").exists()
                && !dir.path().parent().unwrap().join("escape").exists()
        );
    }
}

#[test]
fn saving_is_deterministic_and_loads_again() {
    let (dir, store_a) = store();
    let image = sample();
    store_a
        .load(
            &image.oci_archive("example.com/x:1", &gzip)[..],
            &NoProgress,
        )
        .unwrap();
    let other = TestImage::new(vec![image.layers[0].clone(), tar(&[("b", b"b")])]);
    store_a
        .load(&other.docker_archive(&["b:1", "b:2"])[..], &NoProgress)
        .unwrap();
    let save = |names: &[&str]| {
        let mut bytes = Vec::new();
        store_a.save(names, &mut bytes).unwrap();
        bytes
    };
    let saved = save(&["example.com/x:1", "b:1", "b:2"]);
    assert!(saved == save(&["example.com/x:1", "b:1", "b:2"]));
    let (_dir, store_b) = store();
    assert_eq!(
        store_b.load(&saved[..], &NoProgress).unwrap(),
        ["example.com/x:1", "b:1", "b:2"]
    );
    let mut again = Vec::new();
    store_b
        .save(&["example.com/x:1", "b:1", "b:2"], &mut again)
        .unwrap();
    assert!(
        saved == again,
        "a store that got its layers another way saves the same"
    );
    assert!(store_a.save(&["nothere"], &mut Vec::new()).is_err());

    // The tools of the field read it.
    let path = dir.path().join("saved.tar");
    std::fs::write(&path, save(&["b:1"])).unwrap();
    if Command::new("skopeo").arg("--version").output().is_err() {
        println!("SKIPPED: skopeo is not installed");
        return;
    }
    for transport in ["docker-archive", "oci-archive"] {
        let out = dir.path().join(format!("copy-{transport}"));
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!("{transport}:{}", path.display()))
            .arg(format!("dir:{}", out.display()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{transport}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        // And what skopeo writes is read here.
        let back = dir.path().join(format!("back-{transport}.tar"));
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!("dir:{}", out.display()))
            .arg(format!("{transport}:{}:c:1", back.display()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{transport}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let (_dir, store) = store();
        store
            .load(std::fs::File::open(&back).unwrap(), &NoProgress)
            .unwrap();
        let found = store.get(&other.id(), None).unwrap();
        assert_eq!(read(&store.layers(&found).unwrap()[0], "b"), b"b");
    }
}

#[test]
fn import_makes_an_image() {
    let (_dir, store) = store();
    let name = Reference::parse("made").unwrap();
    let options = ImportOptions {
        changes: vec!["CMD [\"sh\"]".to_owned(), "ENV A=1".to_owned()],
        message: "by hand".to_owned(),
        ..ImportOptions::default()
    };
    let fs = tar(&[("bin/sh", &noise(5, 300_000))]);
    let id = store.import(&gzip(&fs)[..], Some(&name), &options).unwrap();
    let image = store.get("made:latest", None).unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.config.diff_ids, [Digest::of(&fs)]);
    assert_eq!(image.config.config.env, ["A=1"]);
    assert_eq!(store.history(&image)[0].0.comment, "by hand");
    assert_eq!(
        read(&store.layers(&image).unwrap()[0], "bin/sh").len(),
        300_000
    );
    let wrong = ImportOptions {
        changes: vec!["RUN x".to_owned()],
        ..ImportOptions::default()
    };
    assert!(store.import(&fs[..], None, &wrong).is_err());
    assert_clean(&store);
}

#[test]
fn built_in_images_come_on_demand() {
    let (_dir, store) = store();
    assert!(store.ensure_builtin("hello-world").unwrap());
    assert!(store.ensure_builtin("hello-world").unwrap());
    assert!(!store.ensure_builtin("nothere").unwrap());
    let image = store.get("hello-world", None).unwrap();
    assert!(!store.layers(&image).unwrap().is_empty());
    assert_eq!(store.list().unwrap().len(), 1);
    assert_clean(&store);
}

//! Images of several forms: packed, kept together through every verb, told apart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::server::Registry;
use common::*;
use gamut_image::{
    Digest, Error, ImageStore, NoProgress, Platform, PullOptions, RegistryOptions, Removal,
    UnikernelOptions,
};
use gamut_spec::error::ErrorKind;
use gamut_spec::form::ImageForm;
use gamut_spec::reference::Reference;
use serde_json::Value;
use std::process::Command;

const PROGRAM: &[u8] = b"not even an ELF file: that is for others to see";

fn linux() -> TestImage {
    TestImage::new(vec![tar(&[("a", b"for linux")])])
}

fn options() -> UnikernelOptions {
    UnikernelOptions {
        arguments: vec!["--fast".to_owned()],
        environment: vec!["A=b".to_owned()],
        labels: vec![("who".to_owned(), "me".to_owned())],
        exposed_ports: vec!["80/tcp".to_owned()],
        ..UnikernelOptions::default()
    }
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A store with both forms as `x:1`, and the ids of them.
fn both() -> (tempfile::TempDir, ImageStore, String, String) {
    let (dir, store) = store();
    let archive = linux().docker_archive(&["x:1"]);
    store.load(&archive[..], &NoProgress).unwrap();
    let unikernel = store
        .pack_unikernel(PROGRAM, None, &options(), None, Some(&name("x:1")))
        .unwrap();
    (dir, store, linux().id(), unikernel)
}

fn never(_: &str) -> bool {
    false
}

fn assert_forms(store: &ImageStore, name: &str, unikernel: &str) {
    let image = store.get(name, None).unwrap();
    assert_eq!(image.id, linux().id(), "{name}");
    let get = |form| store.get_form(name, None, form);
    assert_eq!(get(ImageForm::Linux).unwrap().id, linux().id(), "{name}");
    let found = get(ImageForm::Unikernel).unwrap();
    assert_eq!(found.id, unikernel, "{name}");
    let layers = store.layers(&found).unwrap();
    assert_eq!(read(&layers[0], "unikernel"), PROGRAM);
    let platform = Some(Platform::host_unikernel());
    assert_eq!(store.get(name, platform.as_ref()).unwrap().id, unikernel);
}

#[test]
fn a_packed_unikernel_is_the_same_each_time() {
    let (_dir, first) = store();
    let (_dir2, second) = store();
    let tag = name("u:1");
    let pack =
        |store: &ImageStore| store.pack_unikernel(PROGRAM, None, &options(), Some(&tag), None);
    let id = pack(&first).unwrap();
    assert_eq!(pack(&first).unwrap(), id);
    assert_eq!(pack(&second).unwrap(), id);
    let image = first.get("u:1", None).unwrap();
    assert_eq!(image.form(), ImageForm::Unikernel);
    assert_eq!(
        image.config.config.entrypoint.as_deref().unwrap(),
        ["/unikernel", "--fast"]
    );
    assert_eq!(image.config.raw["os.features"][0], "gamut.unikernel");
    assert_eq!(image.config.raw["variant"], "unikernel");
    let error = first.get_form("u:1", None, ImageForm::Linux).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.to_string().contains("--isolation unikernel"),
        "{error}"
    );
    let (mut a, mut b) = (Vec::new(), Vec::new());
    first.save(&["u:1"], &mut a).unwrap();
    second.save(&["u:1"], &mut b).unwrap();
    assert!(a == b);
    assert_clean(&first);
}

#[test]
fn a_linux_image_has_no_unikernel_form() {
    let (_dir, store) = store();
    let archive = linux().docker_archive(&["x:1"]);
    store.load(&archive[..], &NoProgress).unwrap();
    let error = store
        .get_form("x:1", None, ImageForm::Unikernel)
        .unwrap_err();
    assert!(
        matches!(error, Error::OtherForm { .. }) && error.to_string().contains("pack --add-to"),
        "{error}"
    );
    let missing = store.pack_unikernel(PROGRAM, None, &options(), None, Some(&name("y:1")));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.list().unwrap().len(), 1);
    assert_clean(&store);
}

#[test]
fn forms_go_by_one_name_and_leave_with_it() {
    let (_dir, store, _, unikernel) = both();
    assert_forms(&store, "x:1", &unikernel);
    let list = store.list().unwrap();
    assert_eq!(
        list.len(),
        1,
        "the unikernel is no image of its own: {list:?}"
    );
    assert_eq!(list[0].unikernels["x:1"], unikernel);
    store.tag("x:1", &name("y:2")).unwrap();
    assert_forms(&store, "y:2", &unikernel);
    assert_clean(&store);

    store.remove("x:1", false, &never).unwrap();
    assert_forms(&store, "y:2", &unikernel);
    // Nothing is pruned that goes by a name.
    let pruned = store.prune(false, &never, &gamut_image::PruneFilter::default());
    assert!(pruned.unwrap().removals.is_empty());
    let used = |id: &str| id == unikernel;
    let error = store.remove("y:2", false, &used).unwrap_err();
    assert!(error.to_string().contains("unikernel form"), "{error}");
    assert_forms(&store, "y:2", &unikernel);
    let removals = store.remove("y:2", false, &never).unwrap();
    assert!(
        removals.contains(&Removal::Deleted(unikernel)),
        "{removals:?}"
    );
    assert_empty(&store);
}

#[test]
fn a_name_that_is_given_to_another_image_loses_both_forms() {
    let (_dir, store, _, unikernel) = both();
    let other = TestImage::new(vec![tar(&[("b", b"other")])]);
    store
        .load(&other.docker_archive(&["x:1"])[..], &NoProgress)
        .unwrap();
    let error = store.get_form("x:1", None, ImageForm::Unikernel);
    assert!(matches!(error, Err(Error::OtherForm { .. })));
    // Both are dangling now.
    let dangling = store.list().unwrap();
    assert!(dangling.iter().any(|image| image.id == unikernel));
    store
        .prune(false, &never, &gamut_image::PruneFilter::default())
        .unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert_clean(&store);
}

#[test]
fn archives_keep_both_forms_and_docker_sees_the_linux_one() {
    let (_dir, first, _, unikernel) = both();
    let mut archive = Vec::new();
    first.save(&["x:1"], &mut archive).unwrap();
    let mut reader =
        gamut_image::tar::Reader::new(&archive[..], gamut_image::tar::Limits::default());
    let mut manifest = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        if entry.path == b"manifest.json" {
            std::io::Read::read_to_end(&mut reader, &mut manifest).unwrap();
        }
    }
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.as_array().unwrap().len(), 1);
    let config = Digest::of(&linux().config).hex();
    assert!(manifest[0]["Config"].as_str().unwrap().contains(&config));

    let (_dir2, second) = store();
    let loaded = second.load(&archive[..], &NoProgress).unwrap();
    assert_eq!(loaded, ["x:1"]);
    assert_forms(&second, "x:1", &unikernel);
    assert_clean(&second);
    let mut again = Vec::new();
    second.save(&["x:1"], &mut again).unwrap();
    assert!(archive == again, "saved again it is the same");
    // A store that is opened again knows them as well.
    let root = second.root().to_owned();
    drop(second);
    let reopened = ImageStore::open(&root).unwrap();
    assert_forms(&reopened, "x:1", &unikernel);
}

#[test]
fn registries_keep_both_forms_and_other_clients_get_the_linux_one() {
    let Some(registry) = Registry::start() else {
        println!("SKIPPED: docker-registry is not installed");
        return;
    };
    let (_dir, first, _, unikernel) = both();
    let pushed_name = format!("127.0.0.1:{}/x:1", registry.port);
    first.tag("x:1", &name(&pushed_name)).unwrap();
    let push = |store: &ImageStore| {
        store.push(
            &name(&pushed_name),
            &RegistryOptions::default(),
            &NoProgress,
        )
    };
    let pushed = push(&first).unwrap();
    assert_eq!(push(&first).unwrap(), pushed);
    assert_clean(&first);

    let (_dir2, second) = store();
    second
        .pull(&name(&pushed_name), &PullOptions::default(), &NoProgress)
        .unwrap();
    assert_forms(&second, &pushed_name, &unikernel);
    let by_digest = format!("127.0.0.1:{}/x@{}", registry.port, pushed.digest);
    assert_forms(&second, &by_digest, &unikernel);
    assert_eq!(push(&second).unwrap(), pushed, "the same index");
    assert_clean(&second);

    // Only the unikernel, where only that is asked for.
    let (_dir3, third) = store();
    let only = PullOptions {
        platform: Some(Platform::host_unikernel()),
        ..PullOptions::default()
    };
    let pulled = third.pull(&name(&pushed_name), &only, &NoProgress).unwrap();
    assert_eq!(pulled.id, unikernel);
    assert_clean(&third);

    let skopeo = Command::new("skopeo")
        .args([
            "--insecure-policy",
            "inspect",
            "--config",
            "--tls-verify=false",
        ])
        .arg(format!("docker://{pushed_name}"))
        .output();
    match skopeo {
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{error}");
            let config: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(config.get("os.features"), None);
        }
        Err(_) => println!("SKIPPED: skopeo is not installed"),
    }
}

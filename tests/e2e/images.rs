//! Images: import, load, save, tag, history, rmi, pull.

use gamut_tests::{Daemon, Registry};

#[test]
fn save_and_load_keep_an_image_as_it_is() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let id = daemon.ok(&["images", "-q", "--no-trunc", "busybox"]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let path = daemon.directory().join("image.tar").display().to_string();
    daemon.ok(&["save", "-o", &path, "busybox"]);
    daemon.ok(&["rmi", "busybox"]);
    assert_eq!(daemon.ok(&["images", "-q", "busybox"]), "");
    let error = daemon
        .gamut(&["run", "--rm", "--pull", "never", "busybox", "true"])
        .fails(125);
    assert!(error.contains("busybox"), "{error}");
    assert!(daemon.ok(&["load", "-i", &path]).contains("busybox:latest"));
    assert_eq!(daemon.ok(&["images", "-q", "--no-trunc", "busybox"]), id);
    assert_eq!(
        daemon.shell(&[], "cat /data/notes").ok(),
        "notes of the image"
    );
    // Loading what is there changes nothing; standard input and output work, too.
    let archive = std::fs::read(&path).unwrap();
    assert!(
        daemon
            .gamut_with_input(&["load"], &archive)
            .ok()
            .contains("busybox:latest")
    );
    daemon.ok(&["tag", "busybox", "second:1"]);
    let both = daemon.directory().join("both.tar").display().to_string();
    daemon.ok(&["save", "-o", &both, "busybox", "second:1"]);
    daemon.ok(&["rmi", "-f", "busybox", "second:1"]);
    let loaded = daemon.ok(&["load", "-q", "-i", &both]);
    assert!(
        loaded.contains("busybox:latest") && loaded.contains("second:1"),
        "{loaded}"
    );
    daemon.finish();
}

#[test]
fn names_are_references_to_images() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let id = daemon.ok(&["images", "-q", "--no-trunc", "busybox"]);
    daemon.ok(&["tag", "busybox", "registry.example:5000/team/tool:v1"]);
    daemon.ok(&["tag", &id, "plain"]);
    let listed = daemon.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    for name in [
        "busybox:latest",
        "registry.example:5000/team/tool:v1",
        "plain:latest",
    ] {
        assert!(listed.lines().any(|line| line == name), "{listed}");
    }
    assert_eq!(daemon.ok(&["images", "-q", "--no-trunc", "plain"]), id);
    assert_eq!(
        daemon.ok(&["run", "--rm", &id[7..19], "echo", "by id"]),
        "by id"
    );

    // In use, it is not removed; untagged, it is.
    daemon.detached("user", &[], "sleep 1000");
    let untagged = daemon.ok(&["rmi", "plain"]);
    assert!(untagged.contains("Untagged: plain:latest"), "{untagged}");
    let error = daemon.gamut(&["rmi", &id]).fails(1);
    assert!(
        error.contains("in use") || error.contains("using") || error.contains("must be forced"),
        "{error}"
    );
    assert_eq!(daemon.ok(&["exec", "user", "echo", "runs"]), "runs");
    daemon.ok(&["rm", "-f", "user"]);
    let removed = daemon.ok(&["rmi", "registry.example:5000/team/tool:v1", "busybox"]);
    assert!(removed.contains("Deleted: sha256:"), "{removed}");

    for bad in ["UPPER", "a//b", "x:", "a b"] {
        let error = daemon.gamut(&["tag", "hello-world", bad]).fails(1);
        assert!(error.contains(bad), "{bad}: {error}");
    }
    let error = daemon.gamut(&["tag", "nothing-here", "x"]).fails(1);
    assert!(error.contains("nothing-here"), "{error}");
    let error = daemon.gamut(&["rmi", "nothing-here"]).fails(1);
    assert!(error.contains("nothing-here"), "{error}");
    daemon.finish();
}

#[test]
fn import_takes_instructions_and_history_tells_them() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let archive = gamut_tests::Rootfs::new()
        .file("only", 0o644, b"file\n")
        .finish();
    daemon.import(
        &archive,
        "tiny:1",
        &[
            "CMD [\"/only\"]",
            "ENV A=b",
            "EXPOSE 80/tcp",
            "VOLUME /data",
        ],
    );
    let image = daemon.json(&["image", "inspect", "tiny:1"])[0].take();
    assert_eq!(image["Config"]["Cmd"][0], "/only");
    assert_eq!(image["Config"]["Env"][0], "A=b");
    assert!(
        image["Config"]["ExposedPorts"]["80/tcp"].is_object(),
        "{image}"
    );
    assert!(image["Config"]["Volumes"]["/data"].is_object(), "{image}");
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(image["Os"], "linux");
    let history = daemon.ok(&["history", "--no-trunc", "tiny:1"]);
    assert!(history.starts_with("IMAGE"), "{history}");
    let bad = daemon.gamut_with_input(
        &["import", "--change", "FLY to the moon", "-", "x"],
        &archive,
    );
    let error = bad.fails(1);
    assert!(error.contains("FLY"), "{error}");
    daemon.finish();
}

#[test]
fn pull_from_a_registry() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let Some(registry) = Registry::start(&daemon) else {
        return;
    };
    let archive = daemon.directory().join("image.tar");
    daemon.ok(&["save", "-o", &archive.display().to_string(), "busybox"]);
    let reference = registry.push(&daemon, &archive, "team/tool:1");
    let pulled = daemon.gamut(&["pull", &reference]);
    let output = pulled.ok();
    assert!(output.contains(&reference), "{output}");
    assert_eq!(
        daemon.ok(&["run", "--rm", &reference, "cat", "/data/notes"]),
        "notes of the image"
    );
    // By digest: the same.
    let digests = daemon.json(&["image", "inspect", &reference])[0]["RepoDigests"].take();
    let by_digest = digests
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|digest| digest.as_str());
    let by_digest = by_digest
        .into_iter()
        .find(|digest| digest.starts_with("127.0.0.1:5000/"))
        .unwrap()
        .to_owned();
    daemon.ok(&["pull", "-q", &by_digest]);
    // run pulls what is not there.
    daemon.ok(&["rmi", "-f", &reference, &by_digest, "busybox"]);
    assert_eq!(
        daemon
            .gamut(&["run", "--rm", &reference, "echo", "fresh"])
            .stdout,
        "fresh\n"
    );
    // Wrong digest, wrong name, no registry.
    let wrong = format!("127.0.0.1:5000/team/tool@sha256:{}", "0".repeat(64));
    for (reference, what) in [
        (wrong.as_str(), "tool"),
        ("127.0.0.1:5000/absent:1", "absent"),
        ("127.0.0.1:1/x:1", "127.0.0.1:1"),
    ] {
        let error = daemon.gamut(&["pull", reference]).fails(1);
        assert!(error.contains(what), "{reference}: {error}");
    }
    drop(registry);
    daemon.finish();
}

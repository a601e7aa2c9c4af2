//! What a container has changed: diff, commit, export.

use gamut_tests::{Daemon, busybox, has};
use std::collections::BTreeMap;
use std::io::Read;

/// Changes of every kind to the tests' image.
const SCRIPT: &str = "mkdir /fresh; echo new > /fresh/file; ln /fresh/file /fresh/hard; \
    chown 12:34 /fresh/file; echo more >> /data/notes; rm /etc/not-executable; chmod 700 /home; \
    rm -r /srv; mkdir /srv; echo only > /srv/only; touch /var; cat /etc/passwd > /dev/null";

/// What they are, as `docker diff` tells.
const CHANGES: &str = "C /data\nC /data/notes\nC /etc\nD /etc/not-executable\nA /fresh\n\
    A /fresh/file\nA /fresh/hard\nC /home\nC /srv\nA /srv/only\nD /srv/site";

fn changed(daemon: &Daemon, name: &str) {
    daemon.ok(&["run", "--name", name, "busybox", "sh", "-c", SCRIPT]);
}

/// A daemon whose containers get copies of their images, with the tests' image.
fn with_copies() -> Option<Daemon> {
    let daemon = Daemon::start_with(&["--storage-driver", "copy"])?;
    daemon.import(busybox()?, "busybox", &["CMD [\"sh\"]"]);
    Some(daemon)
}

#[test]
fn diff_tells_what_changed() {
    if let Some(daemon) = Daemon::with_busybox() {
        diff_tells(&daemon);
        daemon.finish();
    }
}

#[test]
fn diff_tells_what_changed_in_a_copy() {
    if let Some(daemon) = with_copies() {
        diff_tells(&daemon);
        daemon.finish();
    }
}

fn diff_tells(daemon: &Daemon) {
    changed(daemon, "box");
    assert_eq!(daemon.ok(&["diff", "box"]), CHANGES);
    if has("docker") {
        assert_eq!(daemon.docker(&["diff", "box"]).ok(), CHANGES);
    }
    // Mounts are not the container's files, but their mount points are.
    daemon.ok(&["create", "--name", "idle", "busybox", "true"]);
    assert_eq!(daemon.ok(&["diff", "idle"]), "");
    let mounts = ["-v", "state:/state", "--tmpfs", "/run"];
    daemon.detached(
        "live",
        &mounts,
        "echo x > /state/x; echo x > /run/x; echo y > /y; sleep 1000",
    );
    gamut_tests::eventually("it has begun", || {
        daemon.ok(&["diff", "live"]).contains("/y")
    });
    assert_eq!(daemon.ok(&["diff", "live"]), "A /run\nA /state\nA /y");
    let error = daemon.gamut(&["diff", "absent"]).fails(1);
    assert!(error.contains("No such container: absent"), "{error}");
}

#[test]
fn commit_makes_an_image_of_the_changes() {
    if let Some(daemon) = Daemon::with_busybox() {
        commit_makes_an_image(&daemon);
        daemon.finish();
    }
}

#[test]
fn commit_makes_an_image_of_what_changed_in_a_copy() {
    if let Some(daemon) = with_copies() {
        commit_makes_an_image(&daemon);
        daemon.finish();
    }
}

fn commit_makes_an_image(daemon: &Daemon) {
    changed(daemon, "box");
    let id = daemon.ok(&[
        "commit",
        "-m",
        "some changes",
        "-a",
        "Somebody <s@example.org>",
        "-c",
        "ENV COLOUR=red",
        "-c",
        "CMD [\"cat\", \"/fresh/file\"]",
        "box",
        "made:1",
    ]);
    let image = daemon.json(&["image", "inspect", "made:1"])[0].take();
    assert_eq!(image["Id"], id.as_str());
    let base = daemon.json(&["image", "inspect", "busybox"])[0]["Id"].take();
    assert_eq!(image["Parent"], base);
    assert_eq!(image["Author"], "Somebody <s@example.org>");
    assert_eq!(image["Comment"], "some changes");
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
    let history = daemon.ok(&["history", "--no-trunc", "made:1"]);
    assert!(
        history.contains("some changes") && history.contains("sh -c mkdir /fresh"),
        "{history}"
    );
    assert_eq!(daemon.ok(&["run", "--rm", "made:1"]), "new");
    let look = "echo $COLOUR; ls /srv /etc; stat -c '%u %g %h' /fresh/file; stat -c %a /home; \
                cat /data/notes";
    assert_eq!(
        daemon.ok(&["run", "--rm", "made:1", "sh", "-c", look]),
        "red\n/etc:\ngroup\nhostname\nhosts\npasswd\nresolv.conf\n\n/srv:\nonly\n12 34 2\n700\n\
         notes of the image\nmore"
    );
    // Nothing changed, no layer; the base may go.
    daemon.ok(&["create", "--name", "same", "made:1"]);
    daemon.ok(&["commit", "same", "same:1"]);
    let image = daemon.json(&["image", "inspect", "same:1"])[0].take();
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
    daemon.ok(&["rm", "box", "same"]);
    daemon.ok(&["rmi", "busybox", "made:1"]);
    assert_eq!(daemon.ok(&["run", "--rm", "same:1"]), "new");

    let bad = ["commit", "-c", "FLY away", "absent", "x"];
    let error = daemon.gamut(&bad).fails(1);
    assert!(error.contains("No such container: absent"), "{error}");
    daemon.ok(&["create", "--name", "again", "same:1"]);
    let error = daemon
        .gamut(&["commit", "-c", "FLY away", "again", "x"])
        .fails(1);
    assert!(error.contains("FLY"), "{error}");
}

#[test]
fn running_containers_are_frozen_for_a_commit_and_go_on() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // Both names always have a whole number, and never differ by more than one.
    let script = "i=0; while true; do i=$((i+1)); \
                  for f in a b; do echo $i > /new; mv /new /$f; done; done";
    daemon.detached("counter", &[], script);
    gamut_tests::eventually("it counts", || {
        daemon.ok(&["diff", "counter"]).contains("A /b")
    });
    for number in 0..3 {
        let name = format!("counted:{number}");
        if number == 1 && has("docker") {
            let line = ["commit", "--change", "USER alice", "counter", &name];
            assert!(daemon.docker(&line).ok().starts_with("sha256:"));
            assert_eq!(daemon.inspect(&name)["Config"]["User"], "alice");
        } else {
            daemon.ok(&["commit", "counter", &name]);
        }
        assert_eq!(daemon.inspect("counter")["State"]["Status"], "running");
        let look = "a=$(cat /a) b=$(cat /b); echo $((a - b))";
        let difference = daemon.ok(&["run", "--rm", &name, "sh", "-c", look]);
        assert!(["0", "1"].contains(&difference.as_str()), "{difference}");
    }
    daemon.ok(&["commit", "--pause=false", "counter", "loose"]);
    let events = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--format",
        "{{.Action}}",
    ];
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let events = daemon.ok(&events);
    let count = |what| events.lines().filter(|line| *line == what).count();
    assert_eq!(
        (count("pause"), count("unpause"), count("commit")),
        (3, 3, 4),
        "{events}"
    );
    daemon.finish();
}

#[test]
fn export_writes_all_files() {
    if let Some(daemon) = Daemon::with_busybox() {
        export_writes_all(&daemon);
        daemon.finish();
    }
}

#[test]
fn export_writes_all_files_of_a_copy() {
    if let Some(daemon) = with_copies() {
        export_writes_all(&daemon);
        daemon.finish();
    }
}

fn export_writes_all(daemon: &Daemon) {
    let script = format!("{SCRIPT}; echo hidden > /state/hidden");
    let head = [
        "run",
        "--name",
        "box",
        "-v",
        "state:/state",
        "busybox",
        "sh",
        "-c",
    ];
    daemon.ok(&[&head[..], &[script.as_str()]].concat());
    let path = daemon.directory().join("files.tar").display().to_string();
    daemon.ok(&["export", "-o", &path, "box"]);
    let bytes = std::fs::read(&path).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        if entry.size() < 100 {
            entry.read_to_string(&mut text).unwrap();
        }
        let header = entry.header();
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        found.insert(name, (owner, header.entry_type(), text));
    }
    assert_eq!(found["data/notes"].2, "notes of the image\nmore\n");
    assert_eq!(found["fresh/file"].0, (12, 34));
    assert_eq!(found["fresh/hard"].1, tar::EntryType::Link);
    assert!(found.contains_key("state/") && !found.contains_key("state/hidden"));
    assert!(!found.contains_key("etc/not-executable") && !found.contains_key("srv/site/"));
    // The same through docker and standard output; it is a root file system.
    if has("docker") {
        let second = daemon.directory().join("second.tar").display().to_string();
        assert_eq!(daemon.docker(&["export", "-o", &second, "box"]).code, 0);
        assert!(std::fs::read(second).unwrap() == bytes);
    }
    daemon.import(&bytes, "exported", &["CMD [\"cat\", \"/fresh/file\"]"]);
    assert_eq!(daemon.ok(&["run", "--rm", "exported"]), "new");
    let error = daemon.gamut(&["export", "-o", &path, "absent"]).fails(1);
    assert!(error.contains("No such container: absent"), "{error}");
    assert!(
        std::fs::read(&path).unwrap() == bytes,
        "a failed export leaves the file alone"
    );
}

#[test]
fn prune_tells_what_du_sees() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    changed(&daemon, "box");
    daemon.ok(&["commit", "box", "made:1"]);
    daemon.ok(&[
        "run",
        "--name",
        "second",
        "made:1",
        "dd",
        "if=/dev/urandom",
        "of=/big",
        "bs=1M",
        "count=8",
    ]);
    daemon.ok(&["commit", "second", "made:2"]);
    daemon.ok(&["rm", "box", "second"]);
    let images = daemon.data_root().join("images");
    let du = || -> i64 {
        let output = std::process::Command::new("du")
            .args(["-s", "-B1"])
            .arg(&images)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let usage = daemon.http("GET", "/v1.41/system/df", "").json();
    assert_eq!(usage["LayersSize"].as_i64(), Some(du()));
    let before = du();
    daemon.ok(&["tag", "busybox", "made:2"]);
    daemon.ok(&["rmi", "made:1"]);
    let answer = daemon.http("POST", "/v1.41/images/prune", "").json();
    assert!(
        answer["ImagesDeleted"]
            .as_array()
            .is_some_and(|list| !list.is_empty()),
        "{answer}"
    );
    let freed = answer["SpaceReclaimed"].as_i64().unwrap();
    assert!(freed > 8 << 20, "{answer}");
    // All but the records, which may grow and shrink by blocks.
    assert!(
        (before - du() - freed).abs() <= 16 << 10,
        "{before} - {} is not {freed}",
        du()
    );
    assert_eq!(
        daemon.http("POST", "/v1.41/images/prune", "").json()["SpaceReclaimed"],
        0
    );
    daemon.finish();
}

#[test]
fn a_commit_takes_the_health_check_along() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&[
        "create",
        "--name",
        "box",
        "--health-cmd",
        "true",
        "--health-retries",
        "7",
        "busybox",
        "true",
    ]);
    daemon.ok(&["commit", "box", "checked:1"]);
    let image = daemon.json(&["image", "inspect", "checked:1"]);
    let check = &image[0]["Config"]["Healthcheck"];
    assert_eq!(check["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    assert_eq!(check["Retries"], 7);
    daemon.finish();
}

#[test]
fn a_container_that_ends_meanwhile_is_committed_as_it_ended() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    for turn in 0..20 {
        let name = format!("short-{turn}");
        daemon.ok(&["run", "-d", "--name", &name, "busybox", "touch", "/done"]);
        daemon.ok(&["commit", &name]);
    }
    daemon.finish();
}

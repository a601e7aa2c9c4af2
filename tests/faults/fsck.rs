//! Planted damage of the store, the run directory, the control groups and the network: each is
//! found by `system fsck`, put right by `fsck --repair`, and what is whole goes on meanwhile.

use gamut_tests::{Daemon, eventually, has};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::image::OciImage;

/// A daemon with a running, a stopped and an untouched container, a volume and an image.
struct Scene {
    daemon: Daemon,
    running: String,
    stopped: String,
    running_pid: u32,
}

const CLEAN: &str = "no problems found";

impl Scene {
    fn set() -> Option<Self> {
        let daemon = Daemon::with_busybox()?;
        let archive = daemon.directory().join("archive.tar");
        fs::write(
            &archive,
            OciImage::noisy(3, 2, 4096).archive("fault/image:1"),
        )
        .unwrap();
        daemon.ok(&["load", "-q", "-i", &archive.display().to_string()]);
        daemon.ok(&["volume", "create", "data"]);
        let running = daemon.ok(&[
            "run",
            "-d",
            "--name",
            "running",
            "-p",
            "8080:80",
            "-v",
            "data:/data",
            "busybox",
            "sleep",
            "1000",
        ]);
        let script = "echo kept > /file; exit 4";
        let ended = daemon.gamut(&["run", "--name", "stopped", "busybox", "sh", "-c", script]);
        assert_eq!(ended.code, 4, "{ended:#?}");
        let stopped = daemon.inspect("stopped")["Id"].as_str().unwrap().to_owned();
        let running_pid = daemon.container_pid("running");
        let scene = Self {
            daemon,
            running,
            stopped,
            running_pid,
        };
        scene.is_clean("before any damage");
        Some(scene)
    }

    fn record(&self, id: &str) -> PathBuf {
        self.daemon
            .data_root()
            .join(format!("state/container/{id}.rec"))
    }

    fn sandbox(&self, id: &str) -> PathBuf {
        self.daemon.run_root().join("sandboxes").join(id)
    }

    fn is_clean(&self, when: &str) {
        let output = self.daemon.gamut(&["system", "fsck"]);
        assert_eq!(
            (output.code, output.stdout.trim()),
            (0, CLEAN),
            "{when}: {output:#?}"
        );
    }

    /// The damage that has just been planted is told in these words, once more after that (looking
    /// changes nothing), is repaired, and is gone.
    #[track_caller]
    fn is_found_and_repaired(&self, what: &str, words: &str) {
        for _ in 0..2 {
            let found = self.daemon.gamut(&["system", "fsck"]);
            assert_eq!(found.code, 1, "{what} is not found: {found:#?}");
            assert!(
                found.stdout.contains(words),
                "{what} is told otherwise: {found:#?}"
            );
        }
        let repaired = self.daemon.gamut(&["system", "fsck", "--repair"]);
        assert_eq!(repaired.code, 0, "{what} is not repaired: {repaired:#?}");
        assert!(repaired.stdout.contains(words), "{what}: {repaired:#?}");
        self.is_clean(what);
    }

    /// What runs has not noticed, and what is kept is kept.
    #[track_caller]
    fn is_whole(&self, what: &str) {
        assert_eq!(
            self.daemon.container_pid("running"),
            self.running_pid,
            "{what}"
        );
        assert_eq!(
            self.daemon.ok(&["exec", "running", "echo", "alive"]),
            "alive",
            "{what}"
        );
        assert_eq!(
            self.daemon.inspect("stopped")["State"]["ExitCode"],
            4,
            "{what}"
        );
    }

    fn finish(self) {
        // Repairs leave what they set aside.
        let data = self.daemon.data_root();
        for name in [
            "lost+found",
            "state/damaged-container",
            "state/damaged-volume",
        ] {
            let _ = fs::remove_dir_all(data.join(name));
        }
        self.daemon.finish();
    }
}

fn flip_a_bit(path: &Path) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}

fn truncate(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
}

#[test]
fn records_of_containers() {
    let Some(scene) = Scene::set() else { return };
    truncate(&scene.record(&scene.stopped));
    scene.is_found_and_repaired("a truncated record", "container record");
    flip_a_bit(&scene.record(&scene.running));
    scene.is_found_and_repaired("a bit-flipped record", "checksum");
    fs::remove_file(scene.record(&scene.running)).unwrap();
    scene.is_found_and_repaired("a missing record", "is missing from the store");
    let temporary = scene.daemon.data_root().join("state/container/.77.tmp");
    fs::write(temporary, "gamut-container 1 00").unwrap();
    scene.is_found_and_repaired("a half-written record", "was never completed");
    scene.is_whole("records");
    scene.finish();
}

#[test]
fn records_that_are_damaged_while_no_daemon_runs() {
    let Some(mut scene) = Scene::set() else {
        return;
    };
    scene.daemon.kill_9();
    flip_a_bit(&scene.record(&scene.stopped));
    scene.daemon.restart();
    // It comes up, knows the others, and keeps the files of the one it cannot read.
    assert_eq!(scene.daemon.container_pid("running"), scene.running_pid);
    let file = scene
        .daemon
        .data_root()
        .join("containers")
        .join(&scene.stopped)
        .join("upper/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
    scene.is_found_and_repaired("a record damaged meanwhile", "checksum");
    let kept = scene
        .daemon
        .data_root()
        .join("lost+found")
        .join(&scene.stopped)
        .join("upper/file");
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept\n");
    let aside = scene.daemon.data_root().join("state/damaged-container");
    assert_eq!(fs::read_dir(aside).unwrap().count(), 1);
    scene.finish();
}

#[test]
fn directories_of_containers() {
    let Some(scene) = Scene::set() else { return };
    let containers = scene.daemon.data_root().join("containers");
    fs::remove_dir_all(containers.join(&scene.stopped)).unwrap();
    scene.is_found_and_repaired("a missing directory", "has lost its directory");
    assert_eq!(scene.daemon.gamut(&["start", "-a", "stopped"]).code, 4);
    let stray = containers.join("f".repeat(64));
    fs::create_dir_all(stray.join("upper")).unwrap();
    scene.is_found_and_repaired("a directory without a record", "has no record");
    assert!(
        scene
            .daemon
            .data_root()
            .join("lost+found")
            .join("f".repeat(64))
            .exists()
    );
    scene.is_whole("directories");
    scene.finish();
}

#[test]
fn status_files() {
    let Some(mut scene) = Scene::set() else {
        return;
    };
    let status = scene.sandbox(&scene.running).join("status");
    fs::write(&status, "garbage").unwrap();
    scene.is_found_and_repaired("a garbled status", "cannot be read");
    scene.is_whole("a garbled status");
    fs::remove_file(&status).unwrap();
    scene.is_found_and_repaired("a missing status", "its sandbox says that nothing runs");
    scene.is_whole("a missing status");
    // Worse: it is garbled when a daemon starts.
    scene.daemon.kill_9();
    fs::write(&status, "garbage").unwrap();
    scene.daemon.restart();
    scene.is_found_and_repaired("a status garbled meanwhile", "cannot be read");
    scene.is_whole("a status garbled meanwhile");
    // And worst: its supervisor is gone, too.
    let supervisor = scene.daemon.supervisor_pid("running");
    scene.daemon.kill_9();
    // SAFETY: kill(2) takes no pointers; the process is this test's.
    unsafe { libc::kill(i32::try_from(supervisor).unwrap(), libc::SIGKILL) };
    eventually("the workload dies with it", || {
        !Path::new(&format!("/proc/{}/root/bin", scene.running_pid)).exists()
    });
    fs::write(&status, "garbage").unwrap();
    scene.daemon.restart();
    assert_eq!(scene.daemon.inspect("running")["State"]["Status"], "exited");
    assert_ne!(scene.daemon.inspect("running")["State"]["ExitCode"], 0);
    scene.is_clean("the daemon has put it right by itself");
    scene.daemon.ok(&["start", "running"]);
    scene.finish();
}

#[test]
fn stale_sandboxes_and_control_groups() {
    let Some(scene) = Scene::set() else { return };
    let stale = scene.sandbox(&"a".repeat(64));
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("lock"), "").unwrap();
    scene.is_found_and_repaired("a stale sandbox", "has no record of its container");
    assert!(!stale.exists());
    let of_stopped = scene.sandbox(&scene.stopped);
    fs::create_dir(&of_stopped).unwrap();
    fs::write(of_stopped.join("lock"), "").unwrap();
    scene.is_found_and_repaired("a stale lock", "was not cleared away");
    for id in ["b".repeat(64), scene.stopped.clone()] {
        for group in scene.daemon.cgroup().directories() {
            fs::create_dir(group.join(&id)).unwrap();
        }
        scene.is_found_and_repaired("a stale control group", &id);
    }
    scene.is_whole("sandboxes");
    scene.finish();
}

#[test]
fn volumes() {
    let Some(scene) = Scene::set() else { return };
    let root = scene.daemon.data_root();
    fs::create_dir_all(root.join("volumes/orphan/_data")).unwrap();
    fs::write(root.join("volumes/orphan/_data/file"), "kept").unwrap();
    scene.is_found_and_repaired("a volume without a record", "has data but no record");
    let script = "cat /mnt/file";
    let kept = scene.daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "orphan:/mnt",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(kept, "kept");
    scene.daemon.ok(&["volume", "create", "empty"]);
    fs::remove_dir_all(root.join("volumes/empty")).unwrap();
    scene.is_found_and_repaired("a volume without data", "has lost its data");
    truncate(&root.join("state/volume/data.rec"));
    scene.is_found_and_repaired("a truncated volume record", "volume record data");
    fs::create_dir_all(root.join("volumes/.removing-gone/_data")).unwrap();
    scene.is_found_and_repaired("a half-removed volume", "is what a removal left");
    scene.is_whole("volumes");
    scene.finish();
}

#[test]
fn images() {
    let Some(scene) = Scene::set() else { return };
    let daemon = &scene.daemon;
    let images = daemon.data_root().join("images");
    let archive = daemon.directory().join("archive.tar").display().to_string();
    let blob = |digest: &str| images.join("blobs").join(digest.replace(':', "/"));
    // Layers may be kept in another form than they came in: by their size.
    let layers = || -> Vec<PathBuf> {
        let entries = fs::read_dir(images.join("blobs/sha256")).unwrap().flatten();
        let is_layer = |path: &PathBuf| (4096..8192).contains(&path.metadata().unwrap().len());
        entries.map(|entry| entry.path()).filter(is_layer).collect()
    };
    assert_eq!(layers().len(), 2);

    flip_a_bit(&layers()[0]);
    scene.is_found_and_repaired("a damaged blob", "damaged: its content has digest");
    daemon.ok(&["load", "-q", "-i", &archive]);
    fs::remove_file(&layers()[1]).unwrap();
    scene.is_found_and_repaired("a missing blob", "missing");
    daemon.ok(&["load", "-q", "-i", &archive]);
    scene.is_clean("after loading anew");

    let unpacked = |file: &str| {
        let entries = fs::read_dir(images.join("layers")).unwrap().flatten();
        let mut places = entries.map(|entry| entry.path());
        places
            .find(|place| place.join("fs").join(file).exists())
            .unwrap()
    };
    let place = unpacked("noise-1");
    fs::remove_file(place.join("layer.json")).unwrap();
    scene.is_found_and_repaired("a half-unpacked layer", "half unpacked");
    flip_a_bit(&unpacked("noise-0").join("fs/noise-0"));
    scene.is_found_and_repaired("a damaged layer", "differs from the archive");

    fs::write(images.join("ingest/leftover"), "half").unwrap();
    scene.is_found_and_repaired("a leftover of a load", "left over");
    let stray = blob(&crate::image::digest(b"stray"));
    fs::write(stray, "stray").unwrap();
    scene.is_found_and_repaired("a blob that nobody needs", "no image needs it");
    scene.is_whole("images");
    scene.finish();
}

#[test]
fn records_of_images() {
    let Some(mut scene) = Scene::set() else {
        return;
    };
    let images = scene.daemon.data_root().join("images");
    let config = crate::image::digest(&OciImage::noisy(3, 2, 4096).config);
    // A name that means nothing: the configuration is gone, the records still speak of it.
    scene.daemon.kill_9();
    fs::remove_file(images.join("blobs").join(config.replace(':', "/"))).unwrap();
    scene.daemon.restart();
    scene.is_found_and_repaired("a dangling reference", "its configuration is missing");
    let listed = scene
        .daemon
        .lines(&["images", "--format", "{{.Repository}}"]);
    assert!(!listed.contains(&"fault/image".to_owned()), "{listed:?}");
    // The records themselves.
    scene.daemon.kill_9();
    let records: Vec<PathBuf> = fs::read_dir(&images)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.metadata().unwrap().len() > 0)
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    assert!(!records.is_empty());
    truncate(&records[0]);
    scene.daemon.restart();
    assert_eq!(scene.daemon.container_pid("running"), scene.running_pid);
    let found = scene.daemon.gamut(&["system", "fsck"]);
    println!("{records:?}: {found:#?}");
    let repaired = scene.daemon.gamut(&["system", "fsck", "--repair"]);
    assert_eq!(repaired.code, 0, "{repaired:#?}");
    scene.is_clean("truncated records");
    assert_eq!(scene.daemon.gamut(&["start", "-a", "stopped"]).code, 4);
    scene.finish();
}

#[test]
fn network() {
    let Some(scene) = Scene::set() else { return };
    if !has("nft") || !has("ip") {
        return;
    }
    let daemon = &scene.daemon;
    let run = |program: &str, arguments: &[&str]| {
        let output = daemon.command(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let reaches = |what: &str| {
        let script = "mkdir -p /www; echo page > /www/index.html; httpd -p 80 -h /www || true";
        daemon.gamut(&["exec", "running", "sh", "-c", script]);
        let page = || {
            daemon
                .fetch("127.0.0.1:8080")
                .is_some_and(|page| page.contains("page"))
        };
        eventually(what, page);
    };
    reaches("the published port answers");
    run(
        "ip",
        &[
            "link",
            "add",
            "gvdeadbeef",
            "type",
            "veth",
            "peer",
            "name",
            "other",
        ],
    );
    scene.is_found_and_repaired("a stale interface", "gvdeadbeef");
    let bridge = run("ip", &["-o", "link", "show", "type", "bridge"]);
    let bridge = bridge.split(':').nth(1).unwrap().trim().to_owned();
    run("ip", &["link", "set", &bridge, "down"]);
    scene.is_found_and_repaired("a bridge that is down", "bridge");
    let table = run("nft", &["list", "tables"]);
    let table = table
        .lines()
        .next()
        .unwrap()
        .trim_start_matches("table ")
        .to_owned();
    let words: Vec<&str> = table.split(' ').collect();
    run("nft", &["flush", "table", words[0], words[1]]);
    // Rules and tables come back by themselves.
    reaches("the published port answers after the flush");
    scene.is_clean("a flushed table");
    run("nft", &["delete", "table", words[0], words[1]]);
    reaches("the published port answers after the deletion");
    scene.is_clean("a deleted table");
    let listing = run("nft", &["list", "table", words[0], words[1]]);
    let map = listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("map ")?.strip_suffix(" {"))
        .find(|map| {
            listing
                .split(&format!("map {map} {{"))
                .nth(1)
                .is_some_and(|rest| {
                    rest.split("map ")
                        .next()
                        .unwrap_or_default()
                        .contains("8080")
                })
        })
        .unwrap_or_else(|| panic!("{listing}"));
    run("nft", &["flush", "map", words[0], words[1], map]);
    scene.is_found_and_repaired("a wrong published map", "published");
    reaches("the published port answers after its map was emptied");
    scene.is_whole("the network");
    scene.finish();
}

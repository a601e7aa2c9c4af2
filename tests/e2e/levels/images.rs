//! Images of unikernels: what is packed, with which files, and what cannot be run.

use super::Level;
use gamut_tests::{Daemon, unikernel};
use std::fs;
use std::path::{Path, PathBuf};

fn daemon() -> Option<Daemon> {
    Level::Unikernel.daemon()
}

#[test]
fn packing_takes_unikernels_only_and_makes_the_same_each_time() {
    let Some(daemon) = daemon() else {
        return;
    };
    let program = unikernel("probe").unwrap().display().to_string();
    let pack = |options: &[&str], file: &str| {
        daemon.gamut(&[&["unikernel", "pack"], options, &[file]].concat())
    };
    let options = [
        "-t",
        "mine:1",
        "--arg",
        "print",
        "--cmd",
        "from the image",
        "-e",
        "A=b",
        "-l",
        "x=y",
        "-m",
        "16m",
    ];
    let first = pack(&options, &program).ok();
    assert_eq!(pack(&options, &program).ok(), first);
    assert_eq!(daemon.ok(&["run", "--rm", "mine:1"]), "from the image");
    assert_eq!(daemon.ok(&["run", "--rm", "mine:1", "mine"]), "mine");
    daemon.ok(&["create", "--name", "kept", "mine:1"]);
    assert_eq!(daemon.inspect("kept")["Config"]["Labels"]["x"], "y");
    let error = pack(&["-t", "x"], "/bin/sh").fails(1);
    assert!(
        error.contains("no unikernel") && error.contains("e_type"),
        "{error}"
    );
    let error = pack(&["-t", "x", "-m", "1m"], &program).fails(1);
    assert!(error.contains("memory"), "{error}");
    let error = pack(&["--add-to", "no-such-image"], &program).fails(1);
    assert!(error.contains("no-such-image"), "{error}");
    daemon.finish();
}

/// Puts another program in a container's place of its own, and starts it: what the refusal says.
fn refusal(daemon: &Daemon, name: &str, program: &[u8]) -> String {
    use std::os::unix::fs::PermissionsExt;

    let file = daemon.directory().join(name);
    fs::write(&file, program).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    daemon.ok(&[
        "create",
        "--name",
        name,
        "--isolation",
        "unikernel",
        "probe",
    ]);
    let place = format!("{name}:/unikernel");
    daemon.ok(&["cp", &file.display().to_string(), &place]);
    let started = daemon.gamut(&["start", "-a", name]);
    let state = daemon.inspect(name)["State"].take();
    assert_ne!(started.code, 0, "{started:#?}");
    assert_eq!(state["ExitCode"], 126, "{name}: {started:#?}");
    started.stderr
}

#[test]
fn programs_that_cannot_be_run_say_why() {
    let Some(daemon) = daemon() else {
        return;
    };
    let whole = fs::read(unikernel("probe").unwrap()).unwrap();
    // The note: sizes of name and description, type, name, and the version first.
    let mut later = whole.clone();
    let name = whole.windows(6).position(|bytes| bytes == b"Gamut\0");
    let version = name.unwrap() + 8;
    assert_eq!(later[version..version + 4], [1, 0, 0, 0]);
    later[version] = 9;
    // The note is as it was, but the first segment's size in the file is not.
    let mut damaged = whole.clone();
    assert_eq!(damaged[64..68], [1, 0, 0, 0], "PT_LOAD");
    damaged[64 + 32 + 4] = 1;
    for (name, program, texts) in [
        (
            "cut",
            &whole[..whole.len() / 2],
            &["is no unikernel: p_offset: a note lies beyond the file"][..],
        ),
        (
            "damaged",
            &damaged,
            &["segment 0: the file ends in the middle of it; copy the image again"],
        ),
        (
            "later",
            &later,
            &[
                "built for version 9 of the guest ABI",
                "upgrade Gamut or build it with",
            ],
        ),
        ("script", b"#!/bin/sh\n", &["is no unikernel", "EI_MAG0"]),
        (
            "linux",
            &fs::read("/bin/true").unwrap(),
            &["is no unikernel", "e_type"],
        ),
        ("empty", b"", &["is no unikernel"]),
    ] {
        let error = refusal(&daemon, name, program);
        for text in texts {
            assert!(error.contains(text), "{name}: no {text:?} in {error}");
        }
    }
    let file = daemon.directory().join("later").display().to_string();
    let error = daemon
        .gamut(&["unikernel", "pack", "-t", "later", &file])
        .fails(1);
    assert!(error.contains("version 9 of the guest ABI"), "{error}");
    daemon.finish();
}

/// Files below a folder of the test's.
fn write(folder: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder.to_owned()
}

#[test]
fn files_are_packed_and_read_in_place() {
    files(Level::Unikernel);
}

#[test]
fn files_are_packed_and_read_in_place_without_kvm() {
    files(Level::Translated);
}

fn files(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    let program = unikernel("probe").unwrap().display().to_string();
    let large = vec![b'x'; 3 << 20];
    let pages: [(&str, &[u8]); 3] = [
        ("index.html", b"the page"),
        ("deep/er/page", b"another"),
        ("large", &large),
    ];
    let folder = write(&daemon.directory().join("www"), &pages);
    let one = format!("{}:/etc/one", folder.join("index.html").display());
    let all = format!("{}:srv/", folder.display());
    let pack = |name: &str, files: &[&str]| {
        let mut line = vec!["unikernel", "pack", "-t", name, "--arg", "rofs"];
        files.iter().for_each(|file| line.extend(["--file", *file]));
        line.push(&program);
        daemon.gamut(&line)
    };
    let first = pack("site", &[&all, &one]).ok();
    // The same files make the same image, whenever they were written and however they are named.
    let again = write(&daemon.directory().join("again"), &pages);
    let again = format!("{}:/srv", again.display());
    assert_eq!(pack("other", &[&one, &again]).ok(), first);
    let run = |words: &[&str]| level_run(&daemon, level, "site", words);
    assert_eq!(
        run(&["list"]),
        "etc/one 8\nsrv/deep/er/page 7\nsrv/index.html 8\nsrv/large 3145728"
    );
    assert_eq!(run(&["read", "/etc/one"]), "the page");
    assert_eq!(run(&["read", "srv/deep/er/page"]), "another");
    // Byte by byte over an emulated port, that would take its time.
    if level == Level::Unikernel {
        assert_eq!(run(&["read", "srv/large"]).len(), large.len());
    }
    // They are in the image, so they go where it goes.
    let archive = daemon.directory().join("site.tar").display().to_string();
    daemon.ok(&["save", "-o", &archive, "site"]);
    daemon.ok(&["rmi", "site", "other"]);
    daemon.ok(&["load", "-i", &archive]);
    assert_eq!(run(&["read", "etc/one"]), "the page");
    // What contradicts itself, or is not there.
    let error = pack("bad", &[&one, &one]).fails(1);
    assert!(error.contains("there twice"), "{error}");
    let below = format!("{}:/etc/one/below", folder.join("large").display());
    let error = pack("bad", &[&one, &below]).fails(1);
    assert!(error.contains("both file and folder"), "{error}");
    let error = pack("bad", &["/dev/null:/null"]).fails(1);
    assert!(error.contains("neither file nor directory"), "{error}");
    let error = pack("bad", &["nothing:/x"]).fails(1);
    assert!(error.contains("open nothing"), "{error}");
    // Without files there are none.
    assert_eq!(daemon.gamut(&["inspect", "bad"]).code, 1);
    let none = level.run(&daemon, &[], &["rofs", "list"]);
    assert!(
        none.stdout.contains("no read-only file system"),
        "{none:#?}"
    );
    daemon.finish();
}

fn level_run(daemon: &Daemon, level: Level, image: &str, words: &[&str]) -> String {
    let head = ["run", "--rm", "--isolation", level.word(), image];
    daemon.ok(&[&head[..], words].concat())
}

#[test]
fn a_built_in_image_that_was_never_used_is_saved() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let archive = daemon.directory().join("hello.tar").display().to_string();
    daemon.ok(&["save", "-o", &archive, "hello-http"]);
    daemon.ok(&["tag", "hello-world", "mine:1"]);
    assert!(
        daemon
            .ok(&["history", "hello-world"])
            .contains("ENTRYPOINT")
    );
    daemon.ok(&["rmi", "hello-http"]);
    assert!(
        daemon
            .ok(&["load", "-i", &archive])
            .contains("hello-http:latest")
    );
    let images = daemon.ok(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.Forms}}"]);
    assert!(images.contains("hello-http:latest linux"), "{images}");
    assert!(images.contains("mine:1 linux"), "{images}");
    let error = daemon.gamut(&["save", "-o", &archive, "nothing"]).fails(1);
    assert!(error.contains("No such image"), "{error}");
    daemon.finish();
}

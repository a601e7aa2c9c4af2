//! `gamut cp`, both ways, running and stopped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use gamut_tests::Daemon;

#[test]
fn files_and_directories_go_both_ways() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let here = daemon.directory().join("here");
    fs::create_dir_all(here.join("tree/sub")).unwrap();
    fs::write(here.join("tree/file"), "a file\n").unwrap();
    fs::write(here.join("tree/sub/tool"), "#!/bin/sh\necho tool ran\n").unwrap();
    fs::set_permissions(
        here.join("tree/sub/tool"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    symlink("file", here.join("tree/link")).unwrap();
    let here = here.display().to_string();

    daemon.detached(
        "running",
        &["--tmpfs", "/volatile", "-v", "vol:/vol"],
        "sleep 1000",
    );
    daemon.detached("stopped", &["-v", "vol2:/vol"], "true");
    daemon.ok(&["wait", "stopped"]);
    for name in ["running", "stopped"] {
        // In: a file under a new name, a directory into a directory, its content into another.
        daemon.ok(&[
            "cp",
            &format!("{here}/tree/file"),
            &format!("{name}:/data/renamed"),
        ]);
        daemon.ok(&["cp", &format!("{here}/tree"), &format!("{name}:/data")]);
        daemon.ok(&["cp", &format!("{here}/tree/."), &format!("{name}:/home")]);
        daemon.ok(&["cp", &format!("{here}/tree/file"), &format!("{name}:/vol/")]);
        // Out.
        let out = format!("{here}/out-{name}");
        fs::create_dir(&out).unwrap();
        daemon.ok(&["cp", &format!("{name}:/data/renamed"), &out]);
        assert_eq!(
            fs::read_to_string(format!("{out}/renamed")).unwrap(),
            "a file\n"
        );
        daemon.ok(&["cp", &format!("{name}:/data/tree"), &format!("{out}/copy")]);
        assert_eq!(
            fs::read_to_string(format!("{out}/copy/link")).unwrap(),
            "a file\n"
        );
        let tool = fs::metadata(format!("{out}/copy/sub/tool")).unwrap();
        assert_eq!(tool.mode() & 0o777, 0o755);
        daemon.ok(&[
            "cp",
            &format!("{name}:/home/file"),
            &format!("{out}/home-file"),
        ]);
        daemon.ok(&[
            "cp",
            &format!("{name}:/vol/file"),
            &format!("{out}/vol-file"),
        ]);
        // As an archive to standard output and from standard input.
        let archive = Session::run(&daemon, &["cp", &format!("{name}:/data/tree"), "-"]);
        assert!(archive.contains("tree/sub/tool"), "{} bytes", archive.len());
        // What is not there.
        let error = daemon
            .gamut(&["cp", &format!("{name}:/no/such"), &out])
            .fails(1);
        assert!(error.contains("/no/such"), "{error}");
        let _ = daemon
            .gamut(&["cp", &format!("{here}/absent"), &format!("{name}:/")])
            .fails(1);
    }
    let script = "cat /data/renamed /vol/file; /data/tree/sub/tool; ls /home";
    let seen = daemon.ok(&["exec", "running", "sh", "-c", script]);
    assert_eq!(seen, "a file\na file\ntool ran\nalice\nfile\nlink\nsub");
    // A tmpfs of a running container is reached, too.
    daemon.ok(&["cp", &format!("{here}/tree/file"), "running:/volatile/x"]);
    assert_eq!(
        daemon.ok(&["exec", "running", "cat", "/volatile/x"]),
        "a file"
    );
    daemon.finish();
}

/// Small helper so that the table above reads well.
struct Session;

impl Session {
    fn run(daemon: &Daemon, arguments: &[&str]) -> String {
        let output = daemon.gamut(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
        output.stdout
    }
}

#[test]
fn links_in_the_container_never_lead_out() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let secret = daemon.directory().join("secret");
    fs::write(&secret, "the host's\n").unwrap();
    let outside = daemon.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    let script = format!(
        "ln -s {} /data/secret; ln -s {} /data/outside; ln -s ../../../../../../../.. /data/up; \
         ln -s /proc/1/root /data/proc; sleep 1000",
        secret.display(),
        outside.display()
    );
    daemon.detached("sly", &[], &script);
    gamut_tests::eventually("the links are there", || {
        daemon
            .gamut(&["exec", "sly", "test", "-L", "/data/proc"])
            .code
            == 0
    });
    let out = daemon.directory().join("out");
    fs::create_dir(&out).unwrap();
    let out_path = out.display().to_string();
    // Following the link out finds nothing: it is meant inside the container.
    let _ = daemon.gamut(&["cp", "-L", "sly:/data/secret", &out_path]);
    assert!(!out.join("secret").is_file(), "the host's file was read");
    // Copying in through it does not write outside.
    let source = daemon.directory().join("payload");
    fs::write(&source, "payload\n").unwrap();
    let source = source.display().to_string();
    for target in [
        "sly:/data/outside/",
        "sly:/data/up/payload",
        "sly:/data/outside/payload",
    ] {
        let _ = daemon.gamut(&["cp", &source, target]);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!std::path::Path::new("/payload").exists());
    // Without -L the link itself is copied.
    daemon.ok(&["cp", "sly:/data/secret", &out_path]);
    assert_eq!(fs::read_link(out.join("secret")).unwrap(), secret);
    daemon.finish();
}

//! What only unikernels have: their images, block devices, refusals, and bad ends.

use super::{Level, said, state};
use gamut_tests::{Daemon, has};

fn daemon() -> Option<Daemon> {
    Level::Unikernel.daemon()
}

#[test]
fn built_in_images_run() {
    let Some(daemon) = daemon() else {
        return;
    };
    // The form decides where nobody else does.
    let hello = daemon.ok(&["run", "--rm", "hello-unikernel"]);
    assert!(hello.starts_with("Hello from a unikernel!"), "{hello}");
    daemon.ok(&[
        "run",
        "-d",
        "--isolation",
        "unikernel",
        "-p",
        "8080:80",
        "--name",
        "uk",
        "hello-http",
    ]);
    daemon.ok(&[
        "run",
        "-d",
        "-p",
        "8081:80",
        "--name",
        "linux",
        "hello-http",
    ]);
    for (port, page) in [
        ("8080", "Hello from Unikernel! Path: /\n"),
        ("8081", "Hello from Gamut! Path: /\n"),
    ] {
        gamut_tests::eventually("it answers", || {
            daemon.fetch(&format!("127.0.0.1:{port}")).as_deref() == Some(page)
        });
    }
    let images = daemon.ok(&["images", "--format", "{{.Repository}} {{.Forms}}"]);
    for line in [
        "hello-http linux, unikernel",
        "hello-unikernel unikernel",
        "probe linux, unikernel",
    ] {
        assert!(images.lines().any(|have| have == line), "{images}");
    }
    assert!(
        daemon
            .ok(&["images"])
            .lines()
            .next()
            .unwrap()
            .ends_with("FORMS")
    );
    let error = daemon
        .gamut(&["run", "--rm", "--isolation", "container", "hello-unikernel"])
        .fails(125);
    assert!(error.contains("has no linux form"), "{error}");
    let error = daemon
        .gamut(&["run", "--rm", "--isolation", "unikernel", "hello-world"])
        .fails(125);
    assert!(error.contains("has no unikernel form"), "{error}");
    daemon.finish();
}

#[test]
fn volumes_are_block_devices() {
    volumes(Level::Unikernel);
}

fn volumes(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    let run = |options: &[&str], words: &[&str]| level.run(&daemon, options, words);
    let info = run(&["-v", "store:/data"], &["block", "info"]).ok();
    assert_eq!(info, format!("/data {} rw", 1_u64 << 30));
    let write = ["block", "write", "kept over restarts"];
    assert_eq!(run(&["-v", "store:/data"], &write).ok(), "written");
    let read = run(&["-v", "store:/data:ro"], &["block", "read"]).ok();
    assert_eq!(read, "kept over restarts");
    let refused = run(&["-v", "store:/data:ro"], &write);
    assert_eq!(refused.code, 1, "{refused:#?}");
    // A file is what is in it.
    let image = daemon.directory().join("disk.img");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let bind = format!("{}:/disk", image.display());
    let fill = run(&["-v", &bind], &["block", "fill"]);
    assert_eq!(fill.code, 0, "{fill:#?}");
    assert_eq!(daemon.ok(&["volume", "rm", "store"]), "store");
    // The volume says how large it is.
    let size = |size: &str, name: &str| {
        let option = format!("block-size={size}");
        daemon.gamut(&["volume", "create", "--opt", &option, name])
    };
    assert_eq!(size("3m", "small").ok(), "small");
    assert_eq!(
        daemon.json(&["volume", "inspect", "small"])[0]["Options"]["block-size"],
        "3m"
    );
    let info = run(&["-v", "small:/data"], &["block", "info"]).ok();
    assert_eq!(info, format!("/data {} rw", 3 << 20));
    let error = size("1000", "odd").fails(1);
    assert!(error.contains("multiple of 512"), "{error}");
    let error = size("7p", "huge").fails(1);
    assert!(error.contains("block device"), "{error}");
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "small");
    daemon.finish();
}

#[test]
fn what_it_cannot_do_is_refused_with_a_reason() {
    let Some(daemon) = daemon() else {
        return;
    };
    Level::Unikernel.start(&daemon, "uk", &[], &["stop", "wait"]);
    said(&daemon, "uk", "waiting");
    let target = daemon.directory().join("copy").display().to_string();
    for (line, reason) in [
        (&["exec", "uk", "true"][..], "no second process"),
        (&["top", "uk"], "no processes"),
        (&["cp", "uk:/unikernel", &target], "its own memory"),
        (&["update", "--memory", "128m", "uk"], "memory of a machine"),
        (&["kill", "-s", "HUP", "uk"], "no signals"),
    ] {
        let output = daemon.gamut(line);
        assert_ne!(output.code, 0, "{line:?}");
        let error = output.stderr;
        assert!(
            error.contains("not supported at isolation level unikernel") && error.contains(reason),
            "{line:?}: {error}"
        );
    }
    for (options, reason) in [
        (&["--network", "host"][..], "network stack of its own"),
        (&["--network", "container:uk"], "takes the interfaces"),
        (&["--pid", "host"], "no processes"),
        (&["-i"], "for output only"),
        (&["-t"], "for output only"),
        (&["--privileged"], "machine of its own"),
        (&["--sysctl", "net.core.somaxconn=1"], "no Linux kernel"),
        (&["--health-cmd", "true"], "nothing that could run it"),
    ] {
        let error = Level::Unikernel.run(&daemon, options, &["args"]).fails(125);
        assert!(error.contains(reason), "{options:?}: {error}");
    }
    daemon.ok(&["network", "create", "net"]);
    let error = daemon.gamut(&["network", "connect", "net", "uk"]).fails(1);
    assert!(error.contains("takes the interfaces over"), "{error}");
    // Nor can a container be in its network.
    let error = Level::Container
        .run(&daemon, &["--network", "container:uk"], &["args"])
        .fails(125);
    assert!(error.contains("takes the interfaces"), "{error}");
    daemon.ok(&["stop", "uk"]);
    daemon.ok(&["network", "rm", "net"]);
    daemon.finish();
}

#[test]
fn networks_of_ones_own_are_as_good() {
    let Some(daemon) = daemon() else {
        return;
    };
    daemon.ok(&["network", "create", "net"]);
    let options = ["--network", "net", "-p", "8080:80", "--hostname", "web"];
    let line = [
        &["run", "-d", "--name", "web", "--isolation", "unikernel"],
        &options[..],
        &["probe", "serve"],
    ];
    let made = daemon.gamut(&line.concat());
    assert_eq!((made.code, made.stderr.as_str()), (0, ""), "{made:#?}");
    gamut_tests::eventually("it answers", || {
        daemon.fetch("127.0.0.1:8080").as_deref() == Some("web /\n")
    });
    // Containers find it by its name.
    let got = Level::Container.run(&daemon, &["--network", "net"], &["get", "http://web/"]);
    assert_eq!(got.ok(), "status 200\nweb /");
    daemon.ok(&["rm", "-f", "web"]);
    daemon.ok(&["network", "rm", "net"]);
    daemon.finish();
}

/// Without `/dev/kvm`.
mod without_kvm {
    use super::{Level, bad_ends, state, volumes};

    #[test]
    fn volumes_are_block_devices() {
        volumes(Level::Translated);
    }

    #[test]
    fn bad_ends_have_codes_and_reports() {
        bad_ends(Level::Translated);
    }

    #[test]
    fn kvm_can_be_asked_for_and_is_refused() {
        let Some(daemon) = Level::Translated.daemon() else {
            return;
        };
        let kvm = ["--annotation", "dev.gamut.unikernel.accelerator=kvm"];
        let error = Level::Translated.run(&daemon, &kvm, &["args"]).fails(125);
        assert!(error.contains("/dev/kvm cannot be opened"), "{error}");
        daemon.finish();
    }

    #[test]
    fn the_translator_can_be_asked_for_where_there_is_kvm() {
        let Some(daemon) = Level::Unikernel.daemon() else {
            return;
        };
        if !gamut_tests::has("qemu-system-x86_64") {
            return;
        }
        let options = ["--annotation", "dev.gamut.unikernel.accelerator=tcg"];
        Level::Unikernel.start(&daemon, "asked", &options, &["stop", "wait"]);
        super::said(&daemon, "asked", "waiting");
        assert_eq!(daemon.inspect("asked")["Machine"]["Accelerator"], "tcg");
        daemon.ok(&["stop", "asked"]);
        assert_eq!(state(&daemon, "asked", "ExitCode"), 0);
        daemon.finish();
    }
}

#[test]
fn bad_ends_have_codes_and_reports() {
    bad_ends(Level::Unikernel);
}

fn bad_ends(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    for (way, code, text) in [
        ("panic", 101, "as asked"),
        ("null", 139, "page fault"),
        ("oom", 137, "memory"),
        ("privileged", 139, "general protection"),
    ] {
        // In QEMU the guest runs at privilege level 0 of a processor that is only made up.
        if level == Level::Translated && way == "privileged" {
            continue;
        }
        level.start(&daemon, way, &[], &["crash", way]);
        assert_eq!(daemon.ok(&["wait", way]), code.to_string(), "{way}");
        assert_eq!(state(&daemon, way, "Status"), "exited");
        let log = daemon.gamut(&["logs", way]);
        let log = format!("{}{}", log.stdout, log.stderr).to_lowercase();
        assert!(log.contains(text), "{way}: {log}");
    }
    // An endless loop hears nothing: it is killed when the time is up.
    level.start(
        &daemon,
        "loop",
        &["--stop-timeout", "1"],
        &["do", "print", "up", "then", "crash", "loop"],
    );
    said(&daemon, "loop", "up");
    daemon.ok(&["stop", "loop"]);
    assert_eq!(state(&daemon, "loop", "ExitCode"), 137);
    daemon.finish();
}

#[test]
fn a_lost_network_device_ends_it_with_a_message() {
    let Some(daemon) = daemon() else {
        return;
    };
    Level::Unikernel.start(&daemon, "uk", &[], &["serve"]);
    said(&daemon, "uk", "listening");
    let namespace = format!("/proc/{}/ns/net", daemon.container_pid("uk"));
    let script = format!("nsenter --net={namespace} ip link del gamut-tap0");
    let _ = gamut_tests::Session::start(daemon.command("sh").args(["-c", &script]))
        .wait()
        .ok();
    assert_eq!(daemon.ok(&["wait", "uk"]), "126");
    let log = daemon.gamut(&["logs", "uk"]).stderr;
    assert!(
        log.contains("network device") && log.contains("is gone"),
        "{log}"
    );
    daemon.finish();
}

#[test]
fn a_full_disk_is_told_to_the_guest() {
    let Some(daemon) = daemon() else {
        return;
    };
    let small = daemon.directory().join("small");
    std::fs::create_dir(&small).unwrap();
    let small = small.display();
    let shell = |line: &str| {
        let _ = gamut_tests::Session::start(daemon.command("sh").args(["-c", line]))
            .wait()
            .ok();
    };
    shell(&format!("mount -t tmpfs -o size=2m none {small}"));
    let bind = format!("{small}:/data");
    let output = Level::Unikernel.run(&daemon, &["-v", &bind], &["block", "fill"]);
    assert_eq!(output.code, 1, "{output:#?}");
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(text.contains("no space"), "{output:#?}");
    shell(&format!("umount {small}"));
    daemon.finish();
}

#[test]
fn the_stock_docker_client_runs_them() {
    if !has("docker") {
        return;
    }
    let Some(daemon) = daemon() else {
        return;
    };
    for options in [
        &["--runtime", "gamut-unikernel"][..],
        &["--isolation", "unikernel"],
        &["--annotation", "dev.gamut.isolation=unikernel"],
    ] {
        let line = [&["run", "--rm"], options, &["probe", "print", "hello"]].concat();
        let output = daemon.docker(&line);
        // Older clients have no annotations.
        if output.code == 125 && output.stderr.contains("unknown flag: --annotation") {
            continue;
        }
        assert_eq!(output.ok(), "hello", "{options:?}");
    }
    assert_eq!(daemon.docker(&["run", "--rm", "hello-unikernel"]).code, 0);
    let line = [
        "run",
        "-d",
        "--name",
        "web",
        "--runtime",
        "gamut-unikernel",
        "-p",
        "8080:80",
        "hello-http",
    ];
    let _ = daemon.docker(&line).ok();
    gamut_tests::eventually("it answers", || daemon.fetch("127.0.0.1:8080").is_some());
    let error = daemon.docker(&["exec", "web", "true"]);
    assert_ne!(error.code, 0);
    assert!(error.stderr.contains("no second process"), "{error:#?}");
    let _ = daemon.docker(&["rm", "-f", "web"]).ok();
    daemon.finish();
}

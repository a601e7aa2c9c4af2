//! `gamut cp` against a container that does not keep still: CVE-2018-15664, CVE-2019-14271.

use gamut_tests::{Daemon, Rootfs, hostile, racing_time};
use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

#[test]
fn cve_2018_15664_exchanged_links_lead_copies_nowhere_else() {
    let Some(daemon) = Daemon::with_attacker() else {
        return;
    };
    // The same path on the host and in the container, with other content.
    let outside = daemon.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "the host's\n").unwrap();
    let outside_text = outside.display().to_string();
    let payload = daemon.directory().join("payload");
    fs::write(&payload, "payload\n").unwrap();
    let payload = payload.display().to_string();
    // A tree, for the exchange to happen in the middle of it.
    let tree = daemon.directory().join("tree");
    for number in 0..20 {
        let directory = tree.join(format!("{number}/sub"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("file"), "payload\n").unwrap();
    }
    let tree = format!("{}/.", tree.display());
    let taken = daemon.directory().join("taken");
    fs::create_dir(&taken).unwrap();
    let taken_text = taken.display().to_string();
    let script = format!(
        "mkdir /data/place; echo inside > /data/place/file; ln -s {outside_text} /data/link; \
         exec attacker exchange /data/place /data/link"
    );
    daemon.detached("racer", &["-v", "shared:/vol"], &script);
    gamut_tests::eventually("it has begun", || {
        daemon.ok(&["logs", "racer"]).contains("ready")
    });
    let due = Instant::now() + racing_time();
    let (mut rounds, mut read) = (0, 0);
    while Instant::now() < due {
        for from in [
            "racer:/data/place/file",
            "racer:/data/place/.",
            "racer:/data",
        ] {
            read += u32::from(daemon.gamut(&["cp", from, &taken_text]).code == 0);
            let found = std::process::Command::new("grep")
                .args(["-r", "the host's", &taken_text])
                .output()
                .unwrap();
            assert!(found.stdout.is_empty(), "{from}: {found:?}");
            fs::remove_dir_all(&taken).unwrap();
            fs::create_dir(&taken).unwrap();
        }
        for to in [
            "racer:/data/place/file",
            "racer:/data/place/new",
            "racer:/data/place/",
        ] {
            let _ = daemon.gamut(&["cp", &payload, to]);
        }
        let _ = daemon.gamut(&["cp", &tree, "racer:/data/place"]);
        let names: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(
            fs::read_to_string(outside.join("file")).unwrap(),
            "the host's\n"
        );
        rounds += 1;
    }
    println!("{rounds} rounds, {read} copies out");
    assert!(read > 0, "no copy ever worked");
    daemon.finish();
}

#[test]
fn a_volume_is_never_filled_from_the_host() {
    let Some(rootfs) = hostile() else { return };
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let outside = daemon.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "the host's\n").unwrap();
    let text = outside.display().to_string();
    let archive = rootfs
        .link("absolute", &text)
        .link("relative", &format!("../../../../../../../..{text}"))
        .link("root", "/proc/1/root")
        .link("magic", "/proc/self/cwd")
        .finish();
    daemon.import(&archive, "busybox", &["CMD [\"sh\"]"]);
    for place in [
        "absolute",
        "relative",
        "root",
        "magic",
        &format!("root{text}"),
    ] {
        let options = ["-v", &format!("vol-{}:/{place}", place.len())];
        let output = daemon.shell(&options, &format!("ls -R /{place}/; cat {text}/secret"));
        assert!(!output.stdout.contains("secret\n"), "{place}: {output:#?}");
        assert!(
            !output.stdout.contains("the host's"),
            "{place}: {output:#?}"
        );
    }
    let volumes = std::process::Command::new("grep")
        .args(["-r", "the host's"])
        .arg(daemon.data_root())
        .output()
        .unwrap();
    assert!(volumes.stdout.is_empty(), "{volumes:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    daemon.finish();
}

/// Files that a process has mapped.
fn mapped(pid: u32) -> BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let file = |line: &str| line.split_whitespace().nth(5).map(str::to_owned);
    let files = maps.lines().filter_map(file);
    files.filter(|file| file.starts_with('/')).collect()
}

#[test]
fn cve_2019_14271_copying_loads_no_code_of_the_container() {
    let Some(rootfs) = hostile() else { return };
    let Some(daemon) = Daemon::start() else {
        return;
    };
    // Whatever a C library would want for looking names up, converting text or sorting it: were
    // it loaded from the container, the daemon would end by it.
    let libraries = [
        "libnss_files.so.2",
        "libnss_dns.so.2",
        "libnss_compat.so.2",
        "libnss_systemd.so.2",
        "libgcc_s.so.1",
        "gconv/UTF-16.so",
        "gconv/gconv-modules",
    ];
    let archive = [
        "lib",
        "lib64",
        "usr/lib",
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
    ]
    .iter()
    .flat_map(|directory| libraries.map(|library| format!("{directory}/{library}")))
    .fold(rootfs, |rootfs: Rootfs, path| {
        rootfs.file(&path, 0o755, b"\x7fELF not quite")
    })
    .file("etc/nsswitch.conf", 0o644, b"passwd: files systemd\n")
    .finish();
    daemon.import(&archive, "busybox", &["CMD [\"sh\"]"]);
    daemon.detached("here", &[], "exec sleep 1000");
    let _ = daemon.shell(&[], "true").ok();
    let before = mapped(daemon.pid());
    let payload = daemon.directory().join("payload");
    fs::write(&payload, "payload\n").unwrap();
    let (payload, out) = (
        payload.display().to_string(),
        daemon.directory().join("out"),
    );
    daemon.ok(&["cp", &payload, "here:/data/"]);
    daemon.ok(&["cp", "here:/data/payload", &out.display().to_string()]);
    daemon.ok(&[
        "cp",
        "-a",
        "here:/lib",
        &daemon.directory().join("lib").display().to_string(),
    ]);
    daemon.ok(&["exec", "-u", "alice", "here", "true"]);
    let now = mapped(daemon.pid());
    let more: Vec<_> = now.difference(&before).collect();
    assert!(more.is_empty(), "{more:?}");
    daemon.finish();
}

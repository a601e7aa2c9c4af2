//! Guests that attack the real monitor. Whatever they do, it answers or ends them: it does not
//! crash and does not hang.
//!
//! `GAMUT_TEST_SECONDS` says for how long, `GAMUT_TEST_MONITOR` which monitor: `./test --long` takes
//! one that was built with AddressSanitizer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{MONITOR, compile, finish, has_kvm, setup};
use gamut_abi::guest::rofs;
use gamut_abi::monitor::BlockConfig;

fn time() -> Duration {
    let wanted = std::env::var("GAMUT_TEST_SECONDS").ok();
    let is_long = std::env::var_os("GAMUT_TEST_LONG").is_some();
    let seconds = wanted.and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(if is_long { 60 } else { 5 }))
}

fn monitor() -> String {
    std::env::var("GAMUT_TEST_MONITOR").unwrap_or_else(|_| MONITOR.to_owned())
}

/// Runs a monitor to its end, whose guest ends somehow. Its console is nobody's business.
fn survives(arguments: &[&str], what: &str) -> i32 {
    let mut command = Command::new(monitor());
    command
        .args(arguments)
        // Where the monitor was built with it: of leaks it could not tell behind its filters, and
        // signals have stacks of their own.
        .env(
            "ASAN_OPTIONS",
            "detect_leaks=0:use_sigaltstack=0:abort_on_error=1",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let outcome = finish(command.spawn().expect("the monitor runs"));
    let is_sound = !["panicked at", "AddressSanitizer", "RUST_BACKTRACE"]
        .iter()
        .any(|text| outcome.errors.contains(text));
    let Some(code) = outcome.code.filter(|_| is_sound) else {
        panic!("{what} has brought the monitor down: {outcome:#?}");
    };
    code
}

/// How many guests have ended how.
fn tell(ends: &BTreeMap<i32, u32>) {
    println!("ends of guests, by exit code: {ends:?}");
}

/// A network namespace of this thread's with two devices, joined by a cable, and a resolver that
/// answers anything with something.
fn enter_network() {
    // SAFETY: plain numbers; only this thread is concerned.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    let script = "ip link set lo up && ip link add eth0 type veth peer name eth1 && \
                  ip addr add 10.9.0.2/24 dev eth0 && ip addr add 10.9.1.2/24 dev eth1 && \
                  ip link set eth0 up && ip link set eth1 up";
    let status = Command::new("sh").args(["-c", script]).status();
    assert!(status.expect("sh runs").success());
    let socket = UdpSocket::bind(("127.0.0.11", 53)).expect("a resolver");
    std::thread::spawn(move || {
        let mut message = [0; 2048];
        let mut count = 0_u8;
        while let Ok((bytes, from)) = socket.recv_from(&mut message) {
            count = count.wrapping_add(1);
            // As it came, cut, longer than any frame, or nothing.
            let bytes = match count % 4 {
                0 => bytes,
                1 => bytes / 2,
                2 => 2048,
                _ => 0,
            };
            let _ = socket.send_to(&message[..bytes], from);
        }
    });
}

fn file(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file");
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn requests_rings_descriptors_and_addresses() {
    if !has_kvm() {
        return;
    }
    enter_network();
    let mut setup = setup("hostile");
    let folder = setup.folder.path().to_owned();
    let files = rofs::build(&[("a", &[1; 5000]), ("b", b"2")]).expect("files");
    setup.config.rofs_path = Some(file(&folder, "rofs", &files));
    setup.config.resolv_conf_path = Some(file(&folder, "resolv", b"nameserver 127.0.0.11\n"));
    setup.config.blocks = vec![BlockConfig {
        name: "/data".to_owned(),
        path: file(&folder, "disk", &[0; 16 << 10]),
        read_only: false,
    }];
    let first = std::process::id();
    let begin = Instant::now();
    let mut ends = BTreeMap::new();
    let mut count = 0;
    while begin.elapsed() < time() || count == 0 {
        let seed = format!("{first}-{count}");
        setup.config.args = vec!["guest".to_owned(), "hostile".to_owned(), seed.clone()];
        let path = setup.config_path();
        let code = survives(&[path.to_str().expect("a plain path")], &seed);
        *ends.entry(code).or_default() += 1;
        count += 1;
    }
    assert_eq!(
        std::fs::metadata(folder.join("disk"))
            .expect("the disk")
            .len(),
        16 << 10
    );
    tell(&ends);
}

#[test]
fn requests_of_solo5() {
    if !has_kvm() {
        return;
    }
    let image = compile("solo5");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = file(folder.path(), "disk", &[0; 8192]);
    let disk = format!("--block:storage={disk}");
    let image = image.to_str().expect("a plain path");
    let begin = Instant::now();
    let mut ends = BTreeMap::new();
    while begin.elapsed() < time() || ends.is_empty() {
        let line = ["solo5", "--mem=2", &disk, "--", image, "random"];
        *ends
            .entry(survives(&line, "an image of Solo5"))
            .or_default() += 1;
    }
    tell(&ends);
}

//! Output, input, terminals and the log of real containers.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use gamut_abi::control::{Attach, Log, Verb};
use gamut_abi::plan::TerminalSize;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

#[test]
fn output_reaches_the_log() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new(
        "echo out; echo err >&2; yes 0123456789 | head -c 20000 | tr -d '\\n'; exit 3",
    );
    sandbox.start();
    assert_eq!(sandbox.wait_exit().exit.unwrap().code, 3);
    let lines = sandbox.log_lines();
    let has = |stream: &str, tag: &str, text: &str| {
        lines.contains(&(stream.to_owned(), tag.to_owned(), text.to_owned()))
    };
    assert!(
        has("stdout", "F", "out") && has("stderr", "F", "err"),
        "{lines:?}"
    );
    let partial: Vec<usize> = lines
        .iter()
        .filter(|line| line.1 == "P")
        .map(|line| line.2.len())
        .collect();
    assert_eq!(partial, [16384, 20_000 / 11 * 10 + 20_000 % 11 - 16384]);
}

#[test]
fn log_is_rotated() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done");
    if let Some(Log {
        max_file_bytes,
        max_files,
        ..
    }) = &mut sandbox.launch.log
    {
        (*max_file_bytes, *max_files) = (10_000, 3);
    }
    sandbox.start();
    sandbox.wait_exit();
    let directory = sandbox.directory.path().join("log");
    let sizes: Vec<u64> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert!(
        sizes.len() == 3 && sizes.iter().all(|size| *size <= 10_000),
        "{sizes:?}"
    );
    assert!(sandbox.log().ends_with(" F line 1999\n"));
}

#[test]
fn half_closed_stdin_ends_the_input() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("cat; echo done >&2").stdin(true);
    let mut stream = sandbox.start_attached(ALL);
    let text: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = text.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let (stdout, stderr) = demultiplex(&mut stream);
    sender.join().unwrap();
    assert!(stdout == text, "{} bytes of {}", stdout.len(), text.len());
    assert_eq!(stderr, b"done\n");
    assert_eq!(sandbox.wait_exit().exit.unwrap().code, 0);
}

#[test]
fn a_client_that_leaves_ends_the_input_too_and_others_go_on() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("cat; echo end").stdin(true);
    let mut first = sandbox.start_attached(ALL);
    let mut second = sandbox.attach(OUTPUT);
    first.write_all(b"last words\n").unwrap();
    drop(first);
    assert_eq!(demultiplex(&mut second).0, b"last words\nend\n");
    sandbox.wait_exit();
}

#[test]
fn without_stdin_once_the_input_stays_open() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("read a; read b; echo $a $b").stdin(false);
    let mut first = sandbox.start_attached(ALL);
    first.write_all(b"one\n").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let mut second = sandbox.attach(Attach {
        stdin: true,
        stdout: false,
        stderr: false,
    });
    second.write_all(b"two\n").unwrap();
    assert_eq!(demultiplex(&mut first).0, b"one two\n");
    sandbox.wait_exit();
}

fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&text).into_owned();
        if so_far.contains(wanted) {
            return so_far;
        }
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "ended after {so_far:?}");
        text.extend_from_slice(&chunk[..count]);
    }
}

#[test]
fn terminal_is_raw_and_can_be_resized() {
    if !possible() {
        return;
    }
    let script = "trap 'stty size; exit 0' WINCH; stty size; while :; do sleep 0.05; done";
    let mut sandbox = Sandbox::new(script).terminal(24, 80).stdin(true);
    let mut stream = sandbox.start_attached(ALL);
    let first = read_until(&mut stream, "24 80\r\n");
    assert_eq!(first, "24 80\r\n");
    let size = TerminalSize {
        rows: 50,
        columns: 132,
    };
    sandbox
        .request(Verb::Resize {
            exec_id: None,
            size,
        })
        .unwrap();
    read_until(&mut stream, "50 132");
    assert_eq!(
        stream.read(&mut [0; 16]).unwrap(),
        0,
        "the stream ends with the process"
    );
    assert_eq!(sandbox.wait_exit().exit.unwrap().code, 0);
    assert_eq!(sandbox.log_lines()[0].2, "24 80\r");
}

#[test]
fn terminal_takes_input() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("read line; echo got $line")
        .terminal(24, 80)
        .stdin(false);
    let mut stream = sandbox.start_attached(ALL);
    stream.write_all(b"hello\n").unwrap();
    read_until(&mut stream, "got hello\r\n");
    sandbox.wait_exit();
}

#[test]
fn a_slow_client_gets_everything() {
    if !possible() {
        return;
    }
    const BYTES: usize = 50_000_000;
    let mut sandbox = Sandbox::new(&format!("yes 0123456789abcdef | head -c {BYTES}"));
    let mut stream = sandbox.start_attached(OUTPUT);
    std::thread::sleep(Duration::from_millis(500));
    let logged = fs::metadata(&sandbox.launch.log.as_ref().unwrap().path)
        .unwrap()
        .len();
    assert!(
        logged < 16_000_000,
        "output is read although the client takes none: {logged}"
    );
    let (stdout, _) = demultiplex(&mut stream);
    assert_eq!(stdout.len(), BYTES);
    sandbox.wait_exit();
    let text: usize = sandbox.log_lines().iter().map(|line| line.2.len()).sum();
    assert_eq!(text, BYTES / 17 * 16 + BYTES % 17);
}

#[test]
fn a_client_that_vanishes_does_not_hold_up_the_process() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("yes 0123456789abcdef | head -c 20000000");
    let stream = sandbox.start_attached(OUTPUT);
    std::thread::sleep(Duration::from_millis(200));
    drop(stream);
    assert_eq!(sandbox.wait_exit().exit.unwrap().code, 0);
}

#[test]
fn output_of_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_end() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("sleep 60");
    sandbox.start();
    let begin = Instant::now();
    let mut stream = sandbox
        .exec("e", shell("sleep 30 & echo gone"), Some(OUTPUT))
        .unwrap();
    assert_eq!(demultiplex(&mut stream).0, b"gone\n");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_full_disk_loses_lines_but_not_the_process() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new(
        "yes 0123456789 | head -c 3300000; echo mark >&2; read line; echo after $line",
    )
    .stdin(false);
    let log = sandbox.directory.path().join("log");
    let target = std::ffi::CString::new(log.to_str().unwrap()).unwrap();
    // SAFETY: all strings are live C strings. In a mount namespace of its own, nobody else sees
    // the mount; the supervisor, started from this thread, does.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(
                c"tmpfs".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=1m".as_ptr().cast(),
            ) == 0
    };
    if !mounted {
        println!(
            "SKIPPED: cannot mount a small tmpfs: {}",
            std::io::Error::last_os_error()
        );
        return;
    }
    fs::write(log.join("ballast"), vec![0; 300_000]).unwrap();
    let mut stream = sandbox.start_attached(ALL);
    let mut seen = Vec::new();
    while !seen.ends_with(b"mark\n") {
        let mut chunk = [0; 65536];
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0);
        seen.extend_from_slice(&chunk[..count]);
    }
    fs::remove_file(log.join("ballast")).unwrap();
    stream.write_all(b"all\n").unwrap();
    let status = sandbox.wait_exit();
    assert_eq!(status.exit.unwrap().code, 0);
    let lines = sandbox.log_lines();
    let full = 3_300_000 / 11;
    let marker = lines
        .iter()
        .position(|line| line.2.starts_with("gamut: "))
        .unwrap();
    let text = &lines[marker].2;
    assert!(
        text.ends_with("of output were lost: no space left on device"),
        "{text}"
    );
    let lost: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(
        lost > 1_000 && marker + lost >= full,
        "{marker} kept, {text}"
    );
    assert_eq!(lines.last().unwrap().2, "after all");
}

#[test]
fn an_idle_supervisor_sleeps() {
    if !possible() {
        return;
    }
    let ticks = |pid: u32| -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let times = stat.split(' ').skip(13).take(2);
        times.map(|count| count.parse::<u64>().unwrap()).sum()
    };
    let switches = |pid: u32| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts
            .map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    // Each of these leaves some descriptor in a state that epoll reports for ever.
    let stdin_closed = "exec 0<&-; sleep 60";
    let output_closed = "exec >/dev/null 2>&1; sleep 60";
    for (script, terminal) in [
        (stdin_closed, false),
        (output_closed, false),
        ("sleep 60", false),
        ("sleep 60", true),
    ] {
        let mut sandbox = Sandbox::new(script).stdin(false);
        if terminal {
            sandbox = sandbox.terminal(24, 80);
        }
        let mut half_closed = sandbox.start_attached(ALL);
        half_closed.write_all(b"text\n").unwrap();
        half_closed.shutdown(Shutdown::Write).unwrap();
        let full = vec![b'x'; 200_000];
        let mut hung_up = sandbox.attach(ALL);
        hung_up.set_nonblocking(true).unwrap();
        let _ = hung_up.write(&full);
        drop(hung_up);
        let reading_off = sandbox.attach(OUTPUT);
        reading_off.shutdown(Shutdown::Read).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let pid = sandbox.status().supervisor_pid;
        let before = (switches(pid), ticks(pid));
        std::thread::sleep(Duration::from_millis(500));
        let (woken, ticks) = (switches(pid) - before.0, ticks(pid) - before.1);
        assert!(
            woken <= 3 && ticks < 5,
            "{script}: woken {woken} times, {ticks} ticks"
        );
    }
}

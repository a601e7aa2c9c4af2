//! How fast output goes through the log. Not a timed test; run with
//! `GAMUT_SUPERVISOR=path/of/an/optimised/build cargo test --test throughput -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use gamut_abi::status::State;
use std::fs;
use std::time::Duration;

const BYTES: usize = 256 << 20;

#[test]
#[ignore = "a measurement"]
fn log_throughput() {
    if !possible() {
        return;
    }
    for line_bytes in [16, 64, 256, 4096] {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            // Lines from memory to memory: neither the producer nor a disk is measured.
            let mut sandbox = Sandbox::new("exec cat /lines /lines /lines /lines");
            let mut text = vec![b'x'; BYTES / 4];
            text.iter_mut()
                .skip(line_bytes - 1)
                .step_by(line_bytes)
                .for_each(|byte| *byte = b'\n');
            fs::write(sandbox.directory.path().join("root/lines"), &text).unwrap();
            if let Some(log) = &mut sandbox.launch.log {
                log.max_file_bytes = 16 << 20;
                log.max_files = 2;
            }
            sandbox.start();
            let status = sandbox.wait_exit();
            let exit = status.exit.unwrap();
            assert_eq!((status.state, exit.code), (State::Exited, 0));
            best = best.min(Duration::from_nanos(exit.finished_ns - status.started_ns));
        }
        let megabytes = u32::try_from(BYTES / 1_000_000).unwrap();
        println!(
            "lines of {line_bytes} bytes: {:.0} MB/s",
            f64::from(megabytes) / best.as_secs_f64()
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn launch_and_memory() {
    if !possible() {
        return;
    }
    let mut times = Vec::new();
    for _ in 0..30 {
        let mut sandbox = Sandbox::new("exit 0");
        sandbox.launch.start = true;
        let begin = std::time::Instant::now();
        sandbox.try_launch(Vec::new()).unwrap();
        times.push(begin.elapsed());
        sandbox.wait_exit();
    }
    times.sort();
    println!(
        "launch and start: minimum {:?}, median {:?}",
        times[0], times[15]
    );
    let mut idle: Vec<Sandbox> = (0..10).map(|_| Sandbox::new("sleep 60")).collect();
    for sandbox in &mut idle {
        sandbox.start();
    }
    std::thread::sleep(Duration::from_millis(300));
    let pid = idle[5].status().supervisor_pid;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    for line in rollup.lines().filter(|line| {
        line.starts_with("Rss") || line.starts_with("Pss:") || line.starts_with("Private")
    }) {
        println!("{line}");
    }
}

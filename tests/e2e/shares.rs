//! Processor time: weights and caps, measured on one pinned core.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gamut_tests::Daemon;

/// Processor time that a container has used, in nanoseconds.
fn used_ns(daemon: &Daemon, container: &str) -> u64 {
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", container]);
    let groups = daemon.cgroup().children();
    let own = groups
        .iter()
        .filter(|group| group.to_string_lossy().contains(&id));
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    own.filter_map(|group| {
        let v1 = read(group.join("cpuacct.usage")).and_then(|text| text.trim().parse().ok());
        v1.or_else(|| {
            let stat = read(group.join("cpu.stat"))?;
            let line = stat
                .lines()
                .find_map(|line| line.strip_prefix("usage_usec "))?;
            Some(line.parse::<u64>().ok()? * 1000)
        })
    })
    .next()
    .unwrap()
}

const SPIN: &str = "while true; do :; done";

/// Time that each container uses within some time, as nanoseconds; and the time that really passed.
fn measure(daemon: &Daemon, names: &[&str], duration: Duration) -> (Vec<u64>, u64) {
    let before: Vec<u64> = names.iter().map(|name| used_ns(daemon, name)).collect();
    let begun = Instant::now();
    std::thread::sleep(duration);
    let passed = u64::try_from(begun.elapsed().as_nanos()).unwrap();
    let used = names
        .iter()
        .zip(before)
        .map(|(name, before)| used_ns(daemon, name) - before);
    (used.collect(), passed)
}

/// Parts per thousand.
fn permille(part: u64, whole: u64) -> u64 {
    part * 1000 / whole
}

fn weights_are_2_to_1(duration: Duration) {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "double",
        &["--cpuset-cpus", "0", "--cpu-shares", "1024"],
        SPIN,
    );
    daemon.detached(
        "single",
        &["--cpuset-cpus", "0", "--cpu-shares", "512"],
        SPIN,
    );
    std::thread::sleep(Duration::from_millis(500));
    let (used, _) = measure(&daemon, &["double", "single"], duration);
    let ratio = permille(used[0], used[1]);
    println!("weights 2:1 over {duration:?}: measured {ratio}:1000");
    assert!((1900..=2100).contains(&ratio), "{ratio}:1000, {used:?}");
    daemon.finish();
}

/// Time that processor 0 has been busy, in nanoseconds.
fn core_busy_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find(|line| line.starts_with("cpu0 ")).unwrap();
    let ticks: Vec<u64> = line
        .split(' ')
        .skip(1)
        .map(|ticks| ticks.parse().unwrap())
        .collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms for every program.
    let busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7];
    busy * 10_000_000
}

fn a_cap_of_half_a_core(duration: Duration) {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("capped", &["--cpuset-cpus", "0", "--cpus", "0.5"], SPIN);
    std::thread::sleep(Duration::from_millis(500));
    let busy = core_busy_ns();
    let (used, passed) = measure(&daemon, &["capped"], duration);
    let others = (core_busy_ns() - busy).saturating_sub(used[0]);
    let (share, others) = (permille(used[0], passed), permille(others, passed));
    println!("cap of 50 % over {duration:?}: measured {share} permille, others {others}");
    assert!(share <= 520, "{share} permille");
    if others > 300 {
        let why = format!("others use {others} permille of core 0: no lower bound of the cap");
        gamut_tests::skipped(&why);
    } else {
        assert!(share >= 480, "{share} permille, others {others}");
    }
    daemon.finish();
}

#[test]
fn weights() {
    weights_are_2_to_1(Duration::from_secs(5));
}

#[test]
fn cap() {
    a_cap_of_half_a_core(Duration::from_secs(5));
}

#[test]
#[ignore = "long: 20 s on a core that nothing else uses"]
fn weights_long() {
    weights_are_2_to_1(Duration::from_secs(20));
}

#[test]
#[ignore = "long: 20 s on a core that nothing else uses"]
fn cap_long() {
    a_cap_of_half_a_core(Duration::from_secs(20));
}

//! Noisy neighbours: how late a small periodic task is while another container does its worst, with
//! the same limits under each daemon.

use crate::daemons::Daemon;
use crate::measure::Failure;
use std::fmt::Write;
use std::time::Duration;

/// Turns of the measured task in one measurement, each at most some milliseconds.
const TURNS: usize = 2000;

/// How long the noise is left alone before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// What a neighbour does, as a script for busybox' shell, and the flags that it gets.
struct Noise {
    name: &'static str,
    flags: &'static [&'static str],
    script: &'static str,
}

const NOISES: [Noise; 5] = [
    Noise {
        name: "nobody",
        flags: &[],
        script: "sleep 100000",
    },
    Noise {
        name: "fork bomb",
        flags: &["--pids-limit", "200", "--cpus", "1"],
        script: "f() { f & f & }; while :; do f; sleep 0.01; done",
    },
    Noise {
        name: "memory hog",
        flags: &["--memory", "128m", "--cpus", "1"],
        // A line without an end is kept in memory until the limit ends it; again and again.
        script: "while :; do tr '\\0' x < /dev/zero | sort > /dev/null; done",
    },
    Noise {
        name: "I/O hog",
        flags: &["--cpus", "1"],
        script: "while :; do dd if=/dev/zero of=/hog bs=1M count=256 2> /dev/null; sync; done",
    },
    Noise {
        name: "log flood",
        flags: &[
            "--cpus",
            "1",
            "--log-opt",
            "max-size=16m",
            "--log-opt",
            "max-file=4",
        ],
        script: "exec yes 'a line of a log that nobody will ever read, as there are so many'",
    },
];

/// Lateness in one measurement, in microseconds.
struct Lateness {
    median: u64,
    p99: u64,
    maximum: u64,
}

/// Measures every noise under each daemon, one after the other in each round, and keeps the best
/// round of each: what remains is what the daemon adds, not what the machine did meanwhile.
pub fn compare(daemons: &[(&str, &Daemon)], rounds: usize) -> Result<String, Failure> {
    let mut text = String::from(
        "### Lateness beside a noisy neighbour, with the same limits\n\n\
         A process in a container of its own sleeps a millisecond and looks how much later it is; \
         the best round of each, in microseconds.\n\n\
         | neighbour | daemon | median | p99 | maximum |\n| --- | --- | ---: | ---: | ---: |\n",
    );
    for noise in &NOISES {
        let mut best: Vec<Option<Lateness>> = daemons.iter().map(|_| None).collect();
        for _ in 0..rounds.max(1) {
            for ((_, daemon), best) in daemons.iter().zip(&mut best) {
                let found = measure(daemon, noise)?;
                if best.as_ref().is_none_or(|best| found.p99 < best.p99) {
                    *best = Some(found);
                }
            }
        }
        for ((name, _), best) in daemons.iter().zip(&best) {
            let Some(found) = best else { continue };
            let _ = writeln!(
                text,
                "| {} | {name} | {} | {} | {} |",
                noise.name, found.median, found.p99, found.maximum
            );
        }
    }
    text.push('\n');
    Ok(text)
}

fn measure(daemon: &Daemon, noise: &Noise) -> Result<Lateness, Failure> {
    let image = ["bench:latest", "/bin/sh", "-c", noise.script];
    let head = ["run", "-d", "--name", "noise"];
    daemon.run_docker(&[&head, noise.flags, &image[..]].concat())?;
    std::thread::sleep(WARM_UP);
    let turns = TURNS.to_string();
    let words = [
        "run",
        "--rm",
        "--name",
        "measured",
        "bench:latest",
        "/bin/lateness",
        &turns,
    ];
    let output = daemon.docker(&words).output();
    daemon.run_docker(&["rm", "-f", "noise"])?;
    let output = output?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("measure beside {}: {error}", noise.name).into());
    }
    let mut sorted: Vec<u64> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    sorted.sort_unstable();
    let at = |share: usize| sorted.get(sorted.len() * share / 100).copied().unwrap_or(0);
    Ok(Lateness {
        median: at(50),
        p99: at(99),
        maximum: sorted.last().copied().unwrap_or(0),
    })
}

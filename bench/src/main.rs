//! Gamut beside its peers: each budget measured in one run, interleaved.
//!
//! `gamut-bench BINARIES ROUNDS [runtimes] [daemons] [loads] [unikernels] [clients] [neighbours]`:
//! prints Markdown. BINARIES is a directory with `gamut`, `gamut-runtime`, `gamut-supervisor`,
//! `gamut-monitor`, `gamut-bench-floor` and, linked statically, `gamut-bench-lateness`. Needs root;
//! what it starts has roots, control groups and network namespaces of its own.

mod clients;
mod daemons;
mod loads;
mod measure;
mod neighbours;
mod podman;
mod runtimes;
mod traffic;
mod unikernels;

use measure::Failure;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gamut-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: gamut-bench BINARIES ROUNDS [runtimes] [daemons] [loads] [unikernels] [clients] [neighbours]";
    let binaries = PathBuf::from(arguments.next().ok_or(usage)?).canonicalize()?;
    let rounds: usize = arguments.next().ok_or(usage)?.parse()?;
    let chosen: Vec<String> = arguments.collect();
    let wants = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let directory = tempfile::Builder::new().prefix("gamut-bench-").tempdir()?;
    let bundle = runtimes::Bundle::make(directory.path(), Path::new("/bin/busybox"))?;
    let root = bundle.root();
    let setting = daemons::Setting {
        directory: directory.path(),
        binaries: &binaries,
        rootfs: &root,
        rounds,
    };
    println!("{}", machine());
    if wants("runtimes") {
        println!("{}", runtimes::compare(&bundle, &binaries, rounds)?);
    }
    if wants("daemons") {
        println!("{}", daemons::compare(&setting)?);
    }
    if wants("loads") {
        println!("{}", daemons::load(&setting)?);
    }
    if wants("unikernels") {
        println!("{}", daemons::unikernels(&setting)?);
    }
    if wants("clients") {
        println!("{}", daemons::clients(&setting)?);
    }
    if wants("neighbours") {
        let lateness = root.join("bin/lateness");
        std::fs::copy(binaries.join("gamut-bench-lateness"), lateness)?;
        println!("{}", daemons::disturb(&setting)?);
    }
    Ok(())
}

/// Where and with what this was measured.
fn machine() -> String {
    let first_line = |program: &str, words: &[&str]| {
        Command::new(program)
            .args(words)
            .output()
            .ok()
            .and_then(|output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.lines().next().map(str::to_owned)
            })
            .unwrap_or_else(|| "not there".to_owned())
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Measured {} UTC; kernel {}; {} processors; load average at the start {}.\n\
         Peers: {}; {}; {}; {}; client {}.\n",
        first_line("date", &["-u", "+%Y-%m-%d %H:%M"]),
        first_line("uname", &["-r"]),
        first_line("nproc", &[]),
        load.split(' ').take(2).collect::<Vec<_>>().join(" "),
        first_line("runc", &["--version"]),
        first_line("crun", &["--version"]),
        first_line("dockerd", &["--version"]),
        first_line("podman", &["--version"]),
        first_line("docker", &["--version"]),
    )
}

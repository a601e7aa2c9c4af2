//! The HTTP example as a unikernel, beside its Linux form as a container of Gamut and of dockerd.

use crate::daemons::{Daemon, Setting, memory_kib, processes};
use crate::measure::{Contender, Failure, race, table};
use crate::traffic::{first_byte, inside, load};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Where the server is published in each daemon's network namespace.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 18080);

/// Guests whose memory is measured, and that are started for the rate.
const GUESTS: usize = 20;

/// How long the server is asked with each number of connections.
const LOAD_TIME: Duration = Duration::from_secs(3);

/// Races first answers; measures memory, requests and the rate of starts.
///
/// # Errors
/// If a daemon refuses, or a server does not answer.
pub fn compare(setting: &Setting<'_>, gamut: &Daemon, dockerd: &Daemon) -> Result<String, Failure> {
    let own = |words: &[&str]| setting.run_gamut(words);
    let archive = setting.directory.join("hello-http.tar");
    let archive = archive.display().to_string();
    // Built-in images are there once they are used.
    own(&["create", "--name", "first", "hello-http"])?;
    own(&["rm", "first"])?;
    own(&["save", "-o", &archive, "hello-http"])?;
    dockerd.run_docker(&["load", "-i", &archive])?;
    let mut text = first_answers(setting, own, gamut, dockerd)?;
    text.push_str(&requests(own, gamut, dockerd)?);
    text.push_str(&many(setting, own)?);
    Ok(text)
}

const UNIKERNEL: [&str; 9] = [
    "run",
    "-d",
    "--name",
    "first",
    "-p",
    "18080:80",
    "--isolation",
    "unikernel",
    "hello-http",
];
const CONTAINER: [&str; 9] = [
    "run",
    "-d",
    "--name",
    "first",
    "-p",
    "18080:80",
    "--isolation",
    "container",
    "hello-http",
];
const DOCKER: [&str; 7] = [
    "run",
    "-d",
    "--name",
    "first",
    "-p",
    "18080:80",
    "hello-http",
];

fn first_answers(
    setting: &Setting<'_>,
    own: impl Fn(&[&str]) -> Result<(), Failure> + Copy,
    gamut: &Daemon,
    dockerd: &Daemon,
) -> Result<String, Failure> {
    let (ours, theirs) = (gamut.pid(), dockerd.pid());
    let gone = move || own(&["rm", "-f", "first"]);
    // Removing what is not there is no error of the race.
    let mut contenders = vec![
        Contender::new("gamut, unikernel", |_| {
            own(&UNIKERNEL)?;
            inside(ours, || first_byte(ADDRESS))
        })
        .prepared(move || gone().or(Ok(()))),
        Contender::new("gamut, container", |_| {
            own(&CONTAINER)?;
            inside(ours, || first_byte(ADDRESS))
        })
        .prepared(move || gone().or(Ok(()))),
        Contender::new("dockerd, container", |_| {
            dockerd.run_docker(&DOCKER)?;
            inside(theirs, || first_byte(ADDRESS))
        })
        .prepared(|| dockerd.run_docker(&["rm", "-f", "first"]).or(Ok(()))),
    ];
    let times = race(&mut contenders, setting.rounds, Duration::from_millis(400))?;
    let mut text = table(
        "`run -d -p` of the HTTP example: first byte of the first answer",
        "From fork of the client to the first byte of the answer through the published port.",
        &times,
        &[],
    );
    let median_ms = times
        .first()
        .map_or(f64::NAN, crate::measure::Times::median_ms);
    let kept = if median_ms <= 20.0 {
        "kept"
    } else {
        "**missed**"
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Budget of the unikernel: 20 ms, {kept}.\n");
    Ok(text)
}

fn requests(
    own: impl Fn(&[&str]) -> Result<(), Failure>,
    gamut: &Daemon,
    dockerd: &Daemon,
) -> Result<String, Failure> {
    let (ours, theirs) = (gamut.pid(), dockerd.pid());
    let mut text =
        "### Requests through the published port\n\nOne thread asks from the daemon's own \
         network namespace; each connection is kept and has one request at a time.\n\n\
         | what | connections | requests/s | p99 ms |\n| --- | ---: | ---: | ---: |\n"
            .to_owned();
    let mut ask = |name: &str, pid: u32| -> Result<(), Failure> {
        for connections in [1, 32, 256] {
            let load = inside(pid, || load(ADDRESS, connections, LOAD_TIME))?;
            let (rate, p99_ms) = (load.per_second, load.p99.as_secs_f64() * 1e3);
            let _ = writeln!(text, "| {name} | {connections} | {rate:.0} | {p99_ms:.2} |");
        }
        Ok(())
    };
    let _ = own(&["rm", "-f", "first"]);
    own(&UNIKERNEL)?;
    inside(ours, || first_byte(ADDRESS))?;
    ask("gamut, unikernel", ours)?;
    own(&["rm", "-f", "first"])?;
    own(&CONTAINER)?;
    inside(ours, || first_byte(ADDRESS))?;
    ask("gamut, container", ours)?;
    own(&["rm", "-f", "first"])?;
    let _ = dockerd.run_docker(&["rm", "-f", "first"]);
    dockerd.run_docker(&DOCKER)?;
    inside(theirs, || first_byte(ADDRESS))?;
    ask("dockerd, container", theirs)?;
    dockerd.run_docker(&["rm", "-f", "first"])?;
    text.push('\n');
    Ok(text)
}

fn many(
    setting: &Setting<'_>,
    own: impl Fn(&[&str]) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let names: Vec<String> = (0..GUESTS).map(|index| format!("guest{index}")).collect();
    let begin = Instant::now();
    for name in &names {
        own(&[
            "run",
            "-d",
            "--name",
            name,
            "--isolation",
            "unikernel",
            "hello-http",
        ])?;
    }
    let each_ms = begin.elapsed().as_secs_f64() * 1e3 / f64::from(u32::try_from(GUESTS)?);
    std::thread::sleep(Duration::from_secs(2));
    let mut monitors = Vec::new();
    let ids: Vec<String> = std::fs::read_dir(setting.directory.join("gamut-run/sandboxes"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let supervisors = processes("gamut-supervisor", &ids);
    for pid in processes("gamut-monitor", &["gamut-monitor".to_owned()]) {
        // Monitors of other engines on this machine have other parents.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
        if parent.is_some_and(|parent| supervisors.contains(&parent)) {
            monitors.push(pid);
        }
    }
    let sum = |pids: &[u32]| -> Result<u64, Failure> {
        pids.iter()
            .try_fold(0, |sum, pid| Ok(sum + memory_kib(*pid)?.0))
    };
    let count = u64::try_from(monitors.len().max(1))?;
    let (monitor_kib, supervisor_kib) = (sum(&monitors)? / count, sum(&supervisors)? / count);
    let mut words = vec!["rm", "-f"];
    words.extend(names.iter().map(String::as_str));
    own(&words)?;
    Ok(format!(
        "### {GUESTS} guests\n\n| what | |\n| --- | ---: |\n\
         | start, one after the other, client included | {each_ms:.1} ms |\n\
         | PSS of a monitor with its idle guest ({} found) | {monitor_kib} KiB |\n\
         | PSS of its supervisor | {supervisor_kib} KiB |\n\n",
        monitors.len(),
    ))
}

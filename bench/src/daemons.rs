//! Daemons beside each other: Gamut's and dockerd, each with its own roots, mount and network
//! namespace.

use crate::measure::{Budget, Contender, Failure, race, table};
use crate::podman::Podman;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Idle containers whose cost is measured.
const IDLE: usize = 10;

/// A daemon in a network namespace of its own.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    /// Name of its process, below `unshare`'s.
    name: &'static str,
}

impl Daemon {
    fn start(
        script: &str,
        socket: PathBuf,
        log: &Path,
        name: &'static str,
    ) -> Result<Self, Failure> {
        let log = fs::File::create(log)?;
        let child = Command::new("unshare")
            .args(["-n", "-m", "sh", "-c"])
            .arg(format!(
                "ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; exec {script}"
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let daemon = Self {
            child,
            socket,
            name,
        };
        let until = Instant::now() + Duration::from_secs(60);
        while !daemon.docker(&["version"]).output()?.status.success() {
            if Instant::now() > until {
                return Err(format!("{name} does not answer").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    /// The stock client against it.
    pub fn docker(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()))
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Runs the stock client to its end.
    ///
    /// # Errors
    /// If it cannot be run, and what it says if it fails.
    pub fn run_docker(&self, words: &[&str]) -> Result<(), Failure> {
        succeed(&mut self.docker(words))
    }

    /// Its process id: `unshare` has become the shell, and the shell the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: plain call on a child that has not been waited for.
        unsafe {
            libc::kill(
                libc::pid_t::try_from(self.pid()).unwrap_or(0).max(1),
                libc::SIGTERM,
            )
        };
        if let Err(error) = self.child.wait() {
            eprintln!("wait for {}: {error}", self.name);
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be run, and what it says if it fails.
pub fn succeed(command: &mut Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {}: {error}", output.status).into())
}

/// What the comparison needs.
pub struct Setting<'a> {
    /// Everything is kept below it.
    pub directory: &'a Path,
    /// Where `gamut` and `gamut-supervisor` are.
    pub binaries: &'a Path,
    /// A root file system with `true`, `sleep` and a shell.
    pub rootfs: &'a Path,
    /// Turns of each contender.
    pub rounds: usize,
}

impl Setting<'_> {
    /// Runs Gamut's own client against its daemon, to its end.
    ///
    /// # Errors
    /// If it cannot be run, and what it says if it fails.
    pub fn run_gamut(&self, words: &[&str]) -> Result<(), Failure> {
        let socket = self.directory.join("gamut.sock");
        succeed(
            Command::new(self.binaries.join("gamut"))
                .env("GAMUT_HOST", format!("unix://{}", socket.display()))
                .args(words)
                .stdin(Stdio::null()),
        )
    }
}

/// Starts dockerd and Gamut's daemon.
fn start_both(setting: &Setting<'_>) -> Result<(Daemon, Daemon), Failure> {
    let at = |name: &str| setting.directory.join(name);
    let dockerd = Daemon::start(
        &format!(
            "dockerd --data-root {0}/docker --exec-root {0}/docker-run --pidfile {0}/docker.pid -H unix://{0}/docker.sock",
            setting.directory.display()
        ),
        at("docker.sock"),
        &at("dockerd.log"),
        "dockerd",
    )?;
    let gamut = Daemon::start(
        &format!(
            "{1}/gamut daemon --data-root {0}/gamut --run-root {0}/gamut-run --cgroup-parent /gamut-bench-{2}-daemon -H unix://{0}/gamut.sock",
            setting.directory.display(),
            setting.binaries.display(),
            std::process::id()
        ),
        at("gamut.sock"),
        &at("gamut.log"),
        "gamut",
    )?;
    Ok((dockerd, gamut))
}

/// Measures how a neighbour is disturbed. The root file system has to have `lateness` in it.
pub fn disturb(setting: &Setting<'_>) -> Result<String, Failure> {
    let (dockerd, gamut) = start_both(setting)?;
    let archive = image(&dockerd, setting)?;
    gamut.run_docker(&["load", "-i", &archive])?;
    crate::neighbours::compare(&[("gamut", &gamut), ("dockerd", &dockerd)], setting.rounds)
}

/// Loads and pulls a large image.
pub fn load(setting: &Setting<'_>) -> Result<String, Failure> {
    let (dockerd, gamut) = start_both(setting)?;
    crate::loads::compare(setting, &gamut, &dockerd)
}

/// Races the HTTP example at its levels.
pub fn unikernels(setting: &Setting<'_>) -> Result<String, Failure> {
    let (dockerd, gamut) = start_both(setting)?;
    crate::unikernels::compare(setting, &gamut, &dockerd)
}

/// Races what clients ask most often.
pub fn clients(setting: &Setting<'_>) -> Result<String, Failure> {
    let (dockerd, gamut) = start_both(setting)?;
    let archive = image(&dockerd, setting)?;
    gamut.run_docker(&["load", "-i", &archive])?;
    crate::clients::compare(setting, &gamut, &dockerd)
}

/// Races the daemons and measures memory.
pub fn compare(setting: &Setting<'_>) -> Result<String, Failure> {
    let (dockerd, gamut) = start_both(setting)?;
    let own = |words: &[&str]| setting.run_gamut(words);
    let archive = image(&dockerd, setting)?;
    own(&["load", "-i", &archive])?;
    let mut text = idle_daemons(&gamut, &dockerd)?;
    let podman = Podman::start(setting, &archive)?;
    text.push_str(&starts(setting, &gamut, &dockerd, podman.as_ref(), own)?);
    text.push_str(&execs(setting, &gamut, &dockerd, podman.as_ref(), own)?);
    drop(podman);
    text.push_str(&idle_containers(setting, &gamut, &dockerd, own)?);
    Ok(text)
}

/// Makes the image `bench` in dockerd and saves it to a file.
fn image(dockerd: &Daemon, setting: &Setting<'_>) -> Result<String, Failure> {
    let layer = setting.directory.join("layer.tar");
    let archive = setting.directory.join("bench.tar");
    let (layer, archive) = (layer.display().to_string(), archive.display().to_string());
    succeed(
        Command::new("tar")
            .args(["-cf", &layer, "-C"])
            .arg(setting.rootfs)
            .arg("."),
    )?;
    dockerd.run_docker(&["import", &layer, "bench:latest"])?;
    dockerd.run_docker(&["save", "-o", &archive, "bench:latest"])?;
    Ok(archive)
}

fn starts(
    setting: &Setting<'_>,
    gamut: &Daemon,
    dockerd: &Daemon,
    podman: Option<&Podman>,
    own: impl Fn(&[&str]) -> Result<(), Failure> + Copy,
) -> Result<String, Failure> {
    let run = ["run", "--rm", "bench:latest", "/bin/true"];
    let mut contenders = vec![
        Contender::new("gamut run", |_| own(&run)),
        Contender::new("docker on gamut", |_| gamut.run_docker(&run)),
        Contender::new("docker on dockerd", |_| dockerd.run_docker(&run)),
    ];
    if let Some(podman) = podman {
        contenders.push(Contender::new("podman run", |_| podman.run(&run)));
    }
    let warm = race(&mut contenders, setting.rounds, Duration::from_millis(400))?;
    let budgets = |factor| Budget {
        subject: 0,
        peer: 2,
        factor,
    };
    let mut text = table(
        "`run --rm IMAGE true`, bridge network, client included: pools warm",
        "From fork of the client to its end. 400 ms of rest before each turn.",
        &warm,
        &[
            budgets(0.05),
            Budget {
                subject: 1,
                peer: 2,
                factor: 0.2,
            },
        ],
    );
    // The pool cannot keep up with starts one right after the other.
    let burst = |command: &dyn Fn() -> Result<(), Failure>| (0..10).try_for_each(|_| command());
    let mut contenders = vec![
        Contender::new("gamut run, 10 in a row", |_| burst(&|| own(&run))),
        Contender::new("docker on gamut, 10 in a row", |_| {
            burst(&|| gamut.run_docker(&run))
        }),
        Contender::new("docker on dockerd, 10 in a row", |_| {
            burst(&|| dockerd.run_docker(&run))
        }),
    ];
    if let Some(podman) = podman {
        contenders.push(Contender::new("podman run, 10 in a row", |_| {
            burst(&|| podman.run(&run))
        }));
    }
    let drained = race(&mut contenders, setting.rounds.div_ceil(5), Duration::ZERO)?;
    text.push_str(&table(
        "The same, pools drained",
        "Ten starts, each right after the end of the one before.",
        &drained,
        &[
            budgets(0.05),
            Budget {
                subject: 1,
                peer: 2,
                factor: 0.2,
            },
        ],
    ));
    Ok(text)
}

fn execs(
    setting: &Setting<'_>,
    gamut: &Daemon,
    dockerd: &Daemon,
    podman: Option<&Podman>,
    own: impl Fn(&[&str]) -> Result<(), Failure> + Copy,
) -> Result<String, Failure> {
    let start = [
        "run",
        "-d",
        "--name",
        "target",
        "bench:latest",
        "/bin/sleep",
        "100000",
    ];
    own(&start)?;
    dockerd.run_docker(&start)?;
    let exec = ["exec", "target", "/bin/true"];
    let mut contenders = vec![
        Contender::new("gamut exec", |_| own(&exec)),
        Contender::new("docker exec on gamut", |_| gamut.run_docker(&exec)),
        Contender::new("docker exec on dockerd", |_| dockerd.run_docker(&exec)),
    ];
    if let Some(podman) = podman {
        podman.run(&start)?;
        contenders.push(Contender::new("podman exec", |_| podman.run(&exec)));
    }
    let times = race(&mut contenders, setting.rounds, Duration::from_millis(50))?;
    own(&["rm", "-f", "target"])?;
    dockerd.run_docker(&["rm", "-f", "target"])?;
    Ok(table(
        "`exec` of `true`",
        "From fork of the client to its end.",
        &times,
        &[
            Budget {
                subject: 0,
                peer: 2,
                factor: 0.1,
            },
            Budget {
                subject: 1,
                peer: 2,
                factor: 0.2,
            },
        ],
    ))
}

/// PSS and RSS of a process in KiB (proc_pid_smaps_rollup in proc(5)).
///
/// # Errors
/// If it has gone.
pub fn memory_kib(pid: u32) -> Result<(u64, u64), Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0_u64)
    };
    Ok((field("Pss:"), field("Rss:")))
}

/// Processes whose command line begins with `program` and has one of `needles` in it.
pub fn processes(program: &str, needles: &[String]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let first = line.split('\0').next().unwrap_or_default();
            first
                .rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with(program))
                && needles.iter().any(|needle| line.contains(needle.as_str()))
        })
        .collect()
}

fn idle_daemons(gamut: &Daemon, dockerd: &Daemon) -> Result<String, Failure> {
    std::thread::sleep(Duration::from_secs(1));
    let (gamut_pss, gamut_rss) = memory_kib(gamut.pid())?;
    let (docker_pss, docker_rss) = memory_kib(dockerd.pid())?;
    let mut text = String::from(
        "### Memory of an idle daemon\n\n| what | PSS MiB | RSS MiB |\n| --- | ---: | ---: |\n",
    );
    for (name, pss, rss) in [
        ("gamut daemon", gamut_pss, gamut_rss),
        ("dockerd (without containerd)", docker_pss, docker_rss),
    ] {
        let _ = writeln!(text, "| {name} | {} | {} |", mebibytes(pss), mebibytes(rss));
    }
    let kept = if gamut_rss <= 32 << 10 {
        "kept"
    } else {
        "**missed**"
    };
    let _ = writeln!(text, "\nBudget: 32 MiB, {kept}.\n");
    Ok(text)
}

/// KiB as MiB with two digits.
fn mebibytes(kib: u64) -> String {
    format!("{}.{:02}", kib / 1024, kib % 1024 * 100 / 1024)
}

fn idle_containers(
    setting: &Setting<'_>,
    gamut: &Daemon,
    dockerd: &Daemon,
    own: impl Fn(&[&str]) -> Result<(), Failure> + Copy,
) -> Result<String, Failure> {
    let daemon_before = memory_kib(gamut.pid())?.0;
    let mut names = Vec::new();
    for index in 0..IDLE {
        let name = format!("idle{index}");
        let words = [
            "run",
            "-d",
            "--name",
            &name,
            "bench:latest",
            "/bin/sleep",
            "100000",
        ];
        own(&words)?;
        dockerd.run_docker(&words)?;
        names.push(name);
    }
    std::thread::sleep(Duration::from_secs(1));
    let sum = |pids: &[u32]| -> Result<u64, Failure> {
        pids.iter()
            .try_fold(0, |sum, pid| Ok(sum + memory_kib(*pid)?.0))
    };
    let ids: Vec<String> = fs::read_dir(setting.directory.join("gamut-run/sandboxes"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let supervisors = processes("gamut-supervisor", &ids);
    let run = format!("{}/docker-run", setting.directory.display());
    let shims = processes("containerd-shim", &[run]);
    let count = u64::try_from(IDLE)?;
    let own_each = sum(&supervisors)? / count;
    let docker_each = sum(&shims)? / count;
    let daemon_each = memory_kib(gamut.pid())?.0.saturating_sub(daemon_before) / count;
    let mut words = vec!["rm", "-f"];
    words.extend(names.iter().map(String::as_str));
    own(&words)?;
    dockerd.run_docker(&words)?;
    let kept = if own_each <= 1024 {
        "kept"
    } else {
        "**missed**"
    };
    Ok(format!(
        "### Memory per idle container beyond its own, of {IDLE}\n\n| what | PSS KiB |\n| --- | ---: |\n\
         | gamut-supervisor ({} found) | {own_each} |\n| growth of the gamut daemon | {daemon_each} |\n\
         | containerd-shim ({} found) | {docker_each} |\n\nBudget: 1024 KiB PSS per container, {kept}.\n\n",
        supervisors.len(),
        shims.len(),
    ))
}

//! `kill -9` of the daemon and of supervisors in the middle of every verb: nothing that was
//! acknowledged is lost, nothing is doubled, nothing leaks, and what runs goes on.
//!
//! Three kills per cell; with `GAMUT_TEST_LONG=1` two hundred, under load.

use gamut_tests::{Daemon, Output, Session, Snapshot, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::image::OciImage;
use crate::registry::{Registry, Vice};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Daemon,
    Supervisor,
}

/// During which verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Start,
    Run,
    Exec,
    Stop,
    Remove,
    ForceRemove,
    Pull,
    Load,
    Commit,
}

/// A workload that counts, five times in a blink, so that a gap in its log shows.
const COUNTER: &str = "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done";
/// A workload that takes its time to stop, and says how it ended.
const STOPPER: &str = "trap 'usleep 50000; exit 7' TERM; while :; do usleep 5000; done";
/// Exit codes that can be: of the stopper, of a kill, and of an end that nobody has seen.
const SANE_CODES: [i64; 4] = [0, 7, 137, 143];

struct Matrix {
    daemon: Daemon,
    victim: Victim,
    verb: Verb,
    image: OciImage,
    registry: Registry,
    witness_pid: u32,
    /// What is there between rounds.
    rest: Snapshot,
    seed: u64,
}

/// Kills per cell, if asked for the long campaign: `GAMUT_TEST_LONG=1` for two hundred, or their
/// number.
fn long_rounds() -> Option<u32> {
    let rounds = std::env::var("GAMUT_TEST_LONG").ok()?;
    Some(
        rounds
            .parse()
            .ok()
            .filter(|rounds| *rounds > 1)
            .unwrap_or(200),
    )
}

fn run_cell(victim: Victim, verb: Verb) {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let rounds = long_rounds().unwrap_or(3);
    let load = long_rounds().map(|_| Load::start());
    let image = OciImage::noisy(7, 3, 1 << 20);
    let registry = Registry::start(&daemon, &image, Vice::Slow(1));
    daemon.ok(&[
        "run", "-d", "--name", "witness", "busybox", "sh", "-c", COUNTER,
    ]);
    // A daemon that was started again holds what one holds that was killed and started again.
    daemon.kill_9();
    daemon.restart();
    let witness_pid = daemon.container_pid("witness");
    std::thread::sleep(Duration::from_millis(300));
    let rest = daemon.snapshot();
    let archive = daemon.directory().join("archive.tar");
    std::fs::write(archive, image.archive("fault/loaded:1")).unwrap();
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| u64::from(since.subsec_nanos()));
    let mut matrix = Matrix {
        daemon,
        victim,
        verb,
        image,
        registry,
        witness_pid,
        rest,
        seed,
    };
    let length = matrix.uncut();
    for round in 0..rounds {
        // Spread over the verb's whole length, and a little beyond.
        let share = (f64::from(round) + matrix.random()) / f64::from(rounds);
        matrix.round(length.mul_f64(share * 1.1));
    }
    let Matrix {
        daemon, registry, ..
    } = matrix;
    registry.stop(&daemon);
    drop(load);
    daemon.finish();
}

impl Matrix {
    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        f64::from(u32::try_from(self.seed % 1000).unwrap()) / 1000.0
    }

    fn archive(&self) -> String {
        self.daemon
            .directory()
            .join("archive.tar")
            .display()
            .to_string()
    }

    /// Makes what the verb needs.
    fn prepare(&self) {
        let daemon = &self.daemon;
        match self.verb {
            Verb::Create | Verb::Run | Verb::Pull | Verb::Load => {
                if self.victim == Victim::Supervisor && self.verb != Verb::Run {
                    // Somebody has to die.
                    daemon.ok(&[
                        "run",
                        "-d",
                        "--name",
                        "bystander",
                        "busybox",
                        "sleep",
                        "1000",
                    ]);
                }
            }
            Verb::Start => {
                daemon.ok(&[
                    "create", "--name", "target", "-v", "/data", "busybox", "sh", "-c", STOPPER,
                ]);
            }
            Verb::Exec | Verb::Stop | Verb::ForceRemove => {
                daemon.ok(&[
                    "run", "-d", "--name", "target", "-v", "/data", "busybox", "sh", "-c", STOPPER,
                ]);
            }
            Verb::Commit => {
                daemon.ok(&[
                    "run", "-d", "--name", "target", "-v", "/data", "busybox", "sh", "-c", STOPPER,
                ]);
                let fill = "dd if=/dev/urandom of=/big bs=1M count=6 2>/dev/null; rm /data/notes; \
                            rm /etc/not-executable";
                daemon.ok(&["exec", "target", "sh", "-c", fill]);
            }
            Verb::Remove => {
                daemon.ok(&["run", "--name", "target", "-v", "/data", "busybox", "true"]);
                if self.victim == Victim::Supervisor {
                    daemon.ok(&[
                        "run",
                        "-d",
                        "--name",
                        "bystander",
                        "busybox",
                        "sleep",
                        "1000",
                    ]);
                }
            }
        }
    }

    fn begin(&self) -> Session {
        let reference = format!("{}/fault/pulled:1", self.registry.address);
        let archive = self.archive();
        let arguments: &[&str] = match self.verb {
            Verb::Create => &[
                "create",
                "--name",
                "target",
                "-v",
                "/data",
                "-v",
                "kept:/kept",
                "busybox",
                "true",
            ],
            Verb::Start => &["start", "target"],
            Verb::Run => &[
                "run", "-d", "--name", "target", "-v", "/data", "-p", "8080:80", "busybox", "sh",
                "-c", STOPPER,
            ],
            Verb::Exec => &[
                "exec",
                "target",
                "sh",
                "-c",
                "echo out; usleep 30000; exit 3",
            ],
            Verb::Stop => &["stop", "target"],
            Verb::Remove => &["rm", "-v", "target"],
            Verb::ForceRemove => &["rm", "-f", "-v", "target"],
            Verb::Pull => &["pull", &reference],
            Verb::Load => &["load", "-q", "-i", &archive],
            Verb::Commit => &["commit", "target", "fault/committed:1"],
        };
        let mut session = self.daemon.spawn(arguments);
        session.close_stdin();
        session
    }

    /// How long the verb takes when nobody dies.
    fn uncut(&mut self) -> Duration {
        self.prepare();
        let begun = Instant::now();
        let output = self.begin().wait();
        let length = begun.elapsed();
        let expected = if self.verb == Verb::Exec { 3 } else { 0 };
        assert_eq!(output.code, expected, "{output:#?}");
        self.check(&output);
        self.clear();
        length
    }

    /// Supervisors but the witness's.
    fn doomed(&self) -> Vec<u32> {
        let spared = self.daemon.supervisor_pid("witness");
        let is_supervisor = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("gamut-superv"))
        };
        let mut pids = self.daemon.processes();
        pids.retain(|pid| *pid != spared && is_supervisor(pid));
        pids
    }

    fn round(&mut self, delay: Duration) {
        self.prepare();
        let session = self.begin();
        std::thread::sleep(delay);
        match self.victim {
            Victim::Daemon => {
                self.daemon.kill_9();
            }
            Victim::Supervisor => {
                for pid in self
                    .doomed()
                    .into_iter()
                    .filter_map(|pid| i32::try_from(pid).ok())
                {
                    // SAFETY: kill(2) takes no pointers; the process is a supervisor of this
                    // test's daemon.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
        }
        let output = session.wait();
        if self.victim == Victim::Daemon {
            self.daemon.restart();
        }
        println!(
            "{:?} {:?} after {delay:?}: {}",
            self.victim, self.verb, output.code
        );
        self.check(&output);
        self.clear();
    }

    /// Everything that must hold whenever anybody died.
    fn check(&self, output: &Output) {
        let daemon = &self.daemon;
        let acknowledged = output.code == 0;
        let verb = self.verb;
        if self.victim == Victim::Supervisor
            && matches!(verb, Verb::Create | Verb::Pull | Verb::Load | Verb::Remove)
        {
            assert!(
                acknowledged,
                "another's supervisor died, and {verb:?} failed: {output:#?}"
            );
        }
        let names = daemon.lines(&["ps", "-a", "--format", "{{.Names}}"]);
        let count = names.iter().filter(|name| *name == "target").count();
        match verb {
            Verb::Remove | Verb::ForceRemove if acknowledged => assert_eq!(count, 0, "{names:?}"),
            Verb::Remove | Verb::ForceRemove => assert!(count <= 1, "{names:?}"),
            Verb::Create | Verb::Start | Verb::Run | Verb::Exec | Verb::Stop if acknowledged => {
                assert_eq!(count, 1, "{names:?}");
            }
            Verb::Start | Verb::Exec | Verb::Stop | Verb::Commit => {
                assert_eq!(count, 1, "{names:?}");
            }
            _ => assert!(count <= 1, "{names:?}"),
        }
        if count == 1 {
            self.check_container(acknowledged);
        }
        let volumes = daemon.lines(&["volume", "ls", "-q"]);
        if count == 0 {
            // An anonymous volume goes with its container or was never there.
            let stray: Vec<_> = volumes.iter().filter(|name| *name != "kept").collect();
            assert!(stray.is_empty(), "volumes {stray:?} belong to nobody");
        } else if verb == Verb::Create && acknowledged {
            assert!(volumes.contains(&"kept".to_owned()), "{volumes:?}");
        }
        if matches!(verb, Verb::Pull | Verb::Load | Verb::Commit) {
            let reference = match verb {
                Verb::Commit => "fault/committed:1".to_owned(),
                Verb::Pull => format!("{}/fault/pulled:1", self.registry.address),
                _ => "fault/loaded:1".to_owned(),
            };
            let found = daemon.gamut(&["image", "inspect", &reference]);
            if acknowledged {
                assert_eq!(found.code, 0, "an acknowledged image is lost: {found:#?}");
            }
            if found.code == 0 {
                let layers = match verb {
                    Verb::Commit => 2,
                    _ => self.image.layers.len(),
                };
                let value: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
                assert_eq!(
                    value[0]["RootFS"]["Layers"].as_array().map(Vec::len),
                    Some(layers)
                );
                let made = daemon.ok(&["create", &reference]);
                daemon.ok(&["rm", "-v", &made]);
            }
        }
        self.check_witness();
        // A supervisor that was killed is cleaned up after by and by.
        let mut last = String::new();
        eventually("fsck finds nothing", || {
            let found = daemon.gamut(&["system", "fsck"]);
            if last != found.stdout {
                last.clone_from(&found.stdout);
                println!("fsck: {last}");
            }
            found.stdout.trim() == "no problems found"
        });
    }

    fn check_container(&self, acknowledged: bool) {
        let daemon = &self.daemon;
        let verb = self.verb;
        if self.victim == Victim::Supervisor {
            // The daemon hears of the death a moment after us.
            std::thread::sleep(Duration::from_millis(100));
        }
        let state = daemon.inspect("target")["State"].take();
        let word = state["Status"].as_str().unwrap_or_default().to_owned();
        let code = state["ExitCode"].as_i64().unwrap_or(-1);
        match word.as_str() {
            "created" => {
                assert!(verb != Verb::Exec && verb != Verb::Stop, "{state}");
                assert!(
                    !acknowledged || verb == Verb::Create,
                    "an acknowledged {verb:?} is forgotten: {state}"
                );
            }
            "running" => {
                assert!(verb != Verb::Create && verb != Verb::Remove, "{state}");
                assert!(!(verb == Verb::Stop && acknowledged), "{state}");
                if daemon.gamut(&["exec", "target", "echo", "alive"]).code != 0 {
                    // Its supervisor was still busy stopping it.
                    assert_eq!(verb, Verb::Stop, "{state}");
                    eventually("it has stopped", || {
                        daemon.inspect("target")["State"]["ExitCode"] == 7
                    });
                }
            }
            "exited" => {
                assert!(SANE_CODES.contains(&code), "{state}");
                assert_ne!(verb, Verb::Create, "{state}");
                let cut = self.victim == Victim::Supervisor;
                if verb == Verb::Stop && !cut {
                    assert_eq!(code, 7, "the exit code is lost: {state}");
                }
                if matches!(verb, Verb::Start | Verb::Run | Verb::Exec | Verb::Commit) {
                    assert!(cut, "nobody has ended it: {state}");
                }
                let finished = state["FinishedAt"].as_str().unwrap_or_default();
                assert!(finished > "2020", "{state}");
            }
            _ => panic!("not a state to be in: {state}"),
        }
        if word != "running" && verb != Verb::Stop {
            // It can be started (again).
            daemon.ok(&["start", "target"]);
        }
    }

    /// The witness has the same process, and its log has no gap and nothing twice.
    fn check_witness(&self) {
        assert_eq!(self.daemon.container_pid("witness"), self.witness_pid);
        let read = || -> Vec<u64> {
            let lines = self.daemon.lines(&["logs", "--tail", "2000", "witness"]);
            lines.iter().map(|line| line.parse().unwrap()).collect()
        };
        let numbers = read();
        for pair in numbers.windows(2) {
            assert_eq!(pair[0] + 1, pair[1], "the witness's log has a gap");
        }
        let last = *numbers.last().unwrap();
        eventually("the witness goes on", || *read().last().unwrap() > last);
    }

    /// Removes what the round has made; then everything is as before.
    fn clear(&self) {
        let daemon = &self.daemon;
        for name in ["target", "bystander"] {
            daemon.gamut(&["rm", "-f", "-v", name]);
        }
        daemon.gamut(&["volume", "rm", "-f", "kept"]);
        let pulled = format!("{}/fault/pulled:1", self.registry.address);
        for image in [pulled.as_str(), "fault/loaded:1", "fault/committed:1"] {
            daemon.gamut(&["rmi", "-f", image]);
        }
        let due = Instant::now() + Duration::from_secs(15);
        loop {
            let mut difference = daemon.snapshot().difference(&self.rest);
            difference.retain(|line| !is_restless(line));
            if difference.is_empty() {
                return;
            }
            assert!(
                Instant::now() < due,
                "leaked: {difference:#?}\n{}",
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The witness's pauses come and go; one that had only just been forked is called like its shell,
/// and may have been counted as at rest.
fn is_restless(line: &str) -> bool {
    line.starts_with("process: usleep")
        || (line.starts_with("process: sh:") && line.ends_with(": 2 before, 1 now"))
}

/// Two threads that keep both processors busy.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = || {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = vec![spin(), spin()];
        Self { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

macro_rules! cells {
    ($($name:ident: $victim:ident, $verb:ident;)*) => {
        $(
            #[test]
            fn $name() {
                run_cell(Victim::$victim, Verb::$verb);
            }
        )*
    };
}

cells! {
    daemon_dies_during_create: Daemon, Create;
    daemon_dies_during_start: Daemon, Start;
    daemon_dies_during_run: Daemon, Run;
    daemon_dies_during_exec: Daemon, Exec;
    daemon_dies_during_stop: Daemon, Stop;
    daemon_dies_during_rm: Daemon, Remove;
    daemon_dies_during_rm_force: Daemon, ForceRemove;
    daemon_dies_during_pull: Daemon, Pull;
    daemon_dies_during_load: Daemon, Load;
    daemon_dies_during_commit: Daemon, Commit;
    supervisor_dies_during_create: Supervisor, Create;
    supervisor_dies_during_start: Supervisor, Start;
    supervisor_dies_during_run: Supervisor, Run;
    supervisor_dies_during_exec: Supervisor, Exec;
    supervisor_dies_during_stop: Supervisor, Stop;
    supervisor_dies_during_rm: Supervisor, Remove;
    supervisor_dies_during_rm_force: Supervisor, ForceRemove;
    supervisor_dies_during_pull: Supervisor, Pull;
    supervisor_dies_during_load: Supervisor, Load;
    supervisor_dies_during_commit: Supervisor, Commit;
}

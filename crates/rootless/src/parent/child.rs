//! Programs that are kept running: pasta and the forwarder.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::maker::pidfd;
use crate::namespaces::Namespaces;

/// Between the end of a program and its next start, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Who ran this long starts again without delay.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// How long pasta may take to connect the network.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// The interface by which the network namespace reaches the outside.
const INTERFACE: &CStr = c"tap0";

/// How a program is started.
pub(super) trait Program {
    /// Starts it; `Ok(None)` if it runs already, started by somebody else.
    fn start(&mut self, namespaces: &Namespaces) -> Result<Option<Child>, String>;
    /// Why it ended.
    fn obituary(&self, status: &str) -> String;
}

/// Keeps one program running.
pub(super) struct Keeper<P> {
    program: P,
    running: Option<(Child, Option<OwnedFd>, Instant)>,
    due: Option<Instant>,
    pause: Duration,
    problem: Option<String>,
}

impl<P: Program> Keeper<P> {
    pub fn new(program: P) -> Self {
        Self {
            program,
            running: None,
            due: Some(Instant::now()),
            pause: FIRST_PAUSE,
            problem: None,
        }
    }

    /// Looks whether it has ended, and starts it if it is time.
    pub fn tend(&mut self, namespaces: &Namespaces) {
        if let Some((child, _, since)) = &mut self.running
            && let Ok(Some(status)) = child.try_wait()
        {
            if since.elapsed() > GOOD_RUN {
                self.pause = FIRST_PAUSE;
            }
            let text = self.program.obituary(&status.to_string());
            self.running = None;
            self.failed(text);
        }
        if self.due.is_some_and(|due| due <= Instant::now()) {
            match self.program.start(namespaces) {
                Ok(Some(child)) => {
                    let descriptor = pidfd(child.id());
                    self.running = Some((child, descriptor, Instant::now()));
                    self.due = None;
                }
                // Looked after from afar.
                Ok(None) => {
                    self.problem = None;
                    self.due = Some(Instant::now() + LONGEST_PAUSE);
                }
                Err(text) => self.failed(text),
            }
        }
    }

    fn failed(&mut self, text: String) {
        if self.problem.as_ref() != Some(&text) {
            tracing::warn!("{text}");
        }
        self.problem = Some(text);
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Readable when it ends.
    pub fn descriptor(&self) -> Option<libc::c_int> {
        let (_, descriptor, _) = self.running.as_ref()?;
        descriptor.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// How long until something is to be done; a second where no descriptor tells of the end.
    pub fn due_in(&self) -> Option<Duration> {
        match (&self.running, self.due) {
            (_, Some(due)) => Some(due.saturating_duration_since(Instant::now())),
            (Some((_, None, _)), None) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Why it does not run.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Ends it.
    pub fn end(&mut self) {
        if let Some((mut child, ..)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.due = None;
    }
}

impl Keeper<Pasta> {
    /// Waits until the network is connected or pasta has failed.
    pub fn settle(&mut self, namespaces: &Namespaces) {
        let due = Instant::now() + SETTLE_LIMIT;
        while self.running.is_some() && Instant::now() < due {
            if namespaces.has_interface(INTERFACE) {
                self.problem = None;
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            self.tend(namespaces);
            if self.problem.is_some() {
                return;
            }
        }
    }
}

/// pasta(1): connects the network namespace with the host's network.
pub(super) struct Pasta {
    run: PathBuf,
    log: PathBuf,
}

impl Pasta {
    pub fn new(run: &Path) -> Self {
        Self {
            run: run.to_owned(),
            log: crate::message::directory(run).join("pasta.log"),
        }
    }
}

impl Program for Pasta {
    fn start(&mut self, namespaces: &Namespaces) -> Result<Option<Child>, String> {
        if namespaces.has_interface(INTERFACE) {
            return Ok(None);
        }
        let program = crate::find_program("pasta")
            .ok_or("pasta is not installed (Debian: apt install passt)")?;
        let log = File::create(&self.log)
            .map_err(|error| format!("cannot write {}: {error}", self.log.display()))?;
        // Once inside the user namespace it may not look at processes outside any more.
        let inside = crate::forward::pid(&self.run)
            .ok_or("the forwarder of ports does not run, by which it would find the network")?;
        let mut command = Command::new(&program);
        command
            .args(["--config-net", "--foreground", "--quiet", "--stderr"])
            // Nothing on the host's loopback can be reached but its resolver.
            .arg("--no-map-gw")
            .arg("--dns-forward")
            .arg(crate::DNS_ADDRESS.to_string())
            .args(["--ns-ifname", &INTERFACE.to_string_lossy()])
            // Ports are the forwarder's.
            .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"])
            .arg(inside.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
            .spawn()
            .map(Some)
            .map_err(|error| format!("cannot run {}: {error}", program.display()))
    }

    fn obituary(&self, status: &str) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let said: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.contains("syslog"))
            .collect();
        let last = said.last().copied().unwrap_or("it said nothing");
        let hint = if last.contains("/dev/net/tun")
            || last.contains("TUNSETIFF")
            || last.contains("tap")
        {
            "; /dev/net/tun has to be there with mode 0666"
        } else if last.contains("routable") {
            "; it is tried again until the machine has a network"
        } else {
            ""
        };
        format!("pasta ended with {status}: {last}{hint}")
    }
}

/// The process inside that answers published ports.
pub(super) struct Forwarder {
    run: PathBuf,
}

impl Forwarder {
    pub fn new(run: &Path) -> Self {
        Self {
            run: run.to_owned(),
        }
    }
}

impl Program for Forwarder {
    fn start(&mut self, namespaces: &Namespaces) -> Result<Option<Child>, String> {
        if crate::forward::pid(&self.run).is_some() {
            return Ok(None);
        }
        let copy = namespaces
            .try_clone()
            .map_err(|error| format!("cannot copy descriptors: {error}"))?;
        let mut command = own_program().map_err(|error| format!("find this program: {error}"))?;
        command
            .arg(crate::FORWARDER)
            .arg(&self.run)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: between fork and exec only setns(2), setresuid(2) and setresgid(2) are called,
        // which are async-signal-safe; this process has one thread.
        unsafe { command.pre_exec(move || copy.enter()) };
        command
            .spawn()
            .map(Some)
            .map_err(|error| format!("cannot start the forwarder of ports: {error}"))
    }

    fn obituary(&self, status: &str) -> String {
        format!("the forwarder of ports ended with {status}")
    }
}

/// This program, even if its file was replaced meanwhile.
fn own_program() -> io::Result<Command> {
    let path = std::env::current_exe()?;
    let mut command = if path.is_file() {
        Command::new(&path)
    } else {
        Command::new("/proc/self/exe")
    };
    command.arg0("gamut-rootless");
    Ok(command)
}

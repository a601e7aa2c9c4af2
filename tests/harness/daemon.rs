//! A real daemon, all its own, and everything that tests do with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::leaks::{Scope, processes};
use crate::sweep::{kill, own_name, sweep};
use crate::{
    Answering, Cgroup, Namespaces, Output, PATIENCE, Response, Session, Snapshot, busybox,
    exchange, has, hostile, monitor, on_path, probe, skipped, supervisor, target_binary, unikernel,
    until,
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A daemon under test. [`Daemon::finish`] ends a test; dropping it without (a failed test) kills
/// and removes everything that belongs to it.
pub struct Daemon {
    directory: tempfile::TempDir,
    namespaces: Namespaces,
    cgroup: Cgroup,
    arguments: Vec<String>,
    child: Option<Child>,
    baseline: Snapshot,
    images: Vec<String>,
}

impl Daemon {
    /// Starts one. `None`, said aloud, if the machine cannot.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts one and imports the tests' image as `busybox`. `None`, said aloud, if the machine
    /// cannot.
    #[must_use]
    pub fn with_busybox() -> Option<Self> {
        let archive = busybox()?;
        let daemon = Self::start()?;
        daemon.import(archive, "busybox", &["CMD [\"sh\"]"]);
        Some(daemon)
    }

    /// Starts one with the image `probe`, which has a Linux and a unikernel form that do the same.
    /// `None`, said aloud, if the machine cannot.
    #[must_use]
    pub fn with_probe() -> Option<Self> {
        Self::with_probe_hiding(&[])
    }

    /// As [`Daemon::with_probe`], on a machine on which these files cannot be used.
    #[must_use]
    pub fn with_probe_hiding(hidden: &[&str]) -> Option<Self> {
        let archive = probe()?;
        let program = unikernel("probe")?.display().to_string();
        let daemon = Self::start_hiding(&[], hidden)?;
        daemon.import(&archive, "probe", &["ENTRYPOINT [\"/bin/probe\"]"]);
        daemon.ok(&["unikernel", "pack", "--add-to", "probe", &program]);
        Some(daemon)
    }

    /// As [`Daemon::with_busybox`], with the hostile program in the image (`/bin/attacker`).
    #[must_use]
    pub fn with_attacker() -> Option<Self> {
        let rootfs = hostile()?;
        let daemon = Self::start()?;
        daemon.import(&rootfs.finish(), "busybox", &["CMD [\"sh\"]"]);
        Some(daemon)
    }

    /// Starts one with further arguments for `gamut daemon`.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Option<Self> {
        Self::start_hiding(arguments, &[])
    }

    /// Starts one with further arguments, on a machine on which these files cannot be used.
    fn start_hiding(arguments: &[&str], hidden: &[&str]) -> Option<Self> {
        // SAFETY: geteuid(2) only returns a number.
        if unsafe { libc::geteuid() } != 0 {
            skipped("containers need root here");
            return None;
        }
        let _ = has("nft");
        let namespaces = match Namespaces::new() {
            Ok(namespaces) => namespaces,
            Err(error) => {
                skipped(&format!("no namespaces of its own: {error}"));
                return None;
            }
        };
        hidden.iter().for_each(|path| namespaces.hide(path));
        sweep();
        let name = own_name(NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .rand_bytes(4)
            .tempdir();
        let mut daemon = Self {
            directory: directory.expect("a temporary directory can be made"),
            namespaces,
            cgroup: Cgroup::new(format!("/{name}")),
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
            child: None,
            baseline: Snapshot::default(),
            images: Vec::new(),
        };
        daemon.launch();
        daemon.images = daemon.lines(&["images", "-a", "-q", "--no-trunc"]);
        daemon.baseline = daemon.settled();
        Some(daemon)
    }

    /// Starts the daemon's process and waits until it answers.
    fn launch(&mut self) {
        let mut command = Command::new(target_binary());
        command
            .arg("daemon")
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--run-root")
            .arg(self.run_root())
            .args(["--cgroup-parent", self.cgroup.path()])
            .args(&self.arguments)
            .env("GAMUT_SUPERVISOR", supervisor())
            .env("GAMUT_MONITOR", monitor())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.open_log());
        let child = self.namespaces.apply(&mut command).spawn();
        self.child = Some(child.expect("the daemon's binary runs"));
        let due = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
            assert!(
                ended.is_none() && Instant::now() < due,
                "the daemon does not come up ({ended:?}):\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the daemon answers. That somebody listens is not enough: a child that a killed
    /// daemon has not quite started holds its socket for a moment.
    fn answers(&self) -> bool {
        let Ok(stream) = UnixStream::connect(self.socket()) else {
            return false;
        };
        let limited = stream.set_read_timeout(Some(Duration::from_secs(1)));
        limited.is_ok() && exchange(stream, "GET", "/_ping", "text/plain", b"").is_ok()
    }

    fn open_log(&self) -> File {
        let path = self.directory.path().join("daemon.log");
        let open = File::options().create(true).append(true).open(path);
        open.expect("the log can be opened")
    }

    /// A snapshot of a daemon that has come to rest.
    fn settled(&self) -> Snapshot {
        let mut last = self.snapshot();
        let mut same = 0;
        until("the daemon comes to rest", || {
            let now = self.snapshot();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            (same == 2).then_some(())
        });
        last
    }

    /// What the daemon and its workloads hold now.
    ///
    /// # Panics
    /// If it is not running.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&Scope {
            namespaces: &self.namespaces,
            cgroup: &self.cgroup,
            daemon_pid: self.pid(),
            roots: [&self.data_root(), &self.run_root()],
        })
    }

    /// What there is once nothing changes by itself any more: what was begun in the background,
    /// such as filling pools, is done.
    ///
    /// # Panics
    /// If it does not come to rest.
    #[must_use]
    pub fn snapshot_at_rest(&self) -> Snapshot {
        let due = Instant::now() + PATIENCE;
        let mut last = self.snapshot();
        let mut unchanged = 0;
        while unchanged < 3 {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.snapshot();
            let changes = now.difference(&last);
            assert!(
                Instant::now() < due,
                "it does not come to rest: {changes:?}"
            );
            unchanged = if changes.is_empty() { unchanged + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon is running").id()
    }

    /// Directory of the test; the data and run roots are in it. It goes when the daemon goes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its `--data-root`.
    #[must_use]
    pub fn data_root(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Its `--run-root`.
    #[must_use]
    pub fn run_root(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_root().join("gamut.sock")
    }

    /// Its control group.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The namespaces it lives in.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// A command in the daemon's namespaces with its socket in the environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let host = format!("unix://{}", self.socket().display());
        command
            .env("GAMUT_HOST", &host)
            .env("DOCKER_HOST", &host)
            .env("DOCKER_CONFIG", self.directory.path().join("docker"));
        self.namespaces.apply(&mut command);
        command
    }

    /// Runs `gamut` to its end.
    #[track_caller]
    pub fn gamut(&self, arguments: &[&str]) -> Output {
        self.gamut_with_input(arguments, &[])
    }

    /// Runs `gamut`, which must succeed, and returns its standard output, trimmed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.gamut(arguments);
        assert_eq!(output.code, 0, "gamut {arguments:?}: {output:#?}");
        output.stdout.trim().to_owned()
    }

    /// Runs a shell script in a fresh `busybox` container: `gamut run --rm OPTIONS busybox sh -c`.
    #[track_caller]
    pub fn shell(&self, options: &[&str], script: &str) -> Output {
        let arguments = [&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat();
        self.gamut(&arguments)
    }

    /// The same with `-d` instead of `--rm` and with a name.
    #[track_caller]
    pub fn detached(&self, name: &str, options: &[&str], script: &str) {
        let head: &[&str] = &["run", "-d", "--name", name];
        let arguments = [head, options, &["busybox", "sh", "-c", script]].concat();
        self.ok(&arguments);
    }

    /// The lines of [`Daemon::ok`].
    #[track_caller]
    pub fn lines(&self, arguments: &[&str]) -> Vec<String> {
        self.ok(arguments).lines().map(str::to_owned).collect()
    }

    /// Runs `gamut`, which must succeed, and returns its standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The first object of `gamut inspect`.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        self.json(&["inspect", name])[0].take()
    }

    /// Runs `gamut` with bytes on its standard input.
    #[track_caller]
    pub fn gamut_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut session = self.spawn(arguments);
        session.write_bytes(input);
        session.close_stdin();
        session.wait()
    }

    /// Starts `gamut` with pipes.
    #[must_use]
    pub fn spawn(&self, arguments: &[&str]) -> Session {
        Session::start(self.command(target_binary()).args(arguments))
    }

    /// Starts `gamut` on a terminal.
    #[must_use]
    pub fn spawn_on_terminal(&self, arguments: &[&str]) -> Session {
        Session::start_on_terminal(self.command(target_binary()).args(arguments))
    }

    /// Runs the stock docker client to its end. Ask [`has`]`("docker")` before.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> Output {
        let mut session = self.spawn_docker(arguments);
        session.close_stdin();
        session.wait()
    }

    /// Starts the stock docker client with pipes.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn spawn_docker(&self, arguments: &[&str]) -> Session {
        let docker = on_path("docker").expect("the test has asked for docker");
        Session::start(self.command(docker).args(arguments))
    }

    /// Imports a root filesystem as an image; `changes` are Dockerfile instructions.
    #[track_caller]
    pub fn import(&self, archive: &[u8], reference: &str, changes: &[&str]) {
        let mut arguments = vec!["import"];
        for change in changes {
            arguments.extend(["--change", change]);
        }
        arguments.extend(["-", reference]);
        let _ = self.gamut_with_input(&arguments, archive).ok();
    }

    /// One request to the API, body and answer as they are on the wire.
    ///
    /// # Panics
    /// If the connection breaks or the answer is no HTTP.
    #[track_caller]
    pub fn http(&self, method: &str, path: &str, body: &str) -> Response {
        let stream = UnixStream::connect(self.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        exchange(stream, method, path, "application/json", body.as_bytes())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Fetches the page at an address, from within the daemon's network namespace. `None` if
    /// nothing answers.
    #[must_use]
    pub fn fetch(&self, address: &str) -> Option<String> {
        let address: SocketAddr = address.parse().expect("it is ADDRESS:PORT");
        self.namespaces.inside(|| {
            let limit = Duration::from_secs(2);
            let stream = TcpStream::connect_timeout(&address, limit).ok()?;
            stream.set_read_timeout(Some(limit)).ok()?;
            let answer = exchange(stream, "GET", "/", "text/plain", b"").ok()?;
            Some(answer.text())
        })
    }

    /// Sends a datagram to an address, from within the daemon's network namespace, and returns
    /// the answer. `None` if there is none.
    #[must_use]
    pub fn ask(&self, address: &str, question: &str) -> Option<String> {
        let address: SocketAddr = address.parse().expect("it is ADDRESS:PORT");
        self.namespaces.inside(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            socket.send_to(question.as_bytes(), address).ok()?;
            let mut answer = [0; 512];
            let count = socket.recv(&mut answer).ok()?;
            Some(String::from_utf8_lossy(&answer[..count]).into_owned())
        })
    }

    /// Answers datagrams to a port of a running container, in its network namespace, with
    /// `answer to ` and what they ask, until the returned value is dropped.
    ///
    /// # Panics
    /// If the port cannot be had.
    #[must_use]
    pub fn answer_datagrams(&self, container: &str, port: u16) -> Answering {
        let path = format!("/proc/{}/ns/net", self.container_pid(container));
        let namespace = File::open(path).expect("the container runs");
        Answering::start(&namespace, port)
    }

    /// Pid, in the daemon's namespace, of a running container's process 1.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn container_pid(&self, container: &str) -> u32 {
        let state = self.inspect(container)["State"].take();
        let pid = state["Pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        pid.filter(|pid| *pid > 0)
            .unwrap_or_else(|| panic!("{container} does not run: {state}"))
    }

    /// Pid of a running container's supervisor.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn supervisor_pid(&self, container: &str) -> u32 {
        let pid = self.container_pid(container);
        crate::leaks::stat(pid).expect("it runs").2
    }

    /// Kills the daemon as `kill -9` does. Workloads go on.
    ///
    /// # Panics
    /// If it is not running.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the daemon is running");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Asks the daemon to stop; it must exit with code 0. Workloads go on.
    ///
    /// # Panics
    /// If it does not.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().expect("the daemon is running");
        let pid = i32::try_from(child.id()).expect("a process id fits");
        // SAFETY: kill(2) takes no pointers; the child is not waited for yet, so the id is its.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let due = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() < due => std::thread::sleep(Duration::from_millis(5)),
                None => {
                    self.child = Some(child);
                    panic!("the daemon does not stop:\n{}", self.log());
                }
            }
        };
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Starts the daemon again, stopping it first if it runs.
    ///
    /// # Panics
    /// If it does not stop or does not come up.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            self.terminate();
        }
        self.launch();
    }

    /// Ends a test: removes its containers, volumes and images, asserts that nothing has leaked,
    /// and stops the daemon.
    ///
    /// # Panics
    /// If something has leaked or the daemon does not stop.
    #[track_caller]
    pub fn finish(mut self) {
        self.remove_all();
        self.assert_nothing_leaked();
        self.terminate();
        let left = self.processes();
        let tell = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let facts: Vec<&str> = status.lines().take(7).collect();
            format!("{pid} ({line}): {}", facts.join(", "))
        };
        let told: Vec<String> = left.iter().map(tell).collect();
        assert!(left.is_empty(), "processes outlive the daemon: {told:#?}");
    }

    /// Removes all containers, all volumes and the images that were not there at the start.
    #[track_caller]
    pub fn remove_all(&self) {
        self.remove_each(
            &["rm", "-f", "-v"],
            &self.lines(&["ps", "-a", "-q", "--no-trunc"]),
        );
        self.remove_each(&["volume", "rm"], &self.lines(&["volume", "ls", "-q"]));
        let networks = [
            "network",
            "ls",
            "-q",
            "--no-trunc",
            "--filter",
            "type=custom",
        ];
        self.remove_each(&["network", "rm"], &self.lines(&networks));
        let images = self.lines(&["images", "-a", "-q", "--no-trunc"]);
        let mut added: Vec<_> = images
            .into_iter()
            .filter(|image| !self.images.contains(image))
            .collect();
        added.dedup();
        self.remove_each(&["rmi", "-f"], &added);
    }

    #[track_caller]
    fn remove_each(&self, verb: &[&str], names: &[String]) {
        if !names.is_empty() {
            let names = names.iter().map(String::as_str);
            self.ok(&verb.iter().copied().chain(names).collect::<Vec<_>>());
        }
    }

    /// Asserts that what there is now is what there was at the start, once it has come to rest.
    ///
    /// # Panics
    /// If something more or less is there.
    #[track_caller]
    pub fn assert_nothing_leaked(&self) {
        let due = Instant::now() + Duration::from_secs(10);
        loop {
            let difference = self.snapshot().difference(&self.baseline);
            if difference.is_empty() {
                return;
            }
            assert!(
                Instant::now() < due,
                "leaked: {difference:#?}\n{}",
                tail(&self.log())
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Supervisors and workloads.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mount_name = self.namespaces.mount_name();
        let daemon = self.child.as_ref().map(Child::id);
        let lives_here = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/ns/mnt"))
                .is_ok_and(|name| *name.to_string_lossy() == *mount_name)
        };
        let mut pids = self.cgroup.processes();
        pids.extend(processes().into_iter().filter(lives_here));
        pids.retain(|pid| Some(*pid) != daemon);
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = format!("--- the daemon's log\n{}\n---\n", tail(&self.log()));
            print!("{log}");
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let due = Instant::now() + Duration::from_secs(10);
        loop {
            // They live in namespaces and control groups of this test, so they are its.
            let pids = self.processes();
            if pids.is_empty() || Instant::now() > due {
                break;
            }
            pids.into_iter().for_each(kill);
            self.cgroup.kill();
        }
        self.cgroup.remove();
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

//! An ordinary user, all his own: with subordinate ids, a home, and a neighbour on the network.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::leaks::processes;
use crate::sweep::{kill, own_name, sweep};
use crate::{
    Namespaces, Output, Session, has, on_path, runtime, skipped, supervisor, target_binary,
};

static NUMBER: AtomicU32 = AtomicU32::new(100);

/// What the machine of a [`User`] is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// As Debian's: subordinate ids, and `/dev/net/tun` for everybody.
    Usual,
    /// Nobody has given the user subordinate ids.
    WithoutSubordinateIds,
    /// pasta is not installed.
    WithoutPasta,
}

/// An ordinary user on a machine with a neighbour: the user's programs see files of `/etc` and a
/// network that the machine has not. Dropping it kills all processes of the user's.
pub struct User {
    directory: tempfile::TempDir,
    namespaces: Namespaces,
    neighbour: Namespaces,
    uid: u32,
    first_subordinate: u32,
}

/// Address of the user's machine in the network of the two.
pub const MACHINE_ADDRESS: &str = "10.77.0.2";
/// Address of the neighbour.
pub const NEIGHBOUR_ADDRESS: &str = "10.77.0.1";
/// How many subordinate ids the user has.
const SUBORDINATE_IDS: u32 = 65_536;

impl User {
    /// Makes one. `None`, said aloud, if the machine cannot.
    ///
    /// # Panics
    /// If it can, but does not.
    #[must_use]
    pub fn new(machine: Machine) -> Option<Self> {
        // SAFETY: geteuid(2) only returns a number.
        if unsafe { libc::geteuid() } != 0 {
            skipped("making a user with subordinate ids needs root");
            return None;
        }
        for tool in ["newuidmap", "pasta", "setpriv", "nft", "ip"] {
            if !has(tool) {
                return None;
            }
        }
        let (namespaces, neighbour) = match (Namespaces::new(), Namespaces::new()) {
            (Ok(one), Ok(other)) => (one, other),
            (Err(error), _) | (_, Err(error)) => {
                skipped(&format!("no namespaces of its own: {error}"));
                return None;
            }
        };
        sweep();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = own_name(number);
        let directory = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .rand_bytes(4)
            .tempdir()
            .expect("a temporary directory can be made");
        // Nobody else has these: they are above those of any distribution.
        let slot = std::process::id() % 4096 * 8 + number % 8;
        let user = Self {
            directory,
            namespaces,
            neighbour,
            uid: 300_000 + slot,
            first_subordinate: 1_000_000_000 + slot * SUBORDINATE_IDS,
        };
        user.furnish(machine);
        Some(user)
    }

    fn furnish(&self, machine: Machine) {
        let top = self.directory.path();
        let own = |path: &Path, mode: u32| {
            fs::create_dir(path).expect("a fresh directory");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
            chown(path, Some(self.uid), Some(self.uid)).expect("we are root");
        };
        fs::set_permissions(top, fs::Permissions::from_mode(0o755)).expect("it is ours");
        own(&self.home(), 0o755);
        own(&self.runtime_directory(), 0o700);
        let uid = self.uid;
        let ids = match machine {
            Machine::WithoutSubordinateIds => String::new(),
            _ => format!("carol:{}:{SUBORDINATE_IDS}\n", self.first_subordinate),
        };
        let home = self.home().display().to_string();
        let with = |path: &str, line: String| fs::read_to_string(path).unwrap_or_default() + &line;
        let files = [
            (
                "passwd",
                with(
                    "/etc/passwd",
                    format!("carol:x:{uid}:{uid}::{home}:/bin/sh\n"),
                ),
            ),
            ("group", with("/etc/group", format!("carol:x:{uid}:\n"))),
            ("subuid", ids.clone()),
            ("subgid", ids),
        ];
        let mut script = String::from("set -e\n");
        for (name, text) in files {
            let path = top.join(name);
            fs::write(&path, text).expect("it can be written");
            script += &format!(
                "[ -e /etc/{name} ] || : > /etc/{name}; mount --bind {} /etc/{name}\n",
                path.display()
            );
        }
        // The programs may lie where the user cannot reach them.
        for (name, source) in [
            ("gamut", target_binary()),
            ("gamut-supervisor", supervisor()),
            ("gamut-runtime", runtime()),
        ] {
            script += &format!(
                "touch {bin}/{name}; mount --bind {source} {bin}/{name}\n",
                bin = self.bin().display(),
                source = source.display()
            );
        }
        fs::create_dir(self.bin()).expect("a fresh directory");
        let device = top.join("dev");
        fs::create_dir(&device).expect("a fresh directory");
        script += &format!(
            "mount -t tmpfs -o mode=755 tmpfs {dev}; mknod -m 666 {dev}/tun c 10 200\n\
             mount --bind {dev}/tun /dev/net/tun\n",
            dev = device.display()
        );
        if machine == Machine::WithoutPasta {
            let pasta = on_path("pasta").expect("asked for above");
            script += &format!(
                "mount --bind /dev/null $(readlink -f {})\n",
                pasta.display()
            );
        }
        script += &format!(
            "ip link add ext0 type veth peer name far0\n\
             ip link set far0 netns {far}\n\
             ip addr add {MACHINE_ADDRESS}/24 dev ext0; ip link set ext0 up\n\
             nsenter --net={far} ip addr add {NEIGHBOUR_ADDRESS}/24 dev far0\n\
             nsenter --net={far} ip link set far0 up\n\
             ip route add default via {NEIGHBOUR_ADDRESS}\n",
            far = self.neighbour.net_path()
        );
        let mut shell = Command::new("sh");
        self.namespaces.apply(shell.args(["-c", &script]));
        let output = Session::start(&mut shell).wait();
        assert_eq!(output.code, 0, "furnish the machine: {output:#?}");
    }

    fn bin(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    /// The user's id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The first of the user's subordinate ids.
    #[must_use]
    pub fn first_subordinate(&self) -> u32 {
        self.first_subordinate
    }

    /// The user's home directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// `XDG_RUNTIME_DIR`.
    #[must_use]
    pub fn runtime_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The network that the neighbour is in.
    #[must_use]
    pub fn neighbour(&self) -> &Namespaces {
        &self.neighbour
    }

    /// The network of the user's machine.
    #[must_use]
    pub fn machine(&self) -> &Namespaces {
        &self.namespaces
    }

    /// A program of the user's, with nothing but a login's environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let id = self.uid.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .args(["--inh-caps=-all", "--bounding-set=-sys_resource", "--"])
            .arg(program)
            .env_clear()
            .env("HOME", self.home())
            .env("USER", "carol")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("XDG_RUNTIME_DIR", self.runtime_directory());
        self.namespaces.apply(&mut command);
        command.current_dir("/");
        command
    }

    /// Runs `gamut` to its end.
    #[track_caller]
    pub fn gamut(&self, arguments: &[&str]) -> Output {
        self.gamut_with_input(arguments, &[])
    }

    /// Runs `gamut` with bytes on its standard input.
    #[track_caller]
    pub fn gamut_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut session = Session::start(self.command(self.bin().join("gamut")).args(arguments));
        session.write_bytes(input);
        session.close_stdin();
        session.wait()
    }

    /// Starts `gamut` with pipes.
    #[must_use]
    pub fn spawn(&self, arguments: &[&str]) -> Session {
        Session::start(self.command(self.bin().join("gamut")).args(arguments))
    }

    /// Runs `gamut-runtime` to its end.
    #[track_caller]
    pub fn runtime(&self, arguments: &[&str]) -> Output {
        let program = self.bin().join("gamut-runtime");
        let mut session = Session::start(self.command(program).args(arguments));
        session.close_stdin();
        session.wait()
    }

    /// Runs `gamut`, which must succeed, and returns its standard output, trimmed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.gamut(arguments);
        assert_eq!(
            output.code,
            0,
            "gamut {arguments:?}: {output:#?}\n{}",
            self.log()
        );
        output.stdout.trim().to_owned()
    }

    /// What the daemon and its helpers have logged.
    #[must_use]
    pub fn log(&self) -> String {
        let run = self.runtime_directory().join("gamut");
        ["daemon.log", "rootless.log", "rootless/pasta.log"]
            .map(|name| fs::read_to_string(run.join(name)).unwrap_or_default())
            .join("\n")
    }

    /// Process ids of the user's processes, subordinate ids included, whose command line has
    /// `text` in it; words are separated by blanks.
    #[must_use]
    pub fn processes(&self, text: &str) -> Vec<u32> {
        let subordinate = self.first_subordinate..self.first_subordinate + SUBORDINATE_IDS;
        let mut found = processes();
        found.retain(|pid| {
            let owner = fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid());
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let is_zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains(") Z "));
            owner.is_ok_and(|uid| uid == self.uid || subordinate.contains(&uid))
                && line.replace('\0', " ").contains(text)
                && !is_zombie
        });
        found
    }

    /// Kills, as `kill -9` does, those of [`User::processes`]; there must be one at least.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn kill_9(&self, text: &str) {
        let found = self.processes(text);
        assert!(!found.is_empty(), "no process of the user's has {text}");
        for pid in &found {
            kill(*pid);
        }
        crate::eventually("the killed are gone", || {
            let left = self.processes(text);
            found.iter().all(|pid| !left.contains(pid))
        });
    }

    /// Ends the daemon as `kill` does, and waits for that.
    ///
    /// # Panics
    /// If there is none, or it does not end.
    pub fn terminate_daemon(&self) {
        for pid in self.processes("gamut daemon") {
            let pid = i32::try_from(pid).expect("a process id fits");
            // SAFETY: kill(2) takes no pointers.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        crate::eventually("the daemon ends", || {
            self.processes("gamut daemon").is_empty()
        });
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the daemon's log\n{}\n---", self.log());
        }
        let due = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.processes("");
            if left.is_empty() || Instant::now() > due {
                break;
            }
            left.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

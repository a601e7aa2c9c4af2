//! What the engines have in common: a place of their own, a root file system, and what is asked
//! of each.

use gamut_tests::{
    Namespaces, Output, Session, busybox, eventually, has, on_path, runtime, skipped,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An engine's directory and namespaces. Its server, if there is one, ends with it.
pub struct Place {
    directory: tempfile::TempDir,
    namespaces: Namespaces,
    server: Option<Child>,
}

impl Place {
    /// A place, if the peers are asked for and `programs` are installed; said aloud if not.
    pub fn new(programs: &[&str]) -> Option<Self> {
        if std::env::var_os("GAMUT_TEST_PEERS").is_none() {
            skipped("only with --peers");
            return None;
        }
        if !programs.iter().all(|program| has(program)) {
            return None;
        }
        let namespaces = Namespaces::new().unwrap();
        let directory = tempfile::Builder::new().prefix("gamut-peer-").tempdir();
        let place = Self {
            directory: directory.unwrap(),
            namespaces,
            server: None,
        };
        let rootfs = place.path("rootfs");
        std::fs::create_dir(&rootfs).unwrap();
        tar::Archive::new(busybox()?).unpack(&rootfs).unwrap();
        Some(place)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Puts a unikernel into the root file system. False, said aloud, if it was not built.
    pub fn add_unikernel(&self, name: &str) -> bool {
        let Some(program) = gamut_tests::unikernel(name) else {
            return false;
        };
        let place = self.path("rootfs").join("unikernel");
        std::fs::copy(program, &place).unwrap();
        true
    }

    /// A command in the engine's namespaces.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(on_path(program).unwrap());
        self.namespaces.apply(&mut command);
        command
    }

    pub fn run(&self, program: &str, words: &[&str]) -> Output {
        let mut session = Session::start(self.command(program).args(words));
        session.close_stdin();
        session.wait()
    }

    /// Starts the engine's server and waits until `is_up`.
    pub fn serve(&mut self, program: &str, words: &[&str], is_up: impl Fn(&Self) -> bool) {
        let log = std::fs::File::create(self.path("server.log")).unwrap();
        let child = self
            .command(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.server = Some(child.unwrap());
        eventually("the server is up", || is_up(self));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("server.log")).unwrap_or_default();
            println!("--- the server's log\n{log}\n---");
        }
        if let Some(mut server) = self.server.take() {
            let pid = i32::try_from(server.id()).unwrap();
            // SAFETY: kill(2) takes no pointers; the child is not waited for yet.
            unsafe { libc::kill(pid, libc::SIGTERM) };
            let _ = server.wait();
        }
    }
}

/// Path of the runtime under test.
pub fn runtime_path() -> String {
    runtime().display().to_string()
}

/// Nothing of a container is left in the directory of states that an engine uses.
pub fn assert_no_state(root: &Path) {
    eventually("the runtime's states are gone", || {
        std::fs::read_dir(root).map_or(0, Iterator::count) == 0
    });
}

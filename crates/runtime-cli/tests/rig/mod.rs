//! A bundle with a static busybox, and the commands on it.
#![allow(dead_code, reason = "no test uses all of it")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/bin/busybox";

/// A bundle, a root for states and a control group, removed at the end.
pub struct Rig {
    pub directory: tempfile::TempDir,
    pub cgroup: String,
}

/// The supervisor's program, built once from this workspace.
fn supervisor() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if let Some(path) = std::env::var_os("GAMUT_SUPERVISOR") {
            return PathBuf::from(path);
        }
        let runtime = Path::new(env!("CARGO_BIN_EXE_gamut-runtime"));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "gamut-supervisor"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        runtime.with_file_name("gamut-supervisor")
    });
    built.clone()
}

impl Rig {
    /// `None`, loudly, where containers cannot be made.
    pub fn new(args: &[&str]) -> Option<Self> {
        // SAFETY: only returns a number.
        let root = unsafe { libc::geteuid() } == 0;
        if !root || !Path::new(BUSYBOX).exists() {
            eprintln!("SKIPPED: needs root and a static {BUSYBOX}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("bundle/rootfs");
        for name in ["bin", "proc", "dev", "sys"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
        for name in [
            "sh", "true", "sleep", "cat", "readlink", "kill", "id", "pwd", "stty",
        ] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let unique = directory.path().file_name().unwrap().to_str().unwrap();
        let cgroup = format!("/gamut-test-{}{unique}", std::process::id());
        let rig = Self { directory, cgroup };
        rig.configure(args);
        Some(rig)
    }

    pub fn configure(&self, args: &[&str]) {
        self.configure_with(args, |_| {});
    }

    /// A configuration that `change` has had its way with.
    pub fn configure_with(&self, args: &[&str], change: impl FnOnce(&mut serde_json::Value)) {
        let mut config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "noNewPrivileges": true
            },
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755", "size=65536k"]}
            ],
            "annotations": {"org.example.key": "value"},
            "linux": {
                "cgroupsPath": format!("{}/c", self.cgroup),
                "resources": {"pids": {"limit": 32}},
                "namespaces": [
                    {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "mount"}
                ]
            }
        });
        change(&mut config);
        let path = self.directory.path().join("bundle/config.json");
        fs::write(path, config.to_string()).unwrap();
    }

    /// The control group of the containers.
    pub fn group(&self) -> gamut_cgroup::Group {
        let hierarchies = gamut_cgroup::Hierarchies::detect().unwrap();
        gamut_cgroup::Group::at(&hierarchies, &format!("{}/c", self.cgroup)).unwrap()
    }

    /// A path below the directory, as text.
    pub fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub fn state_root(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_gamut-runtime"));
        command.arg("--root").arg(self.state_root()).args(words);
        command
    }

    /// A program in the bundle, with nothing to read.
    pub fn program(&self, path: &str) -> Command {
        let mut command = Command::new(path);
        command
            .current_dir(self.directory.path().join("bundle"))
            .env("GAMUT_SUPERVISOR", supervisor())
            .stdin(Stdio::null());
        command
    }

    pub fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// `create` hands the caller's streams on: a captured pipe would stay open as long as the
    /// container.
    pub fn create(&self, id: &str) {
        let out = fs::File::create(self.directory.path().join("out")).unwrap();
        let status = self
            .command(&["create", id])
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        assert!(status.success(), "{}", self.out());
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.directory.path().join("out")).unwrap()
    }

    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(!output.status.success(), "{words:?} did not fail");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn status(&self, id: &str) -> String {
        let state: serde_json::Value = serde_json::from_str(&self.ok(&["state", id])).unwrap();
        assert_eq!(state["annotations"]["org.example.key"], "value");
        state["status"].as_str().unwrap().to_owned()
    }

    pub fn wait_for(&self, id: &str, status: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.status(id) != status {
            assert!(Instant::now() < until, "{id} never became {status}");
            sleep(Duration::from_millis(5));
        }
    }

    pub fn group_is_gone(&self) -> bool {
        !self.group().exists()
    }

    pub fn assert_clean(&self) {
        let left = fs::read_dir(self.state_root()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "state is left");
        assert!(self.group_is_gone(), "the control group is left");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for id in ["a", "b"] {
            let _ = self.output(&["delete", "--force", id]);
        }
        if let Ok(hierarchies) = gamut_cgroup::Hierarchies::detect() {
            let _ = gamut_cgroup::Group::at(&hierarchies, &self.cgroup)
                .map(|group| group.kill().and_then(|()| group.remove()));
        }
    }
}

//! The commands on real containers: a bundle with a static busybox.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/bin/busybox";

/// A bundle, a root for states and a control group, removed at the end.
struct Rig {
    directory: tempfile::TempDir,
    cgroup: String,
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
    fn new(args: &[&str]) -> Option<Self> {
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
        for name in ["sh", "true", "sleep", "cat", "readlink", "kill"] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let unique = directory.path().file_name().unwrap().to_str().unwrap();
        let cgroup = format!("/gamut-test-{}{unique}", std::process::id());
        let rig = Self { directory, cgroup };
        rig.configure(args);
        Some(rig)
    }

    fn configure(&self, args: &[&str]) {
        let config = serde_json::json!({
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
        let path = self.directory.path().join("bundle/config.json");
        fs::write(path, config.to_string()).unwrap();
    }

    fn state_root(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gamut-runtime"));
        command
            .arg("--root")
            .arg(self.state_root())
            .args(words)
            .current_dir(self.directory.path().join("bundle"))
            .env("GAMUT_SUPERVISOR", supervisor())
            .stdin(Stdio::null());
        command
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// `create` hands the caller's streams on: a captured pipe would stay open as long as the
    /// container.
    fn create(&self, id: &str) {
        let out = fs::File::create(self.directory.path().join("out")).unwrap();
        let status = self
            .command(&["create", id])
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .status()
            .unwrap();
        assert!(status.success(), "{}", self.out());
    }

    fn out(&self) -> String {
        fs::read_to_string(self.directory.path().join("out")).unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(!output.status.success(), "{words:?} did not fail");
        String::from_utf8(output.stderr).unwrap()
    }

    fn status(&self, id: &str) -> String {
        let state: serde_json::Value = serde_json::from_str(&self.ok(&["state", id])).unwrap();
        assert_eq!(state["annotations"]["org.example.key"], "value");
        state["status"].as_str().unwrap().to_owned()
    }

    fn wait_for(&self, id: &str, status: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.status(id) != status {
            assert!(Instant::now() < until, "{id} never became {status}");
            sleep(Duration::from_millis(5));
        }
    }

    fn group_is_gone(&self) -> bool {
        let hierarchies = gamut_cgroup::Hierarchies::detect().unwrap();
        let path = format!("{}/c", self.cgroup);
        !gamut_cgroup::Group::at(&hierarchies, &path)
            .unwrap()
            .exists()
    }

    fn assert_clean(&self) {
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

#[test]
fn run_passes_output_and_exit_code_on_and_leaves_nothing() {
    let Some(rig) = Rig::new(&["sh", "-c", "echo $$; exit 7"]) else {
        return;
    };
    let output = rig.output(&["run", "a"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
    assert_eq!(output.status.code(), Some(7));
    rig.assert_clean();
}

#[test]
fn a_container_cannot_reach_the_executable_it_was_made_by() {
    // CVE-2019-5736: a container executes /proc/self/exe, which is what made it.
    let Some(rig) = Rig::new(&["/proc/self/exe", "version"]) else {
        return;
    };
    let output = rig.output(&["run", "a"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("gamut-runtime version"), "{text}");
    rig.assert_clean();
}

#[test]
fn create_start_state_delete() {
    let Some(rig) = Rig::new(&["sh", "-c", "echo started; exec sleep 1000"]) else {
        return;
    };
    let pid_file = rig.directory.path().join("pid");
    rig.create("a");
    assert_eq!(rig.status("a"), "created");
    assert_eq!(rig.out(), "", "the program runs before its start");
    assert!(rig.fails(&["create", "a"]).contains("in use"));
    assert!(!pid_file.exists());
    rig.ok(&["start", "a"]);
    rig.wait_for("a", "running");
    assert!(rig.fails(&["start", "a"]).contains("only a created one"));
    assert!(rig.fails(&["delete", "a"]).contains("--force"));
    assert_eq!(rig.ok(&["list", "-q"]), "a\n");
    rig.ok(&["kill", "a", "KILL"]);
    rig.wait_for("a", "stopped");
    assert_eq!(rig.out(), "started\n");
    assert!(rig.fails(&["kill", "a"]).contains("stopped"));
    rig.ok(&["delete", "a"]);
    assert!(rig.fails(&["state", "a"]).contains("does not exist"));
    rig.assert_clean();
}

#[test]
fn delete_kills_what_was_created_or_runs() {
    let Some(rig) = Rig::new(&["sleep", "1000"]) else {
        return;
    };
    rig.create("a");
    rig.ok(&["delete", "a"]);
    rig.assert_clean();
    rig.create("a");
    rig.ok(&["start", "a"]);
    rig.ok(&["delete", "--force", "a"]);
    rig.assert_clean();
    rig.ok(&["delete", "--force", "a"]);
}

#[test]
fn a_program_that_is_not_there_is_told_and_leaves_nothing() {
    let Some(rig) = Rig::new(&["/bin/nonsense"]) else {
        return;
    };
    let output = rig.output(&["run", "a"]);
    assert_eq!(output.status.code(), Some(127));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/bin/nonsense"), "{text}");
    rig.assert_clean();
    let log = rig.directory.path().join("log");
    let log_text = log.to_str().unwrap();
    rig.fails(&["--log", log_text, "--log-format=json", "create", "a"]);
    let line = fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    rig.assert_clean();
}

#[test]
fn run_forwards_signals() {
    let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.02; done";
    let Some(rig) = Rig::new(&["sh", "-c", script]) else {
        return;
    };
    let out = rig.directory.path().join("out");
    let mut child = rig
        .command(&["run", "a"])
        .stdout(fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while rig.out().is_empty() {
        assert!(Instant::now() < until);
        sleep(Duration::from_millis(5));
    }
    // SAFETY: plain call on a child that has not been waited for.
    unsafe { libc::kill(libc::pid_t::try_from(child.id()).unwrap(), libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(42));
    rig.assert_clean();
}

#[test]
fn the_pid_file_names_the_first_process() {
    let Some(rig) = Rig::new(&["sleep", "1000"]) else {
        return;
    };
    let path = rig.directory.path().join("pid");
    let text = path.to_str().unwrap();
    let status = rig
        .command(&["create", "--pid-file", text, "b"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid = fs::read_to_string(&path).unwrap();
    let state: serde_json::Value = serde_json::from_str(&rig.ok(&["state", "b"])).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    rig.ok(&["delete", "--force", "b"]);
    rig.assert_clean();
}

#[test]
fn a_bad_bundle_is_told_by_field_and_leaves_nothing() {
    let Some(rig) = Rig::new(&["true"]) else {
        return;
    };
    let config = rig.directory.path().join("bundle/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"/proc\"", "\"/proc\\u0000\"")).unwrap();
    assert!(rig.fails(&["run", "a"]).contains("mounts[0]"));
    fs::write(&config, &text[..40]).unwrap();
    assert!(rig.fails(&["run", "a"]).contains("config.json"));
    fs::remove_file(&config).unwrap();
    assert!(rig.fails(&["create", "a"]).contains("config.json"));
    rig.assert_clean();
}

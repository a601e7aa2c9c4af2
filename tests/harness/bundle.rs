//! A bundle for `gamut-runtime`, and the command on it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::sweep::own_name;
use crate::{Cgroup, Namespaces, Output, Rootfs, Session, runtime, skipped, supervisor};

/// Apart from the numbers of daemons.
static NUMBER: AtomicU32 = AtomicU32::new(1000);

/// A bundle with a directory for states, a control group and namespaces of its own. Whatever is
/// left of its containers when it is dropped is killed and removed.
pub struct Bundle {
    directory: tempfile::TempDir,
    namespaces: Namespaces,
    cgroup: Cgroup,
    /// What is written to `config.json` for every command; as engines make it for a container
    /// that nobody asked anything special of.
    pub config: Value,
}

impl Bundle {
    /// Makes one whose process is `args`. `None`, said aloud, if the machine cannot.
    ///
    /// # Panics
    /// If files cannot be made.
    #[must_use]
    pub fn new(rootfs: Rootfs, args: &[&str]) -> Option<Self> {
        // SAFETY: geteuid(2) only returns a number.
        if unsafe { libc::geteuid() } != 0 {
            skipped("containers need root here");
            return None;
        }
        let namespaces = match Namespaces::new() {
            Ok(namespaces) => namespaces,
            Err(error) => {
                skipped(&format!("no namespaces of its own: {error}"));
                return None;
            }
        };
        let name = own_name(NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir()
            .expect("a temporary directory can be made");
        let root = directory.path().join("bundle/rootfs");
        fs::create_dir_all(&root).expect("a directory can be made");
        let archive = rootfs.finish();
        tar::Archive::new(&archive[..])
            .unpack(&root)
            .expect("the root file system can be unpacked");
        let config = config(args, &name);
        Some(Self {
            directory,
            namespaces,
            cgroup: Cgroup::new(format!("/{name}")),
            config,
        })
    }

    /// The test's directory; `bundle/` is in it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The container's root directory.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.directory.path().join("bundle/rootfs")
    }

    /// Adds a mount to the configuration.
    ///
    /// # Panics
    /// If the test has taken the list of mounts away.
    pub fn mount(&mut self, mount: Value) {
        let list = self.config["mounts"].as_array_mut();
        list.expect("there is a list of mounts").push(mount);
    }

    /// `gamut-runtime` with the configuration as it is now.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let bundle = self.directory.path().join("bundle");
        let text = self.config.to_string();
        fs::write(bundle.join("config.json"), text).expect("config.json can be written");
        let mut command = Command::new(runtime());
        self.namespaces.apply(&mut command);
        command
            .arg("--root")
            .arg(self.directory.path().join("state"))
            .args(words)
            .env("GAMUT_SUPERVISOR", supervisor())
            .stdin(Stdio::null());
        command
    }

    /// Runs the container to its end.
    #[track_caller]
    #[must_use]
    pub fn run(&self) -> Output {
        self.session().wait()
    }

    /// Starts the container.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::start(&mut self.command(&["run", "--bundle", &self.path(), "a"]))
    }

    /// Path of the bundle itself.
    #[must_use]
    pub fn path(&self) -> String {
        self.directory.path().join("bundle").display().to_string()
    }

    /// A verb that hands its streams on to the container. Returns the exit code and what was
    /// written so far.
    ///
    /// # Panics
    /// If the command does not run.
    #[track_caller]
    #[must_use]
    pub fn verb(&self, words: &[&str]) -> (i32, String) {
        let path = self.directory.path().join("out");
        let out = File::create(&path).expect("a file can be made");
        let error = out.try_clone().expect("a descriptor is free");
        let mut command = self.command(words);
        let status = command.stdout(out).stderr(error).status();
        let code = status.expect("the runtime runs").code().unwrap_or(-1);
        (code, fs::read_to_string(path).unwrap_or_default())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.verb(&["delete", "--force", "a"]);
        self.cgroup.kill();
        self.cgroup.remove();
    }
}

fn config(args: &[&str], name: &str) -> Value {
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_KILL",
    ];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{name}/a"),
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"},
            ],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/bus"],
        },
    })
}

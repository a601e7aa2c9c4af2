//! Levels with all they need, and clients.

use gamut_abi::control::Attach;
use gamut_cgroup::{Group, Hierarchies};
use gamut_isolation::contract::{AttachedStream, Endpoint, RootSource, SandboxSpec, WorkloadSpec};
use gamut_isolation::{ContainerLevel, ContainerOptions, Context, Isolation, ProcessLevel};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Everything the body needs to know about a level.
pub struct Rig {
    pub level: Arc<dyn Isolation>,
    /// The root that workloads get.
    pub root: PathBuf,
    /// Keeps the root.
    _directory: tempfile::TempDir,
}

/// What must be true of a machine on which no workload is left.
pub struct Checks {
    pub run_root: PathBuf,
    pub cgroup_parent: String,
    /// A second level over the same run root: a daemon that was started again.
    pub options: ContainerOptions,
    _directory: tempfile::TempDir,
}

pub struct ContainerRig {
    pub rig: Rig,
    pub checks: Checks,
}

fn root_with(programs: bool) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for name in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::write(root.join("marker"), "here").unwrap();
    fs::write(root.join("bin/not-executable"), "data").unwrap();
    if programs {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists())?;
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "echo", "cat", "stty", "true"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
    }
    Some(directory)
}

pub fn process_rig() -> Rig {
    let directory = root_with(false).unwrap();
    Rig {
        level: Arc::new(ProcessLevel::new()),
        root: directory.path().to_owned(),
        _directory: directory,
    }
}

pub fn container_rig() -> Option<ContainerRig> {
    // SAFETY: geteuid only returns a number.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: containers need root");
        return None;
    }
    let Some(directory) = root_with(true) else {
        eprintln!("SKIPPED: no busybox; install busybox-static");
        return None;
    };
    let run = tempfile::tempdir().unwrap();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let cgroup_parent = format!("/gamut-test-{}-{number}", std::process::id());
    let options = ContainerOptions {
        run_root: run.path().join("run"),
        supervisor: supervisor(),
        cgroup_parent: cgroup_parent.clone(),
        without_groups: None,
    };
    let level = ContainerLevel::new(options.clone()).unwrap();
    let rig = Rig {
        level: Arc::new(level),
        root: directory.path().to_owned(),
        _directory: directory,
    };
    let checks = Checks {
        run_root: options.run_root.clone(),
        cgroup_parent,
        options,
        _directory: run,
    };
    Some(ContainerRig { rig, checks })
}

/// The supervisor's program: given, or built as it is shipped.
fn supervisor() -> PathBuf {
    if let Some(path) = std::env::var_os("GAMUT_SUPERVISOR") {
        return PathBuf::from(path);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), PathBuf::from);
    let triple = &format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = Command::new(env!("CARGO"))
        .current_dir(&workspace)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--profile", "tiny", "--target", triple])
        .args(["-p", "gamut-supervisor"])
        .status()
        .unwrap();
    assert!(built.success(), "the supervisor does not build");
    target.join(triple).join("tiny/gamut-supervisor")
}

impl Drop for Checks {
    /// A failed test must not leave its processes on the machine.
    fn drop(&mut self) {
        if let Ok(level) = ContainerLevel::new(self.options.clone()) {
            for id in level.list().unwrap_or_default() {
                drop(level.delete(&Context::default(), &id));
            }
        }
        let group = Hierarchies::detect().and_then(|found| Group::at(&found, &self.cgroup_parent));
        if let Ok(group) = group {
            drop(group.kill().and_then(|()| group.remove()));
        }
    }
}

impl Checks {
    /// No run directory, control group, mount or supervisor is left.
    pub fn nothing_is_left(&self) {
        assert_eq!(
            fs::read_dir(self.run_root.join("sandboxes"))
                .unwrap()
                .count(),
            0
        );
        assert_eq!(fs::read_dir(self.run_root.join("mnt")).unwrap().count(), 0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.run_root.to_str().unwrap()));
        let hierarchies = Hierarchies::detect().unwrap();
        assert_eq!(
            gamut_cgroup::list_children(&hierarchies, &self.cgroup_parent).unwrap(),
            Vec::<String>::new()
        );
        Group::at(&hierarchies, &self.cgroup_parent)
            .unwrap()
            .remove()
            .unwrap();
    }
}

impl Rig {
    /// A configuration that runs a script in a shell.
    pub fn config(&self, script: &str) -> Value {
        json!({
            "ociVersion": "1.2.0",
            "hostname": "contract",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["sh", "-c", script],
                "env": ["PATH=/bin:/usr/bin"],
                "cwd": "/",
                "noNewPrivileges": true
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "options": ["nosuid", "nodev", "noexec"]},
                {"destination": "/dev", "type": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/sys", "type": "sysfs",
                    "options": ["nosuid", "nodev", "noexec", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup",
                    "options": ["nosuid", "nodev", "noexec", "ro"]}
            ],
            "linux": {
                "namespaces": [
                    {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "network"}, {"type": "cgroup"}
                ],
                "resources": {"pids": {"limit": 100}},
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]
                }
            }
        })
    }

    /// A workload with that configuration in its own sandbox.
    pub fn workload(&self, id: &str, config: Value) -> WorkloadSpec {
        WorkloadSpec {
            id: id.to_owned(),
            sandbox_id: id.to_owned(),
            config: serde_json::from_value(config).unwrap(),
            user: None,
            additional_groups: Vec::new(),
            create_cwd: false,
            init: false,
            root: RootSource::Directory(self.root.clone()),
            log: None,
            restart: gamut_abi::control::RestartPolicy::Never,
            open_stdin: false,
            stdin_once: false,
            attached: Vec::new(),
        }
    }

    /// Prepares a sandbox with the best network that the level has.
    pub fn prepare(&self, context: &Context, id: &str) {
        let sandbox = |endpoint| SandboxSpec {
            id: id.to_owned(),
            endpoint,
        };
        let prepared = self
            .level
            .prepare(context, sandbox(Endpoint::Namespace(network())));
        if self.accept("network", prepared).is_none() {
            self.level
                .prepare(context, sandbox(Endpoint::Host))
                .unwrap();
        }
    }

    /// Prepares, creates and starts a script.
    pub fn run(&self, context: &Context, id: &str, script: &str) -> Client {
        self.prepare(context, id);
        let (client, attached) = Client::new();
        let mut workload = self.workload(id, self.config(script));
        workload.attached.push(attached);
        self.level.create(context, workload).unwrap();
        self.level.start(context, id).unwrap();
        client
    }

    /// The result of a verb that needs a capability: refused if, and only if, it is listed.
    #[track_caller]
    pub fn accept<T>(
        &self,
        capability: &str,
        result: Result<T, gamut_isolation::Error>,
    ) -> Option<T> {
        let listed = self
            .level
            .refusals()
            .iter()
            .find(|entry| entry.capability == capability);
        match (result, listed) {
            (Ok(value), None) => Some(value),
            (Err(gamut_isolation::Error::Refused(refusal)), Some(entry)) => {
                assert_eq!(refusal, *entry);
                None
            }
            (Ok(_), Some(_)) => panic!("{capability} works, though it is listed as refused"),
            (Err(error), _) => panic!("{capability}: {}", gamut_spec::error::chain(&error)),
        }
    }
}

/// A new network namespace.
fn network() -> OwnedFd {
    std::thread::spawn(|| {
        // SAFETY: unshare only takes flags, and concerns this thread alone, which ends here.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(unshared, 0, "cannot make a network namespace");
        OwnedFd::from(fs::File::open("/proc/thread-self/ns/net").unwrap())
    })
    .join()
    .unwrap()
}

/// A client that is attached to output.
pub struct Client {
    stream: UnixStream,
    seen: Vec<u8>,
}

pub const OUTPUT: Attach = Attach {
    stdin: false,
    stdout: true,
    stderr: true,
};

impl Client {
    pub fn new() -> (Self, AttachedStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let client = Self {
            stream: ours,
            seen: Vec::new(),
        };
        (
            client,
            AttachedStream {
                attach: OUTPUT,
                stream: theirs.into(),
            },
        )
    }

    /// Reads until a text has come, whatever frames it is in.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let contains = |seen: &[u8]| {
            seen.windows(text.len())
                .any(|piece| piece == text.as_bytes())
        };
        while !contains(&self.seen) {
            let mut buffer = [0; 1024];
            let count = match self.stream.read(&mut buffer) {
                Ok(count) => count,
                // With a timeout on the socket, signals interrupt (signal(7)).
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => panic!(
                    "{text:?} did not come: {error}; seen {:?}",
                    String::from_utf8_lossy(&self.seen)
                ),
            };
            assert_ne!(
                count,
                0,
                "{text:?} did not come; seen {:?}",
                String::from_utf8_lossy(&self.seen)
            );
            self.seen.extend_from_slice(&buffer[..count]);
        }
        self.seen.clear();
    }

    /// Reads to the end.
    #[track_caller]
    pub fn expect_end(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
    }
}

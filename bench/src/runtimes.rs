//! Runtimes on one bundle: the floor, runc, crun and `gamut-runtime`.

use crate::measure::{Budget, Contender, Failure, race, table};
use serde_json::json;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Capabilities of the field's default, as names and as numbers.
const CAPABILITIES: [(&str, u64); 14] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_MKNOD", 27),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_SETFCAP", 31),
];

/// A bundle of `true`, a compiled filter, and where everything else goes.
pub struct Bundle {
    directory: PathBuf,
    cgroup: String,
}

impl Bundle {
    /// Makes the bundle in `directory` from a static busybox.
    pub fn make(directory: &Path, busybox: &Path) -> Result<Self, Failure> {
        let bundle = Self {
            directory: directory.to_owned(),
            cgroup: format!("gamut-bench-{}", std::process::id()),
        };
        let root = bundle.root();
        for name in ["bin", "proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy(busybox, root.join("bin/busybox"))?;
        for name in [
            "true", "sh", "sleep", "cat", "tr", "sort", "dd", "sync", "yes", "nc",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
        }
        let bits = CAPABILITIES
            .iter()
            .fold(0, |bits, (_, number)| bits | 1 << number);
        let profile = gamut_seccomp::default_profile(bits, (6, 1));
        let filter: Vec<u8> = gamut_seccomp::compile(&profile)?
            .instructions
            .iter()
            .flat_map(|instruction| instruction.to_ne_bytes())
            .collect();
        fs::write(bundle.filter(), filter)?;
        for (name, group) in [("", "main"), ("crun", "crun")] {
            let config = bundle.config(&serde_json::to_value(&profile)?, group);
            let at = bundle.directory.join(format!("bundle{name}"));
            fs::create_dir_all(&at)?;
            fs::write(at.join("config.json"), config.to_string())?;
        }
        Ok(bundle)
    }

    /// Its root file system.
    pub fn root(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    fn filter(&self) -> PathBuf {
        self.directory.join("filter")
    }

    fn config(&self, seccomp: &serde_json::Value, group: &str) -> serde_json::Value {
        let names: Vec<&str> = CAPABILITIES.iter().map(|(name, _)| *name).collect();
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/true"],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {"bounding": names, "effective": names, "permitted": names},
                "noNewPrivileges": true
            },
            "root": {"path": self.root(), "readonly": true},
            "hostname": "floor",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc",
                 "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                 "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                 "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                 "options": ["nosuid", "noexec", "nodev", "ro"]}
            ],
            "linux": {
                "cgroupsPath": format!("/{}/{group}", self.cgroup),
                "resources": {"pids": {"limit": 512}},
                "namespaces": [
                    {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "mount"}
                ],
                "seccomp": seccomp,
                "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys",
                    "/proc/latency_stats", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                    "/proc/sysrq-trigger"]
            }
        })
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else {
            return;
        };
        for hierarchy in hierarchies.flatten() {
            for name in [self.cgroup.clone(), format!("{}-daemon", self.cgroup)] {
                // Empty by now, or never made.
                let _ = fs::remove_dir(hierarchy.path().join(name));
            }
        }
    }
}

/// A runtime's command with what it needs to be called.
#[derive(Clone)]
struct Runtime {
    program: PathBuf,
    state: PathBuf,
    bundle: PathBuf,
    /// Mount namespace to be in.
    namespace: Option<i32>,
}

impl Runtime {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state);
        let (verb, rest) = words.split_first().unwrap_or((&"", &[]));
        command.arg(verb);
        if matches!(*verb, "create" | "run") {
            command.arg("--bundle").arg(&self.bundle);
        }
        command
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        enter(&mut command, self.namespace);
        command
    }

    fn run(&self, words: &[&str]) -> Result<(), Failure> {
        succeed(&mut self.command(words))
    }

    /// `create`, `start`, wait, `delete`. This process is the reaper of orphans, so it can wait.
    fn four_commands(&self, id: &str) -> Result<(), Failure> {
        let pid_file = self.state.with_extension("pid");
        let path = pid_file.to_str().ok_or("a path that is not UTF-8")?;
        self.run(&["create", "--pid-file", path, id])?;
        let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
        self.run(&["start", id])?;
        // SAFETY: nothing is written back.
        let waited = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        if waited != pid {
            return Err(std::io::Error::last_os_error().into());
        }
        self.run(&["delete", id])
    }
}

/// Every contender is forked the same way, whether it changes its namespace or not.
fn enter(command: &mut Command, namespace: Option<i32>) {
    // SAFETY: only system calls happen between fork and exec.
    unsafe {
        command.pre_exec(move || match namespace {
            Some(fd) if libc::setns(fd, libc::CLONE_NEWNS) < 0 => {
                Err(std::io::Error::last_os_error())
            }
            _ => Ok(()),
        });
    }
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {status}").into())
    }
}

/// A mount namespace in which the v2 hierarchy is hidden: crun refuses hybrid control groups.
fn namespace_for_crun() -> Result<(std::process::Child, File), Failure> {
    let mut holder = Command::new("unshare")
        .args(["-m", "sh", "-c"])
        .arg("[ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified; echo; exec sleep 100000")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = [0];
    if let Some(out) = &mut holder.stdout {
        std::io::Read::read_exact(out, &mut line)?;
    }
    let file = File::open(format!("/proc/{}/ns/mnt", holder.id()))?;
    Ok((holder, file))
}

/// Races the runtimes.
pub fn compare(bundle: &Bundle, binaries: &Path, rounds: usize) -> Result<String, Failure> {
    // SAFETY: plain call. Containers of `create` become our children when their runtime ends.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let (mut holder, namespace) = namespace_for_crun()?;
    let runtime = |program: &Path, name: &str, namespace| {
        let state = bundle.directory.join(format!("state-{name}"));
        let bundle = bundle.directory.join(if name == "crun" {
            "bundlecrun"
        } else {
            "bundle"
        });
        Runtime {
            program: program.to_owned(),
            state,
            bundle,
            namespace,
        }
    };
    let own = runtime(&binaries.join("gamut-runtime"), "gamut", None);
    let runc = runtime(Path::new("runc"), "runc", None);
    let crun = runtime(Path::new("crun"), "crun", Some(namespace.as_raw_fd()));
    let result = (|| {
        let mut text = String::new();
        let floor = |_| {
            let mut command = Command::new(binaries.join("gamut-bench-floor"));
            command
                .arg(bundle.root())
                .arg(format!("{}-floor", bundle.cgroup))
                .arg(bundle.filter())
                .arg("/bin/true")
                .stdin(Stdio::null());
            enter(&mut command, None);
            succeed(&mut command)
        };
        let mut contenders = vec![
            Contender::new("floor", floor),
            Contender::new("gamut-runtime run", |_| own.run(&["run", "c"])),
            Contender::new("crun run", |_| crun.run(&["run", "c"])),
            Contender::new("runc run", |_| runc.run(&["run", "c"])),
            Contender::new("gamut-runtime, four commands", |_| own.four_commands("c")),
            Contender::new("crun, four commands", |_| crun.four_commands("c")),
            Contender::new("runc, four commands", |_| runc.four_commands("c")),
        ];
        let times = race(&mut contenders, rounds, Duration::ZERO)?;
        let budget = |subject, peer, factor| Budget {
            subject,
            peer,
            factor,
        };
        text.push_str(&table(
            "OCI runtimes: `run` of `true`, and create + start + wait + delete",
            "From fork of the (first) command to the end of the (last) one being waited for. \
             One bundle for all: five namespaces, six mounts, 13 hidden paths, default seccomp \
             profile, a control group in every hierarchy with a task limit.",
            &times,
            &[
                budget(1, 3, 0.25),
                budget(1, 2, 1.0),
                budget(1, 0, 2.0),
                budget(4, 6, 0.25),
                budget(4, 5, 1.0),
            ],
        ));
        Ok(text)
    })();
    holder.kill()?;
    holder.wait()?;
    result
}

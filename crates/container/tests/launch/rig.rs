//! A root file system out of busybox, a plan to start from, and a look at what is left behind.

use gamut_abi::plan::{
    Capabilities, Mount, MountKind, Namespace, NamespaceKind, NamespaceSource, Plan, Process,
    Propagation, Root, RootSource, User,
};
use gamut_container::{CreateOptions, Error, Running, Stdio, create};
use std::fs;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What Docker gives by default.
pub const DOCKER_CAPABILITIES: u64 = 0xa804_25fb;

pub struct Rig {
    pub base: PathBuf,
    number: u32,
}

/// How a container ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub output: String,
    pub warnings: Vec<String>,
}

impl Rig {
    pub fn new() -> Self {
        let base = std::env::temp_dir().join(format!("gamut-launch-{}", std::process::id()));
        let layer = base.join("layer");
        for directory in ["bin", "etc", "tmp", "root", "home/app"] {
            fs::create_dir_all(layer.join(directory)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("these tests need busybox (package busybox-static)");
        fs::copy(busybox, layer.join("bin/busybox")).unwrap();
        let list = Command::new(busybox).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(list).unwrap().lines() {
            if applet != "busybox" {
                symlink("busybox", layer.join("bin").join(applet)).unwrap();
            }
        }
        fs::write(
            layer.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            layer.join("etc/group"),
            "root:x:0:\napp:x:1001:\ndata:x:2000:app\n",
        )
        .unwrap();
        fs::write(layer.join("bin/notexec"), "x").unwrap();
        let mut rig = Self { base, number: 0 };
        rig.reset();
        rig
    }

    /// Fresh upper and work directories.
    pub fn reset(&mut self) {
        self.number += 1;
        for name in ["upper", "work", "mountpoint"] {
            fs::create_dir_all(self.path(name)).unwrap();
        }
    }

    /// A path of this case on the host.
    pub fn path(&self, name: &str) -> String {
        self.base
            .join(self.number.to_string())
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub fn layer(&self) -> String {
        self.base.join("layer").to_str().unwrap().to_owned()
    }

    /// A plan as a default `docker run` has it, all namespaces new but the user namespace.
    pub fn plan(&self, args: &[&str]) -> Plan {
        let new = |kind| Namespace {
            kind,
            source: NamespaceSource::New,
        };
        let caps = DOCKER_CAPABILITIES;
        Plan {
            id: String::from("test"),
            namespaces: [
                NamespaceKind::Mount,
                NamespaceKind::Network,
                NamespaceKind::Pid,
                NamespaceKind::Ipc,
                NamespaceKind::Uts,
                NamespaceKind::Cgroup,
                NamespaceKind::Time,
            ]
            .map(new)
            .to_vec(),
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            time_offsets: Vec::new(),
            root: Root {
                source: RootSource::Overlay {
                    lower: vec![self.layer()],
                    upper: Some(self.path("upper")),
                    work: Some(self.path("work")),
                    volatile: true,
                    userxattr: false,
                    idmapped: false,
                },
                readonly: false,
                propagation: Propagation::Private,
                propagation_recursive: true,
                mount_point: self.path("mountpoint"),
            },
            mounts: default_mounts(),
            devices: Vec::new(),
            default_devices: true,
            masked_paths: [
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/scsi",
                "/sys/firmware",
                "/proc/not-there",
            ]
            .map(String::from)
            .to_vec(),
            readonly_paths: ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"]
                .map(String::from)
                .to_vec(),
            hostname: Some(String::from("box")),
            domainname: None,
            sysctls: Vec::new(),
            cgroup: None,
            personality: None,
            memory_policy: None,
            network_devices: Vec::new(),
            mount_label: None,
            process: Process {
                args: args.iter().map(|text| (*text).to_owned()).collect(),
                env: vec![String::from("PATH=/usr/bin:/bin")],
                cwd: String::from("/"),
                create_cwd: false,
                user: User::Numeric {
                    uid: 0,
                    gid: 0,
                    additional_gids: Vec::new(),
                },
                umask: None,
                capabilities: Some(Capabilities {
                    bounding: caps,
                    effective: caps,
                    inheritable: 0,
                    permitted: caps,
                    ambient: 0,
                }),
                rlimits: Vec::new(),
                no_new_privileges: false,
                oom_score_adj: None,
                seccomp: None,
                terminal: None,
                init: false,
                seccomp_listener: None,
                io_priority: None,
                scheduler: None,
                exec_cpu_affinity: None,
                apparmor_profile: None,
                selinux_label: None,
                inherit_keyring: false,
            },
            hooks: None,
        }
    }

    /// A plan that runs a shell script.
    pub fn script(&self, script: &str) -> Plan {
        self.plan(&["sh", "-c", script])
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

pub fn filesystem(destination: &str, fstype: &str, options: &[(&str, &str)]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: MountKind::Filesystem {
            fstype: fstype.to_owned(),
            source: fstype.to_owned(),
            options: options
                .iter()
                .map(|(key, value)| {
                    let value = (!value.is_empty()).then(|| (*value).to_owned());
                    ((*key).to_owned(), value)
                })
                .collect(),
            copy_up: false,
        },
        attributes_set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        attributes_clear: 0,
        attributes_recursive: false,
        implied_clear: None,
        propagation: None,
        recursive_attributes: None,
        idmap: None,
    }
}

pub fn bind(source: &str, destination: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: MountKind::Bind {
            source: source.to_owned(),
            recursive: true,
            subpath: String::new(),
        },
        attributes_set: 0,
        attributes_clear: 0,
        attributes_recursive: false,
        implied_clear: None,
        propagation: None,
        recursive_attributes: None,
        idmap: None,
    }
}

pub fn default_mounts() -> Vec<Mount> {
    let mut dev = filesystem("/dev", "tmpfs", &[("mode", "755"), ("size", "64k")]);
    dev.attributes_set = libc::MOUNT_ATTR_NOSUID;
    let mut pts = filesystem(
        "/dev/pts",
        "devpts",
        &[
            ("newinstance", ""),
            ("ptmxmode", "0666"),
            ("mode", "0620"),
            ("gid", "5"),
        ],
    );
    pts.attributes_set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let mut sys = filesystem("/sys", "sysfs", &[]);
    sys.attributes_set |= libc::MOUNT_ATTR_RDONLY;
    let mut cgroup = sys.clone();
    cgroup.destination = String::from("/sys/fs/cgroup");
    cgroup.kind = MountKind::Cgroup;
    vec![
        filesystem("/proc", "proc", &[]),
        dev,
        pts,
        sys,
        cgroup,
        filesystem("/dev/mqueue", "mqueue", &[]),
        filesystem("/dev/shm", "tmpfs", &[("mode", "1777"), ("size", "65536k")]),
    ]
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors, ours on success.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// Streams into one pipe, and its other end.
pub fn piped() -> (Stdio, OwnedFd) {
    let (read, write) = pipe();
    let null = fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Descriptors {
        stdin: null.into(),
        stdout: write.try_clone().unwrap(),
        stderr: write,
    };
    (stdio, read)
}

pub fn read_all(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // The master of a terminal whose last slave is closed answers EIO.
    let _ = fs::File::from(fd).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads up to and including `end`, or to the end of the stream if that never comes.
pub fn read_until(source: &mut fs::File, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        match source.read(&mut byte) {
            Ok(1..) => bytes.push(byte[0]),
            Ok(0) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for a child; 128 + signal if it was killed.
pub fn wait(pid: u32) -> i32 {
    let mut status = 0;
    // SAFETY: status is writable.
    let got = unsafe { libc::waitpid(pid.cast_signed(), &raw mut status, 0) };
    assert_eq!(got, pid.cast_signed(), "the process must be our child");
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

pub fn kill(pid: u32, signal: i32) {
    // SAFETY: plain call on a child of ours.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Kills a container and waits for it.
pub fn end(running: Running) {
    kill(running.pid, libc::SIGKILL);
    wait(running.pid);
    drop(running);
}

pub fn run_with(plan: &Plan, descriptors: &[OwnedFd]) -> Result<Outcome, Error> {
    let (stdio, output) = piped();
    let created = create(plan, descriptors, stdio, None, CreateOptions::default())?;
    let running = created.start()?;
    let output = read_all(output);
    Ok(Outcome {
        code: wait(running.pid),
        output,
        warnings: running.warnings,
    })
}

#[track_caller]
pub fn run(plan: &Plan) -> Outcome {
    match run_with(plan, &[]) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error}"),
    }
}

/// Starts a container that stays.
#[track_caller]
pub fn start(plan: &Plan) -> Running {
    match create(plan, &[], Stdio::Null, None, CreateOptions::default()).and_then(|c| c.start()) {
        Ok(running) => running,
        Err(error) => panic!("{error}"),
    }
}

/// What must be the same before and after a case.
#[derive(PartialEq)]
pub struct Footprint {
    children: Vec<u32>,
    mounts: String,
    descriptors: usize,
}

/// Children of this process that nobody has waited for.
fn children() -> Vec<u32> {
    let list = fs::read_to_string("/proc/thread-self/children").unwrap();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

impl Footprint {
    pub fn now() -> Self {
        Self {
            children: children(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        }
    }

    pub fn difference(&self, after: &Self) -> Option<String> {
        for pid in &after.children {
            kill(*pid, libc::SIGKILL);
        }
        // In any order: a PID 1 does not end before everything in its namespace is reaped.
        // SAFETY: no status is asked for.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
        if !after.children.is_empty() {
            return Some(format!("children {:?} were left behind", after.children));
        }
        if self.mounts != after.mounts {
            return Some(format!("mounts were\n{}are\n{}", self.mounts, after.mounts));
        }
        (self.descriptors != after.descriptors).then(|| {
            format!(
                "descriptors were {}, are {}",
                self.descriptors, after.descriptors
            )
        })
    }
}

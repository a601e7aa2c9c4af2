//! What the tests share: a busybox container under a real supervisor.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::panic)]

use gamut_abi::control::{Attach, Event, Exec, Launch, Log, Reply, RestartPolicy, Verb};
use gamut_abi::plan::{
    Cgroup, Mount, MountKind, Namespace, NamespaceKind, NamespaceSource, Plan, Process,
    Propagation, Root, RootSource, TerminalSize, User,
};
use gamut_abi::resources::Resources;
use gamut_abi::status::{State, Status};
use gamut_supervisor::{Client, ClientError, Context, Executable, Watcher, is_alive, read_status};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(20);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// False, and says so, if the machine lacks what containers need.
pub fn possible() -> bool {
    // SAFETY: geteuid only returns a number.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED: containers need root here");
        return false;
    }
    if !Path::new("/bin/busybox").exists() {
        println!("SKIPPED: busybox-static is not installed");
        return false;
    }
    true
}

pub fn executable() -> &'static Executable {
    static SEALED: OnceLock<Executable> = OnceLock::new();
    SEALED.get_or_init(|| {
        let built = env!("CARGO_BIN_EXE_gamut-supervisor").into();
        let path = std::env::var_os("GAMUT_SUPERVISOR").unwrap_or(built);
        Executable::seal(Path::new(&path)).unwrap()
    })
}

/// A sandbox of one test and its directories. Dropping it stops what still runs.
pub struct Sandbox {
    pub directory: tempfile::TempDir,
    pub launch: Launch,
    pub client: Option<Client>,
}

fn namespace(kind: NamespaceKind) -> Namespace {
    Namespace {
        kind,
        source: NamespaceSource::New,
    }
}

pub fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        create_cwd: false,
        user: User::Numeric {
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
        },
        umask: None,
        capabilities: None,
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
    }
}

pub fn shell(script: &str) -> Process {
    process(&["/bin/busybox", "sh", "-c", script])
}

fn make_root(root: &Path) {
    for name in ["bin", "proc", "dev", "tmp", "etc"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let applets = [
        "sh", "cat", "sleep", "echo", "head", "yes", "dd", "stty", "kill", "true", "tail", "env",
        "tr",
    ];
    for applet in applets {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

impl Sandbox {
    /// Prepares a container that runs a shell script.
    pub fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        let root = directory.path().join("root");
        make_root(&root);
        for name in ["run", "log", "mount"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let plan = Plan {
            id: id.clone(),
            namespaces: [
                NamespaceKind::Mount,
                NamespaceKind::Pid,
                NamespaceKind::Ipc,
                NamespaceKind::Uts,
            ]
            .map(namespace)
            .to_vec(),
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            time_offsets: Vec::new(),
            root: Root {
                source: RootSource::Directory { path: text(root) },
                readonly: false,
                propagation: Propagation::Private,
                propagation_recursive: true,
                mount_point: text(directory.path().join("mount")),
            },
            mounts: vec![
                filesystem("/proc", "proc", &[]),
                filesystem("/dev", "tmpfs", &[("mode", "755")]),
                filesystem(
                    "/dev/pts",
                    "devpts",
                    &[("ptmxmode", "0666"), ("mode", "0620")],
                ),
            ],
            devices: Vec::new(),
            default_devices: true,
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            hostname: None,
            domainname: None,
            sysctls: Vec::new(),
            cgroup: Some(Cgroup {
                path: format!("/gamut-test-{}/{id}", std::process::id()),
                resources: Resources::default(),
                owner: None,
                systemd: false,
            }),
            personality: None,
            memory_policy: None,
            network_devices: Vec::new(),
            mount_label: None,
            process: shell(script),
            hooks: None,
        };
        let launch = Launch {
            plan,
            run_directory: text(directory.path().join("run")),
            log: Some(Log {
                sink: None,
                path: text(directory.path().join("log/container.log")),
                max_file_bytes: 0,
                max_files: 1,
            }),
            restart: RestartPolicy::Never,
            open_stdin: false,
            stdin_once: false,
            attach: Vec::new(),
            start: false,
        };
        Self {
            directory,
            launch,
            client: None,
        }
    }

    pub fn terminal(mut self, rows: u16, columns: u16) -> Self {
        self.launch.plan.process.terminal = Some(TerminalSize { rows, columns });
        self
    }

    pub fn stdin(mut self, once: bool) -> Self {
        self.launch.open_stdin = true;
        self.launch.stdin_once = once;
        self
    }

    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.launch.restart = policy;
        self
    }

    pub fn run_directory(&self) -> PathBuf {
        PathBuf::from(&self.launch.run_directory)
    }

    pub fn try_launch(&mut self, streams: Vec<OwnedFd>) -> Result<Vec<String>, ClientError> {
        let context = Context {
            request_id: "test".to_owned(),
            peer_uid: 0,
        };
        let (client, warnings) = gamut_supervisor::launch(
            executable(),
            &context,
            &self.launch,
            streams,
            Some(PATIENCE),
        )?;
        self.client = Some(client);
        Ok(warnings)
    }

    /// Launches and starts.
    pub fn start(&mut self) -> u32 {
        self.try_launch(Vec::new()).unwrap();
        self.just_start()
    }

    pub fn just_start(&mut self) -> u32 {
        match self.request(Verb::Start).unwrap() {
            Reply::Started { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Launches with a client attached before the start.
    pub fn start_attached(&mut self, attach: Attach) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.launch.attach.push(attach);
        self.try_launch(vec![theirs.into()]).unwrap();
        self.just_start();
        ours
    }

    pub fn request(&mut self, verb: Verb) -> Result<Reply, ClientError> {
        self.client
            .as_mut()
            .unwrap()
            .request_within(verb, &[], Some(PATIENCE))
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.run_directory()).unwrap()
    }

    /// Watches; the first event has arrived.
    pub fn watch(&self) -> Watcher {
        let watcher = self.connect().watch().unwrap();
        wait_until("the first event", || is_readable(&watcher));
        watcher
    }

    pub fn attach(&mut self, attach: Attach) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.client
            .as_mut()
            .unwrap()
            .request_within(Verb::Attach(attach), &[theirs.as_fd()], Some(PATIENCE))
            .unwrap();
        ours
    }

    pub fn exec(
        &mut self,
        exec_id: &str,
        process: Process,
        attach: Option<Attach>,
    ) -> Result<UnixStream, ClientError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let exec = Exec {
            exec_id: exec_id.to_owned(),
            process,
            attach,
        };
        let descriptors = [theirs.as_fd()];
        let descriptors = if attach.is_some() {
            &descriptors[..]
        } else {
            &[]
        };
        let client = self.client.as_mut().unwrap();
        client.request_within(Verb::Exec(Box::new(exec)), descriptors, Some(PATIENCE))?;
        Ok(ours)
    }

    pub fn status(&self) -> Status {
        read_status(&self.run_directory()).unwrap().unwrap()
    }

    /// Waits until the process is gone for good and the supervisor too.
    pub fn wait_exit(&self) -> Status {
        wait_until("the supervisor to leave", || {
            !is_alive(&self.run_directory()).unwrap()
        });
        let status = self.status();
        assert_eq!(status.state, State::Exited, "{status:?}");
        self.assert_no_group();
        status
    }

    pub fn assert_no_group(&self) {
        let path = &self.launch.plan.cgroup.as_ref().unwrap().path;
        for hierarchy in hierarchies() {
            let left = hierarchy.join(path.trim_start_matches('/'));
            assert!(!left.exists(), "{} is left behind", left.display());
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.launch.log.as_ref().unwrap().path).unwrap()
    }

    /// `(stream, tag, text)` of every line.
    pub fn log_lines(&self) -> Vec<(String, String, String)> {
        let split = |line: &str| {
            let mut fields = line.splitn(4, ' ');
            let time = fields.next().unwrap();
            assert!(time.len() == 30 && time.ends_with('Z'), "{line}");
            let mut next = || fields.next().unwrap().to_owned();
            (next(), next(), next())
        };
        self.log().split_terminator('\n').map(split).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Ok(mut client) = Client::connect(&self.run_directory()) {
            let stop = Verb::Stop {
                signal: libc::SIGKILL,
                timeout_ms: Some(0),
            };
            let _ = client.request_within(stop, &[], Some(PATIENCE));
        }
        self.client = None;
        let due = Instant::now() + PATIENCE;
        while is_alive(&self.run_directory()).unwrap_or(false) && Instant::now() < due {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Parents stay; those of the tests are removed when nobody uses them any more.
        for hierarchy in hierarchies() {
            let parent = format!("gamut-test-{}", std::process::id());
            let _ = fs::remove_dir(hierarchy.join(parent));
        }
    }
}

/// Where control groups may be: the top, which is the hierarchy on v2, and one below it for each
/// of v1.
fn hierarchies() -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&top).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
    found.push(top);
    found
}

fn filesystem(destination: &str, fstype: &str, options: &[(&str, &str)]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: MountKind::Filesystem {
            fstype: fstype.to_owned(),
            source: fstype.to_owned(),
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect(),
            copy_up: false,
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

pub fn is_readable(watcher: &Watcher) -> bool {
    let fd = std::os::fd::AsRawFd::as_raw_fd(watcher);
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live entry.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let due = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < due, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub const OUTPUT: Attach = Attach {
    stdin: false,
    stdout: true,
    stderr: true,
};
pub const ALL: Attach = Attach {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// Reads Docker's multiplexed stream to its end: stdout and stderr.
pub fn demultiplex(stream: &mut UnixStream) -> (Vec<u8>, Vec<u8>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let mut header = [0; 8];
        match stream.read(&mut header[..1]).unwrap() {
            0 => return (stdout, stderr),
            _ => stream.read_exact(&mut header[1..]).unwrap(),
        }
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let mut chunk = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut chunk).unwrap();
        match header[0] {
            1 => stdout.append(&mut chunk),
            2 => stderr.append(&mut chunk),
            other => panic!("stream {other}"),
        }
    }
}

/// Events up to and including the first for which `last` holds.
pub fn events_until(watcher: &mut Watcher, last: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = watcher.next().unwrap() {
        let done = last(&event);
        events.push(event);
        if done {
            return events;
        }
    }
    panic!("the supervisor left after {events:?}");
}

pub fn is_final(event: &Event) -> bool {
    matches!(
        event,
        Event::Exited {
            restart_in_ms: None,
            ..
        }
    )
}

pub fn kind(result: Result<Reply, ClientError>) -> gamut_abi::control::FailureKind {
    match result {
        Err(ClientError::Refused(failure)) => failure.kind,
        other => panic!("{other:?}"),
    }
}

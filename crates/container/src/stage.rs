//! The stage: what runs in the new process until it becomes the container's program.

use crate::channel::{Channel, Message};
use crate::devices::HostDevices;
use crate::error::{Context, Error};
use crate::hooks::HookRun;
use crate::host_root::{self, HostRoot};
use crate::listener::Listener;
use crate::mounts::Detached;
use crate::namespaces::{self, Layout};
use crate::path::{self, Missing, RootDirectory};
use crate::process::Streams;
use crate::sys::{self, Errno};
use crate::{
    Stdio, affinity, devices, execute, gate, hide, init, labels, mounts, process, root, scheduling,
    sysctl, terminal,
};
use gamut_abi::hooks::Hooks;
use gamut_abi::plan::{MountKind, Plan, Process};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What a stage has to do, prepared by its parent.
pub(crate) struct Task<'a> {
    pub plan: &'a Plan,
    pub layout: &'a Layout<'a>,
    /// Bind sources that the parent has opened with its own privileges.
    pub sources: Vec<Option<OwnedFd>>,
    /// Layers of the root that the parent has mapped; empty if they are taken as they are.
    pub layers: Vec<OwnedFd>,
    /// The root, if the caller has mounted it.
    pub root: Option<OwnedFd>,
    /// The root of a container that shares the parent's mounts, mounted there.
    pub host_root: Option<&'a HostRoot>,
    pub host_devices: HostDevices,
    pub stdio: &'a Stdio,
    /// Where the notifications of the filter go.
    pub listener: Option<&'a Listener<'a>>,
    pub die_with_parent: bool,
    /// Where the start comes from, if not from the parent.
    pub gate: Option<BorrowedFd<'a>>,
    /// A terminal leaves line ends as they are.
    pub leave_line_ends: bool,
    /// Descriptors that the program gets.
    pub extra_files: &'a [OwnedFd],
    /// The parent says go once the process is in its group and its ids are mapped.
    pub waits: bool,
}

/// Ends the stage with what went wrong.
pub(crate) fn fail(channel: &Channel, error: Error) -> ! {
    channel.say(&Message::Failed(error));
    sys::exit(1)
}

/// Sets everything up, waits for the start and becomes the program.
pub(crate) fn run(task: Task<'_>, channel: Channel) -> ! {
    let (is_init, has_terminal) = (task.plan.process.init, task.plan.process.terminal.is_some());
    let (gate, hooks, extra_files) = (task.gate, task.plan.hooks.as_ref(), task.extra_files);
    let mut program = match set_up(task, &channel) {
        Ok(program) => program,
        Err(error) => fail(&channel, error),
    };
    if let Err(error) = program.keep_files(extra_files) {
        fail(&channel, error);
    }
    // Whatever the caller had open must not stay in reach while we wait.
    let own = channel.descriptor().as_raw_fd();
    let mut kept = vec![0, 1, 2, own];
    kept.extend(gate.map(|gate| gate.as_raw_fd()));
    kept.extend(program.kept_files());
    if let Err(errno) = sys::close_all_but(&mut kept) {
        fail(&channel, Error::system("close descriptors", errno));
    }
    if gate.is_some() {
        gate::heed_signals();
        // An init does more than the program may.
        if !is_init && let Err(error) = program.install_with_listener(&channel) {
            fail(&channel, error);
        }
    }
    channel.say(&Message::Ready);
    let channel = match gate {
        Some(gate) => {
            drop(channel);
            gate::wait(gate)
        }
        None if channel.wait() => channel,
        // Called off, or the parent is gone.
        None => sys::exit(0),
    };
    let channel = above_files(channel, &program);
    if let Err(error) = start_hooks(hooks, &program) {
        fail(&channel, error);
    }
    if !is_init {
        let error = execute::execute(&program, &channel);
        fail(&channel, error);
    }
    match init::run(&program, channel, has_terminal) {
        Ok(code) => sys::exit(code),
        Err(_) => sys::exit(1),
    }
}

/// The channel, away from the numbers that the program's descriptors will have.
pub(crate) fn above_files(channel: Channel, program: &execute::Program) -> Channel {
    match channel.moved_above(program.first_free()) {
        Ok(channel) => channel,
        // Nobody can be told; the end of the process is seen.
        Err(_) => sys::exit(1),
    }
}

/// Runs the hooks of the container, as its user and with its environment.
fn start_hooks(hooks: Option<&Hooks>, program: &execute::Program) -> Result<(), Error> {
    let Some(hooks) = hooks.filter(|hooks| !hooks.start_container.is_empty()) else {
        return Ok(());
    };
    HookRun {
        name: "startContainer",
        state: &hooks.state("created", std::process::id()),
        directory: "",
        inside: Some(program),
    }
    .all(&hooks.start_container)
}

/// The parent's go, waited for once, as late as possible: it does its part meanwhile.
struct Gate<'a> {
    channel: &'a Channel,
    waits: bool,
}

impl Gate<'_> {
    fn pass(&mut self) -> Result<(), Error> {
        if self.waits && !self.channel.wait() {
            return Err(Error::system("wait for the parent", Errno(libc::ECANCELED)));
        }
        self.waits = false;
        Ok(())
    }
}

fn set_up(mut task: Task<'_>, channel: &Channel) -> Result<execute::Program, Error> {
    let (plan, layout) = (task.plan, task.layout);
    let mut gate = Gate {
        channel,
        waits: task.waits,
    };
    if layout.new_user {
        gate.pass()?;
    }
    // Before anything of the set-up hides the host's /proc, or takes the right to write there.
    labels::set_for_execve(&plan.process)?;
    let layers = std::mem::take(&mut task.layers);
    let ready = task.root.take();
    let base = match task.host_root {
        Some(host_root) => Some(Base::Shared(copy_of(host_root)?)),
        None if layout.new_mount => {
            let opened = root::Opened::open(&plan.root, layers, ready)?;
            Some(Base::Own(opened))
        }
        None => None,
    };
    if layout.has_user {
        namespaces::become_root_inside()?;
    }
    protect(task.die_with_parent)?;
    new_session(plan.process.inherit_keyring);
    scheduling::apply_to_container(plan)?;
    if !layout.intermediate {
        namespaces::join(&layout.joins)?;
    }
    set_names(plan)?;
    if layout.new_network {
        namespaces::bring_up_loopback()?;
    }
    sys::umask(0);
    let mut warnings = Vec::new();
    let (root, streams) = if let Some(base) = base {
        build_root(&mut task, &mut gate, base, &mut warnings).map_err(during_set_up)?
    } else {
        gate.pass()?;
        if layout.new_cgroup {
            sys::unshare(libc::CLONE_NEWCGROUP).doing("make namespace", "cgroup")?;
        }
        let root = open_root()?;
        let streams = streams(&plan.process, task.stdio, None, &root, channel)?;
        (root, streams)
    };
    if let Streams::Terminal(slave) = &streams
        && task.leave_line_ends
    {
        terminal::leave_line_ends(slave);
    }
    // The process is in its group by now.
    affinity::reset();
    let program = process::prepare(
        &plan.process,
        &root,
        &streams,
        process::Surroundings {
            in_user_namespace: layout.has_user,
            listener: task.listener,
        },
        &mut warnings,
    )?;
    // A change of identity has made both undone.
    protect(task.die_with_parent)?;
    for warning in warnings {
        channel.say(&Message::Warning(warning));
    }
    Ok(program)
}

/// What a tree is built on.
enum Base {
    /// A root that is mounted in a mount namespace of the container's own.
    Own(root::Opened),
    /// One that is mounted already, where the parent sees it.
    Shared(RootDirectory),
}

impl Base {
    fn mounted(self, plan: &Plan) -> Result<RootDirectory, Error> {
        match self {
            Self::Own(opened) => {
                sys::set_propagation_everywhere(libc::MS_PRIVATE)
                    .doing("make private", "all mounts")?;
                root::mount(&plan.root, opened)
            }
            Self::Shared(root) => Ok(root),
        }
    }
}

fn copy_of(host_root: &HostRoot) -> Result<RootDirectory, Error> {
    host_root
        .descriptor()?
        .try_clone_to_owned()
        .map(RootDirectory)
        .map_err(|error| {
            let errno = Errno(error.raw_os_error().unwrap_or(libc::EMFILE));
            Error::system("open the root", errno)
        })
}

/// Makes the tree the root of this process, and as far as it is its own, of its mount namespace.
fn enter_root(root: &RootDirectory, shared: bool, warnings: &mut Vec<String>) -> Result<(), Error> {
    if shared {
        return host_root::enter(root.as_fd());
    }
    warnings.extend(root::enter(root)?.map(str::to_owned));
    Ok(())
}

/// The words by which engines know errors of this part.
fn during_set_up(mut error: Error) -> Error {
    error.message = ["error during container init: ", &error.message].concat();
    error
}

/// Nobody may look into the stage, and it does not outlive its parent.
pub(crate) fn protect(die_with_parent: bool) -> Result<(), Error> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).doing("make the stage", "undumpable")?;
    if die_with_parent {
        let signal = u64::from(libc::SIGKILL.unsigned_abs());
        sys::prctl(libc::PR_SET_PDEATHSIG, signal, 0).doing("tie the stage to", "its parent")?;
    }
    Ok(())
}

/// A session of terminals, and one of keys of its own unless the host's keys are to be inherited.
pub(crate) fn new_session(inherit_keyring: bool) {
    /// `KEYCTL_JOIN_SESSION_KEYRING`
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: plain calls. A fresh clone leads no process group, so setsid works; without a name
    // the keyring is a new one. A kernel without keys, or a full quota, is no reason to fail.
    unsafe {
        libc::setsid();
        if !inherit_keyring {
            libc::syscall(
                libc::SYS_keyctl,
                JOIN_SESSION_KEYRING,
                std::ptr::null::<u8>(),
            );
        }
    }
}

fn set_names(plan: &Plan) -> Result<(), Error> {
    if let Some(name) = &plan.hostname {
        // SAFETY: the name is readable for its length.
        if unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } < 0 {
            return Err(Error::system(
                &["set host name ", name].concat(),
                Errno::last(),
            ));
        }
    }
    if let Some(name) = &plan.domainname {
        // SAFETY: the name is readable for its length.
        if unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } < 0 {
            return Err(Error::system(
                &["set domain name ", name].concat(),
                Errno::last(),
            ));
        }
    }
    Ok(())
}

/// The root of this process, which is in its container already.
pub(crate) fn open_root() -> Result<RootDirectory, Error> {
    sys::open(sys::cwd(), c"/", libc::O_PATH | libc::O_DIRECTORY)
        .map(RootDirectory)
        .doing("open", "the root")
}

fn open_null() -> Result<OwnedFd, Error> {
    sys::open(sys::cwd(), c"/dev/null", libc::O_RDWR).doing("open", "/dev/null")
}

/// The standard streams of a process; a terminal's master goes to the parent.
pub(crate) fn streams<'a>(
    process: &Process,
    stdio: &'a Stdio,
    null: Option<OwnedFd>,
    root: &RootDirectory,
    channel: &Channel,
) -> Result<Streams<'a>, Error> {
    if let Some(size) = process.terminal {
        let opened = terminal::open(root, size)?;
        channel.say(&Message::Terminal(opened.master));
        return Ok(Streams::Terminal(opened.slave));
    }
    match stdio {
        Stdio::Null => Ok(Streams::Null(match null {
            Some(null) => null,
            None => open_null()?,
        })),
        Stdio::Descriptors {
            stdin,
            stdout,
            stderr,
        } => Ok(Streams::Descriptors([
            stdin.as_fd(),
            stdout.as_fd(),
            stderr.as_fd(),
        ])),
    }
}

/// Builds the file system tree and makes it the root of this process.
fn build_root<'a>(
    task: &mut Task<'a>,
    gate: &mut Gate<'_>,
    base: Base,
    warnings: &mut Vec<String>,
) -> Result<(RootDirectory, Streams<'a>), Error> {
    let (plan, layout) = (task.plan, task.layout);
    // What comes from the host is copied first, while its mounts still propagate as they did.
    let mut detached = mounts::prepare(plan, std::mem::take(&mut task.sources))?;
    let mut cover = if plan.masked_paths.is_empty() {
        None
    } else {
        Some(hide::cover()?)
    };
    let mut host_devices = std::mem::replace(&mut task.host_devices, HostDevices::none());
    if layout.has_user || sys::is_in_user_namespace() {
        host_devices.fill(plan);
    }
    let needs_null = plan.process.terminal.is_none() && matches!(task.stdio, Stdio::Null);
    let null = if needs_null { Some(open_null()?) } else { None };
    sysctl::apply(plan, proc_mount(plan, &detached))?;

    let shared = matches!(base, Base::Shared(_));
    let root = base.mounted(plan)?;
    gate.pass()?;
    if layout.new_cgroup {
        sys::unshare(libc::CLONE_NEWCGROUP).doing("make namespace", "cgroup")?;
    }
    mounts::prepare_cgroups(plan, &mut detached, layout.new_cgroup, warnings)?;
    let early = plan
        .hooks
        .as_ref()
        .filter(|hooks| hooks.waits_before_root());
    let channel = gate.channel;
    let map_ids = |index, tree| ids_mapped_by_parent(channel, index, tree);
    let read_only_later = if let Some(hooks) = early {
        // They expect everything to be mounted, and the host's root still to be there.
        let later = mounts::attach(plan, detached, &root, &map_ids)?;
        devices::make(plan, &root, host_devices)?;
        hooks_before_root(hooks, &root, gate.channel)?;
        enter_root(&root, shared, warnings)?;
        later
    } else {
        enter_root(&root, shared, warnings)?;
        // From here on nothing of the host can be reached by any path.
        let later = mounts::attach(plan, detached, &root, &map_ids)?;
        devices::make(plan, &root, host_devices)?;
        later
    };
    let streams = streams(&plan.process, task.stdio, null, &root, gate.channel)?;
    if let Streams::Terminal(slave) = &streams {
        terminal::show_as_console(&root, slave)?;
    }
    if plan.process.create_cwd && !plan.process.cwd.is_empty() {
        root.open_or_make(&path::clean(&plan.process.cwd)?, Missing::Directory)?;
    }
    if let Some(cover) = &mut cover {
        hide::mask(&root, &plan.masked_paths, cover)?;
    }
    hide::make_read_only(&root, &plan.readonly_paths)?;
    for mount in read_only_later {
        sys::mount_setattr(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)
            .doing("make read-only", "a tmpfs")?;
    }
    root::finish(&root, plan)?;
    Ok((root, streams))
}

/// Has the parent map the ids of a copy of a mount, which it does to the copy itself.
fn ids_mapped_by_parent(channel: &Channel, index: usize, tree: OwnedFd) -> Result<OwnedFd, Error> {
    let request = Message::MapIds {
        index: u32::try_from(index).map_err(|_| Error::invalid("there are too many mounts"))?,
        tree,
    };
    channel.say(&request);
    match request {
        Message::MapIds { tree, .. } if channel.wait() => Ok(tree),
        _ => Err(Error::system(
            "wait for the ids of a mount to be mapped",
            Errno(libc::ECANCELED),
        )),
    }
}

/// Lets the parent run the hooks of the host, then runs those of the container's namespaces.
fn hooks_before_root(hooks: &Hooks, root: &RootDirectory, channel: &Channel) -> Result<(), Error> {
    channel.say(&Message::Hooks);
    if !channel.wait() {
        return Err(Error::system("wait for the hooks", Errno(libc::ECANCELED)));
    }
    sys::fchdir(root.as_fd()).doing("enter", "the root")?;
    HookRun {
        name: "createContainer",
        state: &hooks.state("creating", std::process::id()),
        directory: "",
        inside: None,
    }
    .all(&hooks.create_container)
}

fn proc_mount<'a>(plan: &Plan, detached: &'a [Option<Detached>]) -> Option<BorrowedFd<'a>> {
    plan.mounts
        .iter()
        .zip(detached)
        .find_map(|(mount, tree)| match (&mount.kind, tree) {
            (MountKind::Filesystem { fstype, .. }, Some(Detached::Tree(tree)))
                if fstype == "proc" && mount.attributes_set & libc::MOUNT_ATTR_RDONLY == 0 =>
            {
                Some(tree.as_fd())
            }
            _ => None,
        })
}

//! Launching a container: the caller's side.

use crate::channel::{self, Channel};
use crate::conversation::{Conversation, Request, Unreaped};
use crate::devices::HostDevices;
use crate::error::{Context, Error};
use crate::gate::Gate;
use crate::hooks::run_hooks;
use crate::host_root::HostRoot;
use crate::idmap::{self, Mapper};
use crate::listener::Listener;
use crate::namespaces::{self, Layout};
use crate::stage::{self, Task};
use crate::sys::{self, CLONE_PARENT, Side};
use crate::{labels, limits, mapped_root, mounts, network_devices, sysctl};
use gamut_abi::plan::{MountKind, NamespaceKind, NamespaceSource, Plan, Process, RootSource};
use gamut_cgroup::Group;
use std::os::fd::{AsFd, OwnedFd};

/// Standard streams of a process. If the plan asks for a terminal, that takes their place.
#[derive(Debug)]
pub enum Stdio {
    /// `/dev/null` for all three.
    Null,
    /// These descriptors.
    Descriptors {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
}

/// How a container is bound to its caller.
#[derive(Debug, Clone, Copy)]
pub struct CreateOptions<'a> {
    /// The first process is killed when the thread that created it ends (`PR_SET_PDEATHSIG`).
    pub die_with_parent: bool,
    /// The start comes through this gate, from whichever process, instead of from the caller,
    /// who may [`Created::detach`].
    pub gate: Option<&'a Gate>,
    /// A terminal leaves line ends as they are, for a caller who shows it on one of its own.
    pub leave_line_ends: bool,
    /// Descriptors that the program gets as 3 and following.
    pub extra_files: &'a [OwnedFd],
}

impl Default for CreateOptions<'_> {
    fn default() -> Self {
        Self {
            die_with_parent: true,
            gate: None,
            leave_line_ends: false,
            extra_files: &[],
        }
    }
}

/// A container that is set up, its first process waiting to become the program.
///
/// Dropping it without [`Created::start`] kills and reaps the process.
#[derive(Debug)]
pub struct Created {
    /// Process id of the first process, seen from the caller. It is a child of the caller.
    pub pid: u32,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// Master of the terminal, if the plan asked for one.
    pub terminal: Option<OwnedFd>,
    /// What had to be given up because the machine forbids it, one sentence each.
    pub warnings: Vec<String>,
    channel: Channel,
    unreaped: Unreaped,
    /// Unmounted behind the process.
    host_root: Option<HostRoot>,
}

/// A process that has become its program.
#[derive(Debug)]
pub struct Running {
    /// Process id seen from the caller. It is a child of the caller, who has to wait for it.
    pub pid: u32,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// Master of the terminal, if one was asked for.
    pub terminal: Option<OwnedFd>,
    /// What had to be given up because the machine forbids it, one sentence each.
    pub warnings: Vec<String>,
}

/// Sets a container up: everything up to just before execve of its program.
///
/// `descriptors` are those that [`NamespaceSource::Descriptor`] counts. `group` has been made and
/// limited by the caller. The calling process must have a single thread.
///
/// # Errors
/// [`Error`] says which step failed on what; nothing is left behind then but what the plan has
/// made missing in its own root (mount points).
pub fn create(
    plan: &Plan,
    descriptors: &[OwnedFd],
    stdio: Stdio,
    group: Option<&Group>,
    options: CreateOptions<'_>,
) -> Result<Created, Error> {
    let layout = Layout::of(plan, descriptors)?;
    check(plan, &layout)?;
    let listener = Listener::connect(&plan.process)?;
    // With a user namespace the stage may lack the right to see what it is to be given; and ids
    // are mapped with the caller's privileges.
    let as_caller = layout.has_user && layout.new_mount;
    let mut mapper = Mapper::new(plan, &layout);
    let sources = mounts::clone_sources(plan, as_caller, &mut mapper)?;
    let layers = match &plan.root.source {
        RootSource::Overlay {
            lower,
            idmapped: true,
            ..
        } if as_caller && !is_mapped_here(&plan.root.source) => {
            idmap::map_layers(&mut mapper, lower)?
        }
        _ => Vec::new(),
    };
    let root = if layout.has_user && is_mapped_here(&plan.root.source) {
        Some(mapped_root::mount(&plan.root, &mut mapper)?)
    } else {
        None
    };
    let host_root = if layout.shares_mounts {
        Some(HostRoot::mount(&plan.root)?)
    } else {
        None
    };
    let host_devices = if as_caller {
        HostDevices::clone(plan)
    } else {
        HostDevices::none()
    };
    let (ours, theirs) = channel::pair().doing("make", "a socket pair")?;
    let task = Task {
        plan,
        layout: &layout,
        sources,
        layers,
        root,
        host_root: host_root.as_ref(),
        host_devices,
        stdio: &stdio,
        listener: listener.as_ref(),
        die_with_parent: options.die_with_parent,
        gate: options.gate.map(Gate::descriptor),
        extra_files: options.extra_files,
        leave_line_ends: options.leave_line_ends,
        waits: !layout.intermediate || layout.new_user,
    };
    let directory = group.and_then(Group::directory_v2);
    let flags = if layout.intermediate {
        0
    } else {
        layout.clone_flags
    };
    let into = directory.as_ref().map(AsFd::as_fd);
    // SAFETY: the caller promises to have one thread; the child ends in the stage.
    let side = unsafe { sys::clone_process(flags, libc::SIGCHLD, into) };
    let (pid, pidfd) = match side.map_err(|errno| clone_failed(errno, &layout))? {
        Side::Child => {
            let _end = sys::NeverUnwind;
            drop(ours);
            if let Err(error) = enter_group(group, directory.is_some()) {
                stage::fail(&theirs, error);
            }
            if layout.intermediate {
                intermediate(task, theirs)
            } else {
                stage::run(task, theirs)
            }
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    if let Some(listener) = listener.as_ref().filter(|_| !layout.intermediate) {
        listener.set_pid(pid);
    }
    drop(theirs);
    drop(task);
    drop(stdio);
    let first = Unreaped::new(pid);
    let mut conversation = Conversation::with_child(ours, pid)?;
    if layout.new_user && !layout.intermediate {
        limits::raise_hard(pid, &plan.process.rlimits);
        namespaces::write_mappings(pid, &plan.uid_mappings, &plan.gid_mappings)?;
    }
    if let Some(group) = group.filter(|_| directory.is_some()) {
        group.note_occupied();
    }
    admit(&mut conversation, pid, &plan.process)?;
    let serve = |pid: u32, request: Request| match request {
        Request::Hooks => host_hooks(plan, pid),
        Request::MapIds { index, tree } => mounts::map_ids_within(plan, index, &tree, &mut mapper),
    };
    let (pidfd, unreaped) = if layout.intermediate {
        let map_ids = |channel: &Channel, child: u32| {
            if !layout.new_user {
                return Ok(());
            }
            limits::raise_hard(child, &plan.process.rlimits);
            namespaces::write_mappings(child, &plan.uid_mappings, &plan.gid_mappings)?;
            // If the child is gone, what it said comes next.
            let _ = channel.go();
            Ok(())
        };
        conversation.until_ready(first, map_ids, serve)?
    } else {
        let ready = conversation.until_ready_directly(first, serve)?;
        (pidfd, ready)
    };
    network_devices::move_all(plan, unreaped.pid())?;
    let Conversation {
        channel,
        warnings,
        terminal,
        ..
    } = conversation;
    Ok(Created {
        pid: unreaped.pid(),
        pidfd,
        terminal,
        warnings,
        channel,
        unreaped,
        host_root,
    })
}

/// Whether an overlay is to be mounted by the caller: one with mapped ids whose layers' marks can
/// be seen with all rights only.
fn is_mapped_here(source: &RootSource) -> bool {
    matches!(
        source,
        RootSource::Overlay {
            idmapped: true,
            userxattr: false,
            upper: Some(_),
            ..
        }
    )
}

/// A new process enters its group by itself, before anything else.
pub(crate) fn enter_group(group: Option<&Group>, in_v2_already: bool) -> Result<(), Error> {
    let Some(group) = group else { return Ok(()) };
    group
        .enter(in_v2_already)
        .map_err(|error| group_error(&error))
}

/// Runs the hooks of the host that come before the container's root is entered.
fn host_hooks(plan: &Plan, pid: u32) -> Result<(), Error> {
    let Some(hooks) = &plan.hooks else {
        return Ok(());
    };
    let state = hooks.state("creating", pid);
    run_hooks(&hooks.prestart, "prestart", &state, &hooks.bundle)?;
    run_hooks(
        &hooks.create_runtime,
        "createRuntime",
        &state,
        &hooks.bundle,
    )
}

/// Does to a new process what only its parent may, and lets it go on.
pub(crate) fn admit(
    conversation: &mut Conversation,
    pid: u32,
    process: &Process,
) -> Result<(), Error> {
    if let Some(score) = process.oom_score_adj {
        conversation
            .warnings
            .extend(limits::set_oom_score(pid, score)?);
    }
    // If the process is gone, what it said comes next.
    let _ = conversation.channel.go();
    Ok(())
}

pub(crate) fn group_error(error: &gamut_cgroup::Error) -> Error {
    Error {
        kind: gamut_abi::control::FailureKind::System,
        message: error.to_string(),
        errno: error.errno(),
    }
}

fn clone_failed(errno: sys::Errno, layout: &Layout<'_>) -> Error {
    let detail = match errno.0 {
        libc::EPERM if !layout.has_user => {
            "making namespaces needs CAP_SYS_ADMIN, or a user namespace"
        }
        libc::EPERM => "this host does not let this user make user namespaces",
        libc::ENOSPC => "the limit of namespaces of this kind is reached (/proc/sys/user)",
        libc::EAGAIN => "the limit of processes is reached",
        _ => "",
    };
    Error::with_detail("make the container's process", errno, detail)
}

/// Joins namespaces that only the children of a process get into, then makes the container's
/// first process as a child of our parent.
fn intermediate(task: Task<'_>, channel: Channel) -> ! {
    if !channel.wait() {
        sys::exit(0);
    }
    let (layout, task_listener) = (task.layout, task.listener);
    let joined = || -> Result<(), Error> {
        if layout.has_user {
            limits::raise_hard(0, &task.plan.process.rlimits);
        }
        if !task.plan.time_offsets.is_empty() {
            namespaces::make_time_namespace(&task.plan.time_offsets)?;
        }
        namespaces::join(&layout.joins)
    };
    if let Err(error) = joined() {
        stage::fail(&channel, error);
    }
    // SAFETY: this process has one thread, being a clone; the child ends in the stage.
    match unsafe { sys::clone_process(layout.clone_flags | CLONE_PARENT, 0, None) } {
        Err(errno) => stage::fail(&channel, clone_failed(errno, layout)),
        Ok(Side::Child) => stage::run(task, channel),
        Ok(Side::Parent { pid, pidfd }) => {
            if let Some(listener) = task_listener {
                listener.set_pid(pid);
            }
            channel.say(&channel::Message::Child { pid, pidfd });
            sys::exit(0)
        }
    }
}

/// Refuses what would reach the host, or cannot mean anything.
fn check(plan: &Plan, layout: &Layout<'_>) -> Result<(), Error> {
    let has = |kind| {
        plan.namespaces
            .iter()
            .any(|namespace| namespace.kind == kind)
    };
    let is_new = |kind| {
        plan.namespaces
            .iter()
            .any(|namespace| namespace.kind == kind && namespace.source == NamespaceSource::New)
    };
    let refuse = |text: &str| Err(Error::invalid(text));
    if plan.process.args.is_empty() {
        return refuse("the process has no arguments; the first one names the program");
    }
    if (plan.hostname.is_some() || plan.domainname.is_some()) && !has(NamespaceKind::Uts) {
        return refuse("a host or domain name needs a uts namespace of the container's own");
    }
    if !plan.time_offsets.is_empty() && !is_new(NamespaceKind::Time) {
        return refuse("clock offsets need a new time namespace");
    }
    let maps_ids = !plan.uid_mappings.is_empty() || !plan.gid_mappings.is_empty();
    if maps_ids && !layout.new_user {
        return refuse("id mappings need a new user namespace");
    }
    if layout.shares_mounts {
        if layout.has_user {
            return refuse("a user namespace needs a mount namespace as well, new or joined");
        }
        if !plan.masked_paths.is_empty() || !plan.readonly_paths.is_empty() {
            return refuse("masked and read-only paths need a mount namespace");
        }
        if !matches!(plan.root.source, RootSource::Directory { .. }) {
            return refuse("without a mount namespace the root must be a directory");
        }
    }
    let mounts = !plan.mounts.is_empty() || !plan.masked_paths.is_empty();
    if mounts && !layout.new_mount && !layout.shares_mounts {
        return refuse("mounts and masked paths need a new mount namespace");
    }
    if !has(NamespaceKind::Network)
        && plan.mounts.iter().any(|mount| {
            matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "sysfs")
        })
        && layout.has_user
    {
        return refuse(
            "a sysfs in a user namespace needs a network namespace of its own; bind /sys instead",
        );
    }
    if !plan.network_devices.is_empty() && !has(NamespaceKind::Network) {
        return refuse(
            "linux.netDevices needs a network namespace of the container's own, new or joined",
        );
    }
    labels::check(&plan.process)?;
    labels::check_mounts(plan.mount_label.as_deref())?;
    sysctl::check(plan)
}

impl Created {
    /// Lets the process become its program and waits until it has.
    ///
    /// # Errors
    /// `ExecutableNotFound`, `ExecutableDenied` or another [`Error`] if it could not; the process
    /// is gone and reaped then.
    pub fn start(self) -> Result<Running, Error> {
        let Self {
            pid: _,
            pidfd,
            terminal,
            warnings,
            channel,
            unreaped,
            host_root,
        } = self;
        let mut conversation = Conversation::with_child(channel, unreaped.pid())?;
        conversation.warnings = warnings;
        // If the process is gone, the conversation ends at once, and its exit tells why.
        let _ = conversation.channel.go();
        let pid = conversation.until_executed(unreaped)?;
        if let Some(root) = host_root {
            root.keep();
        }
        Ok(Running {
            pid,
            pidfd,
            terminal,
            warnings: conversation.warnings,
        })
    }

    /// For [`crate::unmount_root`] once the container has ended: the number of its root's mount, if
    /// it shares the caller's mounts.
    #[must_use]
    pub fn root_mount(&self) -> Option<u64> {
        self.host_root.as_ref().map(HostRoot::id)
    }

    /// Lets the process wait at its gate without the caller, who stays its parent but may end.
    /// Answers its process id. Without a gate nobody could start it, so it is killed then.
    #[must_use]
    pub fn detach(self) -> u32 {
        let Self {
            channel,
            unreaped,
            host_root,
            ..
        } = self;
        if let Some(root) = host_root {
            root.keep();
        }
        drop(channel);
        unreaped.let_go()
    }

    /// Kills and reaps the process; the caller removes the group.
    pub fn abort(self) {
        drop(self);
    }
}

//! Running a further process in a container.

use crate::channel::{self, Channel, Message};
use crate::conversation::{Conversation, Unreaped};
use crate::error::{Context, Error};
use crate::launch::{Running, Stdio, admit, enter_group, group_error};
use crate::listener::Listener;
use crate::process::Streams;
use crate::sys::{self, CLONE_PARENT, Errno, Side, SysResult};
use crate::{
    affinity, execute, host_root, labels, limits, namespaces, process, scheduling, stage, terminal,
};
use gamut_abi::plan::{NamespaceKind, Plan, Process};
use gamut_cgroup::Group;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What the new process has to do.
struct Task<'a> {
    init: BorrowedFd<'a>,
    init_pid: u32,
    process: &'a Process,
    plan: &'a Plan,
    stdio: &'a Stdio,
    /// Where the notifications of the filter go.
    listener: Option<&'a Listener<'a>>,
    /// `CLONE_NEW*` bits of the namespaces to join.
    kinds: i32,
    /// Descriptors that the program gets.
    extra_files: &'a [OwnedFd],
    /// A terminal leaves line ends as they are.
    leave_line_ends: bool,
}

/// Puts a process into control groups.
pub type JoinGroups<'a> = &'a dyn Fn(u32) -> Result<(), gamut_cgroup::Error>;

/// How a further process is bound to its caller.
#[derive(Clone, Copy, Default)]
pub struct ExecOptions<'a> {
    /// Puts the process into its control groups, instead of `group`.
    pub join_groups: Option<JoinGroups<'a>>,
    /// A terminal leaves line ends as they are, for a caller who shows it on one of its own.
    pub leave_line_ends: bool,
    /// Descriptors that the program gets as 3 and following.
    pub extra_files: &'a [OwnedFd],
}

impl Task<'_> {
    fn has(&self, kind: NamespaceKind) -> bool {
        self.kinds & namespaces::kind_flag(kind).0 != 0
    }
}

/// Runs a further process in the namespaces, root and group of a running container, and waits
/// until it has become its program.
///
/// `init` and `init_pid` are the container's first process, `namespaces_of` the plan it was
/// launched by. The new process is a child of the caller, which must have a single thread.
///
/// # Errors
/// `State` if the container has ended, `ExecutableNotFound`, `ExecutableDenied`, or another
/// [`Error`]. Nothing is left behind then.
pub fn exec(
    init: BorrowedFd<'_>,
    init_pid: u32,
    process: &Process,
    namespaces_of: &Plan,
    stdio: Stdio,
    group: Option<&Group>,
) -> Result<Running, Error> {
    let options = ExecOptions::default();
    exec_with(
        init,
        init_pid,
        process,
        namespaces_of,
        stdio,
        group,
        options,
    )
}

/// As [`exec`], with more options.
///
/// # Errors
/// As [`exec`].
pub fn exec_with(
    init: BorrowedFd<'_>,
    init_pid: u32,
    process: &Process,
    namespaces_of: &Plan,
    stdio: Stdio,
    group: Option<&Group>,
    options: ExecOptions<'_>,
) -> Result<Running, Error> {
    if process.args.is_empty() {
        return Err(Error::invalid(
            "the process has no arguments; the first names the program",
        ));
    }
    labels::check(process)?;
    let listener = Listener::connect(process)?;
    let kinds = namespaces_of.namespaces.iter().fold(0, |kinds, namespace| {
        kinds | namespaces::kind_flag(namespace.kind).0
    });
    let task = Task {
        init,
        init_pid,
        process,
        plan: namespaces_of,
        stdio: &stdio,
        listener: listener.as_ref(),
        kinds,
        extra_files: options.extra_files,
        leave_line_ends: options.leave_line_ends,
    };
    let forks = task.has(NamespaceKind::Pid);
    let (ours, theirs) = channel::pair().doing("make", "a socket pair")?;
    let group = group.filter(|_| options.join_groups.is_none());
    let initial = process
        .exec_cpu_affinity
        .as_ref()
        .map_or(&[][..], |affinity| &affinity.initial);
    // Processors for the time before it is in the group: then it must not be born there.
    let mut directory = match initial {
        [] => group.and_then(Group::directory_v2),
        _ => None,
    };
    // SAFETY: the caller promises to have one thread; the child ends in `enter`.
    let clone = |into: Option<&OwnedFd>| unsafe {
        sys::clone_process(0, libc::SIGCHLD, into.map(AsFd::as_fd))
    };
    let mut side = clone(directory.as_ref());
    if let Err(Errno(libc::EBUSY)) = side {
        // The container shares its controllers out to groups of its own, so that only these can
        // hold processes: the new one goes where the first one is, as in runc and crun.
        let of_init = group.and_then(|group| group.directory_v2_of(init_pid));
        if of_init.is_some() {
            directory = of_init;
            side = clone(directory.as_ref());
        }
    }
    let (pid, pidfd) = match side.doing("make", "a process")? {
        Side::Child => {
            let _end = sys::NeverUnwind;
            drop(ours);
            let entered = scheduling::set_affinity(0, initial, "initial")
                .and_then(|()| enter_group(group, directory.is_some()))
                .or_else(|error| match group {
                    Some(group) if error.errno == libc::EBUSY && directory.is_none() => group
                        .enter_beside(init_pid)
                        .map_err(|error| group_error(&error)),
                    _ => Err(error),
                });
            if let Err(error) = entered {
                stage::fail(&theirs, error);
            }
            enter(&task, theirs)
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    if let Some(listener) = listener.as_ref().filter(|_| !forks) {
        listener.set_pid(pid);
    }
    drop(theirs);
    drop(stdio);
    let first = Unreaped::new(pid);
    let mut conversation = Conversation::with_child(ours, pid)?;
    if let Some(join_groups) = options.join_groups {
        join_groups(pid).map_err(|error| {
            let mut error = group_error(&error);
            let what = ["adding pid ", &pid.to_string(), " to cgroups: "].concat();
            error.message.insert_str(0, &what);
            error
        })?;
    }
    admit(&mut conversation, pid, process)?;
    let executed = if forks {
        conversation.until_child_executed(first)
    } else {
        conversation.until_executed(first).map(|pid| (pid, pidfd))
    };
    let (pid, pidfd) = executed.map_err(|mut error| {
        if error.errno == libc::ESRCH {
            error.kind = gamut_abi::control::FailureKind::State;
            error.message = [
                "the container has ended: its first process ",
                &init_pid.to_string(),
                " is gone",
            ]
            .concat();
        }
        error
    })?;
    let Conversation {
        warnings, terminal, ..
    } = conversation;
    Ok(Running {
        pid,
        pidfd,
        terminal,
        warnings,
    })
}

/// Joins the container, and forks into its PID namespace if it has one.
fn enter(task: &Task<'_>, channel: Channel) -> ! {
    // The container could look at us as soon as we are inside: leave everything behind first.
    // 0 to 2 stay, so that nothing else gets their numbers before the streams are connected.
    let mut kept = vec![
        0,
        1,
        2,
        channel.descriptor().as_raw_fd(),
        task.init.as_raw_fd(),
    ];
    if let Stdio::Descriptors {
        stdin,
        stdout,
        stderr,
    } = task.stdio
    {
        kept.extend([stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()]);
    }
    kept.extend(task.extra_files.iter().map(AsRawFd::as_raw_fd));
    kept.extend(
        task.listener
            .map(|listener| listener.descriptor().as_raw_fd()),
    );
    if let Err(errno) = sys::close_all_but(&mut kept) {
        stage::fail(&channel, Error::system("close descriptors", errno));
    }
    if !channel.wait() {
        sys::exit(0);
    }
    if task.process.exec_cpu_affinity.is_none() {
        affinity::reset();
    }
    if task.has(NamespaceKind::User) {
        limits::raise_hard(0, &task.process.rlimits);
    }
    let joined = labels::set_for_execve(task.process)
        .and_then(|()| stage::protect(false))
        .and_then(|()| join(task).doing("join", "the container's namespaces"));
    if let Err(error) = joined {
        stage::fail(&channel, error);
    }
    if !task.has(NamespaceKind::Pid) {
        become_program(task, channel);
    }
    // SAFETY: this process has one thread, being a clone; the child ends in `become_program`.
    match unsafe { sys::clone_process(CLONE_PARENT, 0, None) } {
        Err(errno) => stage::fail(&channel, Error::system("make a process", errno)),
        Ok(Side::Child) => become_program(task, channel),
        Ok(Side::Parent { pid, pidfd }) => {
            if let Some(listener) = task.listener {
                listener.set_pid(pid);
            }
            channel.say(&Message::Child { pid, pidfd });
            sys::exit(0)
        }
    }
}

/// All namespaces at once; where one of them belongs to the host's users, that one before the
/// user namespace is entered.
fn join(task: &Task<'_>) -> SysResult<()> {
    match sys::setns(task.init, task.kinds) {
        Err(Errno(libc::EPERM)) if task.has(NamespaceKind::User) => {}
        other => return other,
    }
    let mut later = 0;
    for bit in 0..31 {
        let kind = task.kinds & (1 << bit);
        if kind == 0 || kind == libc::CLONE_NEWUSER || kind == libc::CLONE_NEWNS {
            continue;
        }
        match sys::setns(task.init, kind) {
            Ok(()) => {}
            Err(Errno(libc::EPERM)) => later |= kind,
            Err(errno) => return Err(errno),
        }
    }
    sys::setns(task.init, libc::CLONE_NEWUSER)?;
    sys::setns(task.init, later | task.kinds & libc::CLONE_NEWNS)
}

fn become_program(task: &Task<'_>, channel: Channel) -> ! {
    match prepare(task, &channel) {
        Ok(program) => {
            let channel = stage::above_files(channel, &program);
            let error = execute::execute(&program, &channel);
            stage::fail(&channel, error)
        }
        Err(error) => stage::fail(&channel, error),
    }
}

fn prepare(task: &Task<'_>, channel: &Channel) -> Result<execute::Program, Error> {
    let in_user_namespace = task.has(NamespaceKind::User);
    if in_user_namespace {
        namespaces::become_root_inside()?;
        stage::protect(false)?;
    }
    stage::new_session(task.process.inherit_keyring);
    scheduling::apply_to_container(task.plan)?;
    if let Some(affinity) = &task.process.exec_cpu_affinity {
        scheduling::set_affinity(0, &affinity.last, "final")?;
    }
    sys::umask(0);
    if !task.has(NamespaceKind::Mount) {
        host_root::enter_that_of(task.init_pid, task.init)?;
    }
    let root = stage::open_root()?;
    let streams = stage::streams(task.process, task.stdio, None, &root, channel)?;
    if let Streams::Terminal(slave) = &streams
        && task.leave_line_ends
    {
        terminal::leave_line_ends(slave);
    }
    let mut warnings = Vec::new();
    let mut program = process::prepare(
        task.process,
        &root,
        &streams,
        process::Surroundings {
            in_user_namespace,
            listener: task.listener,
        },
        &mut warnings,
    )?;
    program.keep_files(task.extra_files)?;
    stage::protect(false)?;
    for warning in warnings {
        channel.say(&Message::Warning(warning));
    }
    Ok(program)
}

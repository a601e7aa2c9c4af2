//! Running a further process in a container.

use crate::channel::{self, Channel, Message};
use crate::conversation::{Conversation, Unreaped};
use crate::error::{Context, Error};
use crate::launch::{Running, Stdio, admit, enter_group};
use crate::sys::{self, CLONE_PARENT, Errno, Side, SysResult};
use crate::{execute, limits, namespaces, process, stage};
use gamut_abi::plan::{NamespaceKind, Plan, Process};
use gamut_cgroup::Group;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What the new process has to do.
struct Task<'a> {
    init: BorrowedFd<'a>,
    process: &'a Process,
    stdio: &'a Stdio,
    /// `CLONE_NEW*` bits of the namespaces to join.
    kinds: i32,
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
    if process.args.is_empty() {
        return Err(Error::invalid(
            "the process has no arguments; the first names the program",
        ));
    }
    let kinds = namespaces_of.namespaces.iter().fold(0, |kinds, namespace| {
        kinds | namespaces::kind_flag(namespace.kind).0
    });
    let task = Task {
        init,
        process,
        stdio: &stdio,
        kinds,
    };
    if !task.has(NamespaceKind::Mount) {
        return Err(Error::invalid(
            "the container has no mount namespace to run a process in",
        ));
    }
    let forks = task.has(NamespaceKind::Pid);
    let (ours, theirs) = channel::pair().doing("make", "a socket pair")?;
    let directory = group.and_then(Group::directory_v2);
    // SAFETY: the caller promises to have one thread; the child ends in `enter`.
    let side = unsafe { sys::clone_process(0, libc::SIGCHLD, directory.as_ref().map(AsFd::as_fd)) };
    let (pid, pidfd) = match side.doing("make", "a process")? {
        Side::Child => {
            let _end = sys::NeverUnwind;
            drop(ours);
            if let Err(error) = enter_group(group, directory.is_some()) {
                stage::fail(&theirs, error);
            }
            enter(&task, &theirs)
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    drop(stdio);
    let first = Unreaped::new(pid);
    let mut conversation = Conversation::with_child(ours, pid)?;
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
fn enter(task: &Task<'_>, channel: &Channel) -> ! {
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
    if let Err(errno) = sys::close_all_but(&mut kept) {
        stage::fail(channel, Error::system("close descriptors", errno));
    }
    if !channel.wait() {
        sys::exit(0);
    }
    if task.has(NamespaceKind::User) {
        limits::raise_hard(0, &task.process.rlimits);
    }
    let joined =
        stage::protect(false).and_then(|()| join(task).doing("join", "the container's namespaces"));
    if let Err(error) = joined {
        stage::fail(channel, error);
    }
    if !task.has(NamespaceKind::Pid) {
        become_program(task, channel);
    }
    // SAFETY: this process has one thread, being a clone; the child ends in `become_program`.
    match unsafe { sys::clone_process(CLONE_PARENT, 0, None) } {
        Err(errno) => stage::fail(channel, Error::system("make a process", errno)),
        Ok(Side::Child) => become_program(task, channel),
        Ok(Side::Parent { pid, pidfd }) => {
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

fn become_program(task: &Task<'_>, channel: &Channel) -> ! {
    match prepare(task, channel) {
        Ok(program) => stage::fail(channel, execute::execute(&program)),
        Err(error) => stage::fail(channel, error),
    }
}

fn prepare(task: &Task<'_>, channel: &Channel) -> Result<execute::Program, Error> {
    let in_user_namespace = task.has(NamespaceKind::User);
    if in_user_namespace {
        namespaces::become_root_inside()?;
        stage::protect(false)?;
    }
    stage::new_session();
    sys::umask(0);
    let root = stage::open_root()?;
    let streams = stage::streams(task.process, task.stdio, None, &root, channel)?;
    let mut warnings = Vec::new();
    let program = process::prepare(
        task.process,
        &root,
        &streams,
        in_user_namespace,
        &mut warnings,
    )?;
    stage::protect(false)?;
    for warning in warnings {
        channel.say(&Message::Warning(warning));
    }
    Ok(program)
}

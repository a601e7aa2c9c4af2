//! What a process is made into before it becomes the program: streams, directory, limits,
//! identity, capabilities.

use crate::capabilities::{self, Sets};
use crate::error::{Context, Error};
use crate::execute::Program;
use crate::listener::Listener;
use crate::path::{self, Missing, RootDirectory};
use crate::sys::{self, Errno};
use crate::{execute, limits, passwd, scheduling, terminal};
use gamut_abi::plan::{Capabilities, Process, Rlimit, User};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Standard streams of a process.
pub(crate) enum Streams<'a> {
    /// `/dev/null`; the descriptor is the host's, for containers that have none.
    Null(OwnedFd),
    /// Three descriptors of the caller.
    Descriptors([BorrowedFd<'a>; 3]),
    /// The slave of a terminal.
    Terminal(OwnedFd),
}

/// What a process is prepared in.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub in_user_namespace: bool,
    /// Where the notifications of its filter go.
    pub listener: Option<&'a Listener<'a>>,
}

/// Makes this process what the program is to be. Only the filter, the last capabilities and
/// execve are left to do afterwards.
pub(crate) fn prepare(
    process: &Process,
    root: &RootDirectory,
    streams: &Streams<'_>,
    surroundings: Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Result<Program, Error> {
    let identity = identify(process, root)?;
    let entered = enter_directory(process, root)?;
    connect(streams, root, identity.uid)?;
    // What is still to be opened on the way must not need a descriptor that the program may not have.
    let is_of_files = |limit: &&Rlimit| limit.resource == libc::RLIMIT_NOFILE;
    let limits = || process.rlimits.iter();
    limits::apply(limits().filter(|limit| !is_of_files(limit)), warnings)?;
    scheduling::apply(process)?;
    let held = capabilities::get().doing("read", "capabilities")?;
    let sets = wanted_capabilities(process, identity.uid, held, warnings);
    capabilities::drop_bounding(sets.bounding)?;
    become_user(&identity, surroundings.in_user_namespace, warnings)?;
    // A filter without no_new_privs takes CAP_SYS_ADMIN, which goes right after it.
    let extra = if process.seccomp.is_some() && !process.no_new_privileges {
        capabilities::bit(capabilities::SYS_ADMIN) & held.permitted
    } else {
        0
    };
    capabilities::set(Sets {
        effective: sets.effective | extra,
        permitted: sets.permitted | extra,
        inheritable: sets.inheritable,
    })
    .doing("set", "capabilities")?;
    capabilities::set_ambient(sets.ambient)?;
    if !entered {
        go_to_directory(process, root)?;
    }
    check_directory(process)?;
    let mut env = last_of_each(&process.env);
    if let Some(home) = identity.home {
        env.retain(|variable| !variable.starts_with("HOME="));
        env.push(["HOME=", &home].concat());
    }
    let last = Sets {
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
    };
    let program = execute::find(
        process,
        &env,
        (extra & !sets.effective != 0).then_some(last),
        surroundings.listener.map(Listener::for_program),
    )?;
    limits::apply(limits().filter(is_of_files), warnings)?;
    sys::umask(process.umask.unwrap_or(0o022) & 0o777);
    Ok(program)
}

/// Each variable once, where it is set last: programs differ in which one they take.
fn last_of_each(env: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut names = std::collections::HashSet::with_capacity(env.len());
    let mut last: Vec<String> = env
        .iter()
        .rev()
        .filter(|variable| names.insert(name(variable)))
        .cloned()
        .collect();
    last.reverse();
    last
}

struct Identified {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// To be set as HOME.
    home: Option<String>,
}

fn identify(process: &Process, root: &RootDirectory) -> Result<Identified, Error> {
    let home = last_of_each(&process.env)
        .into_iter()
        .find(|variable| variable.starts_with("HOME="));
    let needs_home = home.is_none_or(|home| home == "HOME=");
    match &process.user {
        User::Numeric {
            uid,
            gid,
            additional_gids,
        } => Ok(Identified {
            uid: *uid,
            gid: *gid,
            groups: additional_gids.clone(),
            home: needs_home.then(|| {
                let passwd = read_user_file(root, "/etc/passwd").unwrap_or_default();
                passwd::home_of(*uid, &passwd).unwrap_or_else(|| String::from("/"))
            }),
        }),
        User::Lookup {
            spec,
            additional_groups,
        } => {
            let passwd = read_user_file(root, "/etc/passwd")?;
            let group = read_user_file(root, "/etc/group")?;
            let found = passwd::look_up(spec, additional_groups, &passwd, &group)
                .map_err(Error::invalid)?;
            Ok(Identified {
                uid: found.uid,
                gid: found.gid,
                groups: found.groups,
                home: needs_home.then(|| found.home.unwrap_or_else(|| String::from("/"))),
            })
        }
    }
}

/// Content of an image's user file; one that is missing is empty.
fn read_user_file(root: &RootDirectory, path: &str) -> Result<Vec<u8>, Error> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match root.open(path, flags) {
        Ok(file) => file,
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => return Ok(Vec::new()),
        Err(errno) => return Err(Error::system(&["read ", path].concat(), errno)),
    };
    let stat = sys::fstat(file.as_fd()).doing("read", path)?;
    // What /proc has is regular only by name: reading some of it takes from the host or waits.
    let is_proc = sys::filesystem_magic(file.as_fd()) == Ok(libc::PROC_SUPER_MAGIC);
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || is_proc {
        return Err(Error::invalid(
            [path, " of the container is not a regular file"].concat(),
        ));
    }
    sys::read_all(file.as_fd(), passwd::MAX_FILE_BYTES).doing("read", path)
}

fn directory_of(process: &Process) -> &str {
    if process.cwd.is_empty() {
        "/"
    } else {
        &process.cwd
    }
}

/// Enters the working directory with the privileges of the set-up; false if that is forbidden
/// and the user has to try (a directory on NFS, for instance).
fn enter_directory(process: &Process, root: &RootDirectory) -> Result<bool, Error> {
    let directory = path::clean(directory_of(process))?;
    if process.create_cwd {
        root.open_or_make(&directory, Missing::Directory)?;
    }
    match go_to_directory(process, root) {
        Ok(()) => Ok(true),
        Err(error) if error.errno == libc::EACCES => Ok(false),
        Err(error) => Err(error),
    }
}

fn go_to_directory(process: &Process, root: &RootDirectory) -> Result<(), Error> {
    let directory = path::clean(directory_of(process))?;
    root.open(&directory, libc::O_PATH | libc::O_DIRECTORY)
        .and_then(|directory| sys::fchdir(directory.as_fd()))
        .doing("enter working directory", &directory)
}

/// The working directory must be below the root: nothing of the host may be in reach
/// (CVE-2024-21626).
fn check_directory(process: &Process) -> Result<(), Error> {
    let mut buffer = [0_u8; 4096];
    // SAFETY: the buffer is writable for its length. The system call, not the C library's
    // function, tells an unreachable directory by a path without a leading slash.
    let got = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    if got < 0 && Errno::last() == Errno(libc::ERANGE) {
        return Ok(());
    }
    if got < 0 || buffer[0] != b'/' {
        return Err(Error::invalid(
            [
                "working directory ",
                directory_of(process),
                " is not inside the container",
            ]
            .concat(),
        ));
    }
    Ok(())
}

fn connect(streams: &Streams<'_>, root: &RootDirectory, uid: u32) -> Result<(), Error> {
    let failed = |errno| Error::system("connect the standard streams", errno);
    match streams {
        Streams::Null(host) => {
            let own = root.open("/dev/null", libc::O_RDWR).ok().filter(|own| {
                sys::fstat(own.as_fd()).is_ok_and(|stat| sys::is_character_device(&stat, 1, 3))
            });
            let null = own.as_ref().unwrap_or(host);
            for number in 0..3 {
                sys::dup_to(null.as_fd(), number).map_err(failed)?;
            }
            return Ok(());
        }
        Streams::Descriptors(descriptors) => {
            // Away from 0..3 first, so that none is overwritten before it is used.
            let mut copies = Vec::with_capacity(3);
            for descriptor in descriptors {
                copies.push(sys::dup_above(*descriptor, 3).map_err(failed)?);
            }
            for (number, copy) in (0..).zip(&copies) {
                sys::dup_to(copy.as_fd(), number).map_err(failed)?;
            }
        }
        Streams::Terminal(slave) => {
            for number in 0..3 {
                sys::dup_to(slave.as_fd(), number).map_err(failed)?;
            }
            terminal::make_controlling().doing("make the terminal", "controlling")?;
        }
    }
    give_streams_to(uid);
    Ok(())
}

/// The user must be able to open /dev/stdout and its like again. Where that is forbidden, or has
/// no meaning, the stream works all the same.
fn give_streams_to(uid: u32) {
    for number in 0..3 {
        // SAFETY: 0 to 2 are open, connect has made them.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(stat) = sys::fstat(stream)
            && stat.st_uid != uid
            && !sys::is_character_device(&stat, 1, 3)
        {
            let _ = sys::chown(stream, c"", uid, u32::MAX);
        }
    }
}

fn wanted_capabilities(
    process: &Process,
    uid: u32,
    held: Sets,
    warnings: &mut Vec<String>,
) -> Capabilities {
    match &process.capabilities {
        Some(wanted) => capabilities::limit(wanted, held, warnings),
        // As the kernel does it: root keeps everything, others nothing.
        None => Capabilities {
            bounding: u64::MAX,
            effective: if uid == 0 { held.effective } else { 0 },
            permitted: if uid == 0 { held.permitted } else { 0 },
            inheritable: held.inheritable,
            ambient: 0,
        },
    }
}

fn become_user(
    identity: &Identified,
    in_user_namespace: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let number = identity.uid.to_string();
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).doing("keep", "capabilities")?;
    match set_groups(&identity.groups) {
        Ok(()) => {}
        // Denied for good in the user namespace of an unprivileged user.
        Err(Errno(libc::EPERM)) if in_user_namespace || sys::is_in_user_namespace() => {
            if identity.groups.iter().any(|group| *group != identity.gid) {
                warnings.push(String::from(
                    "supplementary groups are not set: the user namespace denies setgroups",
                ));
            }
        }
        Err(errno) => {
            return Err(Error::with_detail(
                "set supplementary groups",
                errno,
                unmapped(errno),
            ));
        }
    }
    let (uid, gid) = (identity.uid, identity.gid);
    // SAFETY: plain calls. The C library's wrappers would signal threads that are not ours.
    if unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) } < 0 {
        let errno = Errno::last();
        let what = ["become group ", &gid.to_string()].concat();
        return Err(Error::with_detail(&what, errno, unmapped(errno)));
    }
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } < 0 {
        let errno = Errno::last();
        return Err(Error::with_detail(
            &["become user ", &number].concat(),
            errno,
            unmapped(errno),
        ));
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 0, 0)
        .doing("keep", "capabilities")
        .map(drop)
}

fn unmapped(errno: Errno) -> &'static str {
    if errno == Errno(libc::EINVAL) {
        "the user namespace does not map this id"
    } else {
        ""
    }
}

fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the groups are readable for their number.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(())
    }
}

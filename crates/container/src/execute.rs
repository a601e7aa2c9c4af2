//! The last steps: find the program, install the filter, execve.

use crate::capabilities::{self, Sets};
use crate::channel::Channel;
use crate::error::{Context, Error};
use crate::listener::ListenerTask;
use crate::sys::{self, Errno, SysResult};
use gamut_abi::control::FailureKind;
use gamut_abi::plan::{Process, Seccomp};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Where programs are looked for if the environment has no PATH, as Docker has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `BPF_MAXINSNS`
const MAX_INSTRUCTIONS: usize = 4096;

const SECCOMP_SET_MODE_FILTER: u32 = 1;

/// Everything execve needs, as the kernel wants it.
pub(crate) struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    no_new_privileges: bool,
    seccomp: Option<Seccomp>,
    /// Capabilities to come down to once the filter is installed.
    last_sets: Option<Sets>,
    /// Descriptors that become 3 and following, all of them above those numbers.
    extra_files: Vec<OwnedFd>,
    /// Who is to have the filter's notification descriptor.
    listener: Option<ListenerTask>,
}

impl Program {
    /// Hands descriptors on to the program, as 3 and following.
    pub(crate) fn keep_files(&mut self, files: &[OwnedFd]) -> Result<(), Error> {
        let first_free = 3 + i32::try_from(files.len()).unwrap_or(i32::MAX - 3);
        self.extra_files = files
            .iter()
            .map(|file| sys::dup_above(file.as_fd(), first_free))
            .collect::<SysResult<_>>()
            .doing("keep", "a preserved descriptor")?;
        match &mut self.listener {
            Some(listener) if !files.is_empty() => listener.move_above(first_free),
            _ => Ok(()),
        }
    }

    /// The descriptors that are needed until then, by the numbers they have until then.
    pub(crate) fn kept_files(&self) -> impl Iterator<Item = RawFd> {
        let listener = self.listener.iter().map(ListenerTask::descriptor);
        self.extra_files
            .iter()
            .map(AsRawFd::as_raw_fd)
            .chain(listener)
    }

    /// First number that is none of the program's descriptors.
    pub(crate) fn first_free(&self) -> RawFd {
        3 + i32::try_from(self.extra_files.len()).unwrap_or(i32::MAX - 3)
    }

    /// Installs the filter of a program that waits for its start, if somebody listens to it: he is
    /// told while the container is created, as the runtime specification has it. What the process
    /// does from now on may be notified, too.
    pub(crate) fn install_with_listener(&mut self, channel: &Channel) -> Result<(), Error> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        if self.no_new_privileges {
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing("set", "no_new_privs")?;
        }
        if let Some(seccomp) = self.seccomp.take() {
            let waiting = listener.start(channel)?;
            waiting.hand_over(install(&seccomp)?);
        }
        Ok(())
    }

    /// Its environment.
    pub(crate) fn environment(&self) -> &[CString] {
        &self.environment
    }
}

/// Finds the program as the user that this process is by now.
pub(crate) fn find(
    process: &Process,
    environment: &[String],
    last_sets: Option<Sets>,
    listener: Option<ListenerTask>,
) -> Result<Program, Error> {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let strings = |texts: &[String], what: &str| {
        texts
            .iter()
            .map(|text| sys::c_string(text).doing("take", what))
            .collect::<Result<Vec<_>, Error>>()
    };
    if let Some(seccomp) = &process.seccomp {
        check_filter(seccomp)?;
    }
    Ok(Program {
        path: look_up(name, environment)?,
        arguments: strings(&process.args, "the arguments")?,
        environment: strings(environment, "the environment")?,
        no_new_privileges: process.no_new_privileges,
        seccomp: process.seccomp.clone(),
        last_sets,
        extra_files: Vec::new(),
        listener,
    })
}

fn check_filter(seccomp: &Seccomp) -> Result<(), Error> {
    if seccomp.program.is_empty() || seccomp.program.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid(
            "a seccomp filter must have 1 to 4096 instructions",
        ));
    }
    Ok(())
}

fn look_up(name: &str, environment: &[String]) -> Result<CString, Error> {
    if name.contains('/') {
        let path = sys::c_string(name).doing("execute", name)?;
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(errno) => Err(execution_failed(name, errno)),
        };
    }
    let path = environment
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    if !name.is_empty() {
        for directory in path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            let candidate =
                sys::c_string(&[directory, "/", name].concat()).doing("execute", name)?;
            match executable(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(errno @ Errno(libc::EACCES | libc::EISDIR)) => denied = Some(errno),
                Err(_) => {}
            }
        }
    }
    if let Some(errno) = denied {
        return Err(execution_failed(name, errno));
    }
    Err(Error {
        kind: FailureKind::ExecutableNotFound,
        message: ["exec: \"", name, "\": executable file not found in $PATH"].concat(),
        errno: libc::ENOENT,
    })
}

/// Could this file be executed?
fn executable(path: &CStr) -> Result<(), Errno> {
    let file = sys::open(sys::cwd(), path, libc::O_PATH)?;
    let stat = sys::fstat(file.as_fd())?;
    if sys::is_directory(&stat) {
        return Err(Errno(libc::EISDIR));
    }
    // SAFETY: path is NUL-terminated. The C library would emulate AT_EACCESS where the kernel
    // has no faccessat2.
    let result =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(())
    }
}

fn execution_failed(name: &str, errno: Errno) -> Error {
    let kind = match errno.0 {
        libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP => {
            FailureKind::ExecutableNotFound
        }
        libc::EACCES | libc::EPERM | libc::EISDIR | libc::ENOEXEC | libc::ETXTBSY => {
            FailureKind::ExecutableDenied
        }
        _ => FailureKind::System,
    };
    Error::system(&["exec: \"", name, "\""].concat(), errno).of_kind(kind)
}

/// Becomes the program. Answers only if that fails.
pub(crate) fn execute(program: &Program, channel: &Channel) -> Error {
    match become_program(program, channel) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn become_program(program: &Program, channel: &Channel) -> Result<std::convert::Infallible, Error> {
    // Everything that a bounded filter might forbid comes before it.
    let mut arguments: Vec<*const libc::c_char> =
        program.arguments.iter().map(|text| text.as_ptr()).collect();
    arguments.push(std::ptr::null());
    let mut environment: Vec<*const libc::c_char> = program
        .environment
        .iter()
        .map(|text| text.as_ptr())
        .collect();
    environment.push(std::ptr::null());
    sys::close_from(3, libc::CLOSE_RANGE_CLOEXEC).doing("close", "descriptors")?;
    for (number, file) in (3..).zip(&program.extra_files) {
        sys::dup_to(file.as_fd(), number).doing("keep", "a preserved descriptor")?;
    }
    reset_signals();
    if program.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing("set", "no_new_privs")?;
    }
    if let Some(seccomp) = &program.seccomp {
        match &program.listener {
            None => drop(install(seccomp)?),
            Some(listener) => {
                let waiting = listener.start(channel)?;
                waiting.hand_over(install(seccomp)?);
            }
        }
    }
    if let Some(sets) = program.last_sets {
        capabilities::set(sets).doing("drop", "capabilities")?;
    }
    // SAFETY: path and the texts are NUL-terminated, the lists end with null.
    unsafe {
        libc::execve(
            program.path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    let errno = Errno::last();
    let kind = execution_failed("", errno).kind;
    let what = ["exec ", &program.path.to_string_lossy()].concat();
    Err(Error::system(&what, errno).of_kind(kind))
}

/// Confines a process that runs beside the program as the program will be: nothing that it is
/// refused may be had by a hook that its image brings along.
pub(crate) fn confine(program: &Program) -> Result<(), Error> {
    if program.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing("set", "no_new_privs")?;
    }
    if let Some(seccomp) = &program.seccomp {
        install(seccomp)?;
    }
    drop_privileges(program)
}

/// Comes down to the program's capabilities in a process that does not become it.
pub(crate) fn drop_privileges(program: &Program) -> Result<(), Error> {
    match program.last_sets {
        Some(sets) => capabilities::set(sets).doing("drop", "capabilities"),
        None => Ok(()),
    }
}

/// Installs the filter. Answers what the kernel does: 0, or the descriptor of its listener.
fn install(seccomp: &Seccomp) -> Result<RawFd, Error> {
    let filter = libc::sock_fprog {
        len: u16::try_from(seccomp.program.len()).unwrap_or(u16::MAX),
        filter: seccomp.program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program is len times eight bytes, each a sock_filter in memory order; the
    // kernel only reads it, and checks it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            seccomp.flags,
            &raw const filter,
        )
    };
    match RawFd::try_from(result) {
        Ok(answer @ 0..) => Ok(answer),
        _ => {
            let errno = Errno::last();
            let detail = match errno.0 {
                libc::EACCES => "without no_new_privileges it needs CAP_SYS_ADMIN",
                libc::EINVAL => "the kernel does not accept the program or its flags",
                _ => "",
            };
            Err(Error::with_detail(
                "install the seccomp filter",
                errno,
                detail,
            ))
        }
    }
}

/// Nothing is blocked and nothing ignored in the program. Handlers are gone since the clone.
pub(crate) fn reset_signals() {
    // SAFETY: plain calls with valid arguments; numbers that cannot be set are refused.
    unsafe {
        // The C library would refuse the two signals it keeps to itself, and a caller may have
        // inherited them ignored. All zeros is the default action in the kernel's sigaction.
        let default = [0_u64; 4];
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8,
            );
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

//! Running hooks: programs at fixed points of a container's life (OCI runtime-spec, runtime.md,
//! "Lifecycle").

use crate::error::{Context, Error};
use crate::execute::{self, Program};
use crate::sys::{self, Errno, Side, SysResult};
use gamut_abi::control::FailureKind;
use gamut_abi::hooks::Hook;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Most that is kept of what a failed hook wrote, in bytes.
const MAX_OUTPUT_BYTES: usize = 2048;

/// Runs hooks one after the other, each with `state` on its standard input, until one fails.
///
/// `name` is that of their list in config.json. A hook without an environment of its own gets
/// that of the calling process, which must have a single thread. They run in `directory`, or in
/// the working directory if that is empty.
///
/// # Errors
/// Which hook failed and how, with what it wrote.
pub fn run_hooks(hooks: &[Hook], name: &str, state: &str, directory: &str) -> Result<(), Error> {
    let run = HookRun {
        name,
        state,
        directory,
        inside: None,
    };
    run.all(hooks)
}

/// What the hooks of one list have in common.
pub(crate) struct HookRun<'a> {
    pub name: &'a str,
    pub state: &'a str,
    pub directory: &'a str,
    /// The program before which they run inside the container: they are confined as it is, and
    /// have its environment if they have none of their own.
    pub inside: Option<&'a Program>,
}

impl HookRun<'_> {
    pub(crate) fn all(&self, hooks: &[Hook]) -> Result<(), Error> {
        for (index, hook) in hooks.iter().enumerate() {
            self.one(hook).map_err(|why| Error {
                kind: FailureKind::System,
                message: [
                    "error running ",
                    self.name,
                    " hook #",
                    &index.to_string(),
                    ": ",
                    &hook.path,
                    ": ",
                    &why,
                ]
                .concat(),
                errno: 0,
            })?;
        }
        Ok(())
    }

    fn one(&self, hook: &Hook) -> Result<(), String> {
        let prepared = Prepared::new(hook, self).map_err(|error| error.message)?;
        // SAFETY: plain call; an ignored SIGCHLD would keep the end of the hook from us.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        // SAFETY: the caller promises to have one thread; the child ends by execve or _exit.
        let side = unsafe { sys::clone_process(0, libc::SIGCHLD, None) };
        match side {
            Err(errno) => Err(errno.text()),
            Ok(Side::Child) => {
                let _end = sys::NeverUnwind;
                prepared.become_hook(self.inside)
            }
            Ok(Side::Parent { pid, pidfd }) => {
                if !ended_in_time(pidfd.as_fd(), hook.timeout_s) {
                    sys::kill_and_reap(pid);
                    let timeout = hook.timeout_s.unwrap_or_default().to_string();
                    return Err(["hook ran past specified timeout of ", &timeout, "s"].concat());
                }
                match sys::reap(pid) {
                    Some(0) | None => Ok(()),
                    Some(status) => Err(prepared.failure(status)),
                }
            }
        }
    }
}

/// Waits for the end of a process; false if it takes longer than allowed.
fn ended_in_time(pidfd: BorrowedFd<'_>, timeout_s: Option<u32>) -> bool {
    let timeout_ms = timeout_s.map_or(-1, |seconds| {
        i32::try_from(u64::from(seconds) * 1000).unwrap_or(i32::MAX)
    });
    loop {
        let mut poll = libc::pollfd {
            fd: pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd that lives over the call.
        match unsafe { libc::poll(&raw mut poll, 1, timeout_ms) } {
            0 => return false,
            1.. => return true,
            _ if Errno::last() == Errno(libc::EINTR) => {}
            _ => return true,
        }
    }
}

/// Everything made before the clone, so that little can fail behind it.
struct Prepared {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: CString,
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
}

impl Prepared {
    fn new(hook: &Hook, run: &HookRun<'_>) -> Result<Self, Error> {
        let text = |text: &String| sys::c_string(text).doing("run hook", &hook.path);
        let path = text(&hook.path)?;
        let arguments = if hook.args.is_empty() {
            vec![path.clone()]
        } else {
            hook.args.iter().map(text).collect::<Result<_, _>>()?
        };
        let environment = match (&hook.env, run.inside) {
            (Some(own), _) => own.iter().map(text).collect::<Result<_, _>>()?,
            (None, Some(program)) => program.environment().to_vec(),
            (None, None) => own_environment(),
        };
        // The state and the output are files, not pipes: nobody has to read while the hook runs.
        let input = memory_file(c"gamut-hook-state").doing("make", "the hook's input")?;
        let mut rest = run.state.as_bytes();
        while !rest.is_empty() {
            let count = sys::write(input.as_fd(), rest).doing("write", "the hook's input")?;
            rest = rest.get(count..).unwrap_or_default();
        }
        rewind(input.as_fd());
        Ok(Self {
            path,
            arguments,
            environment,
            directory: text(&run.directory.to_owned())?,
            input,
            output: memory_file(c"gamut-hook-output").doing("make", "the hook's output")?,
            errors: memory_file(c"gamut-hook-errors").doing("make", "the hook's output")?,
        })
    }

    fn become_hook(&self, inside: Option<&Program>) -> ! {
        let mut arguments: Vec<_> = self.arguments.iter().map(|text| text.as_ptr()).collect();
        arguments.push(std::ptr::null());
        let mut environment: Vec<_> = self.environment.iter().map(|text| text.as_ptr()).collect();
        environment.push(std::ptr::null());
        let ready = || -> SysResult<()> {
            // Away from 0 to 2 first, so that none is overwritten before it is used.
            let streams = [&self.input, &self.output, &self.errors];
            let mut copies = Vec::with_capacity(3);
            for stream in streams {
                copies.push(sys::dup_above(stream.as_fd(), 3)?);
            }
            for (number, copy) in (0..).zip(&copies) {
                sys::dup_to(copy.as_fd(), number)?;
            }
            sys::close_from(3, libc::CLOSE_RANGE_CLOEXEC)?;
            sys::umask(0o022);
            execute::reset_signals();
            // SAFETY: a NUL-terminated path.
            if !self.directory.is_empty() && unsafe { libc::chdir(self.directory.as_ptr()) } < 0 {
                return Err(Errno::last());
            }
            if let Some(Err(error)) = inside.map(execute::confine) {
                let _ = sys::write(borrow_stderr(), error.message.as_bytes());
                return Err(Errno(error.errno));
            }
            // SAFETY: path and the texts are NUL-terminated, the lists end with null.
            unsafe { libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
            Err(Errno::last())
        };
        if let Err(errno) = ready() {
            let _ = sys::write(self.errors.as_fd(), errno.text().as_bytes());
        }
        sys::exit(127)
    }

    fn failure(&self, status: i32) -> String {
        let how = if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            [
                "signal ",
                &signal.to_string(),
                " (",
                &signal_text(signal),
                ")",
            ]
            .concat()
        } else {
            ["exit status ", &libc::WEXITSTATUS(status).to_string()].concat()
        };
        let written = |file: &OwnedFd| {
            rewind(file.as_fd());
            let mut text = vec![0_u8; MAX_OUTPUT_BYTES];
            let count = sys::read(file.as_fd(), &mut text).unwrap_or(0);
            text.truncate(count);
            String::from_utf8_lossy(&text).trim_end().to_owned()
        };
        [
            &how,
            ", stdout: ",
            &written(&self.output),
            ", stderr: ",
            &written(&self.errors),
        ]
        .concat()
    }
}

/// The C library's words for a signal, in lower case.
fn signal_text(signal: i32) -> String {
    // SAFETY: the answer is null or a C string that stays as it is until the next call.
    unsafe {
        let text = libc::strsignal(signal);
        if text.is_null() {
            return String::new();
        }
        CStr::from_ptr(text).to_string_lossy().to_lowercase()
    }
}

fn borrow_stderr<'a>() -> BorrowedFd<'a> {
    // SAFETY: the hook's own standard error, which it has been given just before.
    unsafe { BorrowedFd::borrow_raw(2) }
}

fn own_environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}

fn memory_file(name: &CStr) -> SysResult<OwnedFd> {
    // SAFETY: the name is a C string; a result that is no error is a new descriptor of ours.
    unsafe {
        let raw = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if raw < 0 {
            return Err(Errno::last());
        }
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

fn rewind(file: BorrowedFd<'_>) {
    // SAFETY: plain call with a valid descriptor; a memory file can be sought in.
    unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) };
}

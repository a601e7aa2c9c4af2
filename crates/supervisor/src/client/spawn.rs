//! Starting the supervisor's process, fast however big the caller is.

use super::Executable;
use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Descriptor of the launching socket in the supervisor.
const SOCKET: i32 = 3;

/// Stack of each of the two short-lived stages. They call nothing but thin system call wrappers.
const STACK_BYTES: usize = 32 << 10;

/// What the stages share with the caller, whose memory they use while it waits.
struct Stage {
    executable: i32,
    socket: i32,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// Top of the second stage's stack.
    stack: *mut c_void,
    /// Error number of what failed.
    error: i32,
}

/// Starts `executable` with `socket` as descriptor 3, named after the sandbox in `ps`.
///
/// The caller's memory is shared, not copied (`CLONE_VM | CLONE_VFORK`, as posix_spawn(3) does),
/// so that the cost does not grow with the caller. A first child makes the supervisor and exits
/// at once, so that the supervisor belongs to init (or the next subreaper): the caller has no
/// child to reap, and gets no SIGCHLD.
///
/// # Errors
/// Those of clone(2) and execveat(2).
pub(super) fn spawn(executable: &Executable, socket: BorrowedFd<'_>, id: &str) -> io::Result<()> {
    let id = CString::new(id)?;
    let arguments = [c"gamut-supervisor".as_ptr(), id.as_ptr(), ptr::null()];
    let environment = [ptr::null()];
    // u128 elements keep the stack aligned as the ABI wants it.
    let mut stacks = vec![0_u128; 2 * STACK_BYTES / size_of::<u128>()];
    let middle = stacks.len() / 2;
    let mut stage = Stage {
        executable: executable.descriptor().as_raw_fd(),
        socket: socket.as_raw_fd(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        stack: ptr::null_mut(),
        error: 0,
    };
    // SAFETY: both halves of `stacks` are live and used by one stage each; stacks grow down from
    // the end of their half. CLONE_VFORK suspends this thread until the stages are done with the
    // shared memory, so that `stage` and all it points to outlive them. All signals are blocked
    // meanwhile, because a handler of this process must not run in a stage.
    unsafe {
        let base = stacks.as_mut_ptr();
        stage.stack = base.add(middle).cast();
        let first_stack: *mut c_void = base.add(stacks.len()).cast();
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK;
        let child = libc::clone(first_stage, first_stack, flags, (&raw mut stage).cast());
        let clone_error = io::Error::last_os_error();
        if child > 0 {
            let mut status = 0;
            while libc::waitpid(child, &raw mut status, libc::__WALL) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        if child < 0 {
            return Err(clone_error);
        }
    }
    if stage.error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(stage.error))
    }
}

/// Makes the supervisor's process and exits.
extern "C" fn first_stage(argument: *mut c_void) -> i32 {
    let stage: *mut Stage = argument.cast();
    // SAFETY: `spawn` passes a live Stage that only one stage touches at a time (CLONE_VFORK).
    unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        if libc::clone(second_stage, (*stage).stack, flags, argument) < 0 {
            (*stage).error = *libc::__errno_location();
        }
    }
    0
}

/// Becomes the supervisor.
extern "C" fn second_stage(argument: *mut c_void) -> i32 {
    let stage: *mut Stage = argument.cast();
    // SAFETY: as above; only system calls on descriptors of this process's own table follow. The
    // executable and the socket have numbers above 3 (see `high_duplicate`).
    unsafe {
        if libc::dup2((*stage).socket, SOCKET) == SOCKET {
            libc::syscall(
                libc::SYS_execveat,
                (*stage).executable,
                c"".as_ptr(),
                (*stage).arguments,
                (*stage).environment,
                libc::AT_EMPTY_PATH,
            );
        }
        (*stage).error = *libc::__errno_location();
    }
    127
}

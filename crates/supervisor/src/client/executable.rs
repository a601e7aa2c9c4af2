//! The supervisor's program, sealed in memory.

use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

/// A sealed copy of the supervisor's program (memfd_create(2)). Nothing, not even a process of a
/// container that gets hold of `/proc/PID/exe`, can change it; all supervisors share its pages.
#[derive(Debug)]
pub struct Executable {
    descriptor: OwnedFd,
}

impl Executable {
    /// Copies and seals a program file.
    ///
    /// # Errors
    /// Those of reading the file, memfd_create(2), sendfile(2) and fcntl(2).
    pub fn seal(path: &Path) -> io::Result<Self> {
        let program = File::open(path)?;
        let file = executable_memory_file()?;
        copy(program.as_fd(), file.as_fd())?;
        Self::from_file(&file)
    }

    /// Seals a program that is in memory already.
    ///
    /// # Errors
    /// Those of memfd_create(2), write(2) and fcntl(2).
    pub fn from_bytes(program: &[u8]) -> io::Result<Self> {
        let mut file = executable_memory_file()?;
        file.write_all(program)?;
        Self::from_file(&file)
    }

    fn from_file(file: &File) -> io::Result<Self> {
        let seals =
            libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
        // SAFETY: no pointers.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            descriptor: high_duplicate(file.as_fd())?,
        })
    }

    /// Replaces the calling program by this one (execveat(2)), called `arguments[0]`, with an
    /// empty environment, 0 to 2 as they are, `input` as descriptor 3 and `files` as those that
    /// follow. Everything else has to be close-on-exec. Returns only if that fails, with the
    /// reason.
    #[must_use]
    pub fn execute(
        &self,
        arguments: &[&CStr],
        input: BorrowedFd<'_>,
        files: &[BorrowedFd<'_>],
    ) -> io::Error {
        let mut pointers: Vec<*const c_char> = arguments.iter().map(|text| text.as_ptr()).collect();
        pointers.push(ptr::null());
        let environment = [ptr::null::<c_char>()];
        let first_free = 4_i32.saturating_add(i32::try_from(files.len()).unwrap_or(i32::MAX));
        let own = match duplicate(self.descriptor(), first_free) {
            Ok(own) => own,
            Err(error) => return error,
        };
        // Away from the numbers they are to have first, so that none is overwritten before it is
        // used.
        let mut copies = Vec::with_capacity(files.len() + 1);
        for file in [input].iter().chain(files) {
            match duplicate(*file, first_free) {
                Ok(copy) => copies.push(copy),
                Err(error) => return error,
            }
        }
        // SAFETY: descriptors are open and above those that are overwritten, which belong to
        // nobody any more once this succeeds; the texts are NUL-terminated, the lists end with
        // null.
        unsafe {
            for (number, copy) in (3..).zip(&copies) {
                if libc::dup2(copy.as_raw_fd(), number) < 0 {
                    return io::Error::last_os_error();
                }
            }
            libc::syscall(
                libc::SYS_execveat,
                own.as_raw_fd(),
                c"".as_ptr(),
                pointers.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        io::Error::last_os_error()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn executable_memory_file() -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    match memory_file(flags | libc::MFD_EXEC) {
        // Before Linux 6.3 there is no such flag, and no need for it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => memory_file(flags),
        other => other,
    }
}

/// Copies a whole file inside the kernel (sendfile(2)): a third of the cost of reading it into
/// fresh memory and writing it from there, which `gamut-runtime` would pay for every container.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        // SAFETY: no pointers but a null offset, which means the file's own position.
        let count =
            unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), ptr::null_mut(), 1 << 30) };
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

fn memory_file(flags: u32) -> io::Result<File> {
    // SAFETY: the name is a C string; a non-negative result is a new descriptor.
    unsafe {
        let raw = libc::memfd_create(c"gamut-supervisor".as_ptr(), flags);
        if raw < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(File::from_raw_fd(raw))
        }
    }
}

/// Duplicates a descriptor to a number that a launched supervisor does not use for anything.
pub(super) fn high_duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    duplicate(fd, 10)
}

/// A close-on-exec duplicate numbered `minimum` or above.
fn duplicate(fd: BorrowedFd<'_>, minimum: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a new descriptor.
    unsafe {
        let raw = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, minimum);
        if raw < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(raw))
        }
    }
}

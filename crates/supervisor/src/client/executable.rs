//! The supervisor's program, sealed in memory.
//!
//! Any container can make the stage that is about to become its program execute itself again
//! (`#!/proc/self/exe`), and so gets hold of the file (CVE-2019-5736). Seals keep its content; but
//! who owns the file may also take its mode away or give it capabilities that nobody has, so that
//! no supervisor could be started from it any more. A file of one container's alone may suffer
//! that; one that is shared by all lies on a read-only file system of its own.

use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::time::Duration;

/// A sealed copy of the supervisor's program (memfd_create(2)). Nothing, not even a process of a
/// container that gets hold of `/proc/PID/exe`, can change it; all supervisors share its pages.
#[derive(Debug)]
pub struct Executable {
    descriptor: OwnedFd,
    /// The file system that the program is alone on.
    _mount: Option<OwnedFd>,
}

impl Executable {
    /// Copies a program file for many supervisors to be started from: to a read-only file system
    /// that is mounted nowhere. Whoever may not make one (without CAP_SYS_ADMIN) gets what
    /// [`Executable::seal`] makes.
    ///
    /// # Errors
    /// As [`Executable::seal`], and those of fsopen(2), fsconfig(2), fsmount(2) and openat(2).
    pub fn share(path: &Path) -> io::Result<Self> {
        let mount = match memory_file_system() {
            Ok(mount) => mount,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Self::seal(path);
            }
            Err(error) => return Err(error),
        };
        let program = File::open(path)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        copy(program.as_fd(), open_at(mount.as_fd(), flags)?.as_fd())?;
        make_read_only(mount.as_fd())?;
        let program = open_at(mount.as_fd(), libc::O_PATH)?;
        Ok(Self {
            descriptor: high_duplicate(program.as_fd())?,
            _mount: Some(mount),
        })
    }

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
        // Before Linux 6.3 the mode cannot be sealed.
        seal(file, seals | libc::F_SEAL_EXEC).or_else(|_| seal(file, seals))?;
        Ok(Self {
            descriptor: high_duplicate(file.as_fd())?,
            _mount: None,
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

fn seal(file: &File, seals: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes ownership of a descriptor that a system call has just returned.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel has just made it for us.
        Ok(raw) if raw >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A file system in memory, mounted nowhere (fsopen(2), fsmount(2)).
fn memory_file_system() -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    configure(&context, libc::FSCONFIG_CMD_CREATE, ptr::null())?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    // SAFETY: no pointers.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attributes,
        )
    })
}

/// Makes a whole file system read-only, not only this mount of it. A process that another thread
/// is just starting may hold the file that was written until its execve; that is waited for.
fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match try_to_make_read_only(mount) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < 1000 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

fn try_to_make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the path is an empty C string, which stands for the mount itself.
    let context = owned(unsafe {
        libc::syscall(
            libc::SYS_fspick,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::FSPICK_EMPTY_PATH | libc::FSPICK_CLOEXEC,
        )
    })?;
    configure(&context, libc::FSCONFIG_SET_FLAG, c"ro".as_ptr())?;
    configure(&context, libc::FSCONFIG_CMD_RECONFIGURE, ptr::null())
}

fn configure(context: &OwnedFd, command: libc::c_uint, key: *const c_char) -> io::Result<()> {
    // SAFETY: the key is null or a C string, as the command wants; there is no value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            key,
            ptr::null::<c_char>(),
            0,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opens the program on its file system.
fn open_at(mount: BorrowedFd<'_>, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the mode matters for a new file only.
    let raw = unsafe {
        libc::openat(
            mount.as_raw_fd(),
            c"gamut-supervisor".as_ptr(),
            flags | libc::O_CLOEXEC,
            0o555,
        )
    };
    owned(libc::c_long::from(raw))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn path_of(executable: &Executable) -> String {
        format!("/proc/self/fd/{}", executable.descriptor.as_raw_fd())
    }

    #[test]
    fn nobody_changes_a_shared_program() {
        // SAFETY: only returns a number.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("SKIPPED: a file system of its own needs root");
            return;
        }
        let program = Path::new("/proc/self/exe");
        let shared = Executable::share(program).unwrap();
        let path = path_of(&shared);
        assert!(std::fs::read(&path).unwrap() == std::fs::read(program).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
        let refused = [
            File::options().write(true).open(&path).map(drop),
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)),
            std::os::unix::fs::chown(&path, Some(1), None),
        ];
        for result in refused {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
    }

    #[test]
    fn nobody_changes_a_sealed_program() {
        let program = Path::new("/proc/self/exe");
        let sealed = Executable::seal(program).unwrap();
        let path = path_of(&sealed);
        assert!(std::fs::read(&path).unwrap() == std::fs::read(program).unwrap());
        let mut file = File::options().write(true).open(&path).unwrap();
        assert!(file.write_all(b"x").is_err());
        // The mode is sealed where the kernel knows that seal (Linux 6.3).
        // SAFETY: no pointers.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        let mode = std::fs::Permissions::from_mode(0o600);
        let changed = std::fs::set_permissions(&path, mode);
        assert_eq!(changed.is_err(), seals & libc::F_SEAL_EXEC != 0);
    }
}

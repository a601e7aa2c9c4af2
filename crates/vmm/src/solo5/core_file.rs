//! A core file of a guest that has aborted (`--dumpcore=DIR`), for `gdb IMAGE CORE`.
//!
//! The monitor can make no file once its guest runs. So a process that stays outside of its jail
//! opens one without a name beforehand, waits for the monitor, and gives the file its name if
//! something was written into it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::memory::GuestMemory;
use crate::report::Registers;

/// The exit code of a guest that has aborted.
pub(crate) const ABORTED: u8 = 255;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// `struct elf_prstatus` of x86-64, and where its registers lie.
const STATUS_BYTES: usize = 336;
const REGISTERS_AT: usize = 112;
const NOTE_BYTES: usize = 12 + 8 + STATUS_BYTES;
const PAGE_BYTES: u64 = 4096;
const ZEROS: [u8; 4096] = [0; 4096];

/// A file without a name in a directory.
///
/// # Errors
/// If the directory cannot be written.
pub(super) fn open(directory: &str) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
        .map_err(|error| Error::system(format!("dumpcore: make a file in {directory}"), error))
}

/// Leaves a child process that goes on as the monitor; this one waits for it, names the file if it
/// was written, and ends with the same exit code.
///
/// # Errors
/// If there can be no child.
pub(super) fn watch_from_outside(file: &File, directory: &str) -> Result<()> {
    // SAFETY: there is one thread.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(Error::last(
            "dumpcore: start the process that names the file",
        ));
    }
    if child == 0 {
        return Ok(());
    }
    pass_signals_on(child);
    let mut status = 0;
    // SAFETY: a child of ours; `status` is valid for writes.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        let name = format!("core.solo5-hvt.{child}");
        let text = match link(file, &Path::new(directory).join(&name)) {
            Ok(()) => format!("solo5-hvt: dumpcore: dumped guest core to: {directory}/{name}\n"),
            Err(error) => format!("solo5-hvt: dumpcore: {directory}/{name}: {error}\n"),
        };
        crate::monitor::tell(&text);
    }
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    std::process::exit(code);
}

static CHILD: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

extern "C" fn pass_on(signal: i32) {
    let child = CHILD.load(std::sync::atomic::Ordering::Relaxed);
    // SAFETY: async-signal-safe; the child is not waited for yet, or the call fails.
    unsafe { libc::kill(child, signal) };
}

fn pass_signals_on(child: i32) {
    CHILD.store(child, std::sync::atomic::Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: an all-zero action is valid; the handler makes one async-signal-safe call.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = pass_on as extern "C" fn(i32) as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    // They were blocked for the monitor, which waits for them.
    // SAFETY: the set is initialized by sigemptyset before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Gives a file without a name one, which must be new (linkat(2)).
fn link(file: &File, path: &Path) -> io::Result<()> {
    let text = |bytes: &[u8]| std::ffi::CString::new(bytes).map_err(io::Error::other);
    let from = text(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes())?;
    let to = text(path.as_os_str().as_encoded_bytes())?;
    let flags = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: both are strings that end.
    let done = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            flags,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Writes registers and memory; pages of zeros become holes.
///
/// # Errors
/// What the file system answered.
pub(crate) fn write(
    mut file: &File,
    registers: &Registers,
    memory: &GuestMemory,
) -> io::Result<()> {
    let memory_bytes = memory.bytes();
    let head = head(registers, memory_bytes);
    file.write_all(&head)?;
    let start = head.len() as u64;
    for address in (0..memory_bytes).step_by(4096) {
        let page = memory.raw(address, PAGE_BYTES).unwrap_or_default();
        if page != ZEROS {
            file.write_all_at(page, start + address)?;
        }
    }
    // A hole at the end belongs to the memory as well.
    let last = memory_bytes.saturating_sub(1);
    let byte = memory.raw(last, 1).unwrap_or(&[0]);
    file.write_all_at(byte, start + last)
}

/// ELF header, two program headers and the note with the registers (System V ABI; `elfcore.h`).
fn head(registers: &Registers, memory_bytes: u64) -> Vec<u8> {
    let note_at = (HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES) as u64;
    let memory_at = note_at + NOTE_BYTES as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\xff".to_vec();
    bytes.resize(16, 0);
    // ET_CORE, x86-64, version 1.
    bytes.extend([4, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0, HEADER_BYTES as u64, 0] {
        bytes.extend(u64::to_le_bytes(word));
    }
    // Flags; sizes of header and program headers, number of these; no sections.
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let note_bytes = NOTE_BYTES as u64;
    program_header(
        &mut bytes,
        [4, 4],
        [note_at, 0, 0, note_bytes, note_bytes, 4],
    );
    program_header(
        &mut bytes,
        [1, 7],
        [memory_at, 0, 0, memory_bytes, memory_bytes, 0],
    );
    // NT_PRSTATUS of owner CORE.
    bytes.extend([5, 0, 0, 0]);
    bytes.extend(u32::try_from(STATUS_BYTES).unwrap_or(0).to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(b"CORE\0\0\0\0");
    let registers_at = bytes.len() + REGISTERS_AT;
    let end = bytes.len() + STATUS_BYTES;
    bytes.resize(registers_at, 0);
    // As `struct user_regs_struct` has them, by their places in `Registers`; cs, flags, rsp and ss
    // follow, and there is no system call to begin anew.
    for place in [15, 14, 13, 12, 6, 1, 11, 10, 9, 8, 0, 2, 3, 4, 5] {
        bytes.extend(registers.get(place).to_le_bytes());
    }
    let rest = [
        u64::MAX,
        registers.get(crate::report::RIP),
        u64::from(crate::tables::USER_CODE),
        registers.get(crate::report::RFLAGS),
        registers.get(crate::report::RSP),
        u64::from(crate::tables::USER_DATA),
    ];
    for word in rest {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(end, 0);
    bytes
}

fn program_header(bytes: &mut Vec<u8>, words: [u32; 2], doubles: [u64; 6]) {
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
    for double in doubles {
        bytes.extend(double.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_file_holds_registers_and_memory() {
        let mut memory = GuestMemory::new(0x4000).unwrap();
        memory.raw_mut(0x1ffe, 4).unwrap().copy_from_slice(b"core");
        let mut registers = Registers::default();
        for (index, register) in registers.general.iter_mut().enumerate() {
            *register = index as u64 + 100;
        }
        let file = tempfile::tempfile().unwrap();
        write(&file, &registers, &memory).unwrap();
        let head = head(&registers, 0x4000).len();
        assert_eq!(file.metadata().unwrap().len(), head as u64 + 0x4000);
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, head as u64 + 0x1ffe)
            .unwrap();
        assert_eq!(&bytes, b"core");
        let mut rip = [0; 8];
        let at = HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES + 20 + REGISTERS_AT + 16 * 8;
        file.read_exact_at(&mut rip, at as u64).unwrap();
        assert_eq!(u64::from_le_bytes(rip), 116);
    }
}

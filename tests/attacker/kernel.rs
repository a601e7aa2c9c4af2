//! System calls, as they are.

use std::ffi::{CString, c_int, c_long};
use std::io;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

pub const OPEN: c_long = 2;
pub const FCNTL: c_long = 72;
pub const PTRACE: c_long = 101;
pub const SETXATTR: c_long = 188;
pub const RENAMEAT2: c_long = 316;
pub const KILL: c_long = 62;
pub const WAIT4: c_long = 61;

/// A system call with up to six numbers or pointers.
pub fn call(number: c_long, arguments: [usize; 6]) -> Result<usize, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: every caller passes numbers, or pointers that outlive the call, as the system call
    // named wants them. What the kernel makes of nonsense is what the tests ask.
    let result = unsafe { syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| errno())
}

/// A system call of the 32 bit interface, by the door that a filter may have forgotten.
pub fn call_32(number: u32, arguments: [u32; 3]) -> Result<u32, i32> {
    let [a, b, c] = arguments;
    let result: i32;
    // SAFETY: the arguments are numbers; rbx, which the compiler keeps to itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg {b:r}, rbx",
            "int 0x80",
            "xchg {b:r}, rbx",
            b = inout(reg) u64::from(a) => _,
            inlateout("eax") number => result,
            in("ecx") b,
            in("edx") c,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    u32::try_from(result).map_err(|_| -result)
}

/// Error number of the last call.
pub fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A text for the kernel, and where it is.
pub fn text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// Process ids in /proc.
pub fn processes() -> Vec<usize> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

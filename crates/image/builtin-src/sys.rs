// System calls, memory functions and program start for the built-in images' programs. They have
// no C library: the kernel's calling convention is all that they know.

use core::arch::asm;

/// Does one system call.
///
/// # Safety
/// The arguments must be what the call takes; pointers must be valid for what it does with them.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel changes rax, rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
            in("rdx") c, in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    result
}

/// Does one system call.
///
/// # Safety
/// The arguments must be what the call takes; pointers must be valid for what it does with them.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel changes x0 only.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b,
            in("x2") c, in("x3") d, in("x4") e, options(nostack));
    }
    result
}

/// Numbers of the system calls in use.
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
pub mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const SENDFILE: usize = 40;
    pub const SOCKET: usize = 41;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const SETSOCKOPT: usize = 54;
    pub const EXIT_GROUP: usize = 231;
    pub const EPOLL_CTL: usize = 233;
    pub const EPOLL_PWAIT: usize = 281;
    pub const ACCEPT4: usize = 288;
    pub const SIGNALFD4: usize = 289;
    pub const EPOLL_CREATE1: usize = 291;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const OPENAT2: usize = 437;
    pub const OPENAT: usize = 257;
    /// Where st_mode and st_size are in a struct stat.
    pub const STAT_MODE: usize = 24;
    pub const STAT_SIZE: usize = 48;
    pub const O_DIRECTORY: usize = 0o200000;
}

/// Numbers of the system calls in use.
#[cfg(target_arch = "aarch64")]
#[allow(dead_code)]
pub mod number {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const FSTAT: usize = 80;
    pub const SENDFILE: usize = 71;
    pub const SOCKET: usize = 198;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const SETSOCKOPT: usize = 208;
    pub const EXIT_GROUP: usize = 94;
    pub const EPOLL_CTL: usize = 21;
    pub const EPOLL_PWAIT: usize = 22;
    pub const ACCEPT4: usize = 242;
    pub const SIGNALFD4: usize = 74;
    pub const EPOLL_CREATE1: usize = 20;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const OPENAT2: usize = 437;
    pub const OPENAT: usize = 56;
    /// Where st_mode and st_size are in a struct stat.
    pub const STAT_MODE: usize = 16;
    pub const STAT_SIZE: usize = 48;
    pub const O_DIRECTORY: usize = 0o40000;
}

/// Writes all bytes, as far as it can.
pub fn write_all(fd: usize, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and the length are those of a slice.
        let written = unsafe {
            call(
                number::WRITE,
                fd,
                bytes.as_ptr() as usize,
                bytes.len(),
                0,
                0,
            )
        };
        match usize::try_from(written) {
            Ok(written) if written > 0 => bytes = bytes.get(written..).unwrap_or_default(),
            _ => return,
        }
    }
}

/// Ends the process.
pub fn exit(status: usize) -> ! {
    loop {
        // SAFETY: takes no pointer.
        unsafe { call(number::EXIT_GROUP, status, 0, 0, 0, 0) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(134)
}

// The kernel starts a program with its argument count, arguments and environment on the stack,
// which is aligned to 16 bytes as a call instruction wants it.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "call {main}",
    "ud2",
    main = sym crate::main,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x0, sp",
    "bl {main}",
    "brk #1",
    main = sym crate::main,
);

/// Copies memory; the compiler calls it.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: the caller promises that both have `length` bytes.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}

/// Fills memory; the compiler calls it.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: the caller promises `length` bytes.
        unsafe { to.add(at).write_volatile(value as u8) };
    }
    to
}

/// Moves memory that may overlap; the compiler calls it.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if (to as usize) < from as usize {
        // SAFETY: as the caller promises; forwards is right when the target is lower.
        return unsafe { memcpy(to, from, length) };
    }
    for at in (0..length).rev() {
        // SAFETY: the caller promises that both have `length` bytes.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}

/// Compares memory; the compiler calls it.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: the caller promises that both have `length` bytes.
        let (a, b) = unsafe { (left.add(at).read_volatile(), right.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// Compares memory for equality; the compiler calls it.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { memcmp(left, right, length) }
}

/// Length of a C string; the compiler calls it.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller promises a NUL at the end.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

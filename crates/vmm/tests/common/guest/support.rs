//! What a guest needs to live: entry point, console, clock, requests.
//!
//! SAFETY: of all unsafe blocks here: the memory is this program's alone, there is one processor,
//! and what goes wrong is what the tests look for.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::guest::boot::{BootBlock, ClockPage};
use crate::guest::hypercall::{
    IoRequest, PORT_CONSOLE, PORT_ENTROPY, PORT_EXIT, PORT_IO, PORT_PANIC, Slice,
};

core::arch::global_asm!(
    ".section .note.gamut, \"a\"",
    ".align 4",
    ".long 6, 32, 1",
    ".ascii \"Gamut\\0\\0\\0\"",
    ".long 1, 0",
    ".quad 0x8000, 0x200000, 0x400000",
    ".text",
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "push rbp",
    "mov rbp, rsp",
    "call {start}",
    "ud2",
    start = sym start,
);

static BOOT: AtomicU64 = AtomicU64::new(0);

extern "C" fn start(boot: u64) -> ! {
    BOOT.store(boot, Ordering::Relaxed);
    if self::boot().magic != crate::guest::boot::BOOT_MAGIC {
        exit(99);
    }
    let what = crate::guest::config::values(config(), "arg")
        .nth(1)
        .unwrap_or("hello");
    exit(crate::main(what))
}

pub fn boot() -> &'static BootBlock {
    unsafe { &*(BOOT.load(Ordering::Relaxed) as *const BootBlock) }
}

pub fn config() -> &'static [u8] {
    let boot = boot();
    unsafe {
        core::slice::from_raw_parts(boot.config_address as *const u8, boot.config_bytes as usize)
    }
}

fn page() -> ClockPage {
    loop {
        let page = boot().clock_address as *const ClockPage;
        let copy = unsafe { page.read_volatile() };
        let again = unsafe { (&raw const (*page).sequence).read_volatile() };
        if copy.sequence % 2 == 0 && copy.sequence == again {
            return copy;
        }
    }
}

pub fn monotonic_ns() -> u64 {
    let page = page();
    page.monotonic_base_ns + page.elapsed_ns(unsafe { core::arch::x86_64::_rdtsc() })
}

pub fn wall_ns() -> u64 {
    let page = page();
    page.wall_base_ns + page.elapsed_ns(unsafe { core::arch::x86_64::_rdtsc() })
}

pub fn generation() -> u32 {
    page().generation
}

pub fn stop_requested() -> u32 {
    page().stop_requested
}

pub fn out(port: u16, value: u32) {
    unsafe { core::arch::asm!("out dx, eax", in("dx") port, in("eax") value) };
}

pub fn exit(code: u32) -> ! {
    out(PORT_EXIT, code);
    loop {}
}

#[repr(C, align(8))]
struct Aligned(Slice);

pub fn console_at(address: u64, bytes: u64) {
    let slice = Aligned(Slice { address, bytes });
    out(PORT_CONSOLE, &raw const slice as u32);
}

pub fn entropy_at(address: u64, bytes: u64) {
    let slice = Aligned(Slice { address, bytes });
    out(PORT_ENTROPY, &raw const slice as u32);
}

pub fn entropy() {
    let mut room = [[0_u8; 32]; 2];
    for half in &mut room {
        entropy_at(half.as_mut_ptr() as u64, 32);
    }
    let room = core::hint::black_box(room);
    put_text(if room[0] != room[1] && room[1] != [0; 32] {
        "differs\n"
    } else {
        "same\n"
    });
}

pub fn put_text(text: &str) {
    console_at(text.as_ptr() as u64, text.len() as u64);
}

pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        put_text(text);
        Ok(())
    }
}

pub fn io() -> IoRequest {
    IoRequest {
        wait_until_ns: 0,
        transmit_address: 0,
        receive_address: 0,
        block_address: 0,
        transmit_count: 0,
        receive_count: 0,
        block_count: 0,
        flags: 0,
        received_count: 77,
        events: 77,
    }
}

pub fn now(request: &mut IoRequest) {
    out(PORT_IO, &raw mut *request as u32);
}

pub fn wait_ns(until_ns: u64) {
    let mut request = io();
    request.wait_until_ns = until_ns;
    now(&mut request);
}

struct NoHeap;

unsafe impl GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: NoHeap = NoHeap;

struct Message {
    bytes: [u8; 256],
    used: usize,
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(room) = self.bytes.get_mut(self.used) {
                *room = byte;
                self.used += 1;
            }
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut message = Message {
        bytes: [0; 256],
        used: 0,
    };
    let _ = fmt::write(&mut message, format_args!("{info}"));
    let slice = Aligned(Slice {
        address: message.bytes.as_ptr() as u64,
        bytes: message.used as u64,
    });
    out(PORT_PANIC, &raw const slice as u32);
    loop {}
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    unsafe {
        core::arch::asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _,
            inout("rcx") bytes => _);
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    if (to as usize) < from as usize {
        return unsafe { memcpy(to, from, bytes) };
    }
    unsafe {
        core::arch::asm!("std", "rep movsb", "cld",
            inout("rdi") to.wrapping_add(bytes).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(bytes).wrapping_sub(1) => _,
            inout("rcx") bytes => _);
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8 {
    unsafe {
        core::arch::asm!("rep stosb", inout("rdi") to => _, in("al") value as u8,
            inout("rcx") bytes => _);
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    for index in 0..bytes {
        let (left, right) = unsafe {
            (
                left.add(index).read_volatile(),
                right.add(index).read_volatile(),
            )
        };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    unsafe { memcmp(left, right, bytes) }
}

//! A guest for tests: it does what its second argument says.
//!
//! SAFETY: of all unsafe blocks here: the memory is this program's alone, there is one processor,
//! and what goes wrong is what the tests look for.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../../../abi/src/guest/mod.rs"]
#[allow(dead_code)]
mod guest;
mod hostile;
mod support;

use core::fmt::Write as _;

use guest::boot::BootBlock;
use guest::hypercall::{
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, BlockRequest, EVENT_MORE, EVENT_STOP,
    Frame, IoRequest, PORT_CONSOLE, PORT_IO, PORT_OUT_OF_MEMORY, PORT_PANIC,
};
use support::{Console, boot, io, monotonic_ns, now, out, put_text, wait_ns};

/// What a test wants to be done.
fn perform(what: &str) -> u32 {
    let _ = match what {
        "hello" => hello(),
        "exit" => return 7,
        "panic" => panic!("told to"),
        "null" => deep(3, || poke(0x10)),
        "guard" => return u32::from(overflow(0) == 1),
        "write-code" => poke(main as *const () as usize),
        "write-boot" => poke(0x4000),
        "read-tables" => peek(0x6000),
        "read-descriptors" => peek(0x1000),
        "run-data" => run_data(),
        "beyond" => peek(1 << 32),
        "privileged" => privileged(),
        "foreign-port" => raw_out(0x80, 0),
        "small-out" => small_out(),
        "in" => raw_in(),
        "bad-buffer" => put_at(0x6000, 64),
        "bad-size" => put_at(0x10_0000, 1 << 40),
        "unaligned" => out(PORT_CONSOLE, 0x10_0001),
        "out-of-memory" => out(PORT_OUT_OF_MEMORY, 12345),
        "bad-panic" => out(PORT_PANIC, 0),
        "code-as-buffer" => code_as_buffer(),
        "loop" => loop {
            core::hint::spin_loop();
        },
        "floats" => floats(),
        "clock" => clock(),
        "entropy" => support::entropy(),
        "wait-stop" => wait_stop(),
        "ignore-stop" => loop {
            wait_ns(u64::MAX);
        },
        "config" => config(),
        "echo" => echo(),
        "block" => block(),
        "count" => count(),
        "tick" => {
            let mut ends_with = 0;
            loop {
                tick(&mut ends_with);
                if ends_with != 0 {
                    return ends_with;
                }
            }
        }
        "rofs" => rofs(),
        "random" => random(),
        "hostile" => hostile::attack(),
        _ => {
            let _ = writeln!(Console, "no such test: {what}");
            return 2;
        }
    };
    0
}

fn main(arguments: &str) -> u32 {
    perform(arguments)
}

fn hello() {
    let _ = writeln!(
        Console,
        "hello: {} bytes, heap {} at {:#x}, stack {}",
        boot().memory_bytes,
        boot().heap_bytes,
        boot().heap_address,
        boot().stack_bytes
    );
}

#[inline(never)]
/// For debuggers, which change what it gets.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tick(value: &mut u32) {
    wait_ns(monotonic_ns() + 1_000_000);
    // SAFETY: a valid reference; it may have been changed from outside.
    unsafe { core::arch::asm!("/* {0} */", in(reg) value) };
}

fn deep(depth: u32, last: fn()) {
    if depth == 0 {
        last();
    } else {
        deep(depth - 1, last);
    }
    core::hint::black_box(depth);
}

fn poke(address: usize) {
    unsafe { (address as *mut u8).write_volatile(1) };
}

fn peek(address: usize) {
    unsafe { (address as *const u8).read_volatile() };
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    let array = core::hint::black_box([depth; 64]);
    overflow(depth + 1) + array[3]
}

fn run_data() {
    static CODE: [u8; 4] = [0xc3; 4];
    let stack = core::hint::black_box(CODE);
    let function: extern "C" fn() = unsafe { core::mem::transmute(stack.as_ptr()) };
    function();
}

fn privileged() {
    unsafe { core::arch::asm!("cli") };
}

fn raw_out(port: u16, value: u32) {
    out(port, value);
}

fn small_out() {
    unsafe { core::arch::asm!("out dx, al", in("dx") PORT_CONSOLE, in("al") 0_u8) };
}

fn raw_in() {
    unsafe { core::arch::asm!("in eax, dx", in("dx") PORT_CONSOLE, out("eax") _) };
}

fn put_at(address: u64, bytes: u64) {
    support::console_at(address, bytes);
}

fn code_as_buffer() {
    support::entropy_at(main as *const () as u64, 8);
}

fn floats() {
    let mut sum = core::hint::black_box(0.5_f64);
    for _ in 0..10 {
        sum = core::hint::black_box(sum * 1.5);
        hello_float(sum);
    }
    let avx = unsafe {
        let leaf = core::arch::x86_64::__cpuid(1);
        leaf.ecx & (1 << 28) != 0
    };
    if avx {
        unsafe { core::arch::asm!("vpxor ymm0, ymm0, ymm0", "vzeroupper", out("ymm0") _) };
    }
    let _ = writeln!(Console, "sum {} avx {avx}", (sum * 1000.0) as u64);
}

fn hello_float(_: f64) {}

fn clock() {
    let before = monotonic_ns();
    let wall = support::wall_ns();
    wait_ns(before + 20_000_000);
    let after = monotonic_ns();
    let _ = writeln!(Console, "before {before} after {after} wall {wall}");
    wait_ns(1);
    let _ = writeln!(Console, "not waited");
}

fn wait_stop() {
    put_text("waiting\n");
    let mut request = io();
    request.wait_until_ns = u64::MAX;
    now(&mut request);
    let stop = support::stop_requested();
    let _ = writeln!(
        Console,
        "woken: stop {} {stop}",
        request.events & EVENT_STOP
    );
    // The event has been told: this waits.
    let mut request = io();
    request.wait_until_ns = monotonic_ns() + 10_000_000;
    let start = monotonic_ns();
    now(&mut request);
    let waited = monotonic_ns() - start >= 9_000_000;
    let _ = writeln!(
        Console,
        "again: stop {} waited {waited}",
        request.events & EVENT_STOP
    );
}

fn config() {
    for entry in guest::config::entries(support::config()) {
        let _ = writeln!(Console, "{}={}", entry.key, entry.value);
    }
}

/// Sends every frame back with source and destination exchanged, until one says "end".
fn echo() {
    static mut BUFFERS: [[u8; 1600]; 4] = [[0; 1600]; 4];
    put_text("ready\n");
    loop {
        let mut receive = [Frame {
            address: 0,
            bytes: 1600,
            device: 0,
            status: 0,
        }; 4];
        for (index, frame) in receive.iter_mut().enumerate() {
            frame.address = (&raw mut BUFFERS as u64) + index as u64 * 1600;
        }
        let mut request = io();
        request.receive_address = receive.as_mut_ptr() as u64;
        request.receive_count = 4;
        request.wait_until_ns = u64::MAX;
        now(&mut request);
        if request.events & EVENT_STOP != 0 {
            return;
        }
        let mut transmit = receive;
        let mut count = 0;
        let mut end = false;
        for frame in receive.iter().take(request.received_count as usize) {
            let bytes = unsafe {
                core::slice::from_raw_parts_mut(frame.address as *mut u8, frame.bytes as usize)
            };
            // Only those of the tests: type 0x88b5 (local experiments).
            if bytes.len() < 17 || bytes[12..14] != [0x88, 0xb5] {
                continue;
            }
            end |= &bytes[14..17] == b"end";
            for index in 0..6 {
                bytes.swap(index, index + 6);
            }
            transmit[count] = *frame;
            count += 1;
        }
        let mut request = io();
        request.transmit_address = transmit.as_mut_ptr() as u64;
        request.transmit_count = count as u32;
        now(&mut request);
        if end {
            let _ = writeln!(
                Console,
                "end, more {} status {}",
                request.events & EVENT_MORE,
                transmit[0].status
            );
            return;
        }
    }
}

fn disk(operation: u16, offset_bytes: u64, data: &mut [u8]) -> u32 {
    let mut request = [BlockRequest {
        offset_bytes,
        address: data.as_mut_ptr() as u64,
        bytes: data.len() as u32,
        device: 0,
        operation,
        status: 99,
        reserved: 0,
    }];
    let mut io = io();
    io.block_address = request.as_mut_ptr() as u64;
    io.block_count = 1;
    // It does not wait: a block request was made.
    io.wait_until_ns = u64::MAX;
    now(&mut io);
    let request = core::hint::black_box(&request);
    request[0].status
}

fn block() {
    let mut data = [0; 1024];
    let _ = writeln!(
        Console,
        "read {} {:?}",
        disk(BLOCK_READ, 512, &mut data),
        &data[..5]
    );
    data[..5].copy_from_slice(b"guest");
    let _ = writeln!(Console, "write {}", disk(BLOCK_WRITE, 1024, &mut data));
    let _ = writeln!(Console, "flush {}", disk(BLOCK_FLUSH, 0, &mut []));
    let _ = writeln!(Console, "discard {}", disk(BLOCK_DISCARD, 2048, &mut data));
    let _ = writeln!(Console, "beyond {}", disk(BLOCK_READ, 1 << 30, &mut data));
    let _ = writeln!(
        Console,
        "overflow {}",
        disk(BLOCK_WRITE, u64::MAX - 511, &mut data)
    );
    let _ = writeln!(Console, "unaligned {}", disk(BLOCK_READ, 1, &mut data));
}

/// Counts, and tells each step: for saving in the middle.
fn count() {
    let mut sum = core::hint::black_box(1.0_f64);
    for number in 0..40_u32 {
        sum = core::hint::black_box(sum + 1.0 / f64::from(number + 1));
        let _ = writeln!(
            Console,
            "{number} {} generation {}",
            (sum * 1e6) as u64,
            support::generation()
        );
        wait_ns(monotonic_ns() + 2_000_000);
    }
}

fn rofs() {
    let boot: &BootBlock = boot();
    let bytes = unsafe {
        core::slice::from_raw_parts(boot.rofs_address as *const u8, boot.rofs_bytes as usize)
    };
    put_text("rofs: ");
    support::console_at(bytes.as_ptr() as u64, bytes.len() as u64);
    let _ = writeln!(Console, "last {}", bytes[bytes.len() - 1]);
    poke(boot.rofs_address as usize);
}

/// Writes random values to all ports of the guest ABI but those that end the guest, with random
/// structures, until one of them is refused: the machine must end it or answer, not fall.
fn random() {
    let mut state = u64::from_le_bytes(boot().seed[..8].try_into().unwrap_or([1; 8])) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    static mut PLACE: [u64; 512] = [0; 512];
    let place = &raw mut PLACE as u64;
    for _ in 0..2000 {
        for index in 0..64 {
            let value = match next() % 6 {
                0 => next(),
                1 => next() % 4,
                2 => place + next() % 4096,
                3 => next() % boot().memory_bytes,
                4 => next() & 0x0000_0003_0000_0003,
                _ => 0,
            };
            unsafe {
                (&raw mut PLACE)
                    .cast::<u64>()
                    .add(index)
                    .write_volatile(value)
            };
        }
        let value = match next() % 3 {
            0 => next() as u32,
            _ => (place + next() % 256 * 8) as u32,
        };
        let port = [PORT_CONSOLE, PORT_IO, PORT_IO, PORT_IO, guest::hypercall::PORT_ENTROPY];
        if next() % 1000 == 0 {
            out((next() & 0xffff) as u16, value);
        }
        // To wait for ever would be a valid wish.
        if (place..place + 4096).contains(&u64::from(value)) {
            unsafe { ((value & !7) as *mut u64).write_volatile(0) };
        }
        out(port[(next() % 5) as usize], value);
    }
}

const _: fn() -> IoRequest = io;

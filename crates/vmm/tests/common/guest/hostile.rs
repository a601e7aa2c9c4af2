//! A guest that attacks its monitor: requests that are nearly right, and some that are not at all.
//! One that is refused ends it, so most of each is as it should be.

use core::arch::asm;

use crate::guest::config::values;
use crate::guest::hypercall::{
    BlockRequest, Frame, IoRequest, PORT_CONSOLE, PORT_ENTROPY, PORT_EXIT, PORT_IO,
    PORT_OUT_OF_MEMORY, PORT_PANIC, Slice,
};
use crate::support::{boot, config, io, monotonic_ns, out};

const ARENA_BYTES: usize = 64 << 10;

/// Requests, arrays and buffers, wherever chance puts them.
#[repr(C, align(4096))]
struct Arena([u8; ARENA_BYTES]);

static mut ARENA: Arena = Arena([0; ARENA_BYTES]);

/// Where the resolver answers: questions for it are the monitor's own to read.
const RESOLVER: [u8; 4] = [127, 0, 0, 11];

/// Xorshift: the same seed, the same attack.
struct Chance {
    state: u64,
    /// How much rarer than usual it oversteps: the careful ones live longer.
    caution: u64,
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

impl Chance {
    /// Whether to do what may be refused.
    fn oversteps(&mut self, times: u64) -> bool {
        self.below(times * self.caution) == 0
    }
}

fn arena() -> u64 {
    &raw mut ARENA as u64
}

/// Puts a structure into the arena, aligned, if it fits.
fn place<T>(at: u64, value: T) {
    unsafe { (at as *mut T).write_volatile(value) };
}

/// An address that a request may name, or nearly.
fn address(chance: &mut Chance) -> u64 {
    let edge = arena() + ARENA_BYTES as u64;
    if !chance.oversteps(40) {
        return arena() + chance.below(ARENA_BYTES as u64 / 2);
    }
    let boot = boot();
    match chance.below(14) {
        0 => 0,
        1 => edge - chance.below(16),
        2 => arena() - chance.below(4096),
        3 => boot.memory_bytes - chance.below(64),
        4 => boot.memory_bytes + chance.below(64),
        5 => chance.below(0x10_0000),
        6 => boot.config_address + chance.below(8),
        7 => boot.rofs_address + chance.below(8192),
        8 => boot.clock_address,
        9 => address as *const () as u64,
        10 => u64::MAX - chance.below(4096),
        11 => 1 << chance.below(64),
        12 => boot.stack_address - chance.below(4096),
        _ => chance.next(),
    }
}

fn number(chance: &mut Chance, usual: u64) -> u32 {
    if !chance.oversteps(30) {
        return chance.below(usual + 1) as u32;
    }
    match chance.below(4) {
        0 => u32::MAX - chance.below(4) as u32,
        1 => 1 << chance.below(32),
        2 => 257,
        _ => chance.next() as u32,
    }
}

/// A frame's bytes: rubbish, or nearly a question for a name, or for the resolver's address.
fn fill_frame(chance: &mut Chance, at: u64) {
    let mut bytes = [0_u8; 96];
    for byte in &mut bytes {
        *byte = chance.next() as u8;
    }
    match chance.below(3) {
        0 => {
            bytes[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            bytes[38..42].copy_from_slice(&RESOLVER);
        }
        1 => {
            bytes[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 82, 0, 1, 0, 0, 64, 17]);
            bytes[30..34].copy_from_slice(&RESOLVER);
            bytes[36..40].copy_from_slice(&[0, 53, 0, 62]);
        }
        _ => {}
    }
    if chance.once_in(3) {
        bytes[chance.below(48) as usize] = chance.next() as u8;
    }
    if (arena()..arena() + ARENA_BYTES as u64 - 96).contains(&at) {
        place(at, bytes);
    }
}

fn fill_frames(chance: &mut Chance, at: u64, count: u64, is_sent: bool) {
    for index in 0..count {
        let buffer = address(chance);
        if is_sent {
            fill_frame(chance, buffer);
        }
        let frame = Frame {
            address: buffer,
            bytes: if is_sent && chance.once_in(2) {
                96
            } else {
                number(chance, 2048)
            },
            device: if chance.oversteps(60) {
                chance.next() as u16
            } else {
                chance.below(2) as u16
            },
            status: chance.next() as u16,
        };
        place(at + index * size_of::<Frame>() as u64, frame);
    }
}

fn fill_blocks(chance: &mut Chance, at: u64, count: u64) {
    for index in 0..count {
        let sectors = |chance: &mut Chance, limit| 512 * chance.below(limit);
        let request = BlockRequest {
            offset_bytes: match chance.below(8) {
                0 => chance.next(),
                1 => u64::MAX - 511,
                _ => sectors(chance, 40),
            },
            address: address(chance),
            bytes: match chance.below(8) {
                0 if chance.oversteps(4) => number(chance, 1 << 20),
                _ => sectors(chance, 9) as u32,
            },
            device: if chance.oversteps(20) { 7 } else { 0 },
            operation: if chance.oversteps(20) {
                chance.next() as u16
            } else {
                chance.below(4) as u16
            },
            status: chance.next() as u32,
            reserved: chance.next() as u32,
        };
        place(at + index * size_of::<BlockRequest>() as u64, request);
    }
}

/// A turn's input and output.
fn turn(chance: &mut Chance) -> u64 {
    // In the upper half, where no buffer begins: a receive may not change what is being asked.
    let at = arena() + ARENA_BYTES as u64 / 2;
    let (sent, received, blocks) = (chance.below(5), chance.below(5), chance.below(4));
    fill_frames(chance, at + 0x1000, sent, true);
    fill_frames(chance, at + 0x2000, received, false);
    fill_blocks(chance, at + 0x3000, blocks);
    let mut request: IoRequest = io();
    let array = |chance: &mut Chance, usual| {
        if chance.oversteps(100) {
            address(chance)
        } else {
            usual
        }
    };
    request.transmit_address = array(chance, at + 0x1000);
    request.receive_address = array(chance, at + 0x2000);
    request.block_address = array(chance, at + 0x3000);
    request.transmit_count = if chance.oversteps(100) { number(chance, 300) } else { sent as u32 };
    request.receive_count = if chance.oversteps(100) { number(chance, 300) } else { received as u32 };
    request.block_count = if chance.oversteps(100) { number(chance, 300) } else { blocks as u32 };
    request.flags = if chance.once_in(4) { chance.next() as u32 } else { 0 };
    // Short, since for ever would be a valid wish.
    request.wait_until_ns = match chance.below(3) {
        0 => monotonic_ns() + chance.below(200_000),
        _ => chance.below(2),
    };
    let at = at + 8 * chance.below(256);
    place(at, request);
    at
}

fn slice(chance: &mut Chance) -> u64 {
    let at = arena() + ARENA_BYTES as u64 / 2 + 8 * chance.below(64);
    let slice = Slice {
        address: address(chance),
        bytes: number(chance, 512).into(),
    };
    place(at, slice);
    at
}

/// What no program does that means well. It ends the guest, as a rule.
fn step_out_of_line(chance: &mut Chance) {
    let address = chance.next() & 0x0000_7fff_ffff_ffff;
    match chance.below(12) {
        0 => unsafe { asm!("cli") },
        1 => unsafe { asm!("syscall", out("rcx") _, out("r11") _) },
        2 => unsafe { asm!("int 0x80") },
        3 => unsafe { asm!("ud2") },
        4 => unsafe { asm!("mov rax, cr3", out("rax") _) },
        5 => unsafe { asm!("wrmsr", in("ecx") 0xc000_0080_u32, in("eax") 0, in("edx") 0) },
        6 => unsafe { asm!("out dx, al", in("dx") chance.next() as u16, in("al") 1_u8) },
        7 => unsafe { asm!("in eax, dx", in("dx") chance.next() as u16, out("eax") _) },
        8 => unsafe { (address as *mut u8).write_volatile(1) },
        9 => unsafe { asm!("div {0:r}", in(reg) 0_u64, inout("rax") 1_u64 => _, inout("rdx") 0_u64 => _) },
        10 => unsafe { asm!("int3") },
        _ => out(chance.next() as u16, chance.next() as u32),
    }
}

/// Attacks until the monitor ends it, or it has no more ideas.
pub fn attack() {
    let seed = values(config(), "arg").nth(2).unwrap_or("1");
    let seed = seed.bytes().fold(0x9e37_79b9_7f4a_7c15, |all: u64, byte| {
        (all ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut chance = Chance {
        state: seed | 1,
        caution: 1,
    };
    chance.caution = [1, 10, 100][chance.below(3) as usize];
    for _ in 0..600 {
        let chance = &mut chance;
        if chance.oversteps(300) {
            step_out_of_line(chance);
        }
        let (port, value) = match chance.below(40) {
            0..30 => (PORT_IO, turn(chance)),
            30..34 => (PORT_CONSOLE, slice(chance)),
            34..38 => (PORT_ENTROPY, slice(chance)),
            38 if chance.oversteps(8) => match chance.below(3) {
                0 => (PORT_PANIC, slice(chance)),
                1 => (PORT_EXIT, chance.next()),
                _ => (PORT_OUT_OF_MEMORY, chance.next()),
            },
            _ if chance.oversteps(20) => {
                // What lies there might ask to wait for ever, unless it cannot be asked at all.
                let nowhere = [1, 0x7f_fff8, u64::MAX, arena() + 1, 8];
                (PORT_IO, nowhere[chance.below(5) as usize])
            }
            _ => continue,
        };
        out(port, value as u32);
    }
}

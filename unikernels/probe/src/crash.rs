//! Ways to end badly.

use core::arch::asm;
use core::hint::black_box;

use gamut_libos::prelude::*;

/// Ends the guest in a way. Comes back only if there is no such way, or nothing stopped it.
pub(super) fn crash(way: &str) -> Result<(), Error> {
    match way {
        "null" => write_to(0),
        "high" => write_to(0x7fff_ffff_f000),
        "jump" => jump_to(0x10),
        #[expect(clippy::panic, reason = "this is what is asked for")]
        "panic" => panic!("as asked"),
        "oom" => exhaust(),
        #[expect(clippy::empty_loop, reason = "this is what is asked for")]
        "loop" => loop {},
        "stack" => println!("{}", recurse(0)),
        "wx" => write_code(),
        "execute" => execute_data(),
        "privileged" => halt(),
        other => return Err(Error::from(format!("unknown way to crash: {other:?}"))),
    }
    Err(Error::from(format!("nothing stopped {way}")))
}

fn write_to(address: usize) {
    let place = core::ptr::with_exposed_provenance_mut::<u8>(black_box(address));
    // SAFETY: none: there is no memory there, which is the point.
    unsafe { asm!("mov byte ptr [{}], 1", in(reg) place) }
}

fn jump_to(address: usize) {
    // SAFETY: none, as above.
    unsafe { asm!("call {}", in(reg) address) }
}

fn exhaust() {
    let mut blocks = Vec::new();
    loop {
        blocks.push(black_box(vec![1_u8; 256 << 10]));
    }
}

#[expect(unconditional_recursion, reason = "this is what is asked for")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    recurse(depth + 1) + black_box(room[7])
}

fn write_code() {
    let place = recurse as *const () as usize;
    write_to(place);
}

fn execute_data() {
    // `ret`, on the heap.
    let code = Box::new([0xc3_u8; 16]);
    jump_to(black_box(code.as_ptr()).expose_provenance());
}

fn halt() {
    // SAFETY: faults at privilege level 3; under the PVH entry the guest halts for ever.
    unsafe { asm!("cli", "hlt") }
}

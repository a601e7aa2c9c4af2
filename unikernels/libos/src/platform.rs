//! What the guest asks of whoever runs it: Gamut's monitor by hypercalls, or the drivers behind
//! the PVH entry. Everything above sees no difference.

use core::arch::asm;

use gamut_abi::guest::hypercall::{
    IoRequest, PORT_CONSOLE, PORT_EXIT, PORT_IO, PORT_OUT_OF_MEMORY, PORT_PANIC, Slice,
};

use crate::cell::Global;

/// Requests lie below 4 GiB: in the image, not on the stack, wherever that may be.
static REQUEST: Global<Slice> = Global::new(Slice {
    address: 0,
    bytes: 0,
});

/// Writes to the console.
pub(crate) fn console(bytes: &[u8]) {
    #[cfg(feature = "pvh")]
    if crate::pvh::is_active() {
        return crate::pvh::console(bytes);
    }
    REQUEST.with(|request| {
        *request = slice(bytes);
        call(PORT_CONSOLE, request);
    });
}

/// Ends the guest.
pub(crate) fn exit(code: u8) -> ! {
    #[cfg(feature = "pvh")]
    if crate::pvh::is_active() {
        crate::pvh::exit(code);
    }
    end(PORT_EXIT, code.into())
}

/// Ends the guest with a message.
pub(crate) fn panic(message: &[u8]) -> ! {
    #[cfg(feature = "pvh")]
    if crate::pvh::is_active() {
        crate::pvh::panic(message);
    }
    let mut request = slice(message);
    call(PORT_PANIC, &raw mut request);
    stopped()
}

/// Ends the guest because there is no memory of that size.
pub(crate) fn out_of_memory(wanted_bytes: u64) -> ! {
    let wanted_kib = u32::try_from(wanted_bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    #[cfg(feature = "pvh")]
    if crate::pvh::is_active() {
        crate::pvh::out_of_memory(wanted_kib);
    }
    end(PORT_OUT_OF_MEMORY, wanted_kib)
}

/// Carries out input and output, and waits ([`IoRequest`]).
pub(crate) fn input_output(request: *mut IoRequest) {
    #[cfg(feature = "pvh")]
    if crate::pvh::is_active() {
        // SAFETY: the caller's own structure, which nobody else uses now.
        return crate::pvh::input_output(unsafe { &mut *request });
    }
    call(PORT_IO, request);
}

/// Random bytes of the host.
#[cfg(feature = "entropy")]
pub(crate) fn entropy(bytes: &mut [u8]) {
    #[cfg(feature = "pvh")]
    if crate::pvh::is_active() {
        return crate::pvh::entropy(bytes);
    }
    REQUEST.with(|request| {
        *request = Slice {
            address: bytes.as_mut_ptr().expose_provenance() as u64,
            bytes: bytes.len() as u64,
        };
        call(gamut_abi::guest::hypercall::PORT_ENTROPY, request);
    });
}

fn slice(bytes: &[u8]) -> Slice {
    Slice {
        address: bytes.as_ptr().expose_provenance() as u64,
        bytes: bytes.len() as u64,
    }
}

/// A request by the address of its structure.
fn call<T>(port: u16, request: *mut T) {
    // Above 4 GiB the monitor would read something else; it ends the guest for address 0.
    let address = u32::try_from(request.expose_provenance()).unwrap_or(0);
    // SAFETY: the monitor reads and writes only the structure and what it names; whoever calls
    // this owns both. Without `nomem` the compiler keeps no copies of memory across it.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") address, options(nostack, preserves_flags));
    }
}

fn end(port: u16, value: u32) -> ! {
    // SAFETY: ends the guest.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, nomem));
    }
    stopped()
}

/// The monitor does not come back from a request that ends the guest; if it did, this faults.
fn stopped() -> ! {
    // SAFETY: an invalid instruction, which ends the guest.
    unsafe { asm!("ud2", options(noreturn)) }
}

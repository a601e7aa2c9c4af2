//! One request per turn: everything that is to be transmitted, read and written, and the wait.

use gamut_abi::guest::hypercall::IoRequest;

use crate::cell::Global;
use crate::{platform, shutdown};

const NOTHING: IoRequest = IoRequest {
    wait_until_ns: 0,
    transmit_address: 0,
    receive_address: 0,
    block_address: 0,
    transmit_count: 0,
    receive_count: 0,
    block_count: 0,
    flags: 0,
    received_count: 0,
    events: 0,
};

/// Lies in the image, thus below 4 GiB.
static REQUEST: Global<IoRequest> = Global::new(NOTHING);

/// Lets the network stack handle what has arrived and prepare what is to be sent.
pub(crate) fn poll() {
    shutdown::poll();
    #[cfg(feature = "net")]
    crate::net::poll();
}

/// Makes the request. `wait_until_ns` is when the next timer is due; without it the request does
/// not wait.
pub(crate) fn turn(wait_until_ns: Option<u64>) {
    REQUEST.with(|request| {
        *request = NOTHING;
        request.wait_until_ns = wait_until_ns.unwrap_or(0);
        #[cfg(feature = "net")]
        crate::net::prepare(request);
        #[cfg(feature = "block")]
        crate::block::prepare(request);
        if request.wait_until_ns == 0
            && request.transmit_count == 0
            && request.receive_count == 0
            && request.block_count == 0
        {
            return;
        }
        platform::input_output(request);
        #[cfg(feature = "net")]
        crate::net::complete(request);
    });
    #[cfg(feature = "block")]
    crate::block::complete();
}

/// Whether peers have yet to acknowledge what was written to connections that are closed.
pub(crate) fn is_sending() -> bool {
    #[cfg(feature = "net")]
    return crate::net::is_sending();
    #[cfg(not(feature = "net"))]
    false
}

//! The network: frames, and above them TCP, UDP and name resolution over smoltcp.
//!
//! Addresses, gateways, name servers and names come from the configuration that the guest was
//! started with; a device without an address asks by DHCP.

#[cfg(feature = "net")]
pub mod configuration;
#[cfg(feature = "dns-message")]
pub mod dns_message;
#[cfg(feature = "net")]
pub mod frames;
#[cfg(feature = "ipv4")]
mod interface;
#[cfg(feature = "dns")]
mod resolver;
#[cfg(feature = "ipv4")]
mod stack;
#[cfg(feature = "tcp")]
mod syn;
#[cfg(feature = "tcp")]
pub mod tcp;
#[cfg(feature = "udp")]
pub mod udp;

#[cfg(feature = "dns")]
pub use resolver::{ResolveError, resolve};
#[cfg(feature = "ipv4")]
pub use stack::{addresses, ready};
#[cfg(feature = "tcp")]
pub use tcp::{TcpError, TcpListener, TcpReader, TcpStream, TcpWriter};
#[cfg(feature = "udp")]
pub use udp::{UdpError, UdpSocket};

#[cfg(feature = "net")]
use gamut_abi::guest::hypercall::IoRequest;

/// Sets up the devices of the configuration.
#[cfg(feature = "net")]
pub(crate) fn initialize() {
    let devices = configuration::devices(crate::boot::config());
    frames::initialize(&devices);
    #[cfg(feature = "ipv4")]
    stack::initialize(&devices);
}

/// Handles what has arrived and prepares what is to be sent.
#[cfg(feature = "net")]
pub(crate) fn poll() {
    #[cfg(feature = "ipv4")]
    stack::poll();
}

/// Adds frames to a request, and waits no longer than the protocols allow.
#[cfg(feature = "net")]
pub(crate) fn prepare(request: &mut IoRequest) {
    #[cfg(feature = "ipv4")]
    {
        request.wait_until_ns = request.wait_until_ns.min(stack::next_ns());
    }
    frames::prepare(request);
}

/// Takes the answer of a request.
#[cfg(feature = "net")]
pub(crate) fn complete(request: &IoRequest) {
    frames::complete(request);
}

/// Whether data has been given to the network that the peers have not yet acknowledged.
#[cfg(feature = "net")]
pub(crate) fn is_sending() -> bool {
    #[cfg(feature = "tcp")]
    return tcp::is_sending();
    #[cfg(not(feature = "tcp"))]
    false
}

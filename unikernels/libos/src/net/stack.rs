//! All devices and their sockets.

use alloc::vec::Vec;
use core::future::poll_fn;
use core::net::IpAddr;
use core::task::{Poll, Waker};
use core::time::Duration;

use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;

use super::configuration::Device;
use super::interface::Attachment;
use crate::cell::Global;
use crate::executor::timeout;
use crate::{clock, entropy};

/// How long DHCP may take before our own connections and datagrams give up.
const PATIENCE: Duration = Duration::from_secs(10);
/// First port of those that are given out (RFC 6335).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

pub(super) struct Stack {
    pub(super) attachments: Vec<Attachment>,
    #[cfg(feature = "tcp")]
    pub(super) tcp: super::tcp::State,
    /// Who waits for addresses.
    waiting: Vec<Waker>,
    next_port: u16,
}

static STACK: Global<Stack> = Global::new(Stack {
    attachments: Vec::new(),
    #[cfg(feature = "tcp")]
    tcp: super::tcp::State::new(),
    waiting: Vec::new(),
    next_port: 0,
});

/// Calls a function with the stack.
pub(super) fn with<R>(use_it: impl FnOnce(&mut Stack) -> R) -> R {
    STACK.with(use_it)
}

fn now() -> Instant {
    Instant::from_micros(i64::try_from(clock::monotonic_ns() / 1000).unwrap_or(i64::MAX))
}

pub(super) fn initialize(devices: &[Device]) {
    let now = now();
    with(|stack| {
        let attachments = devices.iter().map(|device| Attachment::new(device, now));
        stack.attachments = attachments.collect();
    });
}

/// Handles what has arrived and prepares what is to be sent.
pub(super) fn poll() {
    let now = now();
    with(|stack| {
        for index in 0..stack.attachments.len() {
            let Some(attachment) = stack.attachments.get_mut(index) else {
                continue;
            };
            #[cfg(feature = "tcp")]
            super::tcp::receive(&mut stack.tcp, index, attachment, now);
            #[cfg(not(feature = "tcp"))]
            attachment.receive(now, |_, _| true, |_| ());
            attachment.send(now);
        }
        #[cfg(feature = "tcp")]
        super::tcp::settle(stack);
        if !stack.waiting.is_empty() && stack.attachments.iter().any(Attachment::is_ready) {
            core::mem::take(&mut stack.waiting)
                .into_iter()
                .for_each(Waker::wake);
        }
    });
}

/// When the protocols want to be called again, in monotonic nanoseconds.
pub(super) fn next_ns() -> u64 {
    with(|stack| {
        let due = stack.attachments.iter().filter_map(Attachment::due).min();
        due.map_or(u64::MAX, |due| {
            let micros = u64::try_from(due.total_micros()).unwrap_or(0);
            micros.saturating_mul(1000)
        })
    })
}

impl Stack {
    /// The device by which an address is reached: one of its own network, else one with a
    /// gateway.
    pub(super) fn route(&mut self, address: &IpAddress) -> Option<usize> {
        let mut attachments = self.attachments.iter();
        attachments
            .position(|attachment| attachment.is_on_link(address))
            .or_else(|| {
                let mut attachments = self.attachments.iter();
                attachments.position(|attachment| attachment.has_gateway(address))
            })
    }

    /// A port for a connection of our own. Random ones, so that they cannot be guessed.
    pub(super) fn ephemeral_port(&mut self) -> u16 {
        let count = u16::MAX - FIRST_EPHEMERAL_PORT + 1;
        if self.next_port == 0 {
            self.next_port = u16::try_from(entropy::number() % u64::from(count)).unwrap_or(0);
        }
        self.next_port = (self.next_port + 1) % count;
        FIRST_EPHEMERAL_PORT + self.next_port
    }
}

/// Waits until a device has an address, by configuration or by DHCP. An application that listens
/// need not wait for it.
pub async fn ready() {
    poll_fn(|context| {
        with(|stack| {
            if stack.attachments.iter().any(Attachment::is_ready) {
                return Poll::Ready(());
            }
            stack.waiting.push(context.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// Waits for an address, but not for ever: then it shows that nothing leads anywhere.
pub(super) async fn wait_for_address() {
    let _ = timeout(PATIENCE, ready()).await;
}

/// The addresses of the guest, with the index of their device.
#[must_use]
pub fn addresses() -> Vec<(u16, IpAddr)> {
    with(|stack| {
        let mut all = Vec::new();
        for attachment in &stack.attachments {
            for subnet in attachment.interface.ip_addrs() {
                let address = IpAddr::from(subnet.address());
                // Nobody outside reaches it there.
                if !address.is_loopback() {
                    all.push((attachment.device(), address));
                }
            }
        }
        all
    })
}

//! How much passes an interface: token buckets (tc-tbf(8)), as netlink messages.
//!
//! What a workload receives is limited at the host's end of its cable, what it sends at its own end:
//! redirecting it to a device of the host's (ifb) takes modules that kernels often lack. So a
//! workload with CAP_NET_ADMIN could take the second limit away.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use crate::error::{Error, Result};
use crate::netlink::Request;

/// Bits per second, at most, in each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Towards the workload.
    pub ingress_bits_per_second: Option<u64>,
    /// From the workload.
    pub egress_bits_per_second: Option<u64>,
}

// linux/pkt_sched.h
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;
/// Bytes of `struct tc_ratespec`.
const RATESPEC_BYTES: usize = 12;

/// The smallest bucket: a packet that the kernel has put together from many must fit.
const SMALLEST_BURST_BYTES: u64 = 128 * 1024;
/// A bucket holds what passes in this part of a second.
const BURSTS_PER_SECOND: u64 = 50;
/// A packet waits no longer than this part of a second; later ones are dropped.
const WAITS_PER_SECOND: u64 = 40;
/// Below this, not even the names of neighbours are found in time.
pub(crate) const SLOWEST_BITS_PER_SECOND: u64 = 8_000;
/// The kernel counts in whole nanoseconds per byte above.
pub(crate) const FASTEST_BITS_PER_SECOND: u64 = 1_000_000_000_000;

impl Bandwidth {
    /// Refuses rates that no interface could keep.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the direction.
    pub fn check(&self) -> Result<()> {
        for (direction, rate) in [
            ("ingress", self.ingress_bits_per_second),
            ("egress", self.egress_bits_per_second),
        ] {
            let range = SLOWEST_BITS_PER_SECOND..=FASTEST_BITS_PER_SECOND;
            if let Some(rate) = rate.filter(|rate| !range.contains(rate)) {
                return Err(Error::InvalidArgument(format!(
                    "invalid {direction} bandwidth of {rate} bits per second: expected {SLOWEST_BITS_PER_SECOND} to {FASTEST_BITS_PER_SECOND}"
                )));
            }
        }
        Ok(())
    }
}

/// Limits what goes out of an interface.
pub(crate) fn limit(index: u32, bits_per_second: u64) -> Request {
    let rate = bits_per_second.div_ceil(8);
    let burst = (rate / BURSTS_PER_SECOND).max(SMALLEST_BURST_BYTES);
    let limit = burst.saturating_add(rate / WAITS_PER_SECOND);
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    // struct tc_tbf_qopt: rate and peak rate, limit, bucket and its counterpart for the peak.
    let mut parameters = vec![0_u8; 2 * RATESPEC_BYTES];
    if let Some(link_layer) = parameters.get_mut(1) {
        *link_layer = TC_LINKLAYER_ETHERNET;
    }
    if let Some(field) = parameters.get_mut(8..RATESPEC_BYTES) {
        field.copy_from_slice(&narrow(rate).to_ne_bytes());
    }
    parameters.extend(narrow(limit).to_ne_bytes());
    parameters.extend([0; 8]);
    let options = [
        DefaultNla::new(TCA_TBF_PARMS, parameters),
        DefaultNla::new(TCA_TBF_RATE64, rate.to_ne_bytes().to_vec()),
        DefaultNla::new(TCA_TBF_BURST, narrow(burst).to_ne_bytes().to_vec()),
    ];
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![
        TcAttribute::Kind("tbf".to_owned()),
        TcAttribute::Options(options.map(TcOption::Other).to_vec()),
    ];
    Request::new(
        format!("limit an interface to {bits_per_second} bits per second (tbf)"),
        RouteNetlinkMessage::NewQueueDiscipline(message),
    )
    .with_flags(NLM_F_CREATE | NLM_F_REPLACE)
}

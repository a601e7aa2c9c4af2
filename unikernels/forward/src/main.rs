//! Forwards frames between the first two network devices, as a wire would, and counts them.
//!
//! `forward` hands on every frame. `forward ip` hands on IPv4 and IPv6 packets alone, with one hop
//! less, to the address of the other device's gateway or neighbour given as `MAC` in the
//! environment (`NEXT_0` behind device 0, `NEXT_1` behind device 1).
#![no_std]
#![no_main]

mod packet;

use core::time::Duration;

use gamut_libos::executor::{Either, select, sleep};
use gamut_libos::metrics::{self, Metric};
use gamut_libos::net::configuration;
use gamut_libos::net::frames::{self, FrameBuffer, RawDevice};
use gamut_libos::prelude::*;
use gamut_libos::start::NEEDS_NETWORK;
use gamut_libos::{env, info, shutdown};

use packet::Hop;

app!(main, needs = NEEDS_NETWORK, default_memory_bytes = 8 << 20);

static FORWARDED: [Metric; 2] = [
    Metric::counter("forward_frames_from_0_total", "Frames from device 0."),
    Metric::counter("forward_frames_from_1_total", "Frames from device 1."),
];
static DROPPED: [Metric; 2] = [
    Metric::counter(
        "forward_dropped_from_0_total",
        "Not forwarded from device 0.",
    ),
    Metric::counter(
        "forward_dropped_from_1_total",
        "Not forwarded from device 1.",
    ),
];

/// How often the counters are logged.
const REPORT: Duration = Duration::from_secs(10);

async fn main() -> Result<(), Error> {
    let devices = frames::devices();
    let &[first, second, ..] = devices.as_slice() else {
        return Err(Error::new("a forwarder needs two network devices"));
    };
    let claim = |device| RawDevice::claim(device).ok_or(Error::new("a device is in use"));
    let (first, second) = (claim(first)?, claim(second)?);
    let is_router = env::args().nth(1) == Some("ip");
    let hops = if is_router {
        [Some(hop(1)?), Some(hop(0)?)]
    } else {
        [None, None]
    };
    info!(
        "forwarding {}",
        if is_router { "packets" } else { "frames" }
    );
    let mut since_report = sleep(REPORT);
    loop {
        let arrived = select(first.receive(), second.receive());
        let event = select(arrived, &mut since_report);
        let event = select(event, shutdown::requested()).await;
        match event {
            Either::First(Either::First(Either::First(frames))) => {
                hand_on(0, frames, &second, hops[0].as_ref());
            }
            Either::First(Either::First(Either::Second(frames))) => {
                hand_on(1, frames, &first, hops[1].as_ref());
            }
            Either::First(Either::Second(())) => {
                report();
                since_report = sleep(REPORT);
            }
            Either::Second(()) => break,
        }
    }
    report();
    let [a, b] = &FORWARDED;
    let [c, d] = &DROPPED;
    print!("{}", metrics::text(&[a, b, c, d]));
    Ok(())
}

/// What a packet that leaves by a device gets: that device's address, and the next one's.
fn hop(device: u16) -> Result<Hop, Error> {
    let name = format!("NEXT_{device}");
    let next = env::var(&name).and_then(configuration::mac);
    let next = next.ok_or_else(|| Error::from(format!("{name} is not set to a MAC address")))?;
    let from = frames::mac(device).ok_or(Error::new("no such device"))?;
    Ok(Hop { from, next })
}

fn hand_on(
    from: usize,
    frames: impl IntoIterator<Item = FrameBuffer>,
    to: &RawDevice,
    hop: Option<&Hop>,
) {
    for mut frame in frames {
        let is_good = hop.is_none_or(|hop| packet::route(frame.bytes_mut(), hop));
        if !is_good {
            frames::release(frame);
            DROPPED[from].add(1);
        } else if to.transmit(frame) {
            FORWARDED[from].add(1);
        } else {
            DROPPED[from].add(1);
        }
    }
}

fn report() {
    let [a, b] = &FORWARDED;
    let [c, d] = &DROPPED;
    info!(
        "0 to 1: {} frames, {} dropped; 1 to 0: {} frames, {} dropped",
        a.get(),
        c.get(),
        b.get(),
        d.get()
    );
}

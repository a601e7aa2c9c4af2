//! Targets for parsers that have no entry of their own.

use gamut_abi::control::{Event, Reply, Request};
use gamut_abi::status::Status;
use gamut_abi::wire;
use gamut_spec::{signal, time, units};

/// What daemon and supervisor read from each other, and the status file: any frame is decoded or
/// refused, and what was decoded survives a round trip.
pub fn fuzz_control(data: &[u8]) {
    if let Some(header) = data.first_chunk() {
        let _ = wire::body_length(header);
    }
    macro_rules! round_trip {
        ($($message:ty),+) => {$(
            if let Ok(message) = wire::decode::<$message>(data)
                && let Ok(frame) = wire::encode(&message)
            {
                assert_eq!(wire::decode::<$message>(&frame), Ok(message));
            }
        )+};
    }
    round_trip!(Request, Reply, Event, Status);
}

/// Writes the body's length into a frame's header.
pub fn repair_length(frame: &mut [u8]) {
    let body_bytes = frame.len().saturating_sub(wire::HEADER_BYTES);
    if let (Some(field), Ok(length)) = (
        frame.get_mut(4..wire::HEADER_BYTES),
        u32::try_from(body_bytes),
    ) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

/// Sizes, durations, times and signals, as people and clients write them.
pub fn fuzz_units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = units::parse_bytes(text);
    let _ = units::parse_duration_ns(text);
    let _ = signal::parse(text);
    if let Some(time_ns) = time::parse_rfc3339(text) {
        assert_eq!(time::parse_rfc3339(&time::rfc3339(time_ns)), Some(time_ns));
    }
}

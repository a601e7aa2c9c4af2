//! Framing of messages and of the status file.
//!
//! A frame is an eight byte header, `b"GM"`, the version as u16 and the body's length as u32
//! (both little-endian), then the body in postcard's format. Nothing here does I/O.

use crate::PROTOCOL_VERSION;
use alloc::vec::Vec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 8;

/// Largest body accepted: a plan with hundreds of layers and mounts stays far below it.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// It does not begin with the magic bytes.
    Magic,
    /// It was written by an incompatible version.
    Version(u16),
    /// The body is longer than [`MAX_BODY_BYTES`].
    TooLong(usize),
    /// The body is not what it should be.
    Body,
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => write!(f, "not a Gamut frame (bad magic)"),
            Self::Version(version) => {
                write!(
                    f,
                    "frame of protocol version {version}, this is {PROTOCOL_VERSION}"
                )
            }
            Self::TooLong(bytes) => {
                write!(
                    f,
                    "frame body of {bytes} bytes is longer than {MAX_BODY_BYTES}"
                )
            }
            Self::Body => write!(f, "frame body is damaged"),
        }
    }
}

impl core::error::Error for WireError {}

/// Encodes a message as one frame.
///
/// # Errors
/// [`WireError::TooLong`] if the body exceeds [`MAX_BODY_BYTES`], [`WireError::Body`] if it
/// cannot be encoded.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut frame = Vec::with_capacity(256);
    frame.extend_from_slice(b"GM");
    frame.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    let mut frame = postcard::to_extend(message, frame).map_err(|_| WireError::Body)?;
    let body_bytes = frame.len() - HEADER_BYTES;
    match u32::try_from(body_bytes) {
        Ok(length) if body_bytes <= MAX_BODY_BYTES => {
            frame[4..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(frame)
        }
        _ => Err(WireError::TooLong(body_bytes)),
    }
}

/// Reads a header and returns the length of the body in bytes.
///
/// # Errors
/// [`WireError`] if the header is not one this version reads.
pub fn body_length(header: &[u8; HEADER_BYTES]) -> Result<usize, WireError> {
    let [g, m, v0, v1, l0, l1, l2, l3] = *header;
    if [g, m] != *b"GM" {
        return Err(WireError::Magic);
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != PROTOCOL_VERSION {
        return Err(WireError::Version(version));
    }
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3]))
        .map_err(|_| WireError::TooLong(usize::MAX))?;
    if length > MAX_BODY_BYTES {
        return Err(WireError::TooLong(length));
    }
    Ok(length)
}

/// Decodes a body.
///
/// # Errors
/// [`WireError::Body`] if it is damaged or has bytes left over.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(WireError::Body),
    }
}

/// Decodes a whole frame, header included.
///
/// # Errors
/// [`WireError`] if anything about it is wrong.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, WireError> {
    let (header, body) = frame
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(WireError::Magic)?;
    if body_length(header)? != body.len() {
        return Err(WireError::Body);
    }
    decode_body(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Event, Reply, Request, Verb};
    use alloc::string::String;
    use proptest::prelude::*;

    #[test]
    fn request_survives_the_wire() {
        let request = Request {
            request_id: String::from("r1"),
            peer_uid: 1000,
            verb: Verb::Stop {
                signal: 15,
                timeout_ms: Some(10_000),
            },
        };
        let frame = encode(&request).unwrap();
        assert_eq!(decode::<Request>(&frame), Ok(request));
    }

    #[test]
    fn other_versions_are_named() {
        let mut frame = encode(&Reply::Done).unwrap();
        frame[2] = 9;
        assert_eq!(decode::<Reply>(&frame), Err(WireError::Version(9)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode_body::<Request>(&bytes);
            let _ = decode_body::<Event>(&bytes);
        }
    }
}

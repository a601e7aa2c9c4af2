//! Events, blocking or not.

use gamut_abi::control::Event;
use gamut_abi::wire::{self, HEADER_BYTES, WireError};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Takes bytes, gives events; does no I/O, so that it fits any way of reading.
#[derive(Debug, Default)]
pub struct EventDecoder {
    bytes: Vec<u8>,
    start: usize,
}

impl EventDecoder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next event, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] if the stream is damaged; it cannot be read on then.
    pub fn next_event(&mut self) -> Result<Option<Event>, WireError> {
        let unread = self.bytes.get(self.start..).unwrap_or(&[]);
        let Some((header, rest)) = unread.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = wire::body_length(header)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let event = wire::decode_body(body)?;
        self.start += HEADER_BYTES + length;
        Ok(Some(event))
    }
}

/// A connection that carries events only.
#[derive(Debug)]
pub struct Watcher {
    stream: UnixStream,
    decoder: EventDecoder,
}

impl Watcher {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: EventDecoder::new(),
        }
    }

    /// Waits for the next event; `None` when the supervisor has left.
    ///
    /// # Errors
    /// Those of read(2), `UnexpectedEof` if it left in the middle of an event, `InvalidData` if
    /// an event cannot be read.
    // Not an iterator: it fails, and blocks.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            let event = self
                .decoder
                .next_event()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if event.is_some() {
                return Ok(event);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) if self.decoder.start == self.decoder.bytes.len() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.decoder.push(buffer.get(..count).unwrap_or(&[])),
                // A supervisor that is killed resets the connection.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The connection, and what was read from it but not yet given out.
    #[must_use]
    pub fn into_inner(self) -> (UnixStream, EventDecoder) {
        (self.stream, self.decoder)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_come_out_however_the_bytes_are_cut() {
        let mut stream = wire::encode(&Event::Paused).unwrap();
        stream.extend(wire::encode(&Event::OutOfMemory { time_ns: 5 }).unwrap());
        for cut in 1..stream.len() {
            let mut decoder = EventDecoder::new();
            let mut events = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(event) = decoder.next_event().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events, [Event::Paused, Event::OutOfMemory { time_ns: 5 }]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut decoder = EventDecoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_event() {}
        }
    }
}

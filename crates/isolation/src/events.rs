//! Reading events from a socket, frame by frame and never a byte further, so that the socket can
//! be handed on at any time.

use crate::contract::Events;
use gamut_abi::control::Event;
use gamut_abi::wire::{self, WireError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;

/// Events of a workload, as they arrive on a socket.
pub(crate) struct SocketEvents(UnixStream);

impl SocketEvents {
    /// `stream` is in blocking mode, at the beginning of a frame.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }
}

impl Events for SocketEvents {
    fn next(&mut self) -> io::Result<Option<Event>> {
        let mut header = [0; wire::HEADER_BYTES];
        let mut filled = 0;
        while filled < header.len() {
            match self.0.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A supervisor that is killed resets the connection.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let damaged = |error: WireError| io::Error::new(ErrorKind::InvalidData, error.to_string());
        let mut body = vec![0; wire::body_length(&header).map_err(damaged)?];
        self.0.read_exact(&mut body)?;
        wire::decode_body(&body).map(Some).map_err(damaged)
    }

    fn into_stream(self: Box<Self>) -> UnixStream {
        self.0
    }
}

//! Watchers: each has a socket on which frames of events arrive, as from a supervisor.

use crate::contract::Events;
use crate::events::SocketEvents;
use gamut_abi::control::Event;
use gamut_abi::wire;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;

/// The level's ends of the sockets.
#[derive(Debug, Default)]
pub(super) struct Watchers(Vec<UnixStream>);

impl Watchers {
    /// Adds a watcher and tells it how things stand.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub(super) fn add(&mut self, first: &Event) -> io::Result<Box<dyn Events>> {
        let (ours, theirs) = UnixStream::pair()?;
        // A watcher that reads nothing must not hold the workload up: it is dropped.
        ours.set_nonblocking(true)?;
        let mut ours = ours;
        ours.write_all(&encode(first)?)?;
        self.0.push(ours);
        Ok(Box::new(SocketEvents::new(theirs)))
    }

    /// Tells every watcher; those that are gone or do not keep up are dropped.
    pub(super) fn tell(&mut self, event: &Event) {
        let Ok(frame) = encode(event) else { return };
        self.0
            .retain_mut(|watcher| watcher.write_all(&frame).is_ok());
    }

    /// Ends every watch.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }
}

fn encode(event: &Event) -> io::Result<Vec<u8>> {
    wire::encode(event)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

//! The way from a guest to the resolver of its network namespace.
//!
//! Engines answer questions for names at 127.0.0.11 of a workload's network namespace. For a guest
//! that is another machine's loopback: its frames go out on a cable. So questions are taken out of
//! them here and asked by a socket of the monitor, in the same namespace; the answers come to the
//! guest as frames. Nobody but the guest can ask this way, and only that one address is asked.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use super::question::{self, Asker, Kind, RESOLVER};
use crate::error::{Error, Result};

/// Questions that are not answered yet; whoever asks more gets no answer to the oldest.
const MAX_OPEN: usize = 64;
/// The longest message by UDP.
const MESSAGE_BYTES: usize = 65_535;

/// A guest's way to the resolver.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Connected with it.
    socket: File,
    /// Frames for the guest that nobody else has to say: one end is written, the other is read.
    own: [File; 2],
    open: VecDeque<Open>,
    next_id: u16,
    mtu_bytes: usize,
    /// The guest has asked something: answers may come.
    has_asked: bool,
    message: Vec<u8>,
}

/// A question without an answer yet.
#[derive(Debug)]
struct Open {
    /// Under which it was asked: two of the guest's may have the same.
    id: [u8; 2],
    /// The guest's.
    guest_id: [u8; 2],
    asker: Asker,
}

impl Resolver {
    /// For a device whose packets have at most so many bytes. To be called in its namespace.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn connect(mtu_bytes: u32) -> Result<Self> {
        let failed = |error| Error::system("open a socket for questions for names", error);
        let socket = UdpSocket::bind(("127.0.0.1", 0))
            .and_then(|socket| {
                socket.connect((RESOLVER, 53))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .map_err(failed)?;
        let (one, other) = UnixDatagram::pair().map_err(failed)?;
        for end in [&one, &other] {
            end.set_nonblocking(true).map_err(failed)?;
        }
        Ok(Self {
            socket: File::from(OwnedFd::from(socket)),
            own: [one, other].map(|end| File::from(OwnedFd::from(end))),
            open: VecDeque::new(),
            next_id: 0,
            mtu_bytes: usize::try_from(mtu_bytes).unwrap_or(usize::MAX),
            has_asked: false,
            message: Vec::new(),
        })
    }

    /// Readable when there may be frames for the guest.
    pub fn descriptors(&self) -> [i32; 2] {
        [self.socket.as_raw_fd(), self.own[1].as_raw_fd()]
    }

    /// Takes a frame that is for the resolver. False: it is for the network.
    pub fn take(&mut self, frame: &[u8]) -> bool {
        match question::read(frame) {
            Kind::Other => return false,
            // If nobody reads them, it has asked often enough.
            Kind::LinkAddress(reply) => drop(self.own[0].write(&reply)),
            Kind::Question(asker, message) => self.ask(asker, message),
        }
        self.has_asked = true;
        true
    }

    fn ask(&mut self, asker: Asker, message: &[u8]) {
        let Some((guest_id, rest)) = message.split_first_chunk() else {
            return;
        };
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id.to_be_bytes();
        let asked = [&id[..], rest].concat();
        // That nobody listened the last time is told by the next call, which then has not sent.
        for _ in 0..2 {
            match self.socket.write(&asked) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                _ => break,
            }
        }
        if self.open.len() >= MAX_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(Open {
            id,
            guest_id: *guest_id,
            asker,
        });
    }

    /// Puts a frame for the guest into a buffer, if there is one: its size in bytes.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.has_asked {
            return None;
        }
        if let Ok(bytes) = self.own[1].read(buffer) {
            return Some(bytes);
        }
        loop {
            self.message.resize(MESSAGE_BYTES, 0);
            match self.socket.read(&mut self.message) {
                Ok(bytes) => {
                    if let Some(frame) = self.answer(bytes)
                        && let Some(room) = buffer.get_mut(..frame.len())
                    {
                        room.copy_from_slice(&frame);
                        return Some(frame.len());
                    }
                }
                // Nobody listens just now, which the guest learns by waiting, as from any resolver.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return None,
            }
        }
    }

    /// The frame that brings the message just read to who has asked.
    fn answer(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let message = self.message.get_mut(..bytes)?;
        let id = message.first_chunk_mut::<2>()?;
        let at = self.open.iter().position(|open| open.id == *id)?;
        let open = self.open.remove(at)?;
        *id = open.guest_id;
        question::answer(&open.asker, message, self.mtu_bytes)
    }
}

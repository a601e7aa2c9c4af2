//! Frames between QEMU and a tap, where some of them are not for the network: a guest's questions
//! for names, which its tap answers by itself ([`crate::net::question`]).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use crate::device::{Lost, Nic};
use crate::error::{Error, Result};
use crate::net::Tap;

/// The longest frame.
const FRAME_BYTES: usize = 65_535 + 14;
/// Frames that are carried in one direction before the other has its turn.
const TURN: usize = 64;

/// The monitor's end of the socket that QEMU has in a tap's place.
#[derive(Debug)]
pub(super) struct Relay {
    /// Index of the tap.
    tap: usize,
    socket: File,
    frame: Vec<u8>,
}

impl Relay {
    /// For a tap of an index: it and QEMU's end.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn new(tap: usize) -> Result<(Self, OwnedFd)> {
        let failed = |error| Error::system("make a socket for the frames of the guest", error);
        let (ours, theirs) = UnixDatagram::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let relay = Self {
            tap,
            socket: File::from(OwnedFd::from(ours)),
            frame: vec![0; FRAME_BYTES],
        };
        Ok((relay, OwnedFd::from(theirs)))
    }

    /// Index of its tap.
    pub fn tap(&self) -> usize {
        self.tap
    }

    /// What to wait on beside the tap until there is something to carry.
    pub fn descriptors(&self, taps: &[Tap]) -> Vec<i32> {
        let mut descriptors = vec![self.socket.as_raw_fd()];
        descriptors.extend(
            taps.get(self.tap)
                .into_iter()
                .flat_map(Tap::answer_descriptors),
        );
        descriptors
    }

    /// Carries what there is, both ways. What one side does not take now is lost, as on a cable.
    ///
    /// # Errors
    /// If the tap is gone.
    pub fn carry(&mut self, taps: &mut [Tap]) -> std::result::Result<(), Lost> {
        let Some(tap) = taps.get_mut(self.tap) else {
            return Ok(());
        };
        for _ in 0..TURN {
            let Ok(bytes @ 1..) = self.socket.read(&mut self.frame) else {
                break;
            };
            tap.transmit(self.frame.get(..bytes).unwrap_or_default())?;
        }
        for _ in 0..TURN {
            let Some(bytes) = tap.receive(&mut self.frame)? else {
                break;
            };
            let _ = self
                .socket
                .write(self.frame.get(..bytes).unwrap_or_default());
        }
        Ok(())
    }
}

//! Waiting for frames, calls and the end of a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::control::Control;
use crate::device::{Lost, Waiter, Woken};

/// Waits by ppoll(2) on the guest's taps and on the control's wake-up call.
pub struct Poller {
    control: Arc<Control>,
    /// The wake-up call first, then the network devices, then what else brings them frames.
    descriptors: Vec<libc::pollfd>,
    nics: usize,
    /// Which device each of the last ones belongs to.
    owners: Vec<usize>,
}

fn polled(fd: i32) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

impl Poller {
    /// Waits on descriptors of network devices, which must stay open.
    #[must_use]
    pub fn new(control: Arc<Control>, nics: impl IntoIterator<Item = i32>) -> Self {
        let descriptors: Vec<_> = std::iter::once(control.wake_descriptor())
            .chain(nics)
            .map(polled)
            .collect();
        Self {
            control,
            nics: descriptors.len() - 1,
            descriptors,
            owners: Vec::new(),
        }
    }

    /// Waits as well on descriptors that bring a network device frames beside its own. They must
    /// stay open; an error of theirs is for the device to read.
    #[must_use]
    pub fn with_more(mut self, nic: usize, descriptors: impl IntoIterator<Item = i32>) -> Self {
        for descriptor in descriptors {
            self.descriptors.push(polled(descriptor));
            self.owners.push(nic);
        }
        self
    }
}

impl Waiter for Poller {
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Woken, Lost> {
        let time = timeout.map(|timeout| libc::timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = self.descriptors.len() as libc::nfds_t;
        // SAFETY: the array is valid for reads and writes of its length, the time for reads.
        let ready =
            unsafe { libc::ppoll(self.descriptors.as_mut_ptr(), count, time, std::ptr::null()) };
        if ready == 0 {
            return Ok(Woken::Timeout);
        }
        if ready < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                // A signal is a call: somebody wants the machine to pause.
                io::ErrorKind::Interrupted => Ok(Woken::Call),
                _ => Err(Lost(format!("wait for frames: {error}"))),
            };
        }
        let Some((wake, others)) = self.descriptors.split_first() else {
            return Ok(Woken::Timeout);
        };
        let mut nics = others.iter().take(self.nics);
        if let Some(index) = nics.position(|nic| nic.revents & gone() != 0) {
            return Err(Lost(format!(
                "network device {index} is gone: its interface was deleted"
            )));
        }
        if wake.revents != 0 {
            self.control.take_call();
            return Ok(Woken::Call);
        }
        Ok(Woken::Frame)
    }

    fn is_stopping(&self) -> bool {
        self.control.is_stopping()
    }

    fn frames(&self) -> u64 {
        let owners = (0..self.nics).chain(self.owners.iter().copied());
        let polled = self.descriptors.iter().skip(1).zip(owners);
        polled
            .filter(|(one, owner)| one.revents != 0 && *owner < 64)
            .fold(0, |frames, (_, owner)| frames | 1 << owner)
    }
}

const fn gone() -> i16 {
    libc::POLLERR | libc::POLLHUP | libc::POLLNVAL
}

//! Waiting for frames, calls and the end of a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::control::Control;
use crate::device::{Lost, Waiter, Woken};

/// Waits by ppoll(2) on the guest's taps and on the control's wake-up call.
pub struct Poller {
    control: Arc<Control>,
    /// The wake-up call first.
    descriptors: Vec<libc::pollfd>,
}

impl Poller {
    /// Waits on descriptors of network devices, which must stay open.
    #[must_use]
    pub fn new(control: Arc<Control>, nics: impl IntoIterator<Item = i32>) -> Self {
        let descriptors = std::iter::once(control.wake_descriptor())
            .chain(nics)
            .map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        Self {
            control,
            descriptors,
        }
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
        let Some((wake, nics)) = self.descriptors.split_first() else {
            return Ok(Woken::Timeout);
        };
        if let Some(index) = nics.iter().position(|nic| nic.revents & gone() != 0) {
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
        let nics = self.descriptors.iter().skip(1).take(64).enumerate();
        nics.filter(|(_, nic)| nic.revents & libc::POLLIN != 0)
            .fold(0, |frames, (index, _)| frames | 1 << index)
    }
}

const fn gone() -> i16 {
    libc::POLLERR | libc::POLLHUP | libc::POLLNVAL
}

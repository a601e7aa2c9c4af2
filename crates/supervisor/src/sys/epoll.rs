//! epoll(7), level-triggered.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Readable.
pub(crate) const IN: u32 = 0x1;
/// Something out of the ordinary; for kernel files, a change.
pub(crate) const PRI: u32 = 0x2;
/// Writable.
pub(crate) const OUT: u32 = 0x4;
/// Error; always reported.
pub(crate) const ERR: u32 = 0x8;
/// Both directions closed; always reported.
pub(crate) const HUP: u32 = 0x10;

/// An epoll instance.
pub(crate) struct Epoll {
    descriptor: OwnedFd,
}

/// What happened: the token of a registration and its event bits.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) events: u32,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
        let descriptor = unsafe {
            let raw = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        Ok(Self { descriptor })
    }

    /// Waits for events, at most `timeout` (rounded up to milliseconds). A signal ends the wait
    /// early with no events.
    pub(crate) fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        const CAPACITY: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; CAPACITY];
        let timeout_ms = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        ready.clear();
        // SAFETY: the array outlives the call and its length is passed.
        let count = unsafe {
            libc::epoll_wait(
                self.descriptor.as_raw_fd(),
                events.as_mut_ptr(),
                64,
                timeout_ms,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(())
            } else {
                Err(error)
            };
        }
        let count = usize::try_from(count).unwrap_or(0);
        ready.extend(events.iter().take(count).map(|event| Ready {
            token: event.u64,
            events: event.events,
        }));
        Ok(())
    }

    fn control(
        &self,
        operation: i32,
        fd: BorrowedFd<'_>,
        mut event: libc::epoll_event,
    ) -> io::Result<()> {
        // SAFETY: `event` outlives the call; both descriptors are open.
        let result = unsafe {
            libc::epoll_ctl(
                self.descriptor.as_raw_fd(),
                operation,
                fd.as_raw_fd(),
                &raw mut event,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// One descriptor's registration. It must be set to `None` before the descriptor is closed: the
/// open file may live on in another process, and would be reported for ever.
pub(crate) struct Registration {
    token: u64,
    current: Option<u32>,
}

impl Registration {
    pub(crate) fn new(token: u64) -> Self {
        Self {
            token,
            current: None,
        }
    }

    /// Makes `wanted` the set of awaited events; `None` removes the registration, after which not
    /// even HUP is reported. Costs nothing if nothing changes.
    pub(crate) fn set(
        &mut self,
        epoll: &Epoll,
        fd: BorrowedFd<'_>,
        wanted: Option<u32>,
    ) -> io::Result<()> {
        let operation = match (self.current, wanted) {
            (before, after) if before == after => return Ok(()),
            (None, Some(_)) => libc::EPOLL_CTL_ADD,
            (Some(_), Some(_)) => libc::EPOLL_CTL_MOD,
            (_, None) => libc::EPOLL_CTL_DEL,
        };
        epoll.control(
            operation,
            fd,
            libc::epoll_event {
                events: wanted.unwrap_or(0),
                u64: self.token,
            },
        )?;
        self.current = wanted;
        Ok(())
    }
}

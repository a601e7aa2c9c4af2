//! Noticing that the kernel kills for want of memory.

use super::token::Token;
use crate::sys::epoll::{self, Epoll, Registration};
use crate::sys::io;
use gamut_cgroup::{Controller, Group, Hierarchies};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// cgroup v1 tells of want before it kills: the count is looked at again this often, at first
/// after this time, then after twice the time, and so on.
const LOOKS: u32 = 6;
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// Counts how often the kernel has killed in the group for want of memory.
pub(super) struct MemoryWatch {
    seen: u64,
    at_start: u64,
    notice: Option<Notice>,
    /// Another look is due then.
    look_at: Option<Instant>,
    looks_left: u32,
}

/// The kernel's way of telling.
struct Notice {
    /// `memory.events` on v2, an eventfd(2) on v1.
    file: File,
    registration: Registration,
}

impl MemoryWatch {
    /// Begins to watch. Where the kernel cannot tell, the count is still looked at whenever a
    /// child ends.
    pub(super) fn new(group: Option<(&Hierarchies, &Group)>, epoll: &Epoll) -> Self {
        let seen = group.map_or(0, |(_, group)| group.oom_kill_count());
        let notice = group.and_then(|(hierarchies, group)| {
            Notice::new(hierarchies, group, epoll)
                .inspect_err(|error| {
                    super::report(&format!(
                        "cannot watch {} for want of memory: {error}",
                        group.path()
                    ));
                })
                .ok()
                .flatten()
        });
        Self {
            seen,
            at_start: seen,
            notice,
            look_at: None,
            looks_left: 0,
        }
    }

    pub(super) fn run_begins(&mut self) {
        self.at_start = self.seen;
    }

    /// The kernel has told of something.
    pub(super) fn notified(&mut self, now: Instant) {
        if let Some(notice) = &mut self.notice {
            notice.clear();
        }
        self.looks_left = LOOKS;
        self.look_at = Some(now);
    }

    /// When to look at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// True if the kernel has killed since the last look.
    pub(super) fn look(&mut self, group: Option<&Group>) -> bool {
        let count = group.map_or(0, Group::oom_kill_count);
        let more = count > self.seen;
        self.seen = self.seen.max(count);
        if let Some(at) = self.look_at {
            let tried = LOOKS.saturating_sub(self.looks_left);
            self.looks_left = self.looks_left.saturating_sub(1);
            self.look_at = (!more && self.looks_left > 0).then(|| at + FIRST_LOOK * (1 << tried));
        }
        more
    }

    /// True if the kernel has killed since the process was started.
    pub(super) fn killed_in_this_run(&self) -> bool {
        self.seen > self.at_start
    }

    /// How often the kernel has killed so far.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Watches no more.
    pub(super) fn close(&mut self, epoll: &Epoll) {
        self.look_at = None;
        if let Some(mut notice) = self.notice.take() {
            // Registered or not, it is not afterwards.
            let _ = notice.registration.set(epoll, notice.file.as_fd(), None);
        }
    }
}

impl Notice {
    /// `None` if no hierarchy has the memory controller.
    fn new(
        hierarchies: &Hierarchies,
        group: &Group,
        epoll: &Epoll,
    ) -> std::io::Result<Option<Self>> {
        let roots = hierarchies.roots();
        let has_memory = |controllers: &[Controller]| controllers.contains(&Controller::Memory);
        let Some(root) = roots.iter().find(|root| has_memory(&root.controllers)) else {
            return Ok(None);
        };
        let directory = format!("{}{}", root.path, group.path());
        let (mut file, events) = if root.v2 {
            (
                File::open(format!("{directory}/memory.events"))?,
                epoll::PRI,
            )
        } else {
            (oom_eventfd(&directory)?, epoll::IN)
        };
        if root.v2 {
            read_all(&mut file);
        }
        let mut registration = Registration::new(Token::OutOfMemory.encode());
        registration.set(epoll, file.as_fd(), Some(events))?;
        Ok(Some(Self { file, registration }))
    }

    /// Makes the descriptor quiet until the next time.
    fn clear(&mut self) {
        read_all(&mut self.file);
    }
}

/// Reads from the beginning to the end; an eventfd has neither, and is just emptied.
fn read_all(file: &mut File) {
    let _ = file.rewind();
    let mut sink = [0; 512];
    while io::read(file.as_fd(), &mut sink).is_ok_and(|count| count == sink.len()) {}
}

/// An eventfd that cgroup v1 writes to (Linux `Documentation/admin-guide/cgroup-v1/memory.rst`,
/// section 10).
fn oom_eventfd(directory: &str) -> std::io::Result<File> {
    // SAFETY: no pointers; a non-negative result is a new descriptor.
    let eventfd = unsafe {
        let raw = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        if raw < 0 {
            return Err(std::io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    let control = File::open(format!("{directory}/memory.oom_control"))?;
    OpenOptions::new()
        .write(true)
        .open(format!("{directory}/cgroup.event_control"))?
        .write_all(format!("{} {}", eventfd.as_raw_fd(), control.as_raw_fd()).as_bytes())?;
    Ok(File::from(eventfd))
}

//! Messages between the caller and the stage of a container: one packet each.

use crate::error::Error;
use crate::sys::{self, Control, Errno, SysResult};
use gamut_abi::control::FailureKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Longest packet in bytes; longer texts are cut.
const PACKET_BYTES: usize = 4096;

/// What a stage says.
pub(crate) enum Message {
    /// Everything is set up; it waits for the start.
    Ready,
    /// Something was given up.
    Warning(String),
    /// The root is built and not yet entered: hooks may run.
    Hooks,
    /// It failed and is about to exit.
    Failed(Error),
    /// The master of the terminal.
    Terminal(OwnedFd),
    /// A mount, detached.
    Mount(OwnedFd),
    /// A copy of the n-th mount of the plan, whose ids are to be mapped before the stage goes on.
    MapIds { index: u32, tree: OwnedFd },
    /// The intermediate made the container's first process.
    Child { pid: u32, pidfd: OwnedFd },
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// Makes both ends.
pub(crate) fn pair() -> SysResult<(Channel, Channel)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: room for two descriptors, which are ours on success.
    unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        if libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) < 0 {
            return Err(Errno::last());
        }
        Ok((
            Channel(OwnedFd::from_raw_fd(fds[0])),
            Channel(OwnedFd::from_raw_fd(fds[1])),
        ))
    }
}

/// Whoever listens looks this often whether those who should speak still can, in microseconds.
const LISTENING_MICROSECONDS: libc::suseconds_t = 100_000;

impl Channel {
    /// Makes [`Channel::listen`] come back with `EAGAIN` every now and then.
    pub(crate) fn look_up_from_time_to_time(&self) -> SysResult<()> {
        let time = libc::timeval {
            tv_sec: 0,
            tv_usec: LISTENING_MICROSECONDS,
        };
        let length = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or_default();
        // SAFETY: the time is readable for its size.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const time).cast(),
                length,
            )
        };
        if result < 0 {
            return Err(Errno::last());
        }
        Ok(())
    }

    /// Lets the other side go on. An error means that it is gone.
    pub(crate) fn go(&self) -> SysResult<()> {
        self.send_packet(b"G", None)
    }

    /// Waits until the other side says go; false if it is gone.
    pub(crate) fn wait(&self) -> bool {
        let mut byte = [0_u8; 1];
        loop {
            // SAFETY: one byte of room.
            let got = unsafe { libc::recv(self.0.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) };
            if got >= 0 {
                return got == 1;
            }
            if Errno::last() != Errno(libc::EINTR) {
                return false;
            }
        }
    }

    /// Says something. Nobody to hear it is not an error: whoever is left behind will be killed.
    pub(crate) fn say(&self, message: &Message) {
        let mut packet = Vec::with_capacity(128);
        let mut descriptor = None;
        match message {
            Message::Ready => packet.push(b'R'),
            Message::Hooks => packet.push(b'H'),
            Message::Warning(text) => {
                packet.push(b'W');
                packet.extend_from_slice(text.as_bytes());
            }
            Message::Failed(error) => {
                packet.push(b'F');
                packet.push(kind_code(error.kind));
                packet.extend_from_slice(&error.errno.to_ne_bytes());
                packet.extend_from_slice(error.message.as_bytes());
            }
            Message::Terminal(fd) => {
                packet.push(b'T');
                descriptor = Some(fd.as_raw_fd());
            }
            Message::Mount(fd) => {
                packet.push(b'M');
                descriptor = Some(fd.as_raw_fd());
            }
            Message::MapIds { index, tree } => {
                packet.push(b'I');
                packet.extend_from_slice(&index.to_ne_bytes());
                descriptor = Some(tree.as_raw_fd());
            }
            Message::Child { pid, pidfd } => {
                packet.push(b'C');
                packet.extend_from_slice(&pid.to_ne_bytes());
                descriptor = Some(pidfd.as_raw_fd());
            }
        }
        packet.truncate(PACKET_BYTES);
        let _ = self.send_packet(&packet, descriptor);
    }

    fn send_packet(&self, packet: &[u8], descriptor: Option<RawFd>) -> SysResult<()> {
        sys::send_with_descriptor(self.0.as_fd(), packet, descriptor).map(drop)
    }

    /// Waits for the next message; `None` once every other end is closed. `EAGAIN` if none came
    /// for a while, see [`Channel::look_up_from_time_to_time`].
    pub(crate) fn listen(&self) -> SysResult<Option<Message>> {
        let mut packet = [0_u8; PACKET_BYTES];
        let mut part = libc::iovec {
            iov_base: packet.as_mut_ptr().cast(),
            iov_len: packet.len(),
        };
        let mut control = Control::default();
        // SAFETY: all zeros is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len();
        let got = loop {
            // SAFETY: the header describes live, writable buffers.
            let got = unsafe {
                libc::recvmsg(self.0.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC)
            };
            match usize::try_from(got) {
                Ok(got) => break got,
                Err(_) if Errno::last() == Errno(libc::EINTR) => {}
                // The other side ended with our go unread. The kernel says so once, before what
                // the other side had still to say.
                Err(_) if Errno::last() == Errno(libc::ECONNRESET) => {}
                Err(_) => return Err(Errno::last()),
            }
        };
        let descriptor = received_descriptor(&header);
        Ok(decode(&packet[..got], descriptor))
    }
}

impl Channel {
    /// One end of a connection that was made elsewhere.
    pub(crate) fn over(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The same channel by a number that is `minimum` or above.
    pub(crate) fn moved_above(self, minimum: RawFd) -> SysResult<Self> {
        if self.0.as_raw_fd() >= minimum {
            return Ok(self);
        }
        sys::dup_above(self.descriptor(), minimum).map(Self)
    }

    /// The descriptor, for moving it to a known number.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn received_descriptor(header: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the kernel has filled header and control buffer; FIRSTHDR checks the length.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        if first.is_null()
            || (*first).cmsg_level != libc::SOL_SOCKET
            || (*first).cmsg_type != libc::SCM_RIGHTS
            || (*first).cmsg_len < libc::CMSG_LEN(4) as usize
        {
            return None;
        }
        let fd = libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned();
        Some(OwnedFd::from_raw_fd(fd))
    }
}

fn decode(packet: &[u8], descriptor: Option<OwnedFd>) -> Option<Message> {
    let (tag, rest) = packet.split_first()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match (tag, descriptor) {
        (b'R', _) => Message::Ready,
        (b'H', _) => Message::Hooks,
        (b'W', _) => Message::Warning(text(rest)),
        (b'T', Some(master)) => Message::Terminal(master),
        (b'M', Some(mount)) => Message::Mount(mount),
        (b'I', Some(tree)) => Message::MapIds {
            index: u32::from_ne_bytes(rest.try_into().ok()?),
            tree,
        },
        (b'C', Some(pidfd)) => Message::Child {
            pid: u32::from_ne_bytes(rest.try_into().ok()?),
            pidfd,
        },
        (b'F', _) => {
            let (kind, rest) = rest.split_first()?;
            let (errno, rest) = rest.split_first_chunk::<4>()?;
            Message::Failed(Error {
                kind: kind_of(*kind),
                message: text(rest),
                errno: i32::from_ne_bytes(*errno),
            })
        }
        _ => return None,
    })
}

fn kind_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::State => 0,
        FailureKind::ExecutableNotFound => 1,
        FailureKind::ExecutableDenied => 2,
        FailureKind::Invalid => 3,
        FailureKind::Unsupported => 4,
        FailureKind::System => 5,
    }
}

fn kind_of(code: u8) -> FailureKind {
    match code {
        0 => FailureKind::State,
        1 => FailureKind::ExecutableNotFound,
        2 => FailureKind::ExecutableDenied,
        3 => FailureKind::Invalid,
        4 => FailureKind::Unsupported,
        _ => FailureKind::System,
    }
}

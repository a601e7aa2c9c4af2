//! Sending over sockets (sendmsg(2), unix(7)).

use super::{Errno, SysResult};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Room for the control message of one descriptor, aligned as cmsghdr wants it.
#[repr(C, align(8))]
#[derive(Default)]
pub(crate) struct Control(pub(crate) [u8; 24]);

/// Sends bytes, with a descriptor if one is given. Answers how many bytes went.
pub(crate) fn send_with_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<RawFd>,
) -> SysResult<usize> {
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = Control::default();
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if let Some(descriptor) = descriptor {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len();
        // SAFETY: the control buffer has room for the header and one descriptor
        // (CMSG_SPACE(4) is 24) and is aligned for it.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(first)
                .cast::<RawFd>()
                .write_unaligned(descriptor);
        }
    }
    loop {
        // SAFETY: the header describes live buffers.
        let put =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
        match usize::try_from(put) {
            Ok(put) => return Ok(put),
            Err(_) if Errno::last() == Errno(libc::EINTR) => {}
            Err(_) => return Err(Errno::last()),
        }
    }
}

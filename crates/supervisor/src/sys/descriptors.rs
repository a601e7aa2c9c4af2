//! Sending and receiving descriptors over unix sockets (unix(7), `SCM_RIGHTS`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The kernel's limit per message (`SCM_MAX_FD`).
pub(crate) const MAX_DESCRIPTORS: usize = 253;

/// Bytes of ancillary data for [`MAX_DESCRIPTORS`], header and alignment included.
const CONTROL_BYTES: usize = 253 * 4 + 64;

/// Ancillary data, aligned as `struct cmsghdr` must be.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// recvmsg(2): reads into `buffer` and appends descriptors (close-on-exec) to `received`.
/// Zero bytes are the end of the stream.
///
/// # Errors
/// Those of recvmsg(2), and `InvalidData` if descriptors were cut off.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    received: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: an all-zero msghdr is valid; its pointers are set to live objects below.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    let count = loop {
        // SAFETY: message points to live buffers whose lengths it holds.
        let result =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(result) {
            Ok(count) => break count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    // SAFETY: the CMSG macros walk the control buffer that the kernel filled, within
    // msg_controllen; each descriptor in an SCM_RIGHTS entry is new and owned by nobody else.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<i32>();
                let head = data.cast::<u8>().offset_from(header.cast::<u8>());
                let bytes = (*header)
                    .cmsg_len
                    .saturating_sub(usize::try_from(head).unwrap_or(0));
                for index in 0..bytes / size_of::<i32>() {
                    received.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors were cut off",
        ));
    }
    Ok(count)
}

/// sendmsg(2) with descriptors; returns how many bytes went out. The descriptors travel with the
/// first of them.
///
/// # Errors
/// Those of sendmsg(2), and `InvalidInput` for more than [`MAX_DESCRIPTORS`].
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more than 253 descriptors",
        ));
    }
    let mut control = Control([0; CONTROL_BYTES]);
    let mut piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: an all-zero msghdr is valid; its pointers are set to live objects below.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let data_bytes = u32::try_from(descriptors.len() * size_of::<i32>())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; MAX_DESCRIPTORS of them fit the buffer,
        // so the first header and its data lie inside it.
        unsafe {
            message.msg_controllen =
                usize::try_from(libc::CMSG_SPACE(data_bytes)).unwrap_or(CONTROL_BYTES);
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = usize::try_from(libc::CMSG_LEN(data_bytes)).unwrap_or(0);
            let data = libc::CMSG_DATA(header).cast::<i32>();
            for (index, descriptor) in descriptors.iter().enumerate() {
                data.add(index).write_unaligned(descriptor.as_raw_fd());
            }
        }
    }
    loop {
        // SAFETY: message points to live buffers whose lengths it holds.
        let result =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        match usize::try_from(result) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// User id of the process at the other end (`SO_PEERCRED`).
pub(crate) fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut bytes = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the option writes at most `bytes` bytes of a ucred.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut bytes,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(credentials.uid)
    }
}

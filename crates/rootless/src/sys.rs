//! Thin wrappers of system calls, and messages with descriptors over a unix socket.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Descriptors that one message may carry.
const MAX_DESCRIPTORS: usize = 4;
/// The longest message.
const MAX_MESSAGE_BYTES: u64 = 1 << 20;

pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Room for the control message of `MAX_DESCRIPTORS` descriptors, aligned as cmsg(3) wants it.
#[repr(align(8))]
struct Control([u8; 64]);

/// Sends bytes, the first of them with descriptors.
pub(crate) fn send(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    if raw.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut rest = bytes;
    let mut first = true;
    while !rest.is_empty() {
        let sent = send_once(stream, rest, if first { &raw } else { &[] })?;
        rest = rest.get(sent..).unwrap_or_default();
        first = false;
    }
    Ok(())
}

fn send_once(stream: &UnixStream, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<usize> {
    let mut control = Control([0; 64]);
    let payload = u32::try_from(size_of_val(descriptors)).unwrap_or(0);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: an all-zero msghdr is valid; the pointers put into it outlive the call; `control`
    // is aligned and holds CMSG_SPACE of four descriptors (32 bytes), of which no more are given.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !descriptors.is_empty() {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(payload) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload) as usize;
            std::ptr::copy_nonoverlapping(
                descriptors.as_ptr(),
                libc::CMSG_DATA(header).cast::<RawFd>(),
                descriptors.len(),
            );
        }
        libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives everything up to the end of the stream, with the descriptors that came along.
pub(crate) fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 16 << 10];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut descriptors = Vec::new();
    // SAFETY: as in `send_once`. Descriptors in the answer are new and belong to nobody else.
    let count = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        let count = libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let payload = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..payload / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        count
    };
    bytes.truncate(count);
    if count > 0 {
        stream.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    }
    Ok((bytes, descriptors))
}

/// The process at the other end.
pub(crate) fn peer(stream: &UnixStream) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(12);
    // SAFETY: `credentials` is a writable ucred of `length` bytes.
    check(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    })?;
    Ok(credentials)
}

/// A new IPv4 socket that is closed on exec.
pub(crate) fn socket(kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers; a non-negative result is a new descriptor.
    unsafe {
        let raw = check(libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0))?;
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

/// Sets an option that is an int.
pub(crate) fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4);
    // SAFETY: `value` is an int that outlives the call, and its size is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    })
    .map(drop)
}

/// Binds a socket to an IPv4 address.
pub(crate) fn bind(socket: &impl AsRawFd, address: std::net::SocketAddrV4) -> io::Result<()> {
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET.try_into().unwrap_or(2),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&name)).unwrap_or(16);
    // SAFETY: `name` is a sockaddr_in that outlives the call, and its size is given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let text = vec![b'x'; 100_000];
        let sender = std::thread::spawn({
            let text = text.clone();
            move || send(&here, &text, &[file.as_fd(), file.as_fd()]).unwrap()
        });
        let (bytes, descriptors) = receive(&there).unwrap();
        sender.join().unwrap();
        assert_eq!(bytes, text);
        assert_eq!(descriptors.len(), 2);
    }
}

//! UDP.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::task::Poll;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, SendError, Socket};
use smoltcp::wire::IpEndpoint;

use super::interface::ip_address;
use super::stack;
use crate::error::becomes_error;

/// Datagrams and bytes that a socket keeps, per device and direction.
const DATAGRAMS: usize = 16;
const BUFFER_BYTES: usize = 16 << 10;

/// Why a datagram was not sent or a socket not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpError {
    /// No device leads to the address.
    Unreachable,
    /// The datagram is longer than the socket's buffer.
    TooLong,
    /// Somebody else has the port.
    InUse,
}

impl fmt::Display for UdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "no network leads to this address",
            Self::TooLong => "the datagram is longer than the socket's buffer",
            Self::InUse => "somebody else has this port",
        })
    }
}

becomes_error!(UdpError);

/// A socket for datagrams, on all devices.
#[derive(Debug)]
pub struct UdpSocket {
    places: Vec<(usize, SocketHandle)>,
}

fn buffer() -> PacketBuffer<'static> {
    PacketBuffer::new(
        vec![PacketMetadata::EMPTY; DATAGRAMS],
        vec![0; BUFFER_BYTES],
    )
}

impl UdpSocket {
    /// A socket at a port; 0 for any.
    ///
    /// # Errors
    /// If somebody else has the port.
    pub fn bind(port: u16) -> Result<Self, UdpError> {
        stack::with(|stack| {
            let port = if port == 0 {
                stack.ephemeral_port()
            } else {
                port
            };
            let is_taken = stack.attachments.iter().any(|attachment| {
                attachment.sockets.iter().any(|(_, socket)| match socket {
                    smoltcp::socket::Socket::Udp(socket) => socket.endpoint().port == port,
                    #[allow(
                        unreachable_patterns,
                        reason = "the only kind in some sets of features"
                    )]
                    _ => false,
                })
            });
            if is_taken {
                return Err(UdpError::InUse);
            }
            let mut places = Vec::new();
            for (index, attachment) in stack.attachments.iter_mut().enumerate() {
                let mut socket = Socket::new(buffer(), buffer());
                socket.bind(port).map_err(|_| UdpError::InUse)?;
                places.push((index, attachment.sockets.add(socket)));
            }
            Ok(Self { places })
        })
    }

    /// Waits for a datagram; what does not fit is cut off. Says how long it is and who sent it.
    pub async fn receive_from(&mut self, bytes: &mut [u8]) -> (usize, SocketAddr) {
        poll_fn(|context| {
            stack::with(|stack| {
                for &(index, handle) in &self.places {
                    let Some(attachment) = stack.attachments.get_mut(index) else {
                        continue;
                    };
                    let socket = attachment.sockets.get_mut::<Socket<'_>>(handle);
                    if let Ok((datagram, metadata)) = socket.recv() {
                        let count = datagram.len().min(bytes.len());
                        let (Some(to), Some(from)) =
                            (bytes.get_mut(..count), datagram.get(..count))
                        else {
                            continue;
                        };
                        to.copy_from_slice(from);
                        let from = metadata.endpoint;
                        return Poll::Ready((
                            count,
                            SocketAddr::new(IpAddr::from(from.addr), from.port),
                        ));
                    }
                    socket.register_recv_waker(context.waker());
                }
                Poll::Pending
            })
        })
        .await
    }

    /// Waits for room and sends a datagram.
    ///
    /// # Errors
    /// If nothing leads to the address, or the datagram is too long.
    pub async fn send_to(&mut self, bytes: &[u8], address: SocketAddr) -> Result<(), UdpError> {
        let remote = ip_address(address.ip()).ok_or(UdpError::Unreachable)?;
        if bytes.len() > BUFFER_BYTES {
            return Err(UdpError::TooLong);
        }
        stack::wait_for_address().await;
        poll_fn(|context| {
            stack::with(|stack| {
                let Some(route) = stack.route(&remote) else {
                    return Poll::Ready(Err(UdpError::Unreachable));
                };
                let place = self.places.iter().find(|(index, _)| *index == route);
                let (Some(&(_, handle)), Some(attachment)) =
                    (place, stack.attachments.get_mut(route))
                else {
                    return Poll::Ready(Err(UdpError::Unreachable));
                };
                attachment.is_touched = true;
                let socket = attachment.sockets.get_mut::<Socket<'_>>(handle);
                match socket.send_slice(bytes, IpEndpoint::new(remote, address.port())) {
                    Ok(()) => Poll::Ready(Ok(())),
                    Err(SendError::BufferFull) => {
                        socket.register_send_waker(context.waker());
                        Poll::Pending
                    }
                    Err(SendError::Unaddressable) => Poll::Ready(Err(UdpError::Unreachable)),
                }
            })
        })
        .await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        stack::with(|stack| {
            for &(index, handle) in &self.places {
                if let Some(attachment) = stack.attachments.get_mut(index) {
                    attachment.sockets.remove(handle);
                }
            }
        });
    }
}

//! TCP: one connection on the host, one to the workload.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::route::MARK;
use crate::sys;

/// Linux `IP_BIND_ADDRESS_NO_PORT` is not used: the client's own port is kept where it is free.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
/// How long a workload may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Accepts connections and leads them to `target`. Ends its connections when it is dropped.
pub(super) async fn serve(listener: TcpListener, target: SocketAddrV4) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, address)) => {
                    connections.spawn(lead(client, address, target));
                }
                // Out of descriptors, or a client that hung up: the next may be luckier.
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn lead(mut client: TcpStream, address: SocketAddr, target: SocketAddrV4) {
    let connected = tokio::time::timeout(CONNECT_LIMIT, connect(address, target)).await;
    let mut workload = match connected {
        Ok(Ok(workload)) => workload,
        Ok(Err(error)) => {
            tracing::debug!(%error, %target, "the workload does not answer");
            return reset(&client);
        }
        Err(_) => return reset(&client),
    };
    let _ = client.set_nodelay(true);
    let _ = workload.set_nodelay(true);
    // What breaks one side ends the other; there is nobody to tell.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut workload).await;
}

/// A client whose workload refuses gets a reset, as it would without us, not an empty answer.
fn reset(client: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let length = libc::socklen_t::try_from(size_of_val(&linger)).unwrap_or(8);
    // SAFETY: `linger` is a struct linger that outlives the call, and its size is given. Failure
    // only makes the end more polite.
    unsafe {
        use std::os::fd::AsRawFd;
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        );
    }
}

/// Connects with the client's address as source if that is possible: not for clients on the
/// host's loopback, whose address means somebody else to the workload.
async fn connect(client: SocketAddr, target: SocketAddrV4) -> io::Result<TcpStream> {
    if let SocketAddr::V4(client) = client
        && !client.ip().is_loopback()
    {
        for source in [client, SocketAddrV4::new(*client.ip(), 0)] {
            match transparent(source) {
                Ok(socket) => return socket.connect(target.into()).await,
                Err(error) => tracing::debug!(%error, %source, "not taken as source"),
            }
        }
    }
    TcpStream::connect(target).await
}

fn transparent(source: SocketAddrV4) -> io::Result<TcpSocket> {
    let socket = marked(libc::SOCK_STREAM)?;
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    sys::bind(&socket, source)?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// A socket that may take any address as its own, and whose answers find back.
pub(super) fn marked(kind: libc::c_int) -> io::Result<OwnedFd> {
    let socket = sys::socket(kind | libc::SOCK_NONBLOCK)?;
    sys::set_option(&socket, libc::SOL_IP, libc::IP_TRANSPARENT, 1)?;
    let mark = libc::c_int::try_from(MARK).unwrap_or(0);
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark)?;
    Ok(socket)
}

//! What is said over the socket of the parent process: one request, one answer, in JSON, each up
//! to the end of the stream.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys;

/// How long either side waits for the other.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Directory of the parent process below an engine's run directory.
pub(crate) fn directory(run: &Path) -> PathBuf {
    run.join("rootless")
}

/// Socket of the parent process.
pub(crate) fn parent_socket(run: &Path) -> PathBuf {
    directory(run).join("parent.sock")
}

/// A transport protocol whose ports can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What may be asked of the parent process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// The namespaces: three descriptors come with the answer.
    Join,
    /// A socket bound to a port of the host: one descriptor comes with the answer.
    Bind {
        /// Its protocol.
        protocol: Protocol,
        /// Address of the host, 0.0.0.0 for all.
        address: Ipv4Addr,
        /// Its port.
        port: u16,
    },
    /// Ends the parent process and all of its own: the namespaces go with their last process.
    Stop,
}

/// The parent's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To [`Request::Join`].
    Namespaces(State),
    /// To the others.
    Done,
    /// It could not be done: the number of the system's error, 0 for others, and its text.
    Failed {
        /// errno(3).
        errno: i32,
        /// In words.
        message: String,
    },
}

/// How the namespaces have turned out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What does not work, and why; for the log and for `gamut info`.
    pub warnings: Vec<String>,
}

/// One request to the parent process.
///
/// # Errors
/// If nobody listens there or the connection breaks; what the parent answers is no error here.
pub(crate) fn ask(run: &Path, request: &Request) -> std::io::Result<(Answer, Vec<OwnedFd>)> {
    let stream = UnixStream::connect(parent_socket(run))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    sys::send(&stream, &serde_json::to_vec(request)?, &[])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let (bytes, descriptors) = sys::receive(&stream)?;
    Ok((serde_json::from_slice(&bytes)?, descriptors))
}

/// Reads a request.
pub(crate) fn read_request(stream: &UnixStream) -> std::io::Result<Request> {
    let (bytes, _) = sys::receive(stream)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Answers a request.
pub(crate) fn answer(
    stream: &UnixStream,
    answer: &Answer,
    descriptors: &[OwnedFd],
) -> std::io::Result<()> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    sys::send(stream, &serde_json::to_vec(answer)?, &borrowed)
}

/// A socket bound to a port of the host, by the parent process.
///
/// # Errors
/// [`Error::Port`] if the port is taken or the user may not have it.
pub(crate) fn bind_on_host(
    run: &Path,
    protocol: Protocol,
    address: Ipv4Addr,
    port: u16,
) -> Result<OwnedFd> {
    let request = Request::Bind {
        protocol,
        address,
        port,
    };
    let failed = |source| {
        Error::system(
            "ask for a port of the host (is the process gamut-rootless running? restarting the daemon starts it)",
            source,
        )
    };
    let (answer, mut descriptors) = ask(run, &request).map_err(failed)?;
    match (answer, descriptors.pop()) {
        (Answer::Done, Some(socket)) => Ok(socket),
        (Answer::Failed { errno, message }, _) => Err(refused(address, port, errno, &message)),
        _ => Err(failed(std::io::ErrorKind::InvalidData.into())),
    }
}

fn refused(address: Ipv4Addr, port: u16, errno: i32, message: &str) -> Error {
    use gamut_spec::error::ErrorKind;
    let (message, kind) = match errno {
        libc::EADDRINUSE => (
            format!("Bind for {address}:{port} failed: port is already allocated"),
            ErrorKind::Conflict,
        ),
        libc::EACCES => (
            format!(
                "Bind for {address}:{port} failed: an ordinary user may not have a port below net.ipv4.ip_unprivileged_port_start; \
                 publish a higher one, or let root lower it: sysctl net.ipv4.ip_unprivileged_port_start={port}"
            ),
            ErrorKind::Forbidden,
        ),
        libc::EADDRNOTAVAIL => (
            format!("Bind for {address}:{port} failed: {address} is not an address of this host"),
            ErrorKind::InvalidArgument,
        ),
        _ => (
            format!("Bind for {address}:{port} failed: {message}"),
            ErrorKind::Internal,
        ),
    };
    Error::Port { message, kind }
}

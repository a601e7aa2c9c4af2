//! Names to addresses: the configuration's host lines, then its name servers, else those that
//! DHCP named.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::configuration;
use super::dns_message::{MessageError, RecordType, answer, question};
use super::stack;
use super::udp::{UdpError, UdpSocket};
use crate::error::becomes_error;
use crate::executor::timeout;
use crate::{boot, entropy};

const PORT: u16 = 53;
/// Each server is asked so often, and waited for so long.
const ATTEMPTS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is understood, in bytes.
const MESSAGE_BYTES: usize = 1500;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// There is no such name, or it has no address.
    NoSuchName(String),
    /// No name server is configured.
    NoServer(String),
    /// None answered.
    NoAnswer(String),
    /// The name cannot be asked for, or the servers failed.
    Failed(String, MessageError),
    /// No network.
    Udp(UdpError),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName(name) => write!(f, "resolving {name}: no such name"),
            Self::NoServer(name) => write!(f, "resolving {name}: no name server is configured"),
            Self::NoAnswer(name) => write!(f, "resolving {name}: no name server answers"),
            Self::Failed(name, error) => write!(f, "resolving {name}: {error}"),
            Self::Udp(error) => write!(f, "resolving: {error}"),
        }
    }
}

becomes_error!(ResolveError);

/// The names that are tried: as resolv.conf(5) has it, a name with a dot first as it is, one
/// without first in the search domains.
fn candidates<'text>(name: &str, domains: impl Iterator<Item = &'text str>) -> Vec<String> {
    if name.ends_with('.') {
        return Vec::from([name.to_owned()]);
    }
    let mut all: Vec<String> = domains.map(|domain| format!("{name}.{domain}")).collect();
    if name.contains('.') {
        all.insert(0, name.to_owned());
    } else {
        all.push(name.to_owned());
    }
    all
}

/// The addresses of a name, IPv4 before IPv6. An address is its own.
///
/// # Errors
/// If there is no such name, or no server answers.
pub async fn resolve(name: &str) -> Result<Vec<IpAddr>, ResolveError> {
    if let Ok(address) = name.parse() {
        return Ok(Vec::from([address]));
    }
    let text = boot::config();
    let known: Vec<IpAddr> = configuration::host_addresses(text, name).collect();
    if !known.is_empty() {
        return Ok(known);
    }
    // A name server may be one that DHCP has yet to name.
    stack::wait_for_address().await;
    let mut servers: Vec<IpAddr> = configuration::name_servers(text).collect();
    stack::with(|stack| {
        for attachment in &stack.attachments {
            servers.extend_from_slice(&attachment.name_servers);
        }
    });
    if servers.is_empty() {
        return Err(ResolveError::NoServer(name.to_owned()));
    }
    let mut failure = ResolveError::NoSuchName(name.to_owned());
    for candidate in candidates(name, configuration::search_domains(text)) {
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::Aaaa] {
            if kind == RecordType::Aaaa && cfg!(not(feature = "ipv6")) {
                continue;
            }
            match ask(&servers, &candidate, kind).await {
                Ok(addresses) => found.extend(addresses),
                Err(ResolveError::NoSuchName(_)) => {}
                Err(error) => failure = error,
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(failure)
}

async fn ask(
    servers: &[IpAddr],
    name: &str,
    kind: RecordType,
) -> Result<Vec<IpAddr>, ResolveError> {
    let [high, low, ..] = entropy::number().to_le_bytes();
    let id = u16::from_le_bytes([high, low]);
    let asked =
        question(id, name, kind).map_err(|error| ResolveError::Failed(name.to_owned(), error))?;
    let mut failure = ResolveError::NoAnswer(name.to_owned());
    for _ in 0..ATTEMPTS {
        for &server in servers {
            // A port of its own for each question, so that answers are hard to forge.
            let mut socket = UdpSocket::bind(0).map_err(ResolveError::Udp)?;
            let server = SocketAddr::new(server, PORT);
            if let Err(error) = socket.send_to(&asked, server).await {
                failure = ResolveError::Udp(error);
                continue;
            }
            match timeout(PATIENCE, answer_from(&mut socket, server, &asked)).await {
                Ok(Ok(addresses)) => return Ok(addresses),
                Ok(Err(MessageError::NoSuchName)) => {
                    return Err(ResolveError::NoSuchName(name.to_owned()));
                }
                Ok(Err(error)) => failure = ResolveError::Failed(name.to_owned(), error),
                Err(_) => {}
            }
        }
    }
    Err(failure)
}

/// Waits for the answer, past whatever else arrives.
async fn answer_from(
    socket: &mut UdpSocket,
    server: SocketAddr,
    asked: &[u8],
) -> Result<Vec<IpAddr>, MessageError> {
    let mut message = [0; MESSAGE_BYTES];
    loop {
        let (count, from) = socket.receive_from(&mut message).await;
        if from != server {
            continue;
        }
        match answer(asked, message.get(..count).unwrap_or_default()) {
            Err(MessageError::NotAnAnswer) => {}
            other => return other,
        }
    }
}

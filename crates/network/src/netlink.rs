//! A blocking route-netlink socket: batches of requests, and dumps.

use std::borrow::Cow;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::{Error, Refusal, Result};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// Set by the kernel where an acknowledgement omits the request's payload.
const NLM_F_CAPPED: u16 = 0x100;
/// Set by the kernel where attributes follow an acknowledgement.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel's largest dump datagram is 32 KiB.
const DUMP_BYTES: usize = 64 * 1024;
const ACK_BYTES: usize = 8 * 1024;

/// One request of a batch.
pub(crate) struct Request {
    /// What it does to which object, for the error message.
    pub operation: Cow<'static, str>,
    pub message: RouteNetlinkMessage,
    /// `NLM_F_*` beyond request and acknowledge.
    pub flags: u16,
}

impl Request {
    pub fn new(operation: impl Into<Cow<'static, str>>, message: RouteNetlinkMessage) -> Self {
        Self {
            operation: operation.into(),
            message,
            flags: 0,
        }
    }

    pub fn with_flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }
}

/// A netlink socket of the network namespace in which the calling thread was when it opened it.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
    protocol_name: &'static str,
}

impl NetlinkSocket {
    /// Opens a route socket.
    pub fn route() -> Result<Self> {
        Self::open(NETLINK_ROUTE, "route")
    }

    /// Opens a socket of any netlink protocol.
    pub fn open(protocol: isize, protocol_name: &'static str) -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| {
            Error::system(format!("open a {protocol_name} netlink socket"), source)
        })?;
        Ok(Self {
            socket,
            sequence: 0,
            protocol_name,
        })
    }

    /// Sends all requests in one system call, waits for each one's acknowledgement, and reports
    /// the first refusal. The kernel carries out the ones after a refused one all the same.
    pub fn execute(&mut self, requests: Vec<Request>) -> Result<()> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(1024);
        let mut operations = Vec::with_capacity(requests.len());
        for request in requests {
            append(
                &mut bytes,
                request.message,
                request.flags | NLM_F_ACK,
                self.next_sequence(),
            );
            operations.push(request.operation);
        }
        self.exchange(&bytes, first, &operations)
    }

    /// Sends already encoded requests numbered from `first`, one operation name each.
    fn exchange(
        &mut self,
        bytes: &[u8],
        first: u32,
        operations: &[Cow<'static, str>],
    ) -> Result<()> {
        self.send(bytes)?;
        let mut outcome = Ok(());
        let mut pending = operations.len();
        let mut datagram = Vec::with_capacity(ACK_BYTES);
        while pending > 0 {
            self.receive(&mut datagram)?;
            for (header, body) in Messages(&datagram) {
                if header.kind != NLMSG_ERROR {
                    continue;
                }
                let index =
                    usize::try_from(header.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(operation) = operations.get(index) else {
                    continue;
                };
                pending = pending.saturating_sub(1);
                if let (Some(source), Ok(())) = (refusal(header.flags, body), &outcome) {
                    outcome = Err(Error::Netlink {
                        operation: operation.to_string(),
                        source,
                    });
                }
            }
        }
        outcome
    }

    /// Sends a dump request and returns every answer that can be parsed.
    pub fn dump(
        &mut self,
        operation: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        append(&mut bytes, request, NLM_F_DUMP, sequence);
        let mut answers = Vec::new();
        self.collect(operation, &bytes, sequence, |message| {
            answers.extend(parse(message));
        })?;
        Ok(answers)
    }

    /// Asks for one object. `Ok(None)` if the kernel knows none such.
    pub fn get(
        &mut self,
        operation: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        append(&mut bytes, request, NLM_F_ACK, sequence);
        let mut answer = None;
        match self.collect(operation, &bytes, sequence, |message| {
            answer = parse(message);
        }) {
            Err(Error::Netlink { source, .. }) if source.errno == libc::ENODEV => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(answer),
        }
    }

    /// Sends an encoded request and hands each answering message (header and all) to `each`,
    /// until the end of the dump or the acknowledgement.
    pub fn collect(
        &mut self,
        operation: &str,
        request: &[u8],
        sequence: u32,
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        self.send(request)?;
        let mut datagram = Vec::with_capacity(DUMP_BYTES);
        loop {
            self.receive(&mut datagram)?;
            for (header, body) in Messages(&datagram) {
                if header.sequence != sequence {
                    continue;
                }
                match header.kind {
                    // The end of a dump may come without a code.
                    NLMSG_DONE if body.is_empty() => return Ok(()),
                    NLMSG_ERROR | NLMSG_DONE => {
                        // Only an error message repeats the request, which the explanation follows.
                        let flags = if header.kind == NLMSG_ERROR {
                            header.flags
                        } else {
                            0
                        };
                        return match refusal(flags, body) {
                            None => Ok(()),
                            Some(source) => Err(Error::Netlink {
                                operation: operation.to_owned(),
                                source,
                            }),
                        };
                    }
                    _ => each(header.whole),
                }
            }
        }
    }

    /// Sends one encoded request, asks nothing but its acknowledgement.
    pub fn command(&mut self, operation: &str, request: &[u8], sequence: u32) -> Result<()> {
        self.exchange(request, sequence, &[Cow::Owned(operation.to_owned())])
    }

    /// Sends a batch of encoded requests numbered from `first`, each of which is acknowledged.
    pub fn batch(
        &mut self,
        operation: &str,
        requests: &[u8],
        first: u32,
        count: usize,
    ) -> Result<()> {
        let operations = vec![Cow::Owned(operation.to_owned()); count];
        self.exchange(requests, first, &operations)
    }

    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let failed =
            |source| Error::system(format!("send to {} netlink", self.protocol_name), source);
        self.socket.send(bytes, 0).map_err(failed)?;
        Ok(())
    }

    fn receive(&self, datagram: &mut Vec<u8>) -> Result<()> {
        datagram.clear();
        // The kernel queues its answers before send(2) returns, or while a dump is read: there
        // is never anything to wait for, so a lost answer is an error and not a hang.
        let failed = |source| {
            Error::system(
                format!("receive from {} netlink", self.protocol_name),
                source,
            )
        };
        let bytes = self
            .socket
            .recv(datagram, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
            .map_err(failed)?;
        if bytes > datagram.len() {
            return Err(failed(std::io::Error::other("an answer was truncated")));
        }
        Ok(())
    }
}

/// Encodes one message at the end of `bytes`.
fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// Decodes one message. What cannot be decoded (an attribute of a newer kernel) is left out.
fn parse(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
        Ok(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(inner),
            ..
        }) => Some(inner),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "a netlink answer could not be decoded and is left out");
            None
        }
    }
}

pub(crate) struct MessageHeader<'a> {
    pub kind: u16,
    /// Who asked for it: as a rule, the id of a process.
    pub port: u32,
    flags: u16,
    sequence: u32,
    whole: &'a [u8],
}

/// The messages of a datagram; ends at the first malformed one.
pub(crate) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (MessageHeader<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let whole = self.0.get(..length)?;
        let body = whole.get(HEADER_BYTES..)?;
        let header = MessageHeader {
            kind: u16_at(whole, 4)?,
            flags: u16_at(whole, 6)?,
            sequence: u32_at(whole, 8)?,
            port: u32_at(whole, 12)?,
            whole,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    }
}

/// The refusal in an `NLMSG_ERROR` body, `None` if it is an acknowledgement.
fn refusal(flags: u16, body: &[u8]) -> Option<Refusal> {
    let Some(code) = body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) else {
        return Some(Refusal {
            errno: libc::EBADMSG,
            explanation: String::new(),
        });
    };
    if code == 0 {
        return None;
    }
    let errno = code.checked_neg().unwrap_or(libc::EIO);
    Some(Refusal {
        errno,
        explanation: explanation(flags, body).unwrap_or_default(),
    })
}

fn explanation(flags: u16, body: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request_bytes = if flags & NLM_F_CAPPED != 0 {
        HEADER_BYTES
    } else {
        usize::try_from(u32_at(body, 4)?).ok()?.max(HEADER_BYTES)
    };
    let (_, text) =
        Attributes(body.get(4 + request_bytes..)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    Some(
        String::from_utf8_lossy(text)
            .trim_end_matches('\0')
            .to_owned(),
    )
}

/// The attributes (type without its flag bits, value) in a buffer; ends at the first malformed one.
pub(crate) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u32::from_ne_bytes(*chunk))
}

/// Feeds arbitrary bytes to the decoders of netlink answers; a target for fuzzing.
pub fn fuzz_netlink(data: &[u8]) {
    for (header, body) in Messages(data) {
        let _ = refusal(header.flags, body);
        let _ = Attributes(body).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_datagram_is_safe(data: Vec<u8>, flags: u16) {
            fuzz_netlink(&data);
            let _ = refusal(flags, &data);
        }
    }
}

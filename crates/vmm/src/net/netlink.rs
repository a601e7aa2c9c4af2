//! A blocking route-netlink socket (rtnetlink(7)): requests one by one, and dumps.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::error::{Error, Result};

/// The kernel's largest dump datagram is 32 KiB.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// A socket of this thread's network namespace.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket =
            open().map_err(|error: io::Error| Error::system("open a netlink socket", error))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Carries out a request.
    pub fn execute(&mut self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.exchange(message, NLM_F_ACK | flags)
            .map(|_| ())
            .map_err(|error| Error::system(what, error))
    }

    /// Lists objects. What cannot be decoded (of a newer kernel) is left out.
    pub fn dump(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_DUMP)
            .map_err(|error| Error::system(what, error))
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            let mut rest = datagram.as_slice();
            while let Some(bytes) = rest
                .first_chunk()
                .and_then(|length| usize::try_from(u32::from_ne_bytes(*length)).ok())
                .filter(|bytes| *bytes >= 16)
            {
                let Some(one) = rest.get(..bytes) else { break };
                rest = rest.get(bytes.next_multiple_of(4)..).unwrap_or_default();
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one).map(|one| one.payload)
                {
                    Ok(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                    Ok(NetlinkPayload::Error(error)) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    Ok(NetlinkPayload::Done(_)) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

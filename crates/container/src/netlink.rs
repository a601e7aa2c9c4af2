//! The few words of rtnetlink(7) that moving an interface takes.

use crate::sys::{self, Errno, SysResult};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

// Message types, flags and attributes of linux/rtnetlink.h, if_link.h and if_addr.h.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// Bytes of `struct nlmsghdr`, `struct ifinfomsg` and `struct ifaddrmsg`.
const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

/// One answer of the kernel: its type and what follows the header.
type Answer = (u16, Vec<u8>);

/// An address as the kernel tells it, `struct ifaddrmsg` and attributes, to be told again.
pub(crate) struct Address(Vec<u8>);

/// A socket of the network namespace in which it was made.
pub(crate) struct Netlink(OwnedFd);

fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// `struct ifinfomsg`.
fn link(index: i32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&change.to_ne_bytes());
    body
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> SysResult<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(Errno(libc::EPROTO))
}

impl Netlink {
    pub(crate) fn open() -> SysResult<Self> {
        // SAFETY: a result that is no error is a new descriptor of ours.
        unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            let raw = libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE);
            if raw < 0 {
                return Err(Errno::last());
            }
            Ok(Self(OwnedFd::from_raw_fd(raw)))
        }
    }

    /// Asks, and collects the answers up to the acknowledgement or the end of the list.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> SysResult<Vec<Answer>> {
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        sys::write(self.0.as_fd(), &message)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let got = sys::read(self.0.as_fd(), &mut buffer)?;
            let mut rest = &buffer[..got];
            while rest.len() >= HEADER_BYTES {
                let length = u32::from_ne_bytes(word(rest, 0)?);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let kind = u16::from_ne_bytes(word(rest, 4)?);
                let body = rest.get(HEADER_BYTES..length).ok_or(Errno(libc::EPROTO))?;
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        return match i32::from_ne_bytes(word(body, 0)?) {
                            0 => Ok(answers),
                            error => Err(Errno(-error)),
                        };
                    }
                    kind => answers.push((kind, body.to_vec())),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// Number of an interface.
    pub(crate) fn index(&self, name: &str) -> SysResult<i32> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, [name, "\0"].concat().as_bytes());
        let answers = self.ask(RTM_GETLINK, 0, &body)?;
        let (_, found) = answers.first().ok_or(Errno(libc::ENODEV))?;
        Ok(i32::from_ne_bytes(word(found, 4)?))
    }

    /// The addresses of an interface that somebody has given it, and that mean something beyond
    /// the link.
    pub(crate) fn addresses(&self, index: i32) -> SysResult<Vec<Address>> {
        let answers = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_BYTES])?;
        let mut addresses = Vec::new();
        for (kind, body) in answers {
            let (flags, scope) = (word::<1>(&body, 2)?, word::<1>(&body, 3)?);
            if kind == RTM_NEWADDR
                && i32::from_ne_bytes(word(&body, 4)?) == index
                && flags[0] & IFA_F_PERMANENT != 0
                && scope[0] == RT_SCOPE_UNIVERSE
            {
                addresses.push(Address(body));
            }
        }
        Ok(addresses)
    }

    /// Gives an interface an address that it had elsewhere.
    pub(crate) fn add_address(&self, index: i32, address: &Address) -> SysResult<()> {
        let mut body = address.0.get(..4).ok_or(Errno(libc::EPROTO))?.to_vec();
        body.extend_from_slice(&index.to_ne_bytes());
        // A label is made of the old name, and the cache information is the kernel's own.
        const KEPT: [u16; 4] = [1, 2, 4, 8]; // IFA_ADDRESS, LOCAL, BROADCAST, FLAGS
        let mut rest = address.0.get(ADDRESS_BYTES..).unwrap_or_default();
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes(word(rest, 0)?));
            let kind = u16::from_ne_bytes(word(rest, 2)?);
            let value = rest.get(4..length).ok_or(Errno(libc::EPROTO))?;
            if KEPT.contains(&kind) {
                attribute(&mut body, kind, value);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        self.ask(RTM_NEWADDR, NLM_F_CREATE, &body).map(drop)
    }

    /// Switches an interface on or off.
    pub(crate) fn set_up(&self, index: i32, up: bool) -> SysResult<()> {
        let flags = if up { IFF_UP } else { 0 };
        debug_assert_eq!(link(index, flags, IFF_UP).len(), LINK_BYTES);
        self.ask(RTM_NEWLINK, 0, &link(index, flags, IFF_UP))
            .map(drop)
    }

    /// Moves an interface to another network namespace, under a new name.
    pub(crate) fn move_to(
        &self,
        index: i32,
        namespace: std::os::fd::BorrowedFd<'_>,
        name: &str,
    ) -> SysResult<()> {
        let mut body = link(index, 0, 0);
        attribute(&mut body, IFLA_IFNAME, [name, "\0"].concat().as_bytes());
        let number = namespace.as_raw_fd().to_ne_bytes();
        attribute(&mut body, IFLA_NET_NS_FD, &number);
        self.ask(RTM_NEWLINK, 0, &body).map(drop)
    }
}

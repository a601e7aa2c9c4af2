//! The route-netlink messages that this crate sends about links.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgePortState, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind,
    InfoMacVlan, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, MacVlanMode, State,
};

use crate::address::MacAddress;
use crate::error::Result;
use crate::macvlan::MacvlanMode;
use crate::netlink::{NetlinkSocket, Request};

/// What the kernel tells of a link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub is_up: bool,
    /// Whether packets really go through: the kernel sets this some time after the link and its
    /// peer are up.
    pub is_operational: bool,
    /// Whether it is a bridge port that forwards; likewise set later.
    pub is_forwarding: bool,
    pub is_bridge: bool,
    pub is_veth: bool,
    /// Index of the bridge it is a port of.
    pub bridge: Option<u32>,
    /// Index of a veth's other end in its namespace.
    pub peer_index: Option<u32>,
    pub mtu: u32,
    pub mac: Option<MacAddress>,
    pub counters: netlink_packet_route::link::Stats64,
}

impl Link {
    fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            is_up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Controller(index) => link.bridge = Some(*index),
                LinkAttribute::Link(index) => link.peer_index = Some(*index),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::OperState(state) => link.is_operational = *state == State::Up,
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().ok().map(MacAddress);
                }
                LinkAttribute::Stats64(counters) => link.counters = *counters,
                LinkAttribute::LinkInfo(infos) => {
                    link.is_bridge |= infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    link.is_veth |= infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                    link.is_forwarding |= infos.iter().any(is_forwarding_port);
                }
                _ => {}
            }
        }
        link
    }
}

fn is_forwarding_port(info: &LinkInfo) -> bool {
    let forwarding = InfoBridgePort::State(BridgePortState::Forwarding);
    matches!(info, LinkInfo::PortData(InfoPortData::BridgePort(port)) if port.contains(&forwarding))
}

/// The link called `name`, if there is one.
pub(crate) fn find(socket: &mut NetlinkSocket, name: &str) -> Result<Option<Link>> {
    let request = RouteNetlinkMessage::GetLink(named(name));
    let answer = socket.get(&format!("look up interface {name}"), request)?;
    Ok(match answer {
        Some(RouteNetlinkMessage::NewLink(message)) => Some(Link::from_message(&message)),
        _ => None,
    })
}

/// All links of the socket's namespace.
pub(crate) fn list(socket: &mut NetlinkSocket) -> Result<Vec<Link>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = socket.dump("list the interfaces", request)?;
    Ok(answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
            _ => None,
        })
        .collect())
}

/// A macvlan interface to be made in another namespace, on a parent here.
pub(crate) struct MacvlanLink<'a> {
    pub parent: u32,
    pub mode: MacvlanMode,
    pub name: &'a str,
    pub namespace: BorrowedFd<'a>,
    pub mac: MacAddress,
    pub mtu: u32,
}

/// Makes a macvlan interface, down.
pub(crate) fn create_macvlan(wanted: &MacvlanLink<'_>) -> Request {
    let mode = match wanted.mode {
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
    };
    let mut message = named(wanted.name);
    message.attributes.extend([
        LinkAttribute::Link(wanted.parent),
        LinkAttribute::NetNsFd(wanted.namespace.as_raw_fd()),
        LinkAttribute::Address(wanted.mac.0.to_vec()),
        LinkAttribute::Mtu(wanted.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
        ]),
    ]);
    Request::new(
        "make a macvlan interface",
        RouteNetlinkMessage::NewLink(message),
    )
    .with_flags(NLM_F_CREATE | NLM_F_EXCL)
}

/// Makes a bridge, down. Its own hardware address keeps it from changing with the ports.
pub(crate) fn create_bridge(name: &str, mac: MacAddress, mtu: Option<u32>) -> Request {
    let mut message = named(name);
    message
        .attributes
        .push(LinkAttribute::Address(mac.0.to_vec()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
            InfoKind::Bridge,
        )]));
    Request::new(
        format!("create bridge {name}"),
        RouteNetlinkMessage::NewLink(message),
    )
    .with_flags(NLM_F_CREATE | NLM_F_EXCL)
}

/// A veth pair to be made: one end here at a bridge, the other in another namespace.
pub(crate) struct VethPair<'a> {
    pub host_name: &'a str,
    pub bridge: u32,
    /// It reaches the bridge itself, but no other port that is isolated.
    pub isolated: bool,
    pub mtu: u32,
    pub peer_name: &'a str,
    pub peer_namespace: BorrowedFd<'a>,
}

/// Makes a veth pair with its host end at the bridge. Two requests: the second one sets what can
/// only be set on a port, and brings it up. No IPv6 link-local address: a port has no use for it.
/// Hairpin mode: where the host's bridges call its IP firewall (br_netfilter), a frame whose
/// destination was translated there is bridged on without being routed, so a workload that calls
/// its own published port needs its frame back through the port it came from.
pub(crate) fn create_veth(pair: &VethPair<'_>) -> [Request; 2] {
    let mut peer = named(pair.peer_name);
    peer.attributes.push(LinkAttribute::Mtu(pair.mtu));
    peer.attributes
        .push(LinkAttribute::NetNsFd(pair.peer_namespace.as_raw_fd()));
    let mut create = named(pair.host_name);
    create.attributes.push(LinkAttribute::Mtu(pair.mtu));
    create
        .attributes
        .push(LinkAttribute::Controller(pair.bridge));
    create.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let mut up = named(pair.host_name);
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    up.attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
        )]));
    up.attributes
        .push(LinkAttribute::LinkInfo(port_settings(pair.isolated)));
    [
        Request::new("create a veth pair", RouteNetlinkMessage::NewLink(create))
            .with_flags(NLM_F_CREATE | NLM_F_EXCL),
        Request::new(
            "bring up the host end of a veth pair",
            RouteNetlinkMessage::NewLink(up),
        ),
    ]
}

/// Only `RTM_NEWLINK` changes a port's own attributes; without `NLM_F_CREATE` it makes no link.
fn port_settings(isolated: bool) -> Vec<LinkInfo> {
    let mut settings = vec![InfoBridgePort::HairpinMode(true)];
    if isolated {
        settings.push(InfoBridgePort::Isolated(true));
    }
    vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(settings)),
    ]
}

/// Brings a link up.
pub(crate) fn bring_up(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::new(
        "bring an interface up",
        RouteNetlinkMessage::SetLink(message),
    )
}

/// Sets a link's hardware address. A veth takes it while it is up.
pub(crate) fn set_mac(index: u32, mac: MacAddress) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::Address(mac.0.to_vec()));
    Request::new(
        format!("give an interface hardware address {mac}"),
        RouteNetlinkMessage::SetLink(message),
    )
}

/// Sets a link's MTU in bytes.
pub(crate) fn set_mtu(index: u32, mtu: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Mtu(mtu));
    Request::new(
        format!("set an MTU of {mtu}"),
        RouteNetlinkMessage::SetLink(message),
    )
}

/// Removes a link (both ends of a veth pair).
pub(crate) fn delete(index: u32, name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request::new(
        format!("remove interface {name}"),
        RouteNetlinkMessage::DelLink(message),
    )
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// Makes a link a port of a bridge, as [`create_veth`] does.
pub(crate) fn attach(index: u32, bridge: u32, name: &str, isolated: bool) -> [Request; 2] {
    let mut enslave = LinkMessage::default();
    enslave.header.index = index;
    enslave.attributes.push(LinkAttribute::Controller(bridge));
    let mut configure = LinkMessage::default();
    configure.header.index = index;
    configure
        .attributes
        .push(LinkAttribute::LinkInfo(port_settings(isolated)));
    [
        Request::new(
            format!("attach interface {name} to its bridge"),
            RouteNetlinkMessage::SetLink(enslave),
        ),
        Request::new(
            format!("configure the bridge port {name}"),
            RouteNetlinkMessage::NewLink(configure),
        ),
    ]
}

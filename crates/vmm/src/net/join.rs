//! Joining an interface with a tap: every frame that comes in at one goes out at the other
//! (tc-mirred(8) on a clsact qdisc).

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
    TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};

use super::interfaces::Interface;
use super::netlink::Netlink;
use crate::error::Result;

/// Parent of a clsact qdisc, and with 0xfff2 that of its ingress filters (`linux/pkt_sched.h`).
const CLSACT: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0xfff1,
};
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0xfff2,
};
const CLSACT_HANDLE: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};
/// Priority 1, protocol ETH_P_ALL in network order.
const ALL_FRAMES: u32 = 1 << 16 | 0x0300;
const KINDS: [&str; 3] = ["clsact", "u32", "mirred"];

/// Sets a tap up like its interface, and joins both.
pub(super) fn join(netlink: &mut Netlink, interface: &Interface, tap_index: u32) -> Result<()> {
    let name = &interface.name;
    set_up_tap(netlink, interface, tap_index)?;
    if !interface.is_up {
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        netlink.execute(
            &format!("set interface {name} up"),
            RouteNetlinkMessage::SetLink(message),
            0,
        )?;
    }
    for (from, to) in [(interface.index, tap_index), (tap_index, interface.index)] {
        let what = format!("join interface {name} with the guest's tap");
        // Of a monitor that was killed; absent as a rule.
        let _ = netlink.execute(
            &what,
            RouteNetlinkMessage::DelQueueDiscipline(qdisc(from)),
            0,
        );
        netlink.execute(
            &what,
            RouteNetlinkMessage::NewQueueDiscipline(qdisc(from)),
            NLM_F_CREATE | NLM_F_EXCL,
        )?;
        netlink.execute(
            &what,
            RouteNetlinkMessage::NewTrafficFilter(redirect(from, to)),
            NLM_F_CREATE | NLM_F_EXCL,
        )?;
    }
    Ok(())
}

/// Same size of packets, and no address of its own: it is a cable, not a host.
fn set_up_tap(netlink: &mut Netlink, interface: &Interface, tap_index: u32) -> Result<()> {
    let what = format!("set up the guest's tap for interface {}", interface.name);
    let silent =
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]);
    let mut message = LinkMessage::default();
    message.header.index = tap_index;
    message.attributes = vec![silent];
    // A kernel without IPv6 knows no such thing, and needs none.
    let _ = netlink.execute(&what, RouteNetlinkMessage::SetLink(message), 0);
    let mut message = LinkMessage::default();
    message.header.index = tap_index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::Mtu(interface.mtu)];
    netlink.execute(&what, RouteNetlinkMessage::SetLink(message), 0)
}

fn about(index: u32) -> TcMessage {
    TcMessage::with_index(i32::try_from(index).unwrap_or(0))
}

fn qdisc(index: u32) -> TcMessage {
    let mut message = about(index);
    message.header.handle = CLSACT_HANDLE;
    message.header.parent = CLSACT;
    message.attributes = vec![TcAttribute::Kind(KINDS[0].to_owned())];
    message
}

/// A filter that matches every frame and sends it out at another interface.
fn redirect(from: u32, to: u32) -> TcMessage {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    // A mask of zeros: matches whatever is there.
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(KINDS[2].to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
            mirror,
        ))]),
    ];
    let mut message = about(from);
    message.header.parent = INGRESS;
    message.header.info = ALL_FRAMES;
    message.attributes = vec![
        TcAttribute::Kind(KINDS[1].to_owned()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(selector)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]),
    ];
    message
}

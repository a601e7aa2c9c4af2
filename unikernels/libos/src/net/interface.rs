//! One network device under smoltcp.

use alloc::vec::Vec;
use core::net::IpAddr;

#[cfg(feature = "dhcp")]
use smoltcp::iface::SocketHandle;
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::configuration;
use super::frames::{self, FrameBuffer};
use crate::entropy;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER_BYTES: usize = 14;

/// smoltcp's view of a device: frames come from and go to [`frames`].
struct Link {
    device: u16,
    mtu: usize,
    /// The frame that has been looked at and is to be handled next.
    next: Option<FrameBuffer>,
}

struct Received(FrameBuffer);
struct ToTransmit(u16);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, handle: F) -> R {
        let result = handle(self.0.bytes());
        frames::release(self.0);
        result
    }
}

impl phy::TxToken for ToTransmit {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        let mut frame = frames::allocate(bytes);
        let result = fill(frame.bytes_mut());
        frames::transmit(self.0, frame);
        result
    }
}

impl phy::Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToTransmit;

    fn receive(&mut self, _: Instant) -> Option<(Received, ToTransmit)> {
        if !frames::can_transmit() {
            return None;
        }
        let frame = self.next.take()?;
        Some((Received(frame), ToTransmit(self.device)))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToTransmit> {
        frames::can_transmit().then_some(ToTransmit(self.device))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER_BYTES;
        capabilities
    }
}

/// A device, its addresses and its sockets.
pub(super) struct Attachment {
    link: Link,
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    #[cfg(feature = "dhcp")]
    dhcp: Option<SocketHandle>,
    /// Name servers that DHCP named.
    #[cfg(feature = "dns")]
    pub(super) name_servers: Vec<IpAddr>,
    /// A task has changed a socket since the last turn.
    pub(super) is_touched: bool,
    /// When the protocols want to be called again.
    due: Option<Instant>,
}

/// smoltcp's form of an address; none for a version that is not linked.
pub(super) fn ip_address(address: IpAddr) -> Option<IpAddress> {
    match address {
        IpAddr::V4(address) => Some(IpAddress::Ipv4(address)),
        #[cfg(feature = "ipv6")]
        IpAddr::V6(address) => Some(IpAddress::Ipv6(address)),
        #[cfg(not(feature = "ipv6"))]
        IpAddr::V6(_) => None,
    }
}

impl Attachment {
    pub(super) fn new(device: &configuration::Device, now: Instant) -> Self {
        let mut link = Link {
            device: device.index,
            mtu: device.mtu.into(),
            next: None,
        };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(device.mac));
        let mut config = Config::new(hardware);
        config.random_seed = entropy::number();
        let mut attachment = Self {
            interface: Interface::new(config, &mut link, now),
            link,
            sockets: SocketSet::new(Vec::new()),
            #[cfg(feature = "dhcp")]
            dhcp: None,
            #[cfg(feature = "dns")]
            name_servers: Vec::new(),
            is_touched: true,
            due: None,
        };
        attachment.interface.update_ip_addrs(|addresses| {
            for subnet in &device.addresses {
                if let Some(address) = ip_address(subnet.address) {
                    // Eight fit; who configures more sees those.
                    let _ = addresses.push(IpCidr::new(address, subnet.prefix));
                }
            }
            #[cfg(feature = "ipv6")]
            {
                let _ = addresses.push(link_local(device.mac));
            }
        });
        for gateway in &device.gateways {
            match gateway {
                IpAddr::V4(gateway) => {
                    let routes = attachment.interface.routes_mut();
                    let _ = routes.add_default_ipv4_route(*gateway);
                }
                #[cfg(feature = "ipv6")]
                IpAddr::V6(gateway) => {
                    let routes = attachment.interface.routes_mut();
                    let _ = routes.add_default_ipv6_route(*gateway);
                }
                #[cfg(not(feature = "ipv6"))]
                IpAddr::V6(_) => {}
            }
        }
        #[cfg(feature = "dhcp")]
        if device.asks_by_dhcp || device.addresses.is_empty() {
            let socket = smoltcp::socket::dhcpv4::Socket::new();
            attachment.dhcp = Some(attachment.sockets.add(socket));
        }
        attachment
    }

    /// The index of the device.
    pub(super) fn device(&self) -> u16 {
        self.link.device
    }

    /// Whether it has an address that others can reach.
    pub(super) fn is_ready(&self) -> bool {
        self.interface.ip_addrs().iter().any(|subnet| match subnet {
            IpCidr::Ipv4(_) => true,
            #[cfg(feature = "ipv6")]
            IpCidr::Ipv6(subnet) => !subnet.address().is_unicast_link_local(),
        })
    }

    /// Whether an address is in one of its networks.
    pub(super) fn is_on_link(&self, address: &IpAddress) -> bool {
        let subnets = self.interface.ip_addrs();
        subnets.iter().any(|subnet| subnet.contains_addr(address))
    }

    /// Whether it has a way to addresses elsewhere.
    pub(super) fn has_gateway(&self, address: &IpAddress) -> bool {
        let routes = self.interface.routes();
        match address {
            IpAddress::Ipv4(_) => routes.get_default_ipv4_route().is_some(),
            #[cfg(feature = "ipv6")]
            IpAddress::Ipv6(_) => routes.get_default_ipv6_route().is_some(),
        }
    }

    /// Handles what has arrived. `before` sees each frame first and says whether to handle it.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        mut before: impl FnMut(&mut Self, &[u8]) -> bool,
        mut after: impl FnMut(&mut Self),
    ) {
        while frames::can_transmit() {
            let Some(frame) = frames::take_arrived(self.link.device) else {
                return;
            };
            self.is_touched = true;
            if !before(self, frame.bytes()) {
                frames::release(frame);
                continue;
            }
            self.link.next = Some(frame);
            self.interface
                .poll_ingress_single(now, &mut self.link, &mut self.sockets);
            after(self);
        }
    }

    /// Prepares what is to be sent, if anything has happened or is due.
    pub(super) fn send(&mut self, now: Instant) {
        let is_due = self.due.is_some_and(|due| due <= now);
        if !self.is_touched && !is_due {
            return;
        }
        self.is_touched = false;
        self.interface.poll_maintenance(now);
        while self
            .interface
            .poll_egress(now, &mut self.link, &mut self.sockets)
            == PollResult::SocketStateChanged
        {}
        #[cfg(feature = "dhcp")]
        self.poll_dhcp();
        self.due = self.interface.poll_at(now, &self.sockets);
    }

    /// When the protocols want to be called again.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.is_touched {
            return Some(Instant::ZERO);
        }
        self.due
    }

    #[cfg(feature = "dhcp")]
    fn poll_dhcp(&mut self) {
        use smoltcp::socket::dhcpv4::{Event, Socket};

        let Some(handle) = self.dhcp else {
            return;
        };
        match self.sockets.get_mut::<Socket<'_>>(handle).poll() {
            None => return,
            Some(Event::Configured(lease)) => {
                let address = IpCidr::Ipv4(lease.address);
                self.interface.update_ip_addrs(|addresses| {
                    addresses.retain(|known| !matches!(known, IpCidr::Ipv4(_)));
                    let _ = addresses.push(address);
                });
                let routes = self.interface.routes_mut();
                match lease.router {
                    Some(router) => {
                        let _ = routes.add_default_ipv4_route(router);
                    }
                    None => {
                        routes.remove_default_ipv4_route();
                    }
                }
                #[cfg(feature = "dns")]
                {
                    let servers = lease.dns_servers.iter();
                    self.name_servers = servers.map(|&server| IpAddr::V4(server)).collect();
                }
            }
            Some(Event::Deconfigured) => {
                self.interface.update_ip_addrs(|addresses| {
                    addresses.retain(|known| !matches!(known, IpCidr::Ipv4(_)));
                });
                self.interface.routes_mut().remove_default_ipv4_route();
                #[cfg(feature = "dns")]
                self.name_servers.clear();
            }
        }
        self.is_touched = true;
    }
}

/// The link-local address of a hardware address (RFC 4291, appendix A).
#[cfg(feature = "ipv6")]
fn link_local(mac: [u8; 6]) -> IpCidr {
    let [a, b, c, d, e, f] = mac;
    let half = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let address = core::net::Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        half(a ^ 2, b),
        half(c, 0xff),
        half(0xfe, d),
        half(e, f),
    );
    IpCidr::new(IpAddress::Ipv6(address), 64)
}

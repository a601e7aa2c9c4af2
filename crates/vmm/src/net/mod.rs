//! The guest's network devices: every interface of the monitor's network namespace.
//!
//! An interface keeps its addresses for those who look at it from outside, but its frames go to
//! the guest, which has the same addresses, the link-layer one included.

mod interfaces;
mod join;
mod netlink;
pub mod question;
mod resolver;
mod tap;

pub use tap::Tap;

use crate::config_text::NicConfig;
use crate::error::{Error, Result};
use interfaces::{Interface, Way};
use netlink::Netlink;

/// Opens a tap for each interface of this network namespace that is for the guest, in the order of
/// their indices. With `asks_resolver` the guest reaches the namespace's resolver
/// ([`question::RESOLVER`]) over each of them.
///
/// # Errors
/// If one of them cannot be given to a guest, or the system refuses.
pub fn open_all(asks_resolver: bool) -> Result<Vec<Tap>> {
    let mut netlink = Netlink::open()?;
    let interfaces = interfaces::list(&mut netlink)?;
    interfaces
        .into_iter()
        .map(|interface| {
            let mut tap = open(&mut netlink, &interface)?;
            if asks_resolver {
                tap.ask_resolver()?;
            }
            Ok(tap)
        })
        .collect()
}

/// Opens the tap of a name, which must be there and up.
///
/// # Errors
/// If it is not, is no tap, or somebody else uses it.
pub fn open_tap(name: &str) -> Result<Tap> {
    let mut netlink = Netlink::open()?;
    let failed = |problem: &str| Error::Network {
        interface: name.to_owned(),
        problem: problem.to_owned(),
    };
    let interface = interfaces::find(&mut netlink, name)?
        .ok_or_else(|| failed("it is not there; make it: ip tuntap add NAME mode tap"))?;
    if interface.way != Way::Open {
        return Err(failed("it is no tap"));
    }
    if !interface.is_up {
        return Err(failed("it is down; set it up: ip link set NAME up"));
    }
    open(&mut netlink, &interface)
}

fn open(netlink: &mut Netlink, interface: &Interface) -> Result<Tap> {
    let mut config = NicConfig {
        interface: interface.name.clone(),
        mac: interface.mac,
        mtu: interface.mtu,
        addresses: interface.addresses.clone(),
        gateways: interface.gateways.clone(),
    };
    match interface.way {
        Way::Join => {
            let (tap, index) = Tap::create(config)?;
            join::join(netlink, interface, index)?;
            Ok(tap)
        }
        Way::Open => {
            // The tap's own addresses are those of its other end, the host's.
            config.mac = neighbour(interface.mac);
            config.addresses.clear();
            config.gateways.clear();
            Tap::open(config)
        }
    }
}

/// A link-layer address for the guest's end of a tap: locally administered, and always the same
/// for the same tap.
fn neighbour(mut mac: [u8; 6]) -> [u8; 6] {
    let [first, .., last] = &mut mac;
    *first = (*first | 0x02) & !0x01;
    *last ^= 0x01;
    mac
}

#[cfg(test)]
mod tests {
    use super::neighbour;

    #[test]
    fn the_guests_end_of_a_tap_has_an_address_of_its_own() {
        let mac = [0x02, 1, 2, 3, 4, 5];
        assert_eq!(neighbour(mac), [0x02, 1, 2, 3, 4, 4]);
        assert_ne!(neighbour([0; 6]), [0; 6]);
    }
}

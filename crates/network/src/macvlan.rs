//! Workloads on a network of the host's surroundings: interfaces with hardware addresses of their
//! own on an interface of the host (macvlan). There is no bridge, no translation and no rule of
//! ours; and the host itself does not reach them by that interface, which is how the kernel does it.

use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use crate::address::MacAddress;
use crate::endpoint::{self, Endpoint, EndpointConfig};
use crate::error::{Error, Result};
use crate::link::{self, MacvlanLink};
use crate::namespace::NetworkNamespace;
use crate::netlink::NetlinkSocket;

/// Who reaches whom among the workloads on one parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Each other, directly.
    #[default]
    Bridge,
    /// Nobody each other.
    Private,
    /// Each other by way of a switch outside that sends back (IEEE 802.1Qbg).
    Vepa,
    /// One workload only, which has the parent to itself.
    Passthru,
}

/// Where interfaces hang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacvlanConfig {
    /// Name of the host's interface.
    pub parent: String,
    /// Who reaches whom.
    pub mode: MacvlanMode,
    /// Size of the largest packet in bytes, without one the parent's.
    pub mtu: Option<u32>,
}

impl MacvlanConfig {
    /// Refuses a parent on which nothing can hang.
    ///
    /// # Errors
    /// `NotFound` if there is none, `InvalidArgument` for the loopback interface; the kernel's.
    pub fn check(&self) -> Result<()> {
        self.parent(&mut NetlinkSocket::route()?).map(drop)
    }

    /// The size of the largest packet in bytes.
    ///
    /// # Errors
    /// As [`MacvlanConfig::check`].
    pub fn mtu(&self) -> Result<u32> {
        let parent = self.parent(&mut NetlinkSocket::route()?)?;
        Ok(self.mtu.unwrap_or(parent.mtu))
    }

    fn parent(&self, socket: &mut NetlinkSocket) -> Result<link::Link> {
        if self.parent == "lo" {
            return Err(Error::InvalidArgument(
                "invalid parent lo: nothing can hang on the loopback interface".to_owned(),
            ));
        }
        link::find(socket, &self.parent)?.ok_or_else(|| {
            Error::NotFound(format!(
                "the parent interface {} does not exist on this host: make it first, or name another by -o parent=NAME",
                self.parent
            ))
        })
    }
}

/// Gives a namespace, which may be a running workload's, an interface on a parent in the calling
/// thread's namespace. On failure there is no such interface.
///
/// # Errors
/// Those of [`MacvlanConfig::check`], `InvalidArgument` for a group hardware address; the kernel's
/// otherwise, `Unsupported` if it has no macvlan.
pub fn plug_macvlan(
    namespace: &NetworkNamespace,
    config: &MacvlanConfig,
    interface: &str,
    endpoint: &EndpointConfig,
) -> Result<Endpoint> {
    if endpoint.bandwidth.ingress_bits_per_second.is_some() {
        return Err(Error::Unsupported(
            "a limit of what a macvlan interface receives is not supported yet: it has no end on the host"
                .to_owned(),
        ));
    }
    let mut socket = NetlinkSocket::route()?;
    let parent = config.parent(&mut socket)?;
    let mac = endpoint
        .mac
        .unwrap_or_else(|| MacAddress::from_ipv4(endpoint.address));
    let mtu = config.mtu.unwrap_or(parent.mtu);
    let made = socket.execute(vec![link::create_macvlan(&MacvlanLink {
        parent: parent.index,
        mode: config.mode,
        name: interface,
        namespace: namespace.as_fd(),
        mac,
        mtu,
    })]);
    if let Err(error) = made {
        return Err(match error.errno() {
            Some(libc::EOPNOTSUPP) => Error::Unsupported(format!(
                "the kernel has no macvlan (module macvlan), or {} cannot carry it",
                config.parent
            )),
            Some(libc::EBUSY) => Error::Conflict(format!(
                "the parent interface {} is taken: by a bridge, or by another network in another mode",
                config.parent
            )),
            _ => error,
        });
    }
    let set_up = namespace.inside(|| {
        let mut socket = NetlinkSocket::route()?;
        let made = link::find(&mut socket, interface)?
            .ok_or_else(|| Error::NotFound(format!("interface {interface} is gone already")))?;
        endpoint::prepare_ipv6(interface, endpoint.ipv6.is_some())?;
        socket.execute(vec![link::bring_up(made.index)])?;
        endpoint::settle(&mut socket, made.index, endpoint)?;
        endpoint::apply_sysctls(endpoint)
    });
    if let Err(error) = set_up {
        if let Err(error) = unplug(namespace, interface) {
            tracing::warn!(%error, "a half connected interface could not be removed");
        }
        return Err(error);
    }
    Ok(Endpoint {
        network: config.parent.clone(),
        host_interface: String::new(),
        host_index: 0,
        interface: interface.to_owned(),
        mac,
        address: endpoint.address,
        prefix: endpoint.prefix,
        gateway: endpoint.gateway,
        ipv6: endpoint.ipv6,
        mtu,
    })
}

/// Removes an interface of a namespace. Returns whether there was one.
///
/// # Errors
/// The kernel's.
pub fn unplug(namespace: &NetworkNamespace, interface: &str) -> Result<bool> {
    namespace.inside(|| {
        let mut socket = NetlinkSocket::route()?;
        match link::find(&mut socket, interface)? {
            None => Ok(false),
            Some(found) => socket
                .execute(vec![link::delete(found.index, interface)])
                .map(|()| true),
        }
    })
}

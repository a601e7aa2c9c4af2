//! Ports of the host, where the engine's network is not the host's: an ordinary user's engine.

use crate::error::{Error, Result};
use gamut_network::{Protocol, Published, Target};
use gamut_rootless::forward::{Forward, Forwards};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

type ById = BTreeMap<String, Vec<Forward>>;

/// The ports of the host that lead to ports published in the engine's own network.
#[derive(Debug)]
pub(crate) struct HostPorts {
    forwards: Forwards,
    held: Mutex<ById>,
}

fn failed(error: &gamut_rootless::Error) -> Error {
    Error::new(error.kind(), gamut_spec::error::chain(error))
}

fn all(held: &ById) -> Vec<Forward> {
    held.values().flatten().copied().collect()
}

/// Of IPv4 only: nothing else is published where the engine's network is not the host's.
fn forwards(target: Target, ports: &[Published]) -> Vec<Forward> {
    let Some(address) = target.ipv4 else {
        return Vec::new();
    };
    ports
        .iter()
        .filter_map(|port| {
            let protocol = match port.protocol {
                Protocol::Tcp => gamut_rootless::Protocol::Tcp,
                Protocol::Udp => gamut_rootless::Protocol::Udp,
                Protocol::Sctp => return None,
            };
            let IpAddr::V4(host_address) = port.host_ip else {
                return None;
            };
            Some(Forward {
                protocol,
                host_address,
                host_port: port.host_port,
                target: SocketAddrV4::new(address, port.container_port),
            })
        })
        .collect()
}

impl HostPorts {
    /// Those of the engine with this run directory.
    pub fn new(run_root: &Path) -> Self {
        Self {
            forwards: Forwards::new(run_root),
            held: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ById> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads ports of the host to a container.
    ///
    /// # Errors
    /// `Conflict` if one is taken, `Forbidden` if the user may not have it; nothing has changed.
    pub fn publish(&self, id: &str, target: Target, ports: &[Published]) -> Result<()> {
        let mut held = self.lock();
        held.insert(id.to_owned(), forwards(target, ports));
        self.forwards.replace(all(&held)).map_err(|error| {
            held.remove(id);
            failed(&error)
        })
    }

    /// Gives a container's ports back.
    pub fn unpublish(&self, id: &str) {
        let mut held = self.lock();
        if held.remove(id).is_some()
            && let Err(error) = self.forwards.restore(all(&held))
        {
            tracing::warn!(container = id, error = %gamut_spec::error::chain(&error), "cannot give back ports of the host");
        }
    }

    /// Takes over what containers of an earlier daemon have published.
    pub fn restore<'a>(&self, live: impl Iterator<Item = (&'a str, Target, Vec<Published>)>) {
        let mut held = self.lock();
        *held = live
            .map(|(id, target, ports)| (id.to_owned(), forwards(target, &ports)))
            .collect();
        match self.forwards.restore(all(&held)) {
            Ok(refused) => {
                for message in refused {
                    tracing::warn!("a published port is lost: {message}");
                }
            }
            Err(error) => {
                tracing::error!(error = %gamut_spec::error::chain(&error), "cannot publish ports");
            }
        }
    }

    /// Forgets what nobody holds; makes the forwarder agree.
    pub fn reconcile(&self, ids: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut held = self.lock();
        held.retain(|id, _| ids.contains(id));
        self.forwards
            .restore(all(&held))
            .map_err(|error| failed(&error))
    }
}

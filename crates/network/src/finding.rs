//! What a check may find.

use std::fmt;

/// Something that is not as it should be, and that reconciling repairs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The bridge is missing, down, or without its address.
    BridgeDamaged {
        /// Its name.
        bridge: String,
    },
    /// The nftables table is missing or lacks rules.
    FirewallDamaged {
        /// Its name.
        table: String,
    },
    /// An interface of ours that no live workload owns.
    StaleInterface {
        /// Its host-side name.
        interface: String,
    },
    /// The interface of a live workload is on no bridge.
    InterfaceDetached {
        /// Its host-side name.
        interface: String,
    },
    /// Ports are published for a workload that does not live.
    StalePublication {
        /// The workload's id.
        container_id: String,
    },
    /// The firewall's maps differ from the publications.
    PublicationsDamaged {
        /// How many entries are missing, changed or in excess.
        entries: usize,
    },
    /// Another process took a published host port while no daemon was running. The publication
    /// stays in force; that process gets no traffic from outside.
    PortTakenByOther {
        /// The workload's id.
        container_id: String,
        /// The host port.
        port: u16,
        /// What the kernel said.
        cause: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BridgeDamaged { bridge } => {
                write!(f, "bridge {bridge} is missing, down or without its address")
            }
            Self::FirewallDamaged { table } => {
                write!(f, "nftables table {table} is missing or incomplete")
            }
            Self::StaleInterface { interface } => {
                write!(f, "interface {interface} belongs to no live workload")
            }
            Self::InterfaceDetached { interface } => {
                write!(
                    f,
                    "interface {interface} of a live workload is on no bridge"
                )
            }
            Self::StalePublication { container_id } => {
                write!(
                    f,
                    "ports are published for {container_id}, which does not live"
                )
            }
            Self::PublicationsDamaged { entries } => {
                write!(
                    f,
                    "{entries} entries of published ports are missing, changed or in excess"
                )
            }
            Self::PortTakenByOther {
                container_id,
                port,
                cause,
            } => write!(
                f,
                "host port {port} of {container_id} was taken by another process meanwhile: {cause}"
            ),
        }
    }
}

//! What the store keeps about a container.

use super::spec::{ContainerSpec, EndpointSpec, NetworkMode, PublishedPort, RecursiveReadonly};
use super::user_namespace::IdRange;
use crate::health::Health;
use crate::networking::record::BRIDGE;
use gamut_abi::status::ExitStatus;
use gamut_network::Ipv6Place;
use gamut_spec::isolation::IsolationLevel;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::Ipv4Addr;

/// Version of [`ContainerRecord`] on disk.
pub const RECORD_VERSION: u32 = 1;

/// A container: what was asked for, what was made of it, and how it fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Id, 64 hexadecimal digits.
    pub id: String,
    /// Name without the slash.
    pub name: String,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// Who made it, through what, and why.
    pub provenance: Provenance,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// The level of isolation that it has.
    #[serde(default = "first_level")]
    pub level: IsolationLevel,
    /// Id of the image (digest of its configuration).
    pub image_id: String,
    /// What will be executed, with the image's defaults worked in.
    pub process: ResolvedProcess,
    /// Mounts with volumes resolved.
    pub mounts: Vec<ResolvedMount>,
    /// A user wants it to run: true from a start to a stop. Decides restarts at boot.
    pub should_run: bool,
    /// Removal has begun and must be finished.
    pub removing: bool,
    /// Its anonymous volumes are to go with it.
    #[serde(default)]
    pub removing_volumes: bool,
    /// The ids of the machine that its own are; none where they are the engine's.
    #[serde(default)]
    pub ids: Option<IdRange>,
    /// Its places in networks, whether it runs or not. `None` in records of versions that knew the
    /// default network only; see [`ContainerRecord::endpoints`].
    #[serde(default)]
    pub endpoints: Option<Vec<EndpointSpec>>,
    /// What it holds in networks while it runs, in the order of its interfaces.
    #[serde(default, alias = "lease", deserialize_with = "one_or_many")]
    pub leases: Vec<Lease>,
    /// How it fared.
    pub state: RecordedState,
}

/// Records of earlier versions hold one lease or none.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Lease>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Leases {
        Many(Vec<Lease>),
        One(Lease),
    }
    Ok(match Option::<Leases>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Leases::One(lease)) => vec![lease],
        Some(Leases::Many(leases)) => leases,
    })
}

impl ContainerRecord {
    /// Its places in networks. None for one that shares a network or has none.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointSpec> {
        match (&self.endpoints, &self.spec.network) {
            (Some(endpoints), _) => endpoints.clone(),
            (None, NetworkMode::Bridge) => vec![EndpointSpec {
                network: BRIDGE.to_owned(),
                network_id: crate::networking::record::predefined_id(BRIDGE),
                address: self.spec.address,
                mac_address: self.spec.mac_address.clone(),
                ..EndpointSpec::default()
            }],
            (None, _) => Vec::new(),
        }
    }

    /// Ports as really published.
    pub fn published(&self) -> impl Iterator<Item = &PublishedPort> {
        self.leases.iter().flat_map(|lease| &lease.ports)
    }

    /// What it holds in a network while it runs.
    #[must_use]
    pub fn lease_in(&self, network_id: &str) -> Option<&Lease> {
        self.leases
            .iter()
            .find(|lease| lease.network_id == network_id)
    }
}

/// What records of a time had that knew one level only.
fn first_level() -> IsolationLevel {
    IsolationLevel::Container
}

/// Who made an object, through what, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// User id of the API's peer.
    pub uid: u32,
    /// The client's own name (User-Agent).
    pub client: String,
    /// The label `gamut.purpose`, if given.
    pub purpose: String,
}

/// The process with the image's defaults worked in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedProcess {
    /// Program and arguments.
    pub args: Vec<String>,
    /// How many of `args` come from the entry point.
    pub entrypoint_length: usize,
    /// Environment.
    pub environment: Vec<String>,
    /// Working directory.
    pub working_directory: String,
    /// `user[:group]`.
    pub user: String,
    /// Stop signal number.
    pub stop_signal: i32,
}

/// A mount with its volume resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedMount {
    /// Where in the container.
    pub destination: String,
    /// `bind`, `volume` or `tmpfs`.
    pub kind: MountKind,
    /// Path on the host; empty for a tmpfs.
    pub source: String,
    /// Name of the volume, if one.
    pub volume: Option<String>,
    /// The volume is anonymous and was made for this container.
    pub anonymous: bool,
    /// Read-only.
    pub readonly: bool,
    /// Propagation word; empty for the default.
    pub propagation: String,
    /// tmpfs options, or empty.
    pub options: String,
    /// Leave the mounts below the source out.
    pub non_recursive: bool,
    /// Copy the image's content into the volume at the first start.
    pub copy_up: bool,
    /// Its files show the ids of the inside.
    #[serde(default)]
    pub idmap: bool,
    /// What of the source is mounted, relative to it; empty for all.
    #[serde(default)]
    pub subpath: String,
    /// Whether a read-only mount makes the mounts below it read-only too.
    #[serde(default)]
    pub recursive_readonly: RecursiveReadonly,
    /// The options of a `-v` argument, only shown.
    #[serde(default)]
    pub mode: String,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume,
    /// A tmpfs.
    Tmpfs,
}

impl MountKind {
    /// Its word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// What a running container holds in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Id of the network.
    #[serde(default = "default_network_id")]
    pub network_id: String,
    /// Name of the interface inside.
    #[serde(default = "first_interface")]
    pub interface: String,
    /// Address on the bridge.
    pub address: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Gateway, if the network has a way out.
    pub gateway: Option<Ipv4Addr>,
    /// MAC address.
    pub mac: String,
    /// Host end of the veth pair.
    pub host_interface: String,
    /// Ports as really published by it.
    pub ports: Vec<PublishedPort>,
    /// Its IPv6 address, if the network has such.
    #[serde(default)]
    pub ipv6: Option<Ipv6Place>,
}

fn default_network_id() -> String {
    crate::networking::record::predefined_id(BRIDGE)
}

fn first_interface() -> String {
    "eth0".to_owned()
}

/// How a container fared, as last heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedState {
    /// Where it stands.
    pub phase: Phase,
    /// Process id of the first process, 0 if none.
    pub pid: u32,
    /// Last start, nanoseconds since the epoch, 0 if never.
    pub started_ns: u64,
    /// Last end.
    pub exit: Option<ExitRecord>,
    /// Restarts by policy.
    pub restart_count: u32,
    /// Why it could not be started.
    pub error: String,
    /// Boot id of the machine it last ran on.
    pub boot_id: String,
    /// Start and end times of the last runs, newest last, at most sixteen.
    pub history: Vec<(u64, u64)>,
    /// What its health check says, if it has one and was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Made, never started.
    #[default]
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// To be started again by policy.
    Restarting,
    /// Ended.
    Exited,
    /// Cannot be used any more (its removal failed half-way).
    Dead,
}

impl Phase {
    /// Docker's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a supervisor should be alive.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code, 128 + signal for a killed process.
    pub code: i32,
    /// The kernel killed something for want of memory.
    pub out_of_memory: bool,
    /// When, in nanoseconds since the epoch.
    pub finished_ns: u64,
}

impl From<ExitStatus> for ExitRecord {
    fn from(exit: ExitStatus) -> Self {
        Self {
            code: exit.code,
            out_of_memory: exit.out_of_memory,
            finished_ns: exit.finished_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_earlier_versions_are_read() {
        #[derive(Deserialize)]
        struct Part {
            #[serde(default, alias = "lease", deserialize_with = "one_or_many")]
            leases: Vec<Lease>,
        }
        let read = |text: &str| serde_json::from_str::<Part>(text).unwrap().leases;
        let old = r#"{"lease":{"address":"172.29.0.2","prefix":16,"gateway":"172.29.0.1",
            "mac":"02:42:ac:1d:00:02","host_interface":"gv00000001","ports":[]}}"#;
        let [lease] = &read(old)[..] else {
            panic!("one lease");
        };
        assert_eq!(lease.network_id, default_network_id());
        assert_eq!(lease.interface, "eth0");
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(172, 29, 0, 1)));
        assert!(read(r#"{"lease":null}"#).is_empty());
        assert!(read("{}").is_empty());
        let new = serde_json::to_string(&vec![lease.clone(), lease.clone()]).unwrap();
        assert_eq!(read(&format!(r#"{{"leases":{new}}}"#)).len(), 2);
    }
}

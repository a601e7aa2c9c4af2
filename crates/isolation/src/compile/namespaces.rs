//! `linux.namespaces`, id mappings and time offsets.

use super::field::{absolute, invalid};
use super::{CompileOptions, Network};
use crate::contract::RootSource;
use crate::error::Error;
use gamut_abi::plan::{
    IdMapping, Namespace, NamespaceKind, NamespaceSource, NetworkDevice, TimeOffset,
};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};
use std::os::fd::OwnedFd;

/// Lines the kernel takes in one `uid_map` (user_namespaces(7)).
const MAX_ID_MAPPINGS: usize = 340;

/// What the rest of the compilation needs to know about the namespaces.
pub(super) struct Namespaces {
    pub(super) list: Vec<Namespace>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// The network namespace is (or may be) the host's.
    pub(super) host_network: bool,
}

impl Namespaces {
    /// The container does not share this kind with the supervisor.
    pub(super) fn has(&self, kind: NamespaceKind) -> bool {
        self.list.iter().any(|namespace| namespace.kind == kind)
    }

    /// The path by which a namespace of this kind is joined.
    pub(super) fn path(&self, kind: NamespaceKind) -> Option<&str> {
        self.list
            .iter()
            .find_map(|namespace| match &namespace.source {
                NamespaceSource::Path(path) if namespace.kind == kind => Some(path.as_str()),
                _ => None,
            })
    }

    /// This kind is made for the container.
    pub(super) fn is_new(&self, kind: NamespaceKind) -> bool {
        self.list
            .iter()
            .any(|namespace| namespace.kind == kind && namespace.source == NamespaceSource::New)
    }
}

fn kind(kind: LinuxNamespaceType) -> NamespaceKind {
    match kind {
        LinuxNamespaceType::Mount => NamespaceKind::Mount,
        LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
        LinuxNamespaceType::Uts => NamespaceKind::Uts,
        LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
        LinuxNamespaceType::User => NamespaceKind::User,
        LinuxNamespaceType::Pid => NamespaceKind::Pid,
        LinuxNamespaceType::Network => NamespaceKind::Network,
        LinuxNamespaceType::Time => NamespaceKind::Time,
    }
}

/// Compiles the list of namespaces; the sandbox's network wins over one without a path.
pub(super) fn namespaces(linux: &Linux, options: &mut CompileOptions) -> Result<Namespaces, Error> {
    let mut list: Vec<Namespace> = Vec::new();
    let mut network_path = None;
    for (index, entry) in linux.namespaces().iter().flatten().enumerate() {
        let kind = kind(entry.typ());
        if list.iter().any(|namespace| namespace.kind == kind) {
            return Err(invalid(
                format!("linux.namespaces[{index}].type"),
                format!("a second namespace of kind {}", entry.typ()),
            ));
        }
        let source = match entry.path() {
            Some(path) if !path.as_os_str().is_empty() => {
                let field = format!("linux.namespaces[{index}].path");
                if kind == NamespaceKind::Mount {
                    return Err(invalid(
                        field,
                        "joining a mount namespace is not supported; leave the path out",
                    ));
                }
                if kind == NamespaceKind::Network {
                    network_path = Some((field.clone(), path.clone()));
                }
                NamespaceSource::Path(absolute(&field, path)?)
            }
            _ => NamespaceSource::New,
        };
        list.push(Namespace { kind, source });
    }
    shares_mounts(&list, linux, options)?;
    let (host_network, descriptors) = network(&mut list, network_path, options)?;
    Ok(Namespaces {
        list,
        descriptors,
        host_network,
    })
}

/// Checks a container that shares the caller's mounts: what is made for it there must be one tree
/// below the root's own directory, which can be taken away as a whole.
fn shares_mounts(list: &[Namespace], linux: &Linux, options: &CompileOptions) -> Result<(), Error> {
    let has = |kind| list.iter().any(|namespace| namespace.kind == kind);
    if has(NamespaceKind::Mount) {
        return Ok(());
    }
    let way_out = "add {\"type\": \"mount\"} to linux.namespaces";
    if !matches!(options.root, RootSource::Directory(_)) || has(NamespaceKind::User) {
        let problem = "a container like this needs a mount namespace of its own";
        return Err(invalid("linux.namespaces", format!("{problem}; {way_out}")));
    }
    for (field, paths) in [
        ("linux.maskedPaths", linux.masked_paths()),
        ("linux.readonlyPaths", linux.readonly_paths()),
    ] {
        if paths.as_ref().is_some_and(|paths| !paths.is_empty()) {
            let problem = "unable to restrict sys entries without a private MNT namespace";
            return Err(invalid(field, format!("{problem}; {way_out}")));
        }
    }
    Ok(())
}

/// Joins what the sandbox says about the network with what the configuration says.
fn network(
    list: &mut Vec<Namespace>,
    path: Option<(String, std::path::PathBuf)>,
    options: &mut CompileOptions,
) -> Result<(bool, Vec<OwnedFd>), Error> {
    match (
        core::mem::replace(&mut options.network, Network::Config),
        path,
    ) {
        (Network::Config | Network::Host, Some((_, path))) => {
            Ok(((options.is_host_network)(&path), Vec::new()))
        }
        (Network::Config, None) => {
            let has = list
                .iter()
                .any(|namespace| namespace.kind == NamespaceKind::Network);
            Ok((!has, Vec::new()))
        }
        (Network::Host, None) => {
            list.retain(|namespace| namespace.kind != NamespaceKind::Network);
            Ok((true, Vec::new()))
        }
        (Network::Descriptor(_), Some((field, path))) => Err(invalid(
            field,
            format!(
                "{} contradicts the network of the sandbox; leave the path out",
                path.display()
            ),
        )),
        (Network::Descriptor(descriptor), None) => {
            list.retain(|namespace| namespace.kind != NamespaceKind::Network);
            list.push(Namespace {
                kind: NamespaceKind::Network,
                source: NamespaceSource::Descriptor(0),
            });
            Ok((false, vec![descriptor]))
        }
    }
}

/// Compiles one list of id mappings, checking what the kernel would refuse without a reason.
pub(super) fn id_mappings(
    field: &str,
    mappings: Option<&[LinuxIdMapping]>,
    namespaces: &Namespaces,
) -> Result<Vec<IdMapping>, Error> {
    let mappings = mappings.unwrap_or_default();
    if !namespaces.is_new(NamespaceKind::User) {
        return if mappings.is_empty() {
            Ok(Vec::new())
        } else {
            Err(invalid(
                field,
                "id mappings need a new user namespace; add {\"type\": \"user\"} without a path",
            ))
        };
    }
    if mappings.is_empty() {
        return Err(invalid(
            field,
            "a new user namespace needs at least one id mapping",
        ));
    }
    id_mapping_list(field, mappings)
}

/// Checks and compiles the lines of a mapping.
pub(super) fn id_mapping_list(
    field: &str,
    mappings: &[LinuxIdMapping],
) -> Result<Vec<IdMapping>, Error> {
    if mappings.len() > MAX_ID_MAPPINGS {
        return Err(invalid(
            field,
            format!(
                "{} mappings; the kernel takes {MAX_ID_MAPPINGS}",
                mappings.len()
            ),
        ));
    }
    let mut compiled: Vec<IdMapping> = Vec::with_capacity(mappings.len());
    for (index, mapping) in mappings.iter().enumerate() {
        let entry = format!("{field}[{index}]");
        let new = IdMapping {
            container_id: mapping.container_id(),
            host_id: mapping.host_id(),
            size: mapping.size(),
        };
        if new.size == 0 {
            return Err(invalid(format!("{entry}.size"), "must not be 0"));
        }
        if new.container_id.checked_add(new.size).is_none()
            || new.host_id.checked_add(new.size).is_none()
        {
            return Err(invalid(entry, "goes beyond the largest id, 4294967294"));
        }
        if let Some(other) = compiled.iter().position(|old| overlap(old, &new)) {
            return Err(invalid(entry, format!("overlaps with {field}[{other}]")));
        }
        compiled.push(new);
    }
    Ok(compiled)
}

/// The two mappings share an id inside or outside. Neither range wraps around.
fn overlap(a: &IdMapping, b: &IdMapping) -> bool {
    let ranges_meet =
        |a_start: u32, b_start: u32| a_start < b_start + b.size && b_start < a_start + a.size;
    ranges_meet(a.container_id, b.container_id) || ranges_meet(a.host_id, b.host_id)
}

/// Longest name of an interface in bytes (Linux `IFNAMSIZ`, less the NUL).
const MAX_INTERFACE_BYTES: usize = 15;

fn interface(field: &str, name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    if name.is_empty()
        || name.len() > MAX_INTERFACE_BYTES
        || matches!(name, "." | "..")
        || !name.bytes().all(plain)
    {
        return Err(invalid(
            field,
            format!("{name:?} is not the name of a network interface"),
        ));
    }
    Ok(())
}

/// Compiles `linux.netDevices`, sorted by the names on the host.
pub(super) fn network_devices(
    linux: &Linux,
    namespaces: &Namespaces,
) -> Result<Vec<NetworkDevice>, Error> {
    let mut compiled: Vec<NetworkDevice> = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let field = format!("linux.netDevices.{name}");
        if namespaces.host_network {
            return Err(invalid(
                field,
                "needs a network namespace of the container's own, not the host's",
            ));
        }
        interface(&field, name)?;
        let container_name = match device.name().as_deref() {
            None | Some("") => name,
            Some(new) => {
                interface(&format!("{field}.name"), new)?;
                new
            }
        };
        if compiled
            .iter()
            .any(|other| other.container_name == *container_name)
        {
            return Err(invalid(
                format!("{field}.name"),
                format!("{container_name:?} is already another interface of the container"),
            ));
        }
        compiled.push(NetworkDevice {
            name: name.clone(),
            container_name: container_name.to_owned(),
        });
    }
    compiled.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(compiled)
}

/// Compiles `linux.timeOffsets`.
pub(super) fn time_offsets(
    linux: &Linux,
    namespaces: &Namespaces,
) -> Result<Vec<TimeOffset>, Error> {
    let Some(offsets) = linux
        .time_offsets()
        .as_ref()
        .filter(|offsets| !offsets.is_empty())
    else {
        return Ok(Vec::new());
    };
    if !namespaces.is_new(NamespaceKind::Time) {
        return Err(invalid(
            "linux.timeOffsets",
            "time offsets need a new time namespace; add {\"type\": \"time\"} without a path",
        ));
    }
    let mut compiled = Vec::new();
    for (clock, offset) in offsets {
        let field = format!("linux.timeOffsets.{clock}");
        let boottime = match clock.as_str() {
            "boottime" => true,
            "monotonic" => false,
            _ => return Err(invalid(field, "unknown clock; use monotonic or boottime")),
        };
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return Err(invalid(
                format!("{field}.nanosecs"),
                "must be below 1000000000",
            ));
        }
        compiled.push(TimeOffset {
            boottime,
            seconds: offset.secs().unwrap_or(0),
            nanoseconds,
        });
    }
    compiled.sort_by_key(|offset| offset.boottime);
    Ok(compiled)
}

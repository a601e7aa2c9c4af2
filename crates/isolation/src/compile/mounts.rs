//! `mounts`.

use super::CompileOptions;
use super::field::{absolute, invalid, lexically_clean, path_text};
use super::mount_options::{Options, READ_ONLY};
use super::namespaces::id_mapping_list;
use crate::contract::RootSource;
use crate::error::Error;
use gamut_abi::plan::{Mount, MountIdmap, MountKind};
use oci_spec::runtime::{LinuxIdMapping, Mount as OciMount};
use std::path::Path;

/// Places below `/proc` that may be mounted over, as lxcfs and nested containers do. Anything
/// else there could hide from the runtime what it writes its security settings to.
const MOUNTABLE_IN_PROC: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/random/uuid",
    "/proc/uptime",
];

/// File systems without a device, whose instances need no `ro` of their own below a read-only
/// mount.
const VIRTUAL: [&str; 9] = [
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "devpts",
    "mqueue",
    "overlay",
    "securityfs",
    "tracefs",
];

/// Options of the whole file system that are also flags of mount(2).
const SUPERBLOCK_FLAGS: [&str; 10] = [
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "acl",
];

/// Option of a bind that mounts a part of its source, looked up without leaving the source; a word
/// of our own in the form that mount(8) keeps free ("x-").
pub const SUBPATH_OPTION: &str = "x-gamut.subpath";

/// What a mount depends on besides itself.
struct Context<'a> {
    options: &'a CompileOptions,
    has_user_namespace: bool,
}

/// Compiles the list of mounts, in its order.
pub(super) fn mounts(
    list: &[OciMount],
    options: &CompileOptions,
    has_user_namespace: bool,
) -> Result<Vec<Mount>, Error> {
    let context = Context {
        options,
        has_user_namespace,
    };
    list.iter()
        .enumerate()
        .map(|(index, mount)| compile_mount(&format!("mounts[{index}]"), mount, &context))
        .collect()
}

/// Whether the host's own directory is mounted over `/dev`, so that nothing may be made in it.
pub(super) fn binds_dev(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        matches!(mount.kind, MountKind::Bind { .. })
            && lexically_clean(&mount.destination) == "/dev"
    })
}

fn compile_mount(entry: &str, mount: &OciMount, context: &Context<'_>) -> Result<Mount, Error> {
    let destination = destination(&format!("{entry}.destination"), mount, context.options)?;
    let place = lexically_clean(&destination);
    if place == "/" {
        return Err(invalid(
            format!("{entry}.destination"),
            "would hide the whole root file system; use root.path instead",
        ));
    }
    let options_field = format!("{entry}.options");
    let mut words = Options::parse(
        &options_field,
        mount.options().as_deref().unwrap_or_default(),
    )?;
    let fstype = mount.typ().as_deref().unwrap_or_default();
    let bind = words.bind.or_else(|| (fstype == "bind").then_some(false));
    let kind = match (bind, fstype) {
        (Some(recursive), _) => bind_kind(entry, mount, &words, recursive, context.options)?,
        (None, "cgroup" | "cgroup2") => {
            refuse_data(&options_field, &words, "the view of control groups")?;
            // As runc: one lays out what the host has, the other is the one file system.
            if fstype == "cgroup" {
                MountKind::Cgroup
            } else {
                MountKind::CgroupUnified
            }
        }
        (None, "" | "none") => {
            return Err(invalid(
                format!("{entry}.type"),
                "is missing; name a file system, or add the option bind or rbind",
            ));
        }
        (None, fstype) => filesystem_kind(entry, mount, &words, fstype)?,
    };
    if words.copy_up && !matches!(&kind, MountKind::Filesystem { copy_up: true, .. }) {
        return Err(invalid(options_field, "tmpcopyup is for a tmpfs only"));
    }
    check_proc(entry, &place, &kind)?;
    let single = !matches!(
        kind,
        MountKind::Bind {
            recursive: true,
            ..
        }
    );
    let is_bind = matches!(kind, MountKind::Bind { .. });
    let exact = (is_bind && context.options.exact_bind_flags).then(|| words.exact());
    let (attributes, recursive) = words.joined_attributes(single);
    let idmap = idmap(entry, mount, &words, &kind, context)?;
    Ok(Mount {
        destination,
        kind,
        attributes_set: attributes.set,
        attributes_clear: attributes.clear,
        attributes_recursive: false,
        implied_clear: exact
            .flatten()
            .map(|implied| implied & !attributes.set & !attributes.clear),
        // Without a word it follows `linux.rootfsPropagation`, private by default: what the container
        // mounts must not appear on the host.
        propagation: words.propagation,
        recursive_attributes: recursive.map(|attributes| (attributes.set, attributes.clear)),
        idmap,
    })
}

/// How the ids of a bind are mapped: by its own mappings, or as the container's user namespace.
fn idmap(
    entry: &str,
    mount: &OciMount,
    words: &Options,
    kind: &MountKind,
    context: &Context<'_>,
) -> Result<Option<MountIdmap>, Error> {
    let listed = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let (has_uids, has_gids) = (listed(mount.uid_mappings()), listed(mount.gid_mappings()));
    if !has_uids && !has_gids && words.idmap.is_none() {
        return Ok(None);
    }
    let field = |name: &str| format!("{entry}.{name}");
    if !matches!(kind, MountKind::Bind { .. }) {
        let at = if words.idmap.is_some() {
            "options"
        } else {
            "uidMappings"
        };
        return Err(invalid(
            field(at),
            "ids are mapped for bind mounts only; a new file system belongs to the container's \
             user namespace anyway",
        ));
    }
    if has_uids != has_gids {
        let missing = if has_uids {
            "gidMappings"
        } else {
            "uidMappings"
        };
        return Err(invalid(
            field(missing),
            "is needed as well: user and group ids are mapped together",
        ));
    }
    if !has_uids && !context.has_user_namespace {
        return Err(invalid(
            field("options"),
            "idmap without mappings follows the container's user namespace, and there is none; \
             give uidMappings and gidMappings",
        ));
    }
    let list = |name: &str, list: &Option<Vec<LinuxIdMapping>>| {
        id_mapping_list(&field(name), list.as_deref().unwrap_or_default())
    };
    Ok(Some(MountIdmap {
        uid_mappings: list("uidMappings", mount.uid_mappings())?,
        gid_mappings: list("gidMappings", mount.gid_mappings())?,
        recursive: words.idmap.unwrap_or(false),
    }))
}

/// Where it is mounted, inside the container. A relative path is one below `/` (runtime-spec,
/// config.md, "Mounts"). One that begins with the root's own path on the host is taken without it,
/// as runc does for the sake of old callers.
fn destination(field: &str, mount: &OciMount, options: &CompileOptions) -> Result<String, Error> {
    let path = Path::new("/").join(mount.destination());
    let inside = match &options.root {
        RootSource::Directory(root) if root != Path::new("/") => path
            .strip_prefix(root)
            .map(|rest| Path::new("/").join(rest))
            .ok(),
        _ => None,
    };
    absolute(field, inside.as_deref().unwrap_or(&path))
}

fn refuse_data(field: &str, words: &Options, what: &str) -> Result<(), Error> {
    match words.data.first() {
        None => Ok(()),
        Some((index, name, _)) => Err(invalid(
            format!("{field}[{index}]"),
            format!("unknown option {name:?}; {what} takes no options of a file system"),
        )),
    }
}

/// Values for the file system (`mode=755`) have no meaning here, since it is mounted already; they
/// are passed over as mount(8) does. A word that nobody knows is refused.
fn bind_kind(
    entry: &str,
    mount: &OciMount,
    words: &Options,
    recursive: bool,
    options: &CompileOptions,
) -> Result<MountKind, Error> {
    if let Some((index, name, _)) = words.data.iter().find(|(_, _, value)| value.is_none()) {
        return Err(invalid(
            format!("{entry}.options[{index}]"),
            format!("unknown option {name:?}; a bind mount takes no options of a file system"),
        ));
    }
    let field = format!("{entry}.source");
    let Some(source) = mount
        .source()
        .as_ref()
        .filter(|source| !source.as_os_str().is_empty())
    else {
        return Err(invalid(field, "a bind mount needs a source on the host"));
    };
    let source = match &options.bundle {
        Some(bundle) => absolute(&field, &bundle.join(source))?,
        None => absolute(&field, source)?,
    };
    let subpath = subpath(entry, words)?;
    Ok(MountKind::Bind {
        source,
        recursive,
        subpath,
    })
}

/// The part of the source that is mounted, by [`SUBPATH_OPTION`].
fn subpath(entry: &str, words: &Options) -> Result<String, Error> {
    let found = words
        .data
        .iter()
        .find(|(_, name, _)| name == SUBPATH_OPTION);
    let Some((index, _, value)) = found else {
        return Ok(String::new());
    };
    let value = value.as_deref().unwrap_or_default();
    let leads_up = value.split('/').any(|part| part == "..");
    if value.is_empty() || value.starts_with('/') || leads_up {
        return Err(invalid(
            format!("{entry}.options[{index}]"),
            "a sub-path is a relative path below the source, without '..'",
        ));
    }
    Ok(value.to_owned())
}

fn filesystem_kind(
    entry: &str,
    mount: &OciMount,
    words: &Options,
    fstype: &str,
) -> Result<MountKind, Error> {
    super::field::text(&format!("{entry}.type"), fstype)?;
    let source = match mount.source() {
        Some(source) if !source.as_os_str().is_empty() => {
            path_text(&format!("{entry}.source"), source)?
        }
        _ => fstype.to_owned(),
    };
    let mut data: Vec<(String, Option<String>)> = Vec::with_capacity(words.data.len());
    for (index, name, value) in &words.data {
        if fstype == "tmpfs" {
            check_tmpfs(&format!("{entry}.options[{index}]"), name, value.as_deref())?;
        }
        data.push((name.clone(), value.clone()));
    }
    let readonly = (words.attributes.set | words.recursive_attributes.set) & READ_ONLY != 0;
    if readonly && !VIRTUAL.contains(&fstype) {
        // A device that cannot be written to is opened for reading only.
        data.push(("ro".to_owned(), None));
    }
    let copy_up = words.copy_up && fstype == "tmpfs";
    Ok(MountKind::Filesystem {
        fstype: fstype.to_owned(),
        source,
        options: data,
        copy_up,
    })
}

/// Checks an option of tmpfs(5), where the kernel's own answer would not name it.
fn check_tmpfs(field: &str, name: &str, value: Option<&str>) -> Result<(), Error> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let sized =
        |text: &str| number(text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']));
    let good = match (name, value) {
        ("size", Some(value)) => sized(value) || value.strip_suffix('%').is_some_and(number),
        ("nr_blocks" | "nr_inodes", Some(value)) => sized(value),
        ("mode", Some(value)) => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
        ("uid" | "gid", Some(value)) => value.parse::<u32>().is_ok(),
        ("huge", Some(value)) => matches!(value, "never" | "always" | "within_size" | "advise"),
        ("mpol", Some(value)) => !value.is_empty(),
        ("noswap" | "inode32" | "inode64", None) => true,
        (flag, None) => SUPERBLOCK_FLAGS.contains(&flag),
        _ => {
            return Err(invalid(
                field,
                format!("tmpfs has no option {name:?} of this form"),
            ));
        }
    };
    if good {
        return Ok(());
    }
    Err(invalid(
        field,
        match value {
            Some(value) => format!("{value:?} is not a value for tmpfs option {name}"),
            None => format!("unknown option {name:?} of tmpfs"),
        },
    ))
}

/// `/proc` is a procfs, and only harmless files of it are mounted over.
fn check_proc(entry: &str, place: &str, kind: &MountKind) -> Result<(), Error> {
    let field = format!("{entry}.destination");
    if place == "/proc" {
        let is_proc = match kind {
            MountKind::Filesystem { fstype, .. } => fstype == "proc",
            MountKind::Bind { source, .. } => lexically_clean(source) == "/proc",
            MountKind::Cgroup | MountKind::CgroupUnified => false,
        };
        return if is_proc {
            Ok(())
        } else {
            Err(invalid(
                field,
                "only a file system of type proc may be mounted at /proc",
            ))
        };
    }
    if place.starts_with("/proc/") && !MOUNTABLE_IN_PROC.contains(&place) {
        return Err(invalid(
            field,
            format!("{place} must not be mounted over: it would defeat the container's security"),
        ));
    }
    Ok(())
}

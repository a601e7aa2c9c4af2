//! Mounts of a container to be made: `HostConfig.Binds`, `.Mounts` and `.Tmpfs`.

use super::create::{null_as_default, unsupported};
use crate::error::ApiError;
use gamut_engine::container::spec::{MountSource, MountSpec, RecursiveReadonly};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireMount {
    #[serde(rename = "Type", deserialize_with = "null_as_default")]
    kind: String,
    #[serde(deserialize_with = "null_as_default")]
    source: String,
    #[serde(deserialize_with = "null_as_default")]
    target: String,
    #[serde(deserialize_with = "null_as_default")]
    read_only: bool,
    /// Gamut's own.
    #[serde(rename = "IDMap")]
    idmap: bool,
    bind_options: Option<WireBindOptions>,
    volume_options: Option<WireVolumeOptions>,
    tmpfs_options: Option<WireTmpfsOptions>,
    image_options: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireBindOptions {
    #[serde(deserialize_with = "null_as_default")]
    propagation: String,
    non_recursive: bool,
    create_mountpoint: bool,
    read_only_non_recursive: bool,
    read_only_force_recursive: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireVolumeOptions {
    no_copy: bool,
    #[serde(deserialize_with = "null_as_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    driver_config: WireDriver,
    #[serde(deserialize_with = "null_as_default")]
    subpath: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireDriver {
    #[serde(deserialize_with = "null_as_default")]
    name: String,
    #[serde(deserialize_with = "null_as_default")]
    options: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireTmpfsOptions {
    size_bytes: Option<i64>,
    mode: Option<u32>,
    #[serde(deserialize_with = "null_as_default")]
    options: Vec<Vec<String>>,
}

/// All mounts, in the engine's words.
///
/// # Errors
/// In Docker's words, for what makes no sense.
pub(super) fn into_domain(
    binds: &[String],
    mounts: Vec<Value>,
    tmpfs: BTreeMap<String, String>,
) -> Result<Vec<MountSpec>, ApiError> {
    let mut list = Vec::new();
    for text in binds {
        list.push(parse_bind(text)?);
    }
    for value in mounts {
        let text = value.to_string();
        let mount = serde_json::from_value(value)
            .map_err(|error| ApiError::invalid(format!("invalid mount config: {error}")))?;
        list.push(MountSpec {
            mount_text: text,
            ..mount_into_domain(mount)?
        });
    }
    for (destination, options) in tmpfs {
        list.push(plain(destination, MountSource::Tmpfs { options }));
    }
    Ok(list)
}

fn plain(destination: String, source: MountSource) -> MountSpec {
    MountSpec {
        destination,
        source,
        readonly: false,
        propagation: String::new(),
        idmap: false,
        no_copy: false,
        bind_text: String::new(),
        recursive_readonly: RecursiveReadonly::default(),
        mount_text: String::new(),
    }
}

/// Options of a `-v` argument, by what they are about: of each at most one.
const MODES: [&[&str]; 5] = [
    &["ro", "rw"],
    // SELinux relabelling: nothing to do where there is none.
    &["z", "Z"],
    &PROPAGATIONS,
    &["nocopy"],
    &["consistent", "cached", "delegated", "default"],
];

const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

/// `SOURCE:DESTINATION[:OPTIONS]`, where SOURCE is a path or a volume's name.
fn parse_bind(text: &str) -> Result<MountSpec, ApiError> {
    let bad =
        |reason: &str| ApiError::invalid(format!("invalid volume specification: '{text}'{reason}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, options] => (*source, *destination, *options),
        _ => return Err(bad("")),
    };
    if !destination.starts_with('/') {
        return Err(bad(&format!(
            ": invalid mount config for type \"volume\": invalid mount path: '{destination}' mount \
             path must be absolute"
        )));
    }
    if source.is_empty() && parts.len() > 1 {
        return Err(bad(""));
    }
    let is_bind = source.starts_with('/');
    let mut mount = MountSpec {
        bind_text: text.to_owned(),
        ..plain(
            destination.to_owned(),
            if is_bind {
                MountSource::Bind {
                    path: source.to_owned(),
                    create: true,
                    non_recursive: false,
                }
            } else {
                MountSource::Volume {
                    name: source.to_owned(),
                    labels: BTreeMap::new(),
                    options: BTreeMap::new(),
                    subpath: String::new(),
                }
            },
        )
    };
    let invalid = || bad(&format!(": invalid mode: {options}"));
    let mut seen = [false; MODES.len()];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let kind = MODES.iter().position(|words| words.contains(&option));
        if kind.is_some_and(|kind| std::mem::replace(&mut seen[kind], true)) {
            return Err(invalid());
        }
        match option {
            "ro" => mount.readonly = true,
            "idmap" => mount.idmap = true,
            "nocopy" if is_bind => return Err(invalid()),
            "nocopy" => mount.no_copy = true,
            word if PROPAGATIONS.contains(&word) => {
                if !is_bind {
                    return Err(invalid());
                }
                option.clone_into(&mut mount.propagation);
            }
            word if MODES.iter().any(|words| words.contains(&word)) => {}
            _ => return Err(invalid()),
        }
    }
    Ok(mount)
}

fn mount_into_domain(mount: WireMount) -> Result<MountSpec, ApiError> {
    let kind = mount.kind.clone();
    let bad = |reason: String| {
        ApiError::invalid(format!("invalid mount config for type {kind:?}: {reason}"))
    };
    if mount.target.is_empty() {
        return Err(bad("field Target must not be empty".to_owned()));
    }
    for (field, of, is_there) in [
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
        ("ImageOptions", "image", mount.image_options.is_some()),
    ] {
        if is_there && of != kind && matches!(kind.as_str(), "bind" | "volume" | "tmpfs") {
            return Err(bad(format!("field {field} must not be specified")));
        }
    }
    let bind = mount.bind_options.unwrap_or_default();
    let volume = mount.volume_options.unwrap_or_default();
    let source = match kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".to_owned()));
            }
            check_bind(&bind, mount.read_only).map_err(bad)?;
            MountSource::Bind {
                path: mount.source,
                create: bind.create_mountpoint,
                non_recursive: bind.non_recursive,
            }
        }
        "volume" => {
            if mount.source.is_empty() && mount.read_only {
                return Err(bad(
                    "must not set ReadOnly mode when using anonymous volumes".to_owned(),
                ));
            }
            check_subpath(&volume.subpath).map_err(bad)?;
            if !matches!(volume.driver_config.name.as_str(), "" | "local") {
                let driver = &volume.driver_config.name;
                return Err(ApiError::invalid(format!(
                    "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
                )));
            }
            MountSource::Volume {
                name: mount.source,
                labels: volume.labels,
                options: volume.driver_config.options,
                subpath: volume.subpath,
            }
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(bad("field Source must not be specified".to_owned()));
            }
            MountSource::Tmpfs {
                options: tmpfs_options(&mount.tmpfs_options.unwrap_or_default()).map_err(bad)?,
            }
        }
        "image" => return Err(unsupported("a mount of type image")),
        "cluster" | "npipe" => return Err(unsupported(&format!("a mount of type {kind}"))),
        _ => return Err(bad("mount type unknown".to_owned())),
    };
    Ok(MountSpec {
        readonly: mount.read_only,
        propagation: bind.propagation,
        idmap: mount.idmap,
        no_copy: volume.no_copy,
        recursive_readonly: match (bind.read_only_non_recursive, bind.read_only_force_recursive) {
            (_, true) => RecursiveReadonly::Forced,
            (true, false) => RecursiveReadonly::No,
            (false, false) => RecursiveReadonly::IfPossible,
        },
        ..plain(mount.target, source)
    })
}

fn check_bind(bind: &WireBindOptions, readonly: bool) -> Result<(), String> {
    let propagation = bind.propagation.as_str();
    if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation) {
        return Err(format!("invalid propagation mode: {propagation}"));
    }
    if !bind.read_only_force_recursive {
        return Ok(());
    }
    if !readonly || bind.non_recursive || bind.read_only_non_recursive {
        return Err(
            "ReadOnlyForceRecursive needs ReadOnly, and neither NonRecursive nor \
             ReadOnlyNonRecursive"
                .to_owned(),
        );
    }
    // What is mounted there later would be writable.
    if !matches!(propagation, "" | "private" | "rprivate") {
        return Err("ReadOnlyForceRecursive needs the propagation rprivate".to_owned());
    }
    Ok(())
}

fn check_subpath(subpath: &str) -> Result<(), String> {
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err("subpath must be a relative path within the volume".to_owned());
    }
    Ok(())
}

fn tmpfs_options(tmpfs: &WireTmpfsOptions) -> Result<String, String> {
    let mut options = Vec::new();
    match tmpfs.size_bytes.unwrap_or(0) {
        0 => {}
        size @ 1.. => options.push(format!("size={size}")),
        _ => return Err("invalid tmpfs size: must not be negative".to_owned()),
    }
    if let Some(mode) = tmpfs.mode.filter(|mode| *mode > 0) {
        options.push(format!("mode={mode:o}"));
    }
    for option in &tmpfs.options {
        match option.as_slice() {
            [flag] if matches!(flag.as_str(), "exec" | "noexec") => options.push(flag.clone()),
            [name, value] if matches!(name.as_str(), "uid" | "gid" | "nr_inodes") => {
                options.push(format!("{name}={value}"));
            }
            other => return Err(format!("invalid option: {:?}", other.join("="))),
        }
    }
    Ok(options.join(","))
}

/// Entry for fuzzing: any text is a `-v` argument or none, and any JSON a mount or none, without
/// panic.
pub fn fuzz_mounts(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse_bind(text);
    }
    if let Ok(value) = serde_json::from_slice(data) {
        let _ = into_domain(&[], vec![value], BTreeMap::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mount(value: Value) -> Result<MountSpec, ApiError> {
        into_domain(&[], vec![value], BTreeMap::new()).map(|mut list| list.remove(0))
    }

    #[test]
    fn binds() {
        let readonly = parse_bind("/a:/b:ro,Z,rslave").unwrap();
        assert!(readonly.readonly && readonly.propagation == "rslave");
        assert!(parse_bind("data:/b:nocopy,rw").unwrap().no_copy);
        for bad in [
            "relative:path",
            ":/a",
            "/a:/b:what",
            "/a:/b:ro,rw",
            "/a:/b:z,Z",
            "/a:/b:nocopy",
            "data:/b:rshared",
            "/a:/b:ro:x",
        ] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_of_each_type() {
        let part = mount(
            json!({"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions":
            {"Subpath": "a/b", "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}}}),
        )
        .unwrap();
        let MountSource::Volume {
            subpath, options, ..
        } = part.source
        else {
            panic!("a volume");
        };
        assert_eq!((subpath.as_str(), options.len()), ("a/b", 1));
        let forced = mount(
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
            "BindOptions": {"ReadOnlyForceRecursive": true}}),
        )
        .unwrap();
        assert_eq!(forced.recursive_readonly, RecursiveReadonly::Forced);
        assert!(forced.mount_text.contains("ReadOnlyForceRecursive"));
        let tmpfs = mount(json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions":
            {"SizeBytes": 4096, "Mode": 0o1770, "Options": [["exec"], ["uid", "7"]]}}))
        .unwrap();
        assert_eq!(
            tmpfs.source,
            MountSource::Tmpfs {
                options: "size=4096,mode=1770,exec,uid=7".into()
            }
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (value, reason) in [
            (json!({"Type": "bind", "Target": "/b"}), "Source"),
            (json!({"Type": "volume", "Source": "v"}), "Target"),
            (
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "VolumeOptions": {}}),
                "VolumeOptions",
            ),
            (
                json!({"Type": "volume", "Source": "v", "Target": "/b",
                    "VolumeOptions": {"Subpath": "a/../../b"}}),
                "subpath",
            ),
            (
                json!({"Type": "volume", "Target": "/b", "ReadOnly": true}),
                "anonymous",
            ),
            (
                json!({"Type": "bind", "Source": "/a", "Target": "/b",
                    "BindOptions": {"Propagation": "sideways"}}),
                "sideways",
            ),
            (
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
                    "BindOptions": {"ReadOnlyForceRecursive": true, "Propagation": "rshared"}}),
                "rprivate",
            ),
            (
                json!({"Type": "tmpfs", "Target": "/b", "Source": "x"}),
                "Source",
            ),
            (
                json!({"Type": "image", "Source": "x", "Target": "/b"}),
                "image",
            ),
            (
                json!({"Type": "magic", "Target": "/b"}),
                "mount type unknown",
            ),
        ] {
            let error = mount(value.clone()).unwrap_err();
            assert!(error.message.contains(reason), "{value}: {}", error.message);
        }
    }
}

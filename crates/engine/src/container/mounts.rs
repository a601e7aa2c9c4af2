//! From the mounts that were asked for to those that a container has: volumes found or made, other
//! containers' mounts taken over.

use super::record::{MountKind, Provenance, ResolvedMount};
use super::spec::{ContainerSpec, MountSource, MountSpec, RecursiveReadonly};
use crate::engine::Engine;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

impl Engine {
    /// Volumes are made here, so that `create` tells of what is wrong with them.
    pub(super) fn resolve_mounts(
        &self,
        id: &str,
        spec: &ContainerSpec,
        provenance: &Provenance,
        made: &mut Vec<String>,
    ) -> Result<Vec<ResolvedMount>> {
        let mut mounts: Vec<ResolvedMount> = Vec::new();
        for mount in &spec.mounts {
            let destination = clean_path(&mount.destination)?;
            if mounts.iter().any(|have| have.destination == destination) {
                return Err(Error::invalid(format!(
                    "Duplicate mount point: {destination}"
                )));
            }
            if let (MountSource::Volume { name, .. }, false) =
                (&mount.source, mount.bind_text.is_empty())
                && self.volumes.get(name).is_err()
            {
                check_driver(&spec.volume_driver, name)?;
            }
            mounts.push(self.resolve_mount(id, mount, destination, provenance, made)?);
        }
        for text in &spec.volumes_from {
            for mount in self.mounts_from(text)? {
                if !mounts
                    .iter()
                    .any(|have| have.destination == mount.destination)
                {
                    mounts.push(mount);
                }
            }
        }
        for path in &spec.anonymous_volumes {
            let destination = clean_path(path)?;
            if mounts.iter().any(|have| have.destination == destination) {
                continue;
            }
            check_driver(&spec.volume_driver, "")?;
            let (volume, _) = self.volumes.create(
                None,
                BTreeMap::new(),
                BTreeMap::new(),
                provenance.clone(),
                id,
            )?;
            made.push(volume.name.clone());
            mounts.push(self.volume_mount(&volume.name, true, destination));
        }
        Ok(mounts)
    }

    /// The binds and volumes of another container (`NAME[:MODE]`), for one that is to share them.
    fn mounts_from(&self, text: &str) -> Result<Vec<ResolvedMount>> {
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        let mut readonly = false;
        for word in mode.split(',').filter(|word| !word.is_empty()) {
            match word {
                "ro" => readonly = true,
                "rw" | "z" | "Z" => {}
                _ => {
                    return Err(Error::invalid(format!(
                        "invalid volumes-from specification: '{text}': invalid mode: {mode}"
                    )));
                }
            }
        }
        let mut mounts = self.index.find(name)?.read(|record| record.mounts.clone());
        mounts.retain(|mount| mount.kind != MountKind::Tmpfs);
        for mount in &mut mounts {
            mount.readonly |= readonly;
            // The first one has filled it, or will.
            mount.copy_up = false;
        }
        Ok(mounts)
    }

    fn volume_mount(&self, volume: &str, anonymous: bool, destination: String) -> ResolvedMount {
        ResolvedMount {
            destination,
            kind: MountKind::Volume,
            source: self.volumes.path(volume).to_string_lossy().into_owned(),
            volume: Some(volume.to_owned()),
            anonymous,
            readonly: false,
            propagation: String::new(),
            options: String::new(),
            non_recursive: false,
            copy_up: true,
            idmap: false,
            subpath: String::new(),
            recursive_readonly: RecursiveReadonly::default(),
            mode: String::new(),
        }
    }

    fn resolve_mount(
        &self,
        id: &str,
        mount: &MountSpec,
        destination: String,
        provenance: &Provenance,
        made: &mut Vec<String>,
    ) -> Result<ResolvedMount> {
        let mut resolved = match &mount.source {
            MountSource::Volume {
                name,
                labels,
                options,
                subpath,
            } => {
                let (volume, fresh) = self.make_volume(
                    Some(name),
                    labels.clone(),
                    options.clone(),
                    provenance.clone(),
                    id,
                )?;
                if fresh {
                    made.push(volume.name.clone());
                }
                ResolvedMount {
                    subpath: subpath.clone(),
                    ..self.volume_mount(&volume.name, name.is_empty(), destination)
                }
            }
            MountSource::Bind {
                path,
                create,
                non_recursive,
            } => {
                if !path.starts_with('/') {
                    return Err(Error::invalid(format!(
                        "invalid mount config for type \"bind\": invalid mount path: '{path}' \
                         mount path must be absolute"
                    )));
                }
                if !create && !Path::new(path).exists() {
                    return Err(Error::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {path}"
                    )));
                }
                ResolvedMount {
                    kind: MountKind::Bind,
                    source: path.clone(),
                    volume: None,
                    non_recursive: *non_recursive,
                    copy_up: false,
                    ..self.volume_mount("", false, destination)
                }
            }
            MountSource::Tmpfs { options } => ResolvedMount {
                kind: MountKind::Tmpfs,
                source: String::new(),
                volume: None,
                options: options.clone(),
                copy_up: false,
                ..self.volume_mount("", false, destination)
            },
        };
        resolved.readonly = mount.readonly;
        resolved.propagation.clone_from(&mount.propagation);
        resolved.copy_up &= !mount.no_copy;
        resolved.idmap = mount.idmap;
        resolved.recursive_readonly = mount.recursive_readonly;
        if let Some(mode) = mount.bind_text.splitn(3, ':').nth(2) {
            mode.clone_into(&mut resolved.mode);
        }
        Ok(resolved)
    }
}

/// Refuses a driver of a volume that has to be made, unless it is the only one there is.
fn check_driver(driver: &str, volume: &str) -> Result<()> {
    if matches!(driver, "" | "local") {
        return Ok(());
    }
    // As dockerd says it, but for the status: 404 would have the docker client pull the image.
    Err(Error::invalid(format!(
        "create {volume}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    )))
}

/// An absolute path without `.`, `..` and doubled slashes.
fn clean_path(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Error::invalid(
            "invalid specification: destination can't be '/'".to_owned(),
        ));
    }
    Ok(format!("/{}", parts.join("/")))
}

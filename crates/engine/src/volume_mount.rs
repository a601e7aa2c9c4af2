//! Volumes that are mounts (see [`crate::local_volume`]): mounted while a container that has them
//! runs, and at no other time.

use crate::container::record::{ContainerRecord, MountKind};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::local_volume::LocalMount;
use crate::mount_api;
use gamut_image::layer::sys;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who needs which volume mounted: names of volumes, and their holders. Each volume has a lock of its
/// own, since a server that does not answer may hold up a mount for long.
#[derive(Debug, Default)]
pub(crate) struct Holders(Mutex<BTreeMap<String, Arc<Held>>>);

/// The holders of one volume.
#[derive(Debug, Default)]
struct Held(Mutex<BTreeSet<String>>);

impl Engine {
    /// Mounts the volumes of a container that are mounts, until `holder` lets them go.
    ///
    /// # Errors
    /// If one cannot be mounted; none is held then.
    pub(crate) fn hold_volumes(&self, record: &ContainerRecord, holder: &str) -> Result<()> {
        let held = self
            .mounted_volumes(record)
            .try_for_each(|(name, mount)| self.hold(&name, &mount, holder));
        held.inspect_err(|_| self.let_go_of_volumes(record, holder))
    }

    fn hold(&self, name: &str, mount: &LocalMount, holder: &str) -> Result<()> {
        let path = self.volumes.path(name);
        let held = self.volume_holders.of(name);
        // The lock is held while it is mounted: whoever comes second finds it mounted.
        let mut holders = held.lock();
        if !is_mount_point(&path) {
            mount_volume(mount, &path).map_err(|failure| {
                let detail = match failure.option.as_str() {
                    "" => String::new(),
                    option => format!(" (option {option})"),
                };
                Error::system(
                    format!(
                        "failed to mount local volume {name}: mount {}:{}, type: {}, data: {}{detail}",
                        mount.device,
                        path.display(),
                        mount.fstype,
                        mount.data(),
                    ),
                    failure.error,
                )
            })?;
        }
        holders.insert(holder.to_owned());
        Ok(())
    }

    /// Notes that a container which runs already, since before this daemon, has its volumes.
    pub(crate) fn keep_volumes(&self, record: &ContainerRecord) {
        for (name, _) in self.mounted_volumes(record) {
            self.volume_holders
                .of(&name)
                .lock()
                .insert(record.id.clone());
        }
    }

    /// Unmounts what nobody else holds.
    pub(crate) fn let_go_of_volumes(&self, record: &ContainerRecord, holder: &str) {
        for (name, _) in self.mounted_volumes(record) {
            let held = self.volume_holders.of(&name);
            let mut holders = held.lock();
            if holders.remove(holder) && holders.is_empty() {
                self.unmount_volume(&name);
            }
        }
    }

    /// Unmounts what the containers of a daemon that was killed have left mounted.
    pub(crate) fn unmount_idle_volumes(&self) {
        for record in self.volumes.list() {
            if !record.options.is_empty() && self.volume_holders.of(&record.name).lock().is_empty()
            {
                self.unmount_volume(&record.name);
            }
        }
    }

    fn unmount_volume(&self, name: &str) {
        if let Err(error) = unmount(&self.volumes.path(name)) {
            tracing::warn!(volume = name, %error, "cannot unmount a volume");
        }
    }

    /// The volumes of a container that are mounts.
    fn mounted_volumes(
        &self,
        record: &ContainerRecord,
    ) -> impl Iterator<Item = (String, LocalMount)> {
        let volumes = record
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Volume);
        let names: BTreeSet<&String> = volumes.filter_map(|mount| mount.volume.as_ref()).collect();
        names.into_iter().filter_map(|name| {
            let record = self.volumes.get(name).ok()?;
            let mount = LocalMount::parse(&record.options).ok()??;
            Some((name.clone(), mount))
        })
    }
}

impl Holders {
    fn of(&self, volume: &str) -> Arc<Held> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds or looks at are forgotten.
        all.retain(|_, held| Arc::strong_count(held) > 1 || !held.lock().is_empty());
        Arc::clone(all.entry(volume.to_owned()).or_default())
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unmounts a volume if it is mounted, whoever may still look at it.
///
/// # Errors
/// Those of umount2(2).
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    if !is_mount_point(path) {
        return Ok(());
    }
    let name = sys::c_string(path.as_os_str().as_bytes())?;
    // SAFETY: the path is valid for the call.
    let result = unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    mount_api::done(result.into())
}

/// Whether something is mounted there (statx(2), `STATX_ATTR_MOUNT_ROOT`).
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Ok(name) = sys::c_string(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: all zeros is a valid statx.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: path and buffer are valid for the call.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW | libc::AT_STATX_DONT_SYNC,
            0,
            &raw mut stat,
        )
    };
    let root = u64::try_from(libc::STATX_ATTR_MOUNT_ROOT).unwrap_or(0);
    result == 0 && stat.stx_attributes & root != 0
}

/// Why a volume could not be mounted.
struct MountFailure {
    error: io::Error,
    /// The option that was refused, or what the file system said.
    option: String,
}

impl From<io::Error> for MountFailure {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            option: String::new(),
        }
    }
}

fn mount_volume(mount: &LocalMount, path: &Path) -> std::result::Result<(), MountFailure> {
    let tree = match mount.bind {
        Some(recursive) => bound(mount, recursive)?,
        None => made(mount)?,
    };
    mount_api::move_mount(tree.as_fd(), mount_api::open_directory(path)?.as_fd())?;
    Ok(())
}

fn bound(mount: &LocalMount, recursive: bool) -> std::result::Result<OwnedFd, MountFailure> {
    let tree = mount_api::clone_tree(Path::new(&mount.device), recursive).map_err(|error| {
        MountFailure {
            error,
            option: format!("device={}", mount.device),
        }
    })?;
    let (set, clear) = mount.attributes;
    set_attributes(tree.as_fd(), (set, clear), 0, false)?;
    if let Some((kind, everywhere)) = mount.propagation {
        set_attributes(tree.as_fd(), (0, 0), kind, everywhere)?;
    }
    Ok(tree)
}

/// A fresh instance of a file system, by fsopen(2): each option is told by itself, so that the one
/// which is refused can be named.
fn made(mount: &LocalMount) -> std::result::Result<OwnedFd, MountFailure> {
    let refused = |option: &str| {
        let option = option.to_owned();
        move |error| MountFailure { error, option }
    };
    let fstype = sys::c_string(mount.fstype.as_bytes())?;
    let context = mount_api::Context::open(&fstype).map_err(refused(&format!(
        "type={}: this kernel does not know the file system",
        mount.fstype
    )))?;
    configure(&context, c"source", Some(&mount.device))
        .map_err(refused(&format!("device={}", mount.device)))?;
    let (set, clear) = mount.attributes;
    let readonly = set & libc::MOUNT_ATTR_RDONLY != 0;
    let flag = ("ro".to_owned(), None);
    for (name, value) in mount.options.iter().chain(readonly.then_some(&flag)) {
        let resolved = match (name.as_str(), value) {
            ("addr", Some(host)) => Some(resolve(host).map_err(refused(&format!("addr={host}")))?),
            (_, value) => value.clone(),
        };
        let key = sys::c_string(name.as_bytes())?;
        configure(&context, &key, resolved.as_deref()).map_err(refused(&format!("o={name}")))?;
    }
    context.create().map_err(|error| MountFailure {
        error,
        option: said(&context),
    })?;
    let tree = context.mount(set)?;
    set_attributes(tree.as_fd(), (0, clear), 0, false)?;
    if let Some((kind, everywhere)) = mount.propagation {
        set_attributes(tree.as_fd(), (0, 0), kind, everywhere)?;
    }
    Ok(tree)
}

/// The kernel takes no names of servers.
fn resolve(host: &str) -> io::Result<String> {
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let mut found = (host, 0).to_socket_addrs()?;
    let address = found.next().ok_or(io::ErrorKind::NotFound)?;
    Ok(address.ip().to_string())
}

fn configure(context: &mount_api::Context, key: &CStr, value: Option<&str>) -> io::Result<()> {
    let value = value
        .map(|text| sys::c_string(text.as_bytes()))
        .transpose()?;
    context.set(key, value.as_deref())
}

/// What the file system wrote about its failure, one line per read.
fn said(context: &mount_api::Context) -> String {
    let Ok(copy) = context.as_fd().try_clone_to_owned() else {
        return String::new();
    };
    let mut file = File::from(copy);
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        let line = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
        lines.push(line.trim().to_owned());
    }
    lines.join("; ")
}

fn set_attributes(
    tree: BorrowedFd<'_>,
    (set, clear): (u64, u64),
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    if set | clear | propagation == 0 {
        return Ok(());
    }
    let times = libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_STRICTATIME;
    let field = if set & times == 0 {
        0
    } else {
        libc::MOUNT_ATTR__ATIME
    };
    mount_api::set_attributes(tree, (set, clear | field), propagation, recursive)
}

//! Copying files into and out of containers, running or not.

use super::extract::{self, Options};
use super::node::{IN_ROOT, Node};
use super::pack::pack;
use super::path::{Asked, follow};
use super::view::{Bind, Parts, View};
use crate::container::live::Container;
use crate::container::record::{ContainerRecord, MountKind};
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What is at a path of a container. A link at the end of the path is not followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path; `/` for the root, `.` for a path that ends in `/.`.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// `st_mode`, kind of file included.
    pub mode: u32,
    /// Last modification, in nanoseconds since the epoch; 0 for times before that.
    pub mtime_ns: u64,
    /// Where a symbolic link leads in the end, as an absolute path in the container; else empty.
    pub link_target: String,
}

impl Engine {
    /// Tells what is at a path of a container.
    ///
    /// # Errors
    /// `NotFound` if there is no such container or file.
    pub fn archive_stat(&self, caller: &Caller, name_or_id: &str, path: &str) -> Result<PathStat> {
        let container = self.index.find(name_or_id)?;
        self.with_files(caller, &container, |root| {
            stat(root, path).map_err(|source| unreachable_path(source, path, name_or_id))
        })
    }

    /// Writes a path of a container, with all that is below it, as a tar archive whose names
    /// begin with the path's last component (`.` for `path/.`, `/` for the root).
    ///
    /// # Errors
    /// `NotFound` if there is no such container or file. Once something is written, an error
    /// means that the archive is cut short.
    pub fn archive_get(
        &self,
        caller: &Caller,
        name_or_id: &str,
        path: &str,
        output: &mut dyn Write,
    ) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        self.with_files(caller, &container, |root| {
            pack(root, &Asked::parse(path), output)
                .map_err(|source| unreachable_path(source, path, name_or_id))
        })?;
        self.emit_container(&container, "archive-path", BTreeMap::new());
        Ok(())
    }

    /// Unpacks a tar archive (plain, gzip or zstd) into a directory of a container. With
    /// `no_overwrite_dir_non_dir`, a directory does not replace something else nor the reverse;
    /// with `copy_uid_gid`, everything belongs to the container's user if it has one.
    ///
    /// # Errors
    /// `NotFound` if there is no such container or directory, `InvalidArgument` if it is not a
    /// directory or the archive is damaged, `Forbidden` if it is read-only. What was unpacked
    /// before an error stays.
    pub fn archive_put(
        &self,
        caller: &Caller,
        name_or_id: &str,
        path: &str,
        input: &mut (dyn Read + Send),
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        let user = container.read(|record| record.process.user.clone());
        self.with_files(caller, &container, |root| {
            let asked = Asked::parse(path);
            writable_directory(root, &asked).map_err(|refusal| match refusal {
                Refusal::Unreachable(source) => unreachable_path(source, path, name_or_id),
                Refusal::Stated(error) => error,
            })?;
            let owner = if copy_uid_gid && !user.is_empty() {
                Some(owner(root, &user)?)
            } else {
                None
            };
            let options = Options {
                keep_kind: no_overwrite_dir_non_dir,
                owner,
            };
            extract::extract(root, &asked.path, input, options)
        })?;
        self.emit_container(&container, "extract-to-dir", BTreeMap::new());
        Ok(())
    }

    /// Does something with a container's root: the one it sees if it runs, else one put together
    /// for the purpose, while which it can neither be started nor removed.
    fn with_files<T>(
        &self,
        caller: &Caller,
        container: &Container,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ) -> Result<T> {
        let root = loop {
            if container.phase().is_live() {
                match self.live_root(caller, container) {
                    // It has just ended.
                    Err(_) if !container.phase().is_live() => {}
                    root => break root?,
                }
            }
            let turn = container.operate();
            if container.life().borrow().removed {
                return Err(Error::not_found("container", &container.id));
            }
            // It may have been started while we waited for our turn.
            if !container.phase().is_live() {
                let view = self.idle_view(container)?;
                let done = work(view.root());
                drop(view);
                drop(turn);
                return done;
            }
        };
        work(root.as_fd())
    }

    pub(super) fn live_root(&self, caller: &Caller, container: &Container) -> Result<OwnedFd> {
        if container.read(|record| record.ids.is_some()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "copying files of a running container with user ids of its own is not supported yet: stop it first, or use `gamut exec … tar`",
            ));
        }
        Ok(self
            .level_of(container)?
            .root(&caller.context(None), &container.id)?)
    }

    /// The layers of a container's image, topmost first.
    pub(super) fn image_layers<'c>(&self, container: &'c Container) -> Result<&'c [PathBuf]> {
        let image_id = container.read(|record| record.image_id.clone());
        container.layers(|| {
            self.images
                .get(&image_id, None)
                .and_then(|image| self.images.layers(&image))
                .map_err(|error| Error::new(error.kind(), gamut_spec::error::chain(&error)))
        })
    }

    /// Puts the files of a container that does not run together, mounts included.
    fn idle_view(&self, container: &Container) -> Result<View> {
        let record = container.record();
        let directory = self.container_directory(&container.id);
        let failed = |source| {
            Error::system(
                format!("mount the files of container {}", container.id),
                source,
            )
        };
        let layers = self.image_layers(container)?;
        let copy = self.copied(&directory, layers)?;
        // What is mounted in the view stays there without being mounted here.
        let holder = format!("files of {}", container.id);
        self.hold_volumes(&record, &holder)?;
        let let_go = LetGo(|| self.let_go_of_volumes(&record, &holder));
        match &copy {
            Some(copy) => self.fill_volumes(&record, std::slice::from_ref(copy))?,
            None => {
                prepare_writable(&directory, layers).map_err(failed)?;
                self.fill_volumes(&record, layers)?;
            }
        }
        let view = View::open(&Parts {
            layers,
            writable: Some(&directory),
            copy: copy.as_deref(),
            binds: &binds(&record, &directory),
            readonly: record.spec.readonly_root,
        });
        drop(let_go);
        view.map_err(failed)
    }
}

/// Does something when it is dropped.
struct LetGo<F: Fn()>(F);

impl<F: Fn()> Drop for LetGo<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Mounts of a container that have something to show while it does not run, parents first.
pub(super) fn binds(record: &ContainerRecord, directory: &Path) -> Vec<Bind> {
    let mut binds: Vec<Bind> = ["resolv.conf", "hostname", "hosts"]
        .iter()
        .map(|name| Bind {
            source: directory.join(name),
            destination: format!("/etc/{name}"),
            readonly: record.spec.readonly_root,
            subpath: String::new(),
            recursive: false,
            make: false,
        })
        .collect();
    for mount in record
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Tmpfs)
    {
        binds.retain(|bind| bind.destination != mount.destination);
        binds.push(Bind {
            source: PathBuf::from(&mount.source),
            destination: mount.destination.clone(),
            readonly: mount.readonly,
            subpath: mount.subpath.clone(),
            recursive: mount.kind == MountKind::Bind && !mount.non_recursive,
            make: true,
        });
    }
    let depth = |path: &str| path.split('/').filter(|part| !part.is_empty()).count();
    binds.sort_by_key(|bind| depth(&bind.destination));
    binds
}

/// Makes the writable layer of a container that was never started. Its top directory, which is
/// the container's root, takes owner and mode from the image.
pub(super) fn prepare_writable(directory: &Path, layers: &[PathBuf]) -> io::Result<()> {
    let make =
        |name: &str, mode: u32| match DirBuilder::new().mode(mode).create(directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        };
    make("work", 0o700)?;
    if make("upper", 0o755)?
        && let Some(top) = layers.first()
    {
        let like = fs::metadata(top)?;
        let upper = directory.join("upper");
        std::os::unix::fs::chown(&upper, Some(like.uid()), Some(like.gid()))?;
        fs::set_permissions(&upper, Permissions::from_mode(like.mode() & 0o7777))?;
    }
    Ok(())
}

/// What is at a path below a root.
pub(super) fn stat(root: BorrowedFd<'_>, path: &str) -> io::Result<PathStat> {
    let asked = Asked::parse(path);
    let node = asked.open(root)?;
    let link_target = if node.kind() == libc::S_IFLNK {
        String::from_utf8_lossy(&follow(root, &asked.path)?).into_owned()
    } else {
        String::new()
    };
    let mtime_ns =
        i128::from(node.stat.st_mtime) * 1_000_000_000 + i128::from(node.stat.st_mtime_nsec);
    Ok(PathStat {
        name: asked.name,
        size_bytes: node.size_bytes(),
        mode: node.stat.st_mode,
        mtime_ns: u64::try_from(mtime_ns).unwrap_or(0),
        link_target,
    })
}

/// Why nothing can be unpacked at a path.
pub(super) enum Refusal {
    /// It cannot be opened.
    Unreachable(io::Error),
    /// Anything else.
    Stated(Error),
}

/// Checks that the path is a directory that may be written to.
pub(super) fn writable_directory(
    root: BorrowedFd<'_>,
    asked: &Asked,
) -> std::result::Result<(), Refusal> {
    let directory = match Node::open_directory(root, &asked.path, IN_ROOT) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
            // Either the last component or one before it.
            return Err(match Node::open(root, &asked.path, IN_ROOT) {
                Ok(_) => Refusal::Stated(Error::invalid("extraction point is not a directory")),
                Err(error) => Refusal::Unreachable(error),
            });
        }
        directory => directory.map_err(Refusal::Unreachable)?,
    };
    let look = || -> io::Result<Option<bool>> {
        if !directory.is_readonly()? {
            return Ok(None);
        }
        let root = Node::open_directory(root, b"", IN_ROOT)?;
        Ok(Some(root.mount_id()? == directory.mount_id()?))
    };
    let forbidden = |text| Err(Refusal::Stated(Error::new(ErrorKind::Forbidden, text)));
    match look().map_err(Refusal::Unreachable)? {
        None => Ok(()),
        Some(true) => forbidden("container rootfs is marked read-only"),
        Some(false) => forbidden("mounted volume is marked read-only"),
    }
}

/// The ids of `user[:group]`, looked up in the container's own files.
fn owner(root: BorrowedFd<'_>, user: &str) -> Result<(u32, u32)> {
    let read = |path: &[u8]| -> Vec<u8> {
        let mut text = Vec::new();
        let limit = u64::try_from(gamut_container::passwd::MAX_FILE_BYTES).unwrap_or(u64::MAX);
        let opened = sys_open_file(root, path);
        let read = opened.and_then(|file| file.take(limit).read_to_end(&mut text));
        // Without the file, numbers still work.
        read.map(|_| text).unwrap_or_default()
    };
    let (passwd, group) = (read(b"etc/passwd"), read(b"etc/group"));
    gamut_container::passwd::look_up(user, &[], &passwd, &group)
        .map(|identity| (identity.uid, identity.gid))
        .map_err(Error::invalid)
}

/// Opens a file for reading, links followed inside the root.
fn sys_open_file(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<fs::File> {
    use gamut_image::layer::sys;
    Node::from_fd(sys::openat2(
        root,
        &sys::c_string(path)?,
        libc::O_PATH,
        IN_ROOT,
    )?)?
    .reader()
}

/// Why a path cannot be opened or read, in Docker's words where it has some.
fn unreachable_path(source: io::Error, path: &str, name_or_id: &str) -> Error {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Error::new(
            ErrorKind::NotFound,
            format!("Could not find the file {path} in container {name_or_id}"),
        ),
        Some(libc::ELOOP | libc::ENAMETOOLONG) => Error::invalid(format!(
            "cannot open {path} in container {name_or_id}: {source}"
        )),
        _ => Error::system(format!("read {path} in container {name_or_id}"), source),
    }
}

//! Metadata for directories that a layer's archive only implied.

use super::tree::{Directory, components};
use super::whiteout::Marks;
use super::{Error, ExtractOptions, OverlayXattrs, sys};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Overlayfs' marks of a directory that hides the layers below.
const OPAQUE: [(&CStr, OverlayXattrs); 2] = [
    (c"trusted.overlay.opaque", OverlayXattrs::Trusted),
    (c"user.overlay.opaque", OverlayXattrs::User),
];

/// Gives each implied directory of an extracted layer the owner, mode, time and attributes that
/// the directory has in the layers below, as an engine that unpacks into the merged tree would.
/// What is new in this layer, or hidden by a whiteout or an opaque directory, stays as it is.
///
/// overlayfs does not honour the mark of an opaque directory on a layer's root. Where it is set,
/// every name that the layers below have in theirs is hidden instead.
///
/// `implied` is [`Extracted::implied_directories`](super::Extracted), `lowers_topmost_first` the
/// extracted layers below, the nearest first.
///
/// # Errors
/// [`Error::Io`] if a layer cannot be read or the metadata not be set.
pub fn adopt_implied_directories(
    layer: &Path,
    implied: &[PathBuf],
    lowers_topmost_first: &[PathBuf],
) -> Result<(), Error> {
    if lowers_topmost_first.is_empty() {
        return Ok(());
    }
    let open = |path: &Path| {
        std::fs::File::open(path)
            .map(OwnedFd::from)
            .map_err(Error::io("open", path.as_os_str().as_bytes()))
    };
    let layer = open(layer)?;
    let mut lowers = Vec::with_capacity(lowers_topmost_first.len());
    for lower in lowers_topmost_first {
        lowers.push(open(lower)?);
    }
    if let Some(namespace) =
        opaque_by(layer.as_fd()).map_err(Error::io("read the attributes of", b""))?
    {
        return hide_all(layer, namespace, &lowers);
    }
    // Deepest first: a mode may lock an owner who is not root out of what is below.
    for path in implied.iter().rev() {
        let path = path.as_os_str().as_bytes();
        adopt(layer.as_fd(), path, &lowers)
            .map_err(Error::io("copy the lower layers' metadata to", path))?;
    }
    Ok(())
}

fn adopt(layer: BorrowedFd<'_>, path: &[u8], lowers: &[OwnedFd]) -> io::Result<()> {
    if let Sight::Found {
        hides_lower: true, ..
    }
    | Sight::Hidden = look(layer, path)?
    {
        return Ok(());
    }
    for lower in lowers {
        match look(lower.as_fd(), path)? {
            Sight::Found { directory, .. } => {
                let to = sys::open_directory(layer, path)?;
                return copy(directory.as_fd(), to.as_fd());
            }
            Sight::Hidden => return Ok(()),
            Sight::Missing => {}
        }
    }
    Ok(())
}

/// What a layer says of a directory.
enum Sight {
    /// It has it.
    Found {
        directory: OwnedFd,
        hides_lower: bool,
    },
    /// It hides it: something else has its name or that of a parent, or a parent is opaque.
    Hidden,
    /// It says nothing: the next layer decides.
    Missing,
}

fn look(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Sight> {
    let mut directory = sys::open_directory(root, b"")?;
    let mut hides_lower = is_opaque(directory.as_fd())?;
    for component in components(path) {
        let name = sys::c_string(component)?;
        directory = match sys::openat2(directory.as_fd(), &name, sys::DIRECTORY, sys::BENEATH) {
            Ok(directory) => directory,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENOENT) if !hides_lower => Ok(Sight::Missing),
                    Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(Sight::Hidden),
                    _ => Err(error),
                };
            }
        };
        hides_lower |= is_opaque(directory.as_fd())?;
    }
    Ok(Sight::Found {
        directory,
        hides_lower,
    })
}

fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(opaque_by(directory)?.is_some())
}

/// The namespace of the attribute that makes a directory opaque, if one does.
fn opaque_by(directory: BorrowedFd<'_>) -> io::Result<Option<OverlayXattrs>> {
    for (name, namespace) in OPAQUE {
        match sys::fget_xattr(directory, name) {
            // The attribute also marks directories with whiteouts, by an x.
            Ok(Some(value)) if value == b"y" => return Ok(Some(namespace)),
            Ok(_) => {}
            // trusted.* is not for us in a user namespace.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Hides every name that the lower layers have in their root.
fn hide_all(
    layer: OwnedFd,
    overlay_xattrs: OverlayXattrs,
    lowers: &[OwnedFd],
) -> Result<(), Error> {
    let mut marks = Marks::new(&ExtractOptions {
        overlay_xattrs,
        ..ExtractOptions::default()
    });
    let root = Directory {
        fd: layer,
        path: Vec::new(),
    };
    for lower in lowers {
        for found in sys::list(lower.as_fd()).map_err(Error::io("list", b""))? {
            let name = found.name.to_bytes();
            match sys::openat2(root.fd(), &found.name, sys::DIRECTORY, sys::BENEATH) {
                Ok(fd) => marks.make_opaque(
                    &Directory {
                        fd,
                        path: name.to_vec(),
                    },
                    name,
                )?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    marks.hide(&root, name, name)?;
                }
                // Anything but a directory hides what is below.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                }
                Err(error) => return Err(Error::io("open", name)(error)),
            }
        }
    }
    Ok(())
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = sys::fstat(from)?;
    sys::fchown(to, stat.st_uid, stat.st_gid)?;
    sys::fchmod(to, stat.st_mode & 0o7777)?;
    for name in sys::flist_xattr(from)? {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let name = sys::c_string(&name)?;
        if let Some(value) = sys::fget_xattr(from, &name)? {
            sys::fset_xattr(to, &name, &value)?;
        }
    }
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    sys::fset_times(to, stat.st_mtime, nanoseconds)
}

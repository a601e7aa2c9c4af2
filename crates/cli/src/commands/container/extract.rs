//! Unpacks what a container sent. The archive is hostile: every entry is created beneath the
//! target directory by openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, so that neither
//! `..` nor links of the archive lead out of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use crate::error::Error;

/// Unpacks a tar archive below `parent`. The archive's root (the first component of its names) is
/// renamed to `base`; kept if that is empty; dropped, so that its content lands in `parent`, if
/// there is none. Returns the bytes of files written.
///
/// # Errors
/// Broken archives, entries that lead out of `parent`, and what the file system refuses. What was
/// unpacked before stays, as with cp(1).
pub fn unpack(
    reader: &mut impl Read,
    parent: &Path,
    base: Option<&Path>,
    keeps_owner: bool,
) -> Result<u64, Error> {
    let failed = |what: String| {
        move |source| Error::Io {
            operation: what,
            source,
        }
    };
    let root = open_directory(parent).map_err(failed(format!("open {}", parent.display())))?;
    let mut archive = tar::Archive::new(reader);
    let mut written = 0;
    let mut directory_modes: Vec<(PathBuf, u32)> = Vec::new();
    let mut renaming = None;
    let read = || failed("read the container's archive".to_owned());
    for entry in archive.entries().map_err(read())? {
        let mut entry = entry.map_err(read())?;
        let name = entry.path().map_err(read())?.into_owned();
        let renaming = *renaming.get_or_insert(Renaming {
            base,
            root_is_nameless: matches!(
                name.components().next(),
                Some(Component::CurDir | Component::RootDir)
            ),
        });
        let Some(relative) = renaming.apply(&name)? else {
            continue;
        };
        let path = relative.clone();
        let place = Place::find(&root, &relative);
        let result = place.and_then(|place| {
            written += place.create(&root, &mut entry, renaming, keeps_owner)?;
            if entry.header().entry_type() == EntryType::Directory {
                directory_modes.push((relative, entry.header().mode()?));
            }
            Ok(())
        });
        result.map_err(failed(format!(
            "unpack {} below {}",
            path.display(),
            parent.display()
        )))?;
    }
    // Last, since a directory that may not be written to could not be filled.
    for (path, mode) in directory_modes.into_iter().rev() {
        let directory = open_beneath(&root, &path, libc::O_RDONLY | libc::O_DIRECTORY, 0);
        let changed = directory.and_then(|directory| set_mode(&directory, mode));
        changed.map_err(failed(format!("set the mode of {}", path.display())))?;
    }
    Ok(written)
}

/// How the names of an archive become paths below the target.
#[derive(Debug, Clone, Copy)]
struct Renaming<'a> {
    /// The root's new name, as for [`unpack`].
    base: Option<&'a Path>,
    /// The root is called `.` (the source was given as `DIRECTORY/.`) or `/` (it is the
    /// container's own root).
    root_is_nameless: bool,
}

impl Renaming<'_> {
    /// The path of an entry below the target; `None` for the target itself.
    fn apply(self, name: &Path) -> Result<Option<PathBuf>, Error> {
        let mut parts = Vec::new();
        for component in name.components() {
            match component {
                Component::Normal(part) => parts.push(part),
                Component::CurDir | Component::RootDir => {}
                _ => {
                    return Err(Error::Message(format!(
                        "the container's archive has a path that leads out of it: {}",
                        name.display()
                    )));
                }
            }
        }
        let mut parts = parts.into_iter();
        let root = if self.root_is_nameless {
            None
        } else {
            parts.next()
        };
        let mut path = match self.base {
            None => PathBuf::new(),
            Some(base) if base.as_os_str().is_empty() => {
                root.map(PathBuf::from).unwrap_or_default()
            }
            Some(base) => base.to_owned(),
        };
        path.extend(parts);
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }
}

/// An entry's directory, open, and its name there.
struct Place {
    directory: OwnedFd,
    name: CString,
}

impl Place {
    fn find(root: &OwnedFd, path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let name = CString::new(name.as_bytes())?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY;
                match open_beneath(root, parent, flags, 0) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let above = Self::find(root, parent)?;
                        above.make_directory()?;
                        open_beneath(root, parent, flags, 0)?
                    }
                    found => found?,
                }
            }
            _ => root.try_clone()?,
        };
        Ok(Self { directory, name })
    }

    fn create<R: Read>(
        &self,
        root: &OwnedFd,
        entry: &mut tar::Entry<'_, R>,
        renaming: Renaming<'_>,
        keeps_owner: bool,
    ) -> io::Result<u64> {
        let header = entry.header().clone();
        let mut written = 0;
        match header.entry_type() {
            EntryType::Directory => self.make_directory()?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?;
                let target = CString::new(target.into_owned())?;
                self.remove()?;
                // SAFETY: both strings are nul-terminated and live through the call.
                check(unsafe {
                    libc::symlinkat(
                        target.as_ptr(),
                        self.directory.as_raw_fd(),
                        self.name.as_ptr(),
                    )
                })?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                let target = renaming
                    .apply(&target)
                    .map_err(|error| io::Error::other(error.to_string()))?
                    .ok_or(io::ErrorKind::InvalidData)?;
                self.remove()?;
                let target = Self::find(root, &target)?;
                // SAFETY: both strings are nul-terminated and live through the call.
                check(unsafe {
                    libc::linkat(
                        target.directory.as_raw_fd(),
                        target.name.as_ptr(),
                        self.directory.as_raw_fd(),
                        self.name.as_ptr(),
                        0,
                    )
                })?;
                return Ok(0);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.remove()?;
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                let name = Path::new(std::ffi::OsStr::from_bytes(self.name.as_bytes()));
                let mut file = File::from(open_beneath(&self.directory, name, flags, 0o600)?);
                written = io::copy(entry, &mut file)?;
                if keeps_owner {
                    self.set_owner(&header)?;
                }
                set_mode(&file.into(), header.mode()?)?;
                return Ok(written);
            }
            other => {
                return Err(io::Error::other(format!(
                    "entries of type {other:?} are not copied out of containers"
                )));
            }
        }
        if keeps_owner {
            self.set_owner(&header)?;
        }
        Ok(written)
    }

    fn make_directory(&self) -> io::Result<()> {
        // SAFETY: the string is nul-terminated and lives through the call.
        let made =
            check(unsafe { libc::mkdirat(self.directory.as_raw_fd(), self.name.as_ptr(), 0o755) });
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn remove(&self) -> io::Result<()> {
        // SAFETY: the string is nul-terminated and lives through the call.
        let removed =
            check(unsafe { libc::unlinkat(self.directory.as_raw_fd(), self.name.as_ptr(), 0) });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn set_owner(&self, header: &tar::Header) -> io::Result<()> {
        let id = |number: u64| u32::try_from(number).map_err(io::Error::other);
        let (user, group) = (id(header.uid()?)?, id(header.gid()?)?);
        // SAFETY: the string is nul-terminated and lives through the call.
        check(unsafe {
            libc::fchownat(
                self.directory.as_raw_fd(),
                self.name.as_ptr(),
                user,
                group,
                libc::AT_SYMLINK_NOFOLLOW,
            )
        })
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    File::open(path).map(OwnedFd::from)
}

/// openat2(2) beneath a directory, through no link at all.
fn open_beneath(root: &OwnedFd, path: &Path, flags: i32, mode: u64) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `open_how` is plain data for which all zeroes is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::try_from(flags | libc::O_CLOEXEC).map_err(io::Error::other)?;
    how.mode = mode;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: path and structure live through the call, the size is the structure's.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Permission bits only: set-id bits of a container's files mean nothing good on the host.
fn set_mode(file: &OwnedFd, mode: u32) -> io::Result<()> {
    // SAFETY: fchmod(2) takes a descriptor and a number.
    check(unsafe { libc::fchmod(file.as_raw_fd(), mode & 0o777) })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o6750);
            header.set_size(0);
            // Set by hand: the builder refuses hostile names.
            let target = &mut header.as_old_mut().name;
            target[..name.len()].copy_from_slice(name.as_bytes());
            match kind {
                EntryType::Symlink | EntryType::Link => {
                    header.as_old_mut().linkname[..content.len()]
                        .copy_from_slice(content.as_bytes());
                    header.set_cksum();
                    builder.append(&header, io::empty()).unwrap();
                }
                EntryType::Regular => {
                    header.set_size(u64::try_from(content.len()).unwrap());
                    header.set_cksum();
                    builder.append(&header, content.as_bytes()).unwrap();
                }
                _ => {
                    header.set_cksum();
                    builder.append(&header, io::empty()).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    const TREE: &[(&str, EntryType, &str)] = &[
        ("etc/", EntryType::Directory, ""),
        ("etc/sub/", EntryType::Directory, ""),
        ("etc/sub/file", EntryType::Regular, "hello"),
        ("etc/link", EntryType::Symlink, "sub/file"),
        ("etc/hard", EntryType::Link, "etc/sub/file"),
    ];

    #[test]
    fn renames_keeps_or_drops_the_root() {
        let bytes = archive(TREE);
        for (base, root) in [
            (Some(Path::new("new")), "new"),
            (Some(Path::new("")), "etc"),
            (None, ""),
        ] {
            let target = tempfile::tempdir().unwrap();
            assert_eq!(
                unpack(&mut bytes.as_slice(), target.path(), base, false).unwrap(),
                5
            );
            let root = target.path().join(root);
            assert_eq!(fs::read_to_string(root.join("link")).unwrap(), "hello");
            let (file, hard) = (root.join("sub/file"), root.join("hard"));
            let inode = |path: &Path| fs::metadata(path).unwrap().ino();
            assert_eq!(inode(&file), inode(&hard));
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o750);
        }
    }

    #[test]
    fn a_root_called_dot() {
        let bytes = archive(&[
            ("./", EntryType::Directory, ""),
            ("./file", EntryType::Regular, "hello"),
            ("./hard", EntryType::Link, "file"),
        ]);
        for (base, root) in [(Some(Path::new("new")), "new"), (None, "")] {
            let target = tempfile::tempdir().unwrap();
            unpack(&mut bytes.as_slice(), target.path(), base, false).unwrap();
            let root = target.path().join(root);
            assert_eq!(fs::read_to_string(root.join("hard")).unwrap(), "hello");
        }
    }

    #[test]
    fn nothing_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let outside_path = outside.path().to_str().unwrap();
        let cases: [&[(&str, EntryType, &str)]; 4] = [
            &[("r/../../x", EntryType::Regular, "evil")],
            &[
                ("r/l", EntryType::Symlink, outside_path),
                ("r/l/x", EntryType::Regular, "evil"),
            ],
            &[("r/hard", EntryType::Link, "r/../../../etc/passwd")],
            &[("r/dev", EntryType::Char, "")],
        ];
        for entries in cases {
            let target = tempfile::tempdir().unwrap();
            let bytes = archive(entries);
            let base = Some(Path::new(""));
            assert!(unpack(&mut bytes.as_slice(), target.path(), base, false).is_err());
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_link_is_replaced_not_followed() {
        let target = tempfile::tempdir().unwrap();
        let victim = target.path().join("victim");
        fs::write(&victim, "safe").unwrap();
        std::os::unix::fs::symlink(&victim, target.path().join("file")).unwrap();
        let bytes = archive(&[("x", EntryType::Regular, "new")]);
        let base = Some(Path::new("file"));
        unpack(&mut bytes.as_slice(), target.path(), base, false).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
        assert_eq!(
            fs::read_to_string(target.path().join("file")).unwrap(),
            "new"
        );
    }

    #[test]
    fn a_containers_own_root_keeps_its_directories() {
        let bytes = archive(&[
            ("/", EntryType::Directory, ""),
            ("/etc/", EntryType::Directory, ""),
            ("/etc/passwd", EntryType::Regular, "root"),
        ]);
        let target = tempfile::tempdir().unwrap();
        unpack(
            &mut &bytes[..],
            target.path(),
            Some(Path::new("copy")),
            false,
        )
        .unwrap();
        assert_eq!(
            fs::read(target.path().join("copy/etc/passwd")).unwrap(),
            b"root"
        );
    }
}

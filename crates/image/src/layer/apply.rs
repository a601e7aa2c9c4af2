//! Applies the entries of a layer's archive to its tree, one after another.

use super::metadata::Metadata;
use super::tree::{Directory, Late, Tree, components};
use super::{Error, ExtractOptions, Extracted, Limits, Recorder, sys};
use crate::tar::{Entry, Event, Kind, Parser};
use crate::writeback::Writeback;
use std::borrow::Cow;
use std::ffi::CString;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Prefix of a name that hides the rest of it.
const WHITEOUT: &[u8] = b".wh.";
/// Name that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of aufs' own names.
const AUFS: &[u8] = b".wh..wh.";

/// A regular file whose content is being written.
struct OpenFile {
    fd: Arc<OwnedFd>,
    /// Where it really is, links resolved.
    path: Vec<u8>,
    entry: Box<Entry>,
    end: u64,
    /// How far it has been given to the writeback.
    handed_over: u64,
}

/// One layer being extracted.
pub(super) struct Extraction<'a> {
    tree: Tree,
    limits: &'a Limits,
    recorder: &'a mut dyn Recorder,
    writeback: Writeback,
    metadata: Metadata,
    file: Option<OpenFile>,
    bytes: u64,
    entries: u64,
}

impl<'a> Extraction<'a> {
    pub fn new(tree: Tree, options: &'a ExtractOptions, recorder: &'a mut dyn Recorder) -> Self {
        Self {
            tree,
            limits: &options.limits,
            recorder,
            writeback: Writeback::default(),
            metadata: Metadata::new(options.missing_owners),
            file: None,
            bytes: 0,
            entries: 0,
        }
    }

    /// Reads the archive to its end and applies it.
    pub fn run(mut self, reader: &mut impl BufRead) -> Result<Extracted, Error> {
        let mut parser = Parser::new(self.limits.archive.clone());
        let mut archive_bytes = 0u64;
        loop {
            let input = match reader.fill_buf() {
                Ok(input) => input,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Read(error)),
            };
            let count = input.len();
            if count == 0 {
                break;
            }
            archive_bytes += count as u64;
            if archive_bytes > self.limits.max_archive_bytes {
                let allowed = self.limits.max_archive_bytes;
                let path = String::from("the archive");
                return Err(Error::Limit {
                    path,
                    limit: "max_archive_bytes",
                    allowed,
                });
            }
            self.consume(&mut parser, input)?;
            reader.consume(count);
        }
        // Ends an entry without content that the input ended with.
        self.consume(&mut parser, &[])?;
        parser.finish()?;
        let implied = self.tree.finish()?;
        Ok(Extracted {
            bytes: self.bytes,
            entries: self.entries,
            implied_directories: implied
                .into_iter()
                .map(|path| PathBuf::from(std::ffi::OsString::from_vec(path)))
                .collect(),
            skipped: self.metadata.skipped,
        })
    }

    fn consume(&mut self, parser: &mut Parser, mut input: &[u8]) -> Result<(), Error> {
        loop {
            let step = parser.step(input)?;
            let (raw, rest) = input.split_at(step.consumed.min(input.len()));
            input = rest;
            // Data is the last of what was consumed for it.
            let data_bytes = match &step.event {
                Event::Data { bytes, .. } => bytes.len(),
                _ => 0,
            };
            let literal_bytes = raw.len().saturating_sub(data_bytes);
            self.record(raw.get(..literal_bytes).unwrap_or_default())?;
            match step.event {
                Event::Entry(entry) => self.begin(entry)?,
                Event::Data { offset, bytes } => self.write(offset, bytes)?,
                Event::EntryEnd => self.end()?,
                Event::NeedInput | Event::End if input.is_empty() => return Ok(()),
                Event::NeedInput | Event::End => {}
            }
        }
    }

    /// Tells the recorder of bytes that are no file's content.
    fn record(&mut self, literal: &[u8]) -> Result<(), Error> {
        if literal.is_empty() {
            return Ok(());
        }
        self.recorder.literal(literal).map_err(not_recorded(b""))
    }

    /// Makes what the entry is; the content of a file follows.
    fn begin(&mut self, entry: Box<Entry>) -> Result<(), Error> {
        self.entries += 1;
        self.check_limits(&entry)?;
        let path = normalized(&entry.path)?;
        let (named, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], &path[..]),
        };
        if is_aufs(named) || (name.starts_with(AUFS) && name != OPAQUE) {
            return Ok(());
        }
        if components(named).any(|component| component.starts_with(WHITEOUT)) {
            return Err(Error::refused(
                &entry.path,
                "one of its parents is a whiteout",
            ));
        }
        if name.is_empty() {
            return self.root(&entry);
        }
        let parent = self.tree.parent(named, &entry.path)?;
        if name == OPAQUE {
            return self.make_opaque(&parent, &entry.path);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Error::refused(&entry.path, "whiteout of no name"));
            }
            return self.hide(&parent, hidden, &entry.path);
        }
        let c_name = sys::c_string(name).map_err(Error::io("make", &entry.path))?;
        let at = At {
            parent,
            name: name.to_vec(),
            c_name,
        };
        match entry.kind {
            Kind::File => self.begin_file(&at, entry),
            Kind::Directory => {
                let named = path.into_owned();
                self.directory(&at, &entry, named)
            }
            Kind::Symlink => self.symlink(&at, &entry),
            Kind::HardLink => self.hard_link(&at, &entry),
            Kind::CharacterDevice if entry.device == (0, 0) => {
                // To overlayfs this is a whiteout, whatever the image meant.
                self.make_room(&at.parent, name, &entry.path)?;
                self.hide(&at.parent, name, &entry.path)
            }
            Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => self.node(&at, &entry),
            Kind::Other(flag) => Err(Error::refused(
                &entry.path,
                format!("unknown kind of file ({})", [flag].escape_ascii()),
            )),
        }
    }

    fn check_limits(&self, entry: &Entry) -> Result<(), Error> {
        let stored = if entry.sparse { 0 } else { entry.size_bytes };
        let (limit, allowed) = if entry.size_bytes > self.limits.max_file_bytes {
            ("max_file_bytes", self.limits.max_file_bytes)
        } else if self.bytes.saturating_add(stored) > self.limits.max_bytes {
            ("max_bytes", self.limits.max_bytes)
        } else {
            return Ok(());
        };
        Err(Error::Limit {
            path: super::shown(&entry.path),
            limit,
            allowed,
        })
    }

    /// The entry of the target itself.
    fn root(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.kind != Kind::Directory {
            return Err(Error::refused(
                &entry.path,
                "the root of a layer must be a directory",
            ));
        }
        let root = Rc::clone(&self.tree.root);
        self.describe_directory(&root, entry, false)
    }

    fn begin_file(&mut self, at: &At, entry: Box<Entry>) -> Result<(), Error> {
        let fd = self.create(at, &entry, |at| {
            sys::create_file(at.parent.fd(), &at.c_name)
        })?;
        self.file = Some(OpenFile {
            fd: Arc::new(fd),
            path: at.parent.join(&at.name),
            entry,
            end: 0,
            handed_over: 0,
        });
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = &mut self.file else {
            return self.record(bytes);
        };
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limits.max_bytes {
            return Err(Error::Limit {
                path: super::shown(&file.entry.path),
                limit: "max_bytes",
                allowed: self.limits.max_bytes,
            });
        }
        file.end = offset + bytes.len() as u64;
        sys::write_all_at(file.fd.as_fd(), bytes, offset)
            .map_err(Error::io("write", &file.entry.path))?;
        if file.end - file.handed_over >= Writeback::STEP_BYTES {
            self.writeback.begin(&file.fd, file.handed_over, file.end);
            file.handed_over = file.end;
        }
        self.recorder
            .content(&file.path, offset, bytes)
            .map_err(not_recorded(&file.entry.path))
    }

    /// Ends the entry: gives a complete file its metadata.
    fn end(&mut self) -> Result<(), Error> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let OpenFile { fd, entry, end, .. } = file;
        if end < entry.size_bytes {
            sys::set_length(fd.as_fd(), entry.size_bytes)
                .map_err(Error::io("set the length of", &entry.path))?;
        }
        self.metadata
            .set_open(fd.as_fd(), &entry, entry.mode, true)?;
        sys::fset_times(fd.as_fd(), entry.mtime.seconds, entry.mtime.nanoseconds)
            .map_err(Error::io("set the time of", &entry.path))?;
        self.writeback.begin(&fd, file.handed_over, end);
        Ok(())
    }

    fn directory(&mut self, at: &At, entry: &Entry, named: Vec<u8>) -> Result<(), Error> {
        let failed = || Error::io("make directory", &entry.path);
        let make = || sys::mkdir(at.parent.fd(), &at.c_name, 0o700);
        let mut was_hidden = false;
        let mut is_new = true;
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let stat = sys::lstat(at.parent.fd(), &at.c_name).map_err(failed())?;
                if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                    is_new = false;
                } else {
                    was_hidden = self.make_room(&at.parent, &at.name, &entry.path)?;
                    make().map_err(failed())?;
                }
            }
            result => result.map_err(failed())?,
        }
        let fd = sys::openat2(at.parent.fd(), &at.c_name, sys::DIRECTORY, sys::BENEATH)
            .map_err(failed())?;
        let directory = Rc::new(Directory {
            fd,
            path: at.parent.join(&at.name),
        });
        self.describe_directory(&directory, entry, is_new)?;
        if was_hidden {
            self.tree.whiteouts.make_opaque(&directory, &entry.path)?;
        }
        if is_new {
            // What it is the parent of comes next.
            self.tree.remember(named, &directory);
        }
        Ok(())
    }

    /// Sets a directory's metadata, or notes what must wait until its content is there.
    fn describe_directory(
        &mut self,
        directory: &Directory,
        entry: &Entry,
        is_new: bool,
    ) -> Result<(), Error> {
        let mode_now = (entry.mode & !libc::S_ISGID) | 0o700;
        self.metadata
            .set_open(directory.fd(), entry, mode_now, is_new)?;
        let late = Late {
            implied: false,
            mtime: Some(entry.mtime),
            mode: (mode_now != entry.mode).then_some(entry.mode),
        };
        self.tree.directories.insert(directory.path.clone(), late);
        Ok(())
    }

    fn symlink(&mut self, at: &At, entry: &Entry) -> Result<(), Error> {
        if entry.link.is_empty() {
            return Err(Error::refused(&entry.path, "symbolic link to nothing"));
        }
        let target = sys::c_string(&entry.link).map_err(Error::io("make", &entry.path))?;
        self.create(at, entry, |at| {
            sys::symlink(&target, at.parent.fd(), &at.c_name)
        })?;
        self.metadata.set_named(at.parent.fd(), &at.c_name, entry)
    }

    fn node(&mut self, at: &At, entry: &Entry) -> Result<(), Error> {
        let kind = match entry.kind {
            Kind::BlockDevice => libc::S_IFBLK,
            Kind::CharacterDevice => libc::S_IFCHR,
            _ => libc::S_IFIFO,
        };
        let is_made = self.create(at, entry, |at| {
            match sys::mknod(at.parent.fd(), &at.c_name, kind | 0o600, entry.device) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
                result => result.map(|()| true),
            }
        })?;
        if !is_made {
            let path = super::shown(&entry.path);
            self.metadata
                .skip(|| format!("device {path}: not permitted in this user namespace"));
            return Ok(());
        }
        self.metadata.set_named(at.parent.fd(), &at.c_name, entry)
    }

    /// A further name. Owner, mode and times are the file's; the entry's are not looked at.
    fn hard_link(&mut self, at: &At, entry: &Entry) -> Result<(), Error> {
        let target = normalized(&entry.link)?;
        let (named, name) = match target.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&[][..], &target[..]),
        };
        let missing = || {
            let link = super::shown(&entry.link);
            Error::refused(
                &entry.path,
                format!(
                    "hard link to {link}, which this layer does not have: a layer cannot link to \
                     files of the layers below it"
                ),
            )
        };
        let from = self.tree.find(named, &entry.path)?.ok_or_else(missing)?;
        let from_name = sys::c_string(name).map_err(Error::io("make", &entry.path))?;
        let stat = match sys::lstat(from.fd(), &from_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            stat => stat.map_err(Error::io("look at the target of", &entry.path))?,
        };
        if self.tree.whiteouts.is_whiteout(&from, name) {
            return Err(missing());
        }
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return Err(Error::refused(&entry.path, "hard link to a directory"));
        }
        if from.path == at.parent.path && name == at.name {
            return Ok(());
        }
        self.create(at, entry, |at| {
            sys::link((from.fd(), &from_name), (at.parent.fd(), &at.c_name))
        })?;
        Ok(())
    }

    /// Makes a file by `make`; what had its name is replaced.
    fn create<T>(
        &mut self,
        at: &At,
        entry: &Entry,
        make: impl Fn(&At) -> io::Result<T>,
    ) -> Result<T, Error> {
        let made = match make(at) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.make_room(&at.parent, &at.name, &entry.path)?;
                make(at)
            }
            made => made,
        };
        made.map_err(Error::io("make", &entry.path))
    }

    /// Makes room for a new file; the recorder is told before anything is removed.
    fn make_room(&mut self, parent: &Directory, name: &[u8], entry: &[u8]) -> Result<bool, Error> {
        let c_name = sys::c_string(name).map_err(Error::io("replace", entry))?;
        let is_there = sys::lstat(parent.fd(), &c_name).is_ok();
        if is_there && !self.tree.whiteouts.is_whiteout(parent, name) {
            self.recorder
                .replacing(self.tree.root.fd())
                .map_err(not_recorded(entry))?;
        }
        self.tree.make_room(parent, name, entry)
    }

    /// Hides a name of the lower layers. What this layer has of that name stays.
    fn hide(&mut self, parent: &Directory, name: &[u8], entry: &[u8]) -> Result<(), Error> {
        let failed = || Error::io("make whiteout", entry);
        let c_name = sys::c_string(name).map_err(failed())?;
        let stat = match sys::lstat(parent.fd(), &c_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.tree.whiteouts.hide(parent, name, entry);
            }
            stat => stat.map_err(failed())?,
        };
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return Ok(());
        }
        let fd =
            sys::openat2(parent.fd(), &c_name, sys::DIRECTORY, sys::BENEATH).map_err(failed())?;
        self.make_opaque(
            &Directory {
                fd,
                path: parent.join(name),
            },
            entry,
        )
    }

    fn make_opaque(&mut self, directory: &Directory, entry: &[u8]) -> Result<(), Error> {
        // With nothing below to take after, it is no longer implied.
        if !directory.path.is_empty()
            && let Some(late) = self.tree.directories.get_mut(&directory.path)
        {
            late.implied = false;
        }
        self.tree.whiteouts.make_opaque(directory, entry)
    }
}

/// Where an entry goes.
struct At {
    parent: Rc<Directory>,
    name: Vec<u8>,
    c_name: CString,
}

fn is_aufs(named: &[u8]) -> bool {
    components(named).any(|component| component.starts_with(AUFS))
}

/// The path without leading slashes, `.` and empty components; empty for the root.
fn normalized(path: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let mut is_plain = true;
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b".." => return Err(Error::refused(path, "its name has a .. component")),
            b"" | b"." => is_plain = false,
            _ => {}
        }
    }
    if is_plain {
        return Ok(Cow::Borrowed(path));
    }
    let parts: Vec<_> = components(path)
        .filter(|&component| component != b".")
        .collect();
    Ok(Cow::Owned(parts.join(&b'/')))
}

fn not_recorded(path: &[u8]) -> impl FnOnce(io::Error) -> Error {
    Error::io("keep the archive of", path)
}

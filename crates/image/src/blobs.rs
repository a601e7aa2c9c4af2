//! The layout of the store on disk, and temporary files that clean up after themselves.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    /// Temporary files and directories in ingest that have an owner.
    staged: Arc<AtomicUsize>,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            staged: Arc::default(),
        }
    }

    /// Whether anything is on its way in or out.
    pub(crate) fn is_staging(&self) -> bool {
        self.staged.load(Ordering::Relaxed) > 0
    }

    fn count_staged(&self) -> Staging {
        self.staged.fetch_add(1, Ordering::Relaxed);
        Staging(Arc::clone(&self.staged))
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.layers().join(chain_id.hex())
    }

    pub(crate) fn layer_fs(&self, chain_id: &Digest) -> PathBuf {
        self.layer(chain_id).join("fs")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn references(&self) -> PathBuf {
        self.root.join("references.json")
    }

    /// The records before the last change.
    pub(crate) fn previous_references(&self) -> PathBuf {
        self.root.join("references.previous.json")
    }

    fn temporary(&self) -> Result<PathBuf> {
        let ingest = self.ingest();
        let name =
            gamut_spec::id::random().map_err(Error::io("name a temporary file in", &ingest))?;
        Ok(ingest.join(name))
    }

    /// A fresh file in ingest, removed unless kept.
    pub(crate) fn stage_file(&self) -> Result<(StagedFile, File)> {
        let path = self.temporary()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok((
            StagedFile {
                path,
                kept: false,
                _staging: self.count_staged(),
            },
            file,
        ))
    }

    /// A fresh file in ingest with `bytes`, removed unless kept.
    pub(crate) fn stage_bytes(&self, bytes: &[u8]) -> Result<StagedFile> {
        let (staged, mut file) = self.stage_file()?;
        file.write_all(bytes)
            .map_err(Error::io("write", &staged.path))?;
        Ok(staged)
    }

    /// A fresh directory in ingest, removed with all it holds unless kept.
    pub(crate) fn stage_dir(&self) -> Result<StagedDir> {
        let path = self.temporary()?;
        make_dir(&path)?;
        Ok(StagedDir {
            path,
            kept: false,
            _staging: self.count_staged(),
        })
    }

    /// A point from which on all that is written can be made durable.
    pub(crate) fn sync_point(&self) -> Result<SyncPoint> {
        let root = File::open(&self.root).map_err(Error::io("open", &self.root))?;
        Ok(SyncPoint {
            root,
            path: self.root.clone(),
        })
    }

    /// Writes everything of the store's file system to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.sync_point()?.sync()
    }
}

/// From when on failures to write to the disk are told by [`Self::sync`]: also those of writing
/// that has begun and ended before it. syncfs(2) reports what failed since the file was opened.
pub(crate) struct SyncPoint {
    root: File,
    path: PathBuf,
}

impl SyncPoint {
    /// Writes everything of the store's file system to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        // SAFETY: syncfs takes a file descriptor, which `root` keeps open, and no memory.
        if unsafe { libc::syncfs(self.root.as_raw_fd()) } != 0 {
            return Err(Error::io("sync the file system of", &self.path)(
                io::Error::last_os_error(),
            ));
        }
        Ok(())
    }
}

/// Makes a directory that only root may enter.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("create", path))
}

/// Writes a directory's entries to disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync", path))
}

/// Replaces the file `path` so that a crash leaves the old or the new one, on disk.
pub(crate) fn replace_file(layout: &Layout, path: &Path, bytes: &[u8]) -> Result<()> {
    let (staged, mut file) = layout.stage_file()?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &staged.path))?;
    staged.keep(path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Counts one temporary file or directory.
#[derive(Debug)]
struct Staging(Arc<AtomicUsize>);

impl Drop for Staging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file in ingest; removed on drop.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) path: PathBuf,
    kept: bool,
    _staging: Staging,
}

impl StagedFile {
    /// Moves the file to its place, replacing what is there. Does not sync.
    pub(crate) fn keep(mut self, place: &Path) -> Result<()> {
        fs::rename(&self.path, place).map_err(Error::io("put in place", place))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// A directory in ingest; removed with all it holds on drop.
#[derive(Debug)]
pub(crate) struct StagedDir {
    pub(crate) path: PathBuf,
    kept: bool,
    _staging: Staging,
}

impl StagedDir {
    /// Moves the directory to its place, where nothing may be. Does not sync.
    pub(crate) fn keep(mut self, place: &Path) -> Result<()> {
        fs::rename(&self.path, place).map_err(Error::io("put in place", place))?;
        self.kept = true;
        Ok(())
    }

    /// Takes `place` out of the store into ingest, to be removed on drop.
    pub(crate) fn take(layout: &Layout, place: &Path) -> Result<Self> {
        let path = layout.temporary()?;
        fs::rename(place, &path).map_err(Error::io("take away", place))?;
        Ok(Self {
            path,
            kept: false,
            _staging: layout.count_staged(),
        })
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = remove_any(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary directory");
        }
    }
}

/// Removes a file or a whole tree; absence is no error.
pub(crate) fn remove_any(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            crate::layer::remove_tree(path).map_err(io::Error::other)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a small blob of the store and verifies it.
pub(crate) fn read_blob(layout: &Layout, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>> {
    let path = layout.blob(digest);
    let length = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
    if length > limit_bytes {
        return Err(Error::TooLarge {
            object: format!("blob {digest}"),
            limit: format!("{limit_bytes} bytes"),
        });
    }
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    let actual = Digest::of(&bytes);
    if actual != *digest {
        return Err(Error::malformed(
            format!("blob {digest}"),
            format!(
                "damaged: its content has digest {actual}; run `gamut system fsck` and fetch the image again"
            ),
        ));
    }
    Ok(bytes)
}

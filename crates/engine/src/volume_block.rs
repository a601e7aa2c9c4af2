//! The size of the block device that a volume is to a unikernel: an option of the volume.

use crate::error::{Error, Result};
use gamut_isolation::unikernel::BLOCK_FILE;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The option's name.
pub(crate) const OPTION: &str = "block-size";

/// Unit of block devices, in bytes.
const SECTOR_BYTES: u64 = 512;

/// What the options say, in bytes; `None` if they do not.
///
/// # Errors
/// If it is no size that a block device can have.
pub(crate) fn bytes(options: &BTreeMap<String, String>) -> Result<Option<u64>> {
    let Some(text) = options.get(OPTION) else {
        return Ok(None);
    };
    gamut_spec::units::parse_bytes(text)
        .filter(|bytes| *bytes > 0 && bytes.is_multiple_of(SECTOR_BYTES))
        .map(Some)
        .ok_or_else(|| {
            Error::invalid(format!(
                "create volume: {OPTION}={text} is no size of a block device: it must be a multiple \
                 of {SECTOR_BYTES} bytes, such as 64m or 2g"
            ))
        })
}

/// Makes the block device in a fresh volume: a sparse file, which takes space as it is written.
///
/// # Errors
/// If the file system cannot hold a file of that size.
pub(crate) fn make(volume: &Path, bytes: u64) -> Result<()> {
    let path = volume.join(BLOCK_FILE);
    let failed = |source| {
        let operation = format!("make the block device of {bytes} bytes {}", path.display());
        Error::system(operation, source)
    };
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let made = file.set_len(bytes).and_then(|()| {
        file.sync_all()?;
        File::open(volume)?.sync_all()
    });
    made.map_err(|source| {
        // Half of it is none.
        let _ = fs::remove_file(&path);
        failed(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_multiple_of_sectors() {
        let of = |text: &str| bytes(&BTreeMap::from([(OPTION.to_owned(), text.to_owned())]));
        assert_eq!(bytes(&BTreeMap::new()).unwrap(), None);
        assert_eq!(of("64m").unwrap(), Some(64 << 20));
        assert_eq!(of("512").unwrap(), Some(512));
        for bad in ["", "0", "100", "-1", "a lot"] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains("multiple"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_file_is_sparse_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), 1 << 40).unwrap();
        let path = folder.path().join(BLOCK_FILE);
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 40);
        assert!(make(folder.path(), 512).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 40);
        fs::remove_file(&path).unwrap();
        assert!(make(folder.path(), 1 << 62).is_err());
        assert!(!path.exists());
    }
}

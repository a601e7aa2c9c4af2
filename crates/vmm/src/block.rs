//! Block devices backed by a file or a block device of the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};

use gamut_abi::guest::hypercall::SECTOR_BYTES;
use gamut_abi::monitor::BlockConfig;

use crate::device::{Disk, Errno};
use crate::error::{Error, Result};

const INPUT_OUTPUT_ERROR: u32 = 5;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file that is a disk of the guest.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    bytes: u64,
    is_read_only: bool,
}

impl FileDisk {
    /// Opens the file of a block device, and keeps others from writing it meanwhile.
    ///
    /// # Errors
    /// If it is no file or block device, cannot be opened, or is in use.
    pub fn open(config: &BlockConfig) -> Result<Self> {
        let failed = |problem: String| Error::Block {
            name: config.name.clone(),
            path: config.path.clone(),
            problem,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(!config.read_only)
            .open(&config.path)
            .map_err(|error| failed(format!("open: {error}")))?;
        let kind = file
            .metadata()
            .map_err(|error| failed(format!("look at it: {error}")))?
            .file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(failed(
                "neither a file nor a block device; make a file of the wanted size".to_owned(),
            ));
        }
        lock(&file, config.read_only).map_err(|error| {
            failed(match error.kind() {
                io::ErrorKind::WouldBlock => {
                    "another guest uses it; stop that one, or let both only read it".to_owned()
                }
                _ => format!("lock: {error}"),
            })
        })?;
        // Also tells the size of a block device.
        let end = file
            .seek(SeekFrom::End(0))
            .map_err(|error| failed(format!("find its size: {error}")))?;
        let sector = u64::from(SECTOR_BYTES);
        Ok(Self {
            file,
            bytes: end / sector * sector,
            is_read_only: config.read_only,
        })
    }

    /// The file, locked as long as it is open anywhere.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    fn zero(&self, mut offset_bytes: u64, bytes: u64) -> io::Result<()> {
        let end = offset_bytes.saturating_add(bytes);
        while offset_bytes < end {
            let count = usize::try_from(end - offset_bytes).unwrap_or(usize::MAX);
            let part = ZEROS.get(..count.min(ZEROS.len())).unwrap_or(&ZEROS);
            self.file.write_all_at(part, offset_bytes)?;
            offset_bytes += part.len() as u64;
        }
        Ok(())
    }
}

fn lock(file: &File, is_shared: bool) -> io::Result<()> {
    let kind = if is_shared {
        libc::LOCK_SH
    } else {
        libc::LOCK_EX
    };
    // SAFETY: an open descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), kind | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

fn errno(error: &io::Error) -> Errno {
    let code = error
        .raw_os_error()
        .and_then(|code| u32::try_from(code).ok())
        .filter(|code| *code > 0);
    // A file that was shortened ends early: an error of the device.
    Errno(code.unwrap_or(INPUT_OUTPUT_ERROR))
}

impl Disk for FileDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read(&mut self, offset_bytes: u64, buffer: &mut [u8]) -> std::result::Result<(), Errno> {
        let done = self.file.read_exact_at(buffer, offset_bytes);
        done.map_err(|error| errno(&error))
    }

    fn write(&mut self, offset_bytes: u64, data: &[u8]) -> std::result::Result<(), Errno> {
        let done = self.file.write_all_at(data, offset_bytes);
        done.map_err(|error| errno(&error))
    }

    fn flush(&mut self) -> std::result::Result<(), Errno> {
        self.file.sync_data().map_err(|error| errno(&error))
    }

    fn discard(&mut self, offset_bytes: u64, bytes: u64) -> std::result::Result<(), Errno> {
        if bytes == 0 {
            return Ok(());
        }
        let (Ok(offset), Ok(length)) = (i64::try_from(offset_bytes), i64::try_from(bytes)) else {
            return Err(Errno(22));
        };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: an open descriptor.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(errno(&error));
        }
        // A file system without holes: what was given back must still read as zeros.
        self.zero(offset_bytes, bytes)
            .map_err(|error| errno(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &std::path::Path, read_only: bool) -> BlockConfig {
        BlockConfig {
            name: "/data".to_owned(),
            path: path.to_str().expect("a plain path").to_owned(),
            read_only,
        }
    }

    #[test]
    fn what_was_written_is_read_and_what_was_discarded_is_zero() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7; 8192 + 100]).expect("a file");
        let mut disk = FileDisk::open(&config(&path, false)).expect("a disk");
        assert_eq!(disk.bytes(), 8192);
        disk.write(512, &[9; 1024]).expect("written");
        disk.flush().expect("flushed");
        let mut buffer = [0; 2048];
        disk.read(0, &mut buffer).expect("read");
        assert_eq!(
            (buffer[511], buffer[512], buffer[1535], buffer[1536]),
            (7, 9, 9, 7)
        );
        disk.discard(0, 4096).expect("discarded");
        disk.read(0, &mut buffer).expect("read");
        assert!(buffer.iter().all(|byte| *byte == 0));
        disk.zero(4096, 4096).expect("zeroed");
        disk.read(8192 - 2048, &mut buffer).expect("read");
        assert!(buffer.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_disk_has_one_writer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![0; 512]).expect("a file");
        let readers = [
            FileDisk::open(&config(&path, true)).expect("a reader"),
            FileDisk::open(&config(&path, true)).expect("another"),
        ];
        let error = FileDisk::open(&config(&path, false))
            .expect_err("in use")
            .to_string();
        assert!(
            error.contains("/data") && error.contains("another guest uses it"),
            "{error}"
        );
        drop(readers);
        let _writer = FileDisk::open(&config(&path, false)).expect("free again");
    }

    #[test]
    fn a_folder_is_no_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = FileDisk::open(&config(folder.path(), true))
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("neither a file nor a block device"),
            "{error}"
        );
    }
}

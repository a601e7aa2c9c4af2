//! The image's file, as a debugger reads it for its symbols.

use std::fs::File;
use std::os::unix::fs::FileExt;

use gdbstub::common::Pid;
use gdbstub::target::TargetResult;
use gdbstub::target::ext::exec_file::ExecFile;
use gdbstub::target::ext::host_io::{
    FsKind, HostIo, HostIoClose, HostIoCloseOps, HostIoErrno, HostIoError, HostIoFstat,
    HostIoFstatOps, HostIoOpen, HostIoOpenFlags, HostIoOpenMode, HostIoOpenOps, HostIoPread,
    HostIoPreadOps, HostIoResult, HostIoSetfs, HostIoSetfsOps, HostIoStat,
};

use super::target::Guest;

/// What the debugger calls it.
const NAME: &[u8] = b"/unikernel";
/// The only descriptor that it ever gets.
const DESCRIPTOR: u32 = 3;

/// The part of a text that was asked for.
fn part(text: &[u8], offset: u64, length: usize, buffer: &mut [u8]) -> usize {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = text.get(start..).unwrap_or_default();
    let count = rest.len().min(length).min(buffer.len());
    for (to, from) in buffer.iter_mut().zip(rest.iter().take(count)) {
        *to = *from;
    }
    count
}

fn check<T>(descriptor: u32, file: &T) -> Result<&T, HostIoError<&'static str>> {
    if descriptor == DESCRIPTOR {
        Ok(file)
    } else {
        Err(HostIoError::Errno(HostIoErrno::EBADF))
    }
}

impl ExecFile for Guest<'_> {
    fn get_exec_file(
        &self,
        _: Option<Pid>,
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        Ok(part(NAME, offset, length, buffer))
    }
}

impl HostIo for Guest<'_> {
    fn support_open(&mut self) -> Option<HostIoOpenOps<'_, Self>> {
        Some(self)
    }

    fn support_close(&mut self) -> Option<HostIoCloseOps<'_, Self>> {
        Some(self)
    }

    fn support_pread(&mut self) -> Option<HostIoPreadOps<'_, Self>> {
        Some(self)
    }

    fn support_fstat(&mut self) -> Option<HostIoFstatOps<'_, Self>> {
        Some(self)
    }

    fn support_setfs(&mut self) -> Option<HostIoSetfsOps<'_, Self>> {
        Some(self)
    }
}

impl HostIoOpen for Guest<'_> {
    fn open(
        &mut self,
        name: &[u8],
        flags: HostIoOpenFlags,
        _: HostIoOpenMode,
    ) -> HostIoResult<u32, Self> {
        if name != NAME {
            return Err(HostIoError::Errno(HostIoErrno::ENOENT));
        }
        if flags.intersects(HostIoOpenFlags::O_WRONLY | HostIoOpenFlags::O_RDWR) {
            return Err(HostIoError::Errno(HostIoErrno::EROFS));
        }
        Ok(DESCRIPTOR)
    }
}

impl HostIoClose for Guest<'_> {
    fn close(&mut self, descriptor: u32) -> HostIoResult<(), Self> {
        check(descriptor, &()).copied()
    }
}

impl HostIoPread for Guest<'_> {
    fn pread(
        &mut self,
        descriptor: u32,
        count: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> HostIoResult<usize, Self> {
        let file: &File = check(descriptor, self.image_file)?;
        let count = count.min(buffer.len());
        let room = buffer.get_mut(..count).unwrap_or_default();
        Ok(file.read_at(room, offset)?)
    }
}

impl HostIoFstat for Guest<'_> {
    fn fstat(&mut self, descriptor: u32) -> HostIoResult<HostIoStat, Self> {
        let size = check(descriptor, self.image_file)?.metadata()?.len();
        Ok(HostIoStat {
            st_dev: 0,
            st_ino: 0,
            st_mode: HostIoOpenMode::S_IFREG | HostIoOpenMode::S_IRUSR,
            st_nlink: 1,
            st_uid: 0,
            st_gid: 0,
            st_rdev: 0,
            st_size: size,
            st_blksize: 4096,
            st_blocks: size.div_ceil(512),
            st_atime: 0,
            st_mtime: 0,
            st_ctime: 0,
        })
    }
}

impl HostIoSetfs for Guest<'_> {
    fn setfs(&mut self, _: FsKind) -> HostIoResult<(), Self> {
        Ok(())
    }
}

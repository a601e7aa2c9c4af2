//! The memory of a guest, and which of it the guest itself may name in a request.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout::LARGE_PAGE_BYTES;
use crate::pages::PageSet;

/// Memory named by a guest that is not its own to read, or to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAddress {
    /// Where it begins.
    pub address: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// It was to be written.
    pub is_write: bool,
}

/// Plain numbers without padding: any bytes are a value, and every byte of a value is defined.
///
/// # Safety
/// Only for `repr(C)` structures of integers without implicit padding.
pub unsafe trait Plain: Copy {}

// SAFETY: integers only, without padding (tests of `request` hold the sizes).
unsafe impl Plain for gamut_abi::guest::hypercall::Slice {}
// SAFETY: as above.
unsafe impl Plain for gamut_abi::guest::hypercall::IoRequest {}
// SAFETY: as above.
unsafe impl Plain for gamut_abi::guest::hypercall::Frame {}
// SAFETY: as above.
unsafe impl Plain for gamut_abi::guest::hypercall::BlockRequest {}
// SAFETY: integers and an array of bytes, without padding.
unsafe impl Plain for gamut_abi::guest::boot::BootBlock {}

/// A private mapping of this process.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is owned; who may touch it when is the matter of `GuestMemory`.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared references only give out shared bytes.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by mmap with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A range that the guest may name in requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Where it is.
    pub range: Range<u64>,
    /// It can be written, too.
    pub is_writable: bool,
}

/// All memory of a guest. Its only processor stands still while requests are carried out, and the
/// clock page, which another thread writes, is in no region: so references to bytes are exclusive
/// as Rust wants them.
#[derive(Debug)]
pub struct GuestMemory {
    main: Mapping,
    /// Address and mapping of the read-only file system.
    rofs: Option<(u64, Mapping)>,
    regions: Vec<Region>,
    /// Pages that the monitor has written for the guest: KVM does not see these writes.
    written: Option<PageSet>,
}

impl GuestMemory {
    /// Zeroed memory of a number of bytes, a multiple of pages.
    ///
    /// # Errors
    /// If the system has no such room.
    pub fn new(bytes: u64) -> Result<Self> {
        Ok(Self {
            main: anonymous(bytes)?,
            rofs: None,
            regions: Vec::new(),
            written: None,
        })
    }

    /// The ranges that the guest may name.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Begins, or ends, to note which pages the monitor writes for the guest.
    pub fn note_writes(&mut self, noted: bool) {
        self.written = noted.then(|| PageSet::new(self.bytes()));
    }

    /// The pages noted so far; begins anew. `None` if they are not noted.
    pub fn take_writes(&mut self) -> Option<PageSet> {
        let empty = PageSet::new(self.bytes());
        self.written
            .as_mut()
            .map(|written| std::mem::replace(written, empty))
    }

    /// Adds the image of a read-only file system, mapped from its file.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn add_rofs(&mut self, range: &Range<u64>, file: &std::fs::File) -> Result<()> {
        let bytes = usize::try_from(range.end - range.start)
            .map_err(|_| Error::system("map the read-only file system", too_large()))?;
        self.rofs = Some((range.start, map_file(file, bytes)?));
        self.allow(range.clone(), false);
        Ok(())
    }

    /// Lets the guest name a range in requests.
    pub fn allow(&mut self, range: Range<u64>, is_writable: bool) {
        self.regions.push(Region { range, is_writable });
    }

    /// Size of the memory from address 0.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.main.bytes as u64
    }

    /// The parts as KVM wants them: guest address, host address, bytes, read-only.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u64, u64, u64, bool)> {
        let slot = |address: u64, mapping: &Mapping, is_read_only| {
            let host = mapping.start.as_ptr() as u64;
            let bytes = (mapping.bytes as u64).next_multiple_of(4096);
            (address, host, bytes, is_read_only)
        };
        let main = slot(0, &self.main, false);
        let rofs = self
            .rofs
            .as_ref()
            .map(|(address, mapping)| slot(*address, mapping, true));
        std::iter::once(main).chain(rofs)
    }

    /// Bytes of the memory, whoever they belong to: for the monitor itself, before the guest runs
    /// and when it is saved. `None` outside.
    #[must_use]
    pub fn raw(&self, address: u64, bytes: u64) -> Option<&[u8]> {
        let place = place(self.main.bytes, address, bytes)?;
        // SAFETY: within the mapping; the guest does not run meanwhile (see the type).
        Some(unsafe { slice(&self.main, &place) })
    }

    /// The same, to be written.
    pub fn raw_mut(&mut self, address: u64, bytes: u64) -> Option<&mut [u8]> {
        let place = place(self.main.bytes, address, bytes)?;
        // SAFETY: within the mapping, and borrowed exclusively; the guest does not run meanwhile.
        Some(unsafe { slice_mut(&mut self.main, &place) })
    }

    /// Bytes that the guest has named to be read.
    ///
    /// # Errors
    /// If any of them is not the guest's.
    pub fn read(&self, address: u64, bytes: u64) -> std::result::Result<&[u8], BadAddress> {
        let bad = BadAddress {
            address,
            bytes,
            is_write: false,
        };
        if bytes == 0 {
            return Ok(&[]);
        }
        if !self.is_allowed(address, bytes, false) {
            return Err(bad);
        }
        if let Some((start, mapping)) = &self.rofs
            && address >= *start
        {
            let place = place(mapping.bytes, address - start, bytes).ok_or(bad)?;
            // SAFETY: within the mapping, which nobody writes.
            return Ok(unsafe { slice(mapping, &place) });
        }
        self.raw(address, bytes).ok_or(bad)
    }

    /// Bytes that the guest has named to be written.
    ///
    /// # Errors
    /// If any of them is not the guest's, or cannot be written by it.
    pub fn write(
        &mut self,
        address: u64,
        bytes: u64,
    ) -> std::result::Result<&mut [u8], BadAddress> {
        let bad = BadAddress {
            address,
            bytes,
            is_write: true,
        };
        if bytes == 0 {
            return Ok(&mut []);
        }
        if !self.is_allowed(address, bytes, true) {
            return Err(bad);
        }
        if let Some(written) = &mut self.written {
            written.insert(address..address.saturating_add(bytes));
        }
        self.raw_mut(address, bytes).ok_or(bad)
    }

    /// Copies a structure of the guest.
    ///
    /// # Errors
    /// If it is not the guest's memory.
    pub fn read_plain<T: Plain>(&self, address: u64) -> std::result::Result<T, BadAddress> {
        let bytes = self.read(address, size_of::<T>() as u64)?;
        // SAFETY: as many bytes as a T, and any bytes are one (`Plain`).
        Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    /// Writes a structure into the guest's memory.
    ///
    /// # Errors
    /// If the guest itself could not write there.
    pub fn write_plain<T: Plain>(
        &mut self,
        address: u64,
        value: &T,
    ) -> std::result::Result<(), BadAddress> {
        let room = self.write(address, size_of::<T>() as u64)?;
        room.copy_from_slice(bytes_of(value));
        Ok(())
    }

    fn is_allowed(&self, address: u64, bytes: u64, is_write: bool) -> bool {
        let Some(end) = address.checked_add(bytes) else {
            return false;
        };
        let mut at = address;
        // Regions may adjoin, as code and constants do.
        for _ in 0..=self.regions.len() {
            if at >= end {
                return true;
            }
            let Some(region) = self
                .regions
                .iter()
                .find(|region| region.range.contains(&at) && (region.is_writable || !is_write))
            else {
                return false;
            };
            at = region.range.end;
        }
        at >= end
    }

    /// A 32-bit word that another thread may look at or set while the guest runs. `None` if it
    /// lies outside, or is not aligned.
    pub(crate) fn atomic_u32(&self, address: u64) -> Option<NonNull<AtomicU32>> {
        let place = place(self.main.bytes, address, 4)?;
        if !address.is_multiple_of(4) {
            return None;
        }
        // SAFETY: within the mapping.
        let pointer = unsafe { self.main.start.add(place.start) };
        Some(pointer.cast())
    }
}

/// The bytes of a structure.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: every byte of a `Plain` is defined.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

fn place(mapping_bytes: usize, address: u64, bytes: u64) -> Option<Range<usize>> {
    let start = usize::try_from(address).ok()?;
    let end = start.checked_add(usize::try_from(bytes).ok()?)?;
    (end <= mapping_bytes).then_some(start..end)
}

/// # Safety
/// The place lies in the mapping, and nobody writes it meanwhile.
unsafe fn slice<'a>(mapping: &'a Mapping, place: &Range<usize>) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        let start = mapping.start.as_ptr().add(place.start);
        std::slice::from_raw_parts(start, place.end - place.start)
    }
}

/// # Safety
/// The place lies in the mapping, and nobody else reads or writes it meanwhile.
unsafe fn slice_mut<'a>(mapping: &'a mut Mapping, place: &Range<usize>) -> &'a mut [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        let start = mapping.start.as_ptr().add(place.start);
        std::slice::from_raw_parts_mut(start, place.end - place.start)
    }
}

fn too_large() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::EFBIG)
}

/// Anonymous memory that begins at a multiple of large pages, so that the system can back it (and
/// map it for the guest) by large pages: fewer faults, each dear.
fn anonymous(bytes: u64) -> Result<Mapping> {
    let failed = || {
        Error::last(format!("reserve {bytes} bytes of memory for the guest"))
            .with_advice("give it less, or raise the limit of its control group")
    };
    let align = usize::try_from(LARGE_PAGE_BYTES).unwrap_or(usize::MAX);
    let wanted = usize::try_from(bytes)
        .ok()
        .and_then(|bytes| bytes.checked_add(align))
        .ok_or_else(failed)?;
    let bytes = wanted - align;
    // SAFETY: a new private mapping; nothing is replaced.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            wanted,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(failed());
    }
    let head = start.align_offset(align);
    // SAFETY: what is cut off lies in the mapping just made: `head` bytes before, the rest behind.
    let aligned = unsafe {
        let aligned = start.byte_add(head);
        if head > 0 {
            libc::munmap(start, head);
        }
        if align > head {
            libc::munmap(aligned.byte_add(bytes), align - head);
        }
        // Only advice: without it everything works, more slowly.
        libc::madvise(aligned, bytes, libc::MADV_HUGEPAGE);
        libc::madvise(aligned, bytes, libc::MADV_DONTDUMP);
        aligned
    };
    let start = NonNull::new(aligned.cast()).ok_or_else(failed)?;
    Ok(Mapping { start, bytes })
}

/// Maps the beginning of a file, to be read only.
pub(crate) fn map_file_for_reading(file: &std::fs::File, bytes: usize) -> Result<FileView> {
    map_file(file, bytes).map(FileView)
}

/// A file mapped into the monitor.
#[derive(Debug)]
pub(crate) struct FileView(Mapping);

impl FileView {
    /// Its bytes. Images are never shortened in place: the store replaces files.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: all of the mapping, and nobody writes it.
        unsafe { slice(&self.0, &(0..self.0.bytes)) }
    }
}

fn map_file(file: &std::fs::File, bytes: usize) -> Result<Mapping> {
    use std::os::fd::AsRawFd;
    // SAFETY: a new mapping; nothing is replaced.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    let failed = || Error::last(format!("map a file of {bytes} bytes"));
    if start == libc::MAP_FAILED {
        return Err(failed());
    }
    let start = NonNull::new(start.cast()).ok_or_else(failed)?;
    Ok(Mapping { start, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory() -> GuestMemory {
        let mut memory = GuestMemory::new(1 << 20).expect("memory");
        memory.allow(0x1000..0x3000, false);
        memory.allow(0x3000..0x5000, true);
        memory.allow(0x8000..0x9000, true);
        memory
    }

    #[test]
    fn only_regions_can_be_named() {
        let mut memory = memory();
        assert!(memory.read(0x1000, 0x4000).is_ok());
        assert!(memory.read(0xfff, 2).is_err());
        assert!(memory.read(0x4fff, 2).is_err());
        assert!(memory.read(u64::MAX, 2).is_err());
        assert!(memory.read(0x1000, u64::MAX).is_err());
        assert!(memory.write(0x2fff, 2).is_err());
        assert!(memory.write(0x3000, 0x2000).is_ok());
        assert!(memory.write(0x3000, 0x2001).is_err());
        assert_eq!(memory.read(u64::MAX, 0), Ok(&[][..]));
    }

    #[test]
    fn memory_begins_at_a_large_page() {
        let memory = GuestMemory::new(3 << 20).expect("memory");
        let (_, host, bytes, _) = memory.slots().next().expect("main memory");
        assert_eq!((host % LARGE_PAGE_BYTES, bytes), (0, 3 << 20));
    }

    proptest! {
        #[test]
        fn what_is_allowed_lies_in_memory(address: u64, bytes in 0_u64..0x1_0000) {
            let mut memory = memory();
            for address in [address, address % 0x1_0000] {
                let _ = memory.read(address, bytes);
                if let Ok(room) = memory.write(address, bytes) {
                    prop_assert_eq!(room.len() as u64, bytes);
                    room.fill(1);
                }
            }
        }
    }
}

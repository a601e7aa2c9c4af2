//! Requests to block devices.

use gamut_abi::guest::hypercall::{
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, BlockRequest, SECTOR_BYTES,
};

use super::io::element;
use super::{Trouble, checked_size, named};
use crate::device::{Devices, Disk, Errno};
use crate::memory::GuestMemory;

const INVALID: Errno = Errno(22);
const READ_ONLY: Errno = Errno(30);

/// Carries out one request of an array, and writes its answer.
pub(super) fn carry_out(
    array: u64,
    index: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<(), Trouble> {
    let what = format_args!("block request {index}");
    let (at, mut request): (u64, BlockRequest) =
        element(array, index, memory).map_err(|bad| bad.of(what))?;
    let Some(disk) = devices.disks.get_mut(usize::from(request.device)) else {
        return Err(Trouble::Bad(format!(
            "{what}: there is no block device {}",
            request.device
        )));
    };
    let answer = perform(&what.to_string(), &request, memory, disk.as_mut())?;
    request.status = answer.map_or_else(|errno| errno.0, |()| 0);
    memory
        .write_plain(at, &request)
        .map_err(|bad| named(&what.to_string(), bad))
}

fn perform(
    what: &str,
    request: &BlockRequest,
    memory: &mut GuestMemory,
    disk: &mut dyn Disk,
) -> Result<Result<(), Errno>, Trouble> {
    let bytes = u64::from(request.bytes);
    // The memory is looked at first: a bad address is a bug whatever the disk would have said.
    match request.operation {
        BLOCK_READ => {
            checked_size(what, bytes)?;
            let room = memory
                .write(request.address, bytes)
                .map_err(|bad| named(what, bad))?;
            Ok(check_range(request, disk).and_then(|()| disk.read(request.offset_bytes, room)))
        }
        BLOCK_WRITE => {
            checked_size(what, bytes)?;
            let data = memory
                .read(request.address, bytes)
                .map_err(|bad| named(what, bad))?;
            Ok(check_write(request, disk).and_then(|()| disk.write(request.offset_bytes, data)))
        }
        BLOCK_FLUSH if disk.is_read_only() => Ok(Ok(())),
        BLOCK_FLUSH => Ok(disk.flush()),
        BLOCK_DISCARD => {
            Ok(check_write(request, disk).and_then(|()| disk.discard(request.offset_bytes, bytes)))
        }
        operation => Err(Trouble::Bad(format!(
            "{what}: operation {operation} has no meaning"
        ))),
    }
}

fn check_write(request: &BlockRequest, disk: &dyn Disk) -> Result<(), Errno> {
    if disk.is_read_only() {
        return Err(READ_ONLY);
    }
    check_range(request, disk)
}

fn check_range(request: &BlockRequest, disk: &dyn Disk) -> Result<(), Errno> {
    let sector = u64::from(SECTOR_BYTES);
    let bytes = u64::from(request.bytes);
    let is_inside = request
        .offset_bytes
        .checked_add(bytes)
        .is_some_and(|end| end <= disk.bytes());
    if is_inside && request.offset_bytes.is_multiple_of(sector) && bytes.is_multiple_of(sector) {
        Ok(())
    } else {
        Err(INVALID)
    }
}

//! The drivers themselves, by the crate `virtio-drivers`.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::format;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

use gamut_abi::guest::config;
use gamut_abi::guest::hypercall::IoRequest;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport as _};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use super::DeviceWord;
use crate::cell::Global;
use crate::to_usize;

/// What the drivers need of their surroundings: memory is mapped one to one.
struct Memory;

fn pages(count: usize) -> Option<Layout> {
    Layout::from_size_align(count.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok()
}

// SAFETY: addresses are physical ones, and the heap hands out memory that nobody else has.
unsafe impl Hal for Memory {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(layout) = pages(count).filter(|layout| layout.size() > 0) else {
            return (0, NonNull::dangling());
        };
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        match NonNull::new(memory) {
            Some(place) => (memory.expose_provenance() as u64, place),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, place: NonNull<u8>, count: usize) -> i32 {
        if let Some(layout) = pages(count) {
            // SAFETY: allocated above with the same layout.
            unsafe { dealloc(place.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(ptr::with_exposed_provenance_mut(to_usize(address)))
            .unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>().expose_provenance() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

type Transport = MmioTransport<'static>;

#[cfg(feature = "net")]
const QUEUE_FRAMES: usize = 64;
/// Largest frame, with the header of virtio.
#[cfg(feature = "net")]
const BUFFER_BYTES: usize = 2048;

#[cfg(feature = "net")]
type Net = virtio_drivers::device::net::VirtIONet<Memory, Transport, QUEUE_FRAMES>;
#[cfg(feature = "block")]
type Block = virtio_drivers::device::blk::VirtIOBlk<Memory, Transport>;

#[cfg(feature = "net")]
static NETS: Global<Vec<Net>> = Global::new(Vec::new());
#[cfg(feature = "block")]
static BLOCKS: Global<Vec<Block>> = Global::new(Vec::new());

/// Whether the configuration has a line for a device.
fn is_configured(text: &[u8], key: &str, index: usize) -> bool {
    config::values(text, key).any(|value| {
        let first = value.split(' ').next().unwrap_or_default();
        first.parse() == Ok(index)
    })
}

/// Sets up every device that is named, in order of their addresses.
pub(super) fn find(words: &[DeviceWord], text: &mut Vec<u8>) {
    let mut words = words.to_vec();
    words.sort_by_key(|word| word.address);
    for word in words {
        let header = ptr::with_exposed_provenance_mut::<VirtIOHeader>(to_usize(word.address));
        let Some(header) = NonNull::new(header) else {
            continue;
        };
        // SAFETY: the monitor says that the registers of a device are there; below 4 GiB they are
        // mapped, and nobody else uses them.
        let Ok(transport) = (unsafe { MmioTransport::new(header, to_usize(word.bytes)) }) else {
            continue;
        };
        match transport.device_type() {
            #[cfg(feature = "net")]
            DeviceType::Network => add_net(transport, word.line, text),
            #[cfg(feature = "block")]
            DeviceType::Block => add_block(transport, text),
            _ => {}
        }
    }
}

#[cfg(feature = "net")]
fn add_net(transport: Transport, line: u32, text: &mut Vec<u8>) {
    let Ok(net) = Net::new(transport, BUFFER_BYTES) else {
        return super::super::console(b"gamut: a virtio network device cannot be used\n");
    };
    super::super::interrupts::enable_line(line);
    let mac = net.mac_address();
    let index = NETS.with(|nets| {
        nets.push(net);
        nets.len() - 1
    });
    let [a, b, c, d, e, f] = mac;
    let mac = format!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    // A line without an address of its hardware follows as a second line of the same device.
    let words = if is_configured(text, "net", index) {
        format!("{index} {mac}")
    } else {
        format!("{index} {mac} dhcp")
    };
    let _ = config::push(text, "net", &words);
}

#[cfg(feature = "block")]
fn add_block(transport: Transport, text: &mut Vec<u8>) {
    let Ok(mut block) = Block::new(transport) else {
        return super::super::console(b"gamut: a virtio block device cannot be used\n");
    };
    // Requests are waited for where they are made.
    block.disable_interrupts();
    let bytes = block.capacity().saturating_mul(512);
    let read_only = if block.readonly() { " ro" } else { "" };
    let index = BLOCKS.with(|blocks| {
        blocks.push(block);
        blocks.len() - 1
    });
    if !is_configured(text, "block", index) {
        let words = format!("{index} bytes={bytes}{read_only}");
        let _ = config::push(text, "block", &words);
    }
}

#[cfg(feature = "net")]
pub(super) fn has_received() -> bool {
    NETS.with(|nets| {
        nets.iter_mut().any(|net| {
            let _ = net.ack_interrupt();
            net.can_recv()
        })
    })
}

#[cfg(feature = "net")]
pub(super) fn transmit(request: &mut IoRequest) {
    use gamut_abi::guest::hypercall::Frame;
    use virtio_drivers::device::net::TxBuffer;

    let frames = ptr::with_exposed_provenance_mut::<Frame>(to_usize(request.transmit_address));
    NETS.with(|nets| {
        for index in 0..to_usize(request.transmit_count.into()) {
            // SAFETY: the request's maker owns the array and the bytes, and waits for us.
            let (frame, bytes) = unsafe {
                let frame = &mut *frames.add(index);
                let start = ptr::with_exposed_provenance::<u8>(to_usize(frame.address));
                let bytes = core::slice::from_raw_parts(start, to_usize(frame.bytes.into()));
                (frame, bytes)
            };
            let sent = nets
                .get_mut(usize::from(frame.device))
                .map(|net| net.send(TxBuffer::from(bytes)));
            frame.status = u16::from(!matches!(sent, Some(Ok(()))));
        }
    });
}

#[cfg(feature = "net")]
pub(super) fn receive(request: &mut IoRequest) {
    use gamut_abi::guest::hypercall::Frame;

    let frames = ptr::with_exposed_provenance_mut::<Frame>(to_usize(request.receive_address));
    let mut filled = 0;
    NETS.with(|nets| {
        for (device, net) in nets.iter_mut().enumerate() {
            while filled < request.receive_count {
                let Ok(buffer) = net.receive() else {
                    break;
                };
                let packet = buffer.packet();
                // SAFETY: as above; no more is written than fits into the buffer.
                unsafe {
                    let frame = &mut *frames.add(to_usize(filled.into()));
                    let room = to_usize(frame.bytes.into());
                    if packet.len() <= room {
                        let place = ptr::with_exposed_provenance_mut::<u8>(to_usize(frame.address));
                        ptr::copy_nonoverlapping(packet.as_ptr(), place, packet.len());
                        frame.bytes = u32::try_from(packet.len()).unwrap_or_default();
                        frame.device = u16::try_from(device).unwrap_or_default();
                        filled += 1;
                    }
                }
                let _ = net.recycle_rx_buffer(buffer);
            }
        }
    });
    request.received_count = filled;
}

#[cfg(feature = "block")]
pub(super) fn block(request: &mut IoRequest) {
    use gamut_abi::guest::hypercall::BlockRequest;

    let requests =
        ptr::with_exposed_provenance_mut::<BlockRequest>(to_usize(request.block_address));
    BLOCKS.with(|blocks| {
        for index in 0..to_usize(request.block_count.into()) {
            // SAFETY: the request's maker owns the array, and waits for us.
            let one = unsafe { &mut *requests.add(index) };
            one.status = match blocks.get_mut(usize::from(one.device)) {
                Some(block) => carry_out(block, one),
                None => EINVAL,
            };
        }
    });
}

#[cfg(feature = "block")]
const EIO: u32 = 5;
#[cfg(feature = "block")]
const EINVAL: u32 = 22;
#[cfg(feature = "block")]
const EROFS: u32 = 30;

#[cfg(feature = "block")]
fn carry_out(block: &mut Block, request: &gamut_abi::guest::hypercall::BlockRequest) -> u32 {
    use gamut_abi::guest::hypercall::{
        BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, SECTOR_BYTES,
    };

    let sector = u64::from(SECTOR_BYTES);
    let end = request.offset_bytes.checked_add(request.bytes.into());
    let is_inside = end.is_some_and(|end| end <= block.capacity().saturating_mul(sector));
    let is_aligned =
        request.offset_bytes.is_multiple_of(sector) && request.bytes.is_multiple_of(SECTOR_BYTES);
    if request.operation != BLOCK_FLUSH && (!is_inside || !is_aligned) {
        return EINVAL;
    }
    let changes = matches!(request.operation, BLOCK_WRITE | BLOCK_DISCARD);
    if changes && block.readonly() {
        return EROFS;
    }
    if request.operation != BLOCK_FLUSH && request.bytes == 0 {
        return 0;
    }
    let first = to_usize(request.offset_bytes / sector);
    let place = ptr::with_exposed_provenance_mut::<u8>(to_usize(request.address));
    let bytes = to_usize(request.bytes.into());
    let done = match request.operation {
        BLOCK_READ => {
            // SAFETY: as above.
            let data = unsafe { core::slice::from_raw_parts_mut(place, bytes) };
            block.read_blocks(first, data)
        }
        BLOCK_WRITE => {
            // SAFETY: as above.
            let data = unsafe { core::slice::from_raw_parts(place, bytes) };
            block.write_blocks(first, data)
        }
        BLOCK_FLUSH => block.flush(),
        BLOCK_DISCARD => block.write_blocks(first, &alloc::vec![0; bytes]),
        _ => return EINVAL,
    };
    if done.is_ok() { 0 } else { EIO }
}

//! Block devices.
//!
//! Requests of all tasks go to the monitor together, at the end of a turn. Buffers are handed
//! over for as long as a request lasts, so that a dropped future leaves nothing dangling.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use gamut_abi::guest::config;
use gamut_abi::guest::hypercall::{
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, BlockRequest, IoRequest, MAX_BATCH,
    MAX_TRANSFER_BYTES,
};

use crate::cell::Global;
use crate::error::becomes_error;
use crate::{boot, to_usize};

pub use gamut_abi::guest::hypercall::SECTOR_BYTES;

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// The device failed.
    Device,
    /// The host has no space left for it.
    NoSpace,
    /// It cannot be written.
    ReadOnly,
    /// Beyond the end, or not in whole sectors.
    OutOfRange,
    /// Another error of the host, by its number on Linux.
    Other(u32),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("input/output error of the block device"),
            Self::NoSpace => f.write_str("no space left behind the block device"),
            Self::ReadOnly => f.write_str("the block device is read-only"),
            Self::OutOfRange => {
                f.write_str("beyond the end of the block device, or not in whole sectors")
            }
            Self::Other(number) => write!(f, "the block device failed with error {number}"),
        }
    }
}

becomes_error!(BlockError);

fn outcome(status: u32) -> Result<(), BlockError> {
    match status {
        0 => Ok(()),
        5 => Err(BlockError::Device),
        22 => Err(BlockError::OutOfRange),
        28 => Err(BlockError::NoSpace),
        30 => Err(BlockError::ReadOnly),
        other => Err(BlockError::Other(other)),
    }
}

#[derive(Default)]
struct Progress {
    status: Option<u32>,
    /// Given back with the status.
    buffer: Option<Box<[u8]>>,
    waiting: Option<Waker>,
}

struct Operation {
    request: BlockRequest,
    /// Lent to the monitor.
    buffer: *mut [u8],
    progress: Rc<RefCell<Progress>>,
}

struct Queue {
    waiting: VecDeque<Operation>,
    active: Vec<Operation>,
    /// What the monitor sees of the active ones.
    requests: Vec<BlockRequest>,
}

static QUEUE: Global<Queue> = Global::new(Queue {
    waiting: VecDeque::new(),
    active: Vec::new(),
    requests: Vec::new(),
});

/// Adds block requests to the request of a turn.
pub(crate) fn prepare(request: &mut IoRequest) {
    QUEUE.with(|queue| {
        queue.requests.clear();
        while queue.requests.len() < to_usize(MAX_BATCH.into())
            && let Some(operation) = queue.waiting.pop_front()
        {
            queue.requests.push(operation.request);
            queue.active.push(operation);
        }
        request.block_address = queue.requests.as_mut_ptr().expose_provenance() as u64;
        request.block_count = u32::try_from(queue.requests.len()).unwrap_or(0);
    });
}

/// Takes the answers.
pub(crate) fn complete() {
    QUEUE.with(|queue| {
        for (operation, request) in queue.active.drain(..).zip(&queue.requests) {
            // SAFETY: lent below, and the monitor has answered.
            let buffer = unsafe { Box::from_raw(operation.buffer) };
            let mut progress = operation.progress.borrow_mut();
            progress.status = Some(request.status);
            progress.buffer = Some(buffer);
            if let Some(waiting) = progress.waiting.take() {
                waiting.wake();
            }
        }
    });
}

/// A block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDevice {
    index: u16,
    bytes: u64,
    name: &'static str,
    is_read_only: bool,
}

/// The block devices, in order.
pub fn devices() -> impl Iterator<Item = BlockDevice> + Clone {
    config::values(boot::config(), "block").filter_map(|line| {
        let mut words = config::words(line);
        let index = words.next()?.0.parse().ok()?;
        let mut device = BlockDevice {
            index,
            bytes: 0,
            name: "",
            is_read_only: false,
        };
        for (word, value) in words {
            match word {
                "bytes" => device.bytes = value.parse().ok()?,
                "name" => device.name = value,
                "ro" => device.is_read_only = true,
                _ => {}
            }
        }
        Some(device)
    })
}

impl BlockDevice {
    /// The device that the user wants at a place (`/data` of `-v store:/data`).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        devices().find(|device| device.name == name)
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The place where the user wants it; empty if nobody says.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it cannot be written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    async fn ask(
        &self,
        operation: u16,
        offset_bytes: u64,
        buffer: Box<[u8]>,
        bytes: u32,
    ) -> Result<Box<[u8]>, BlockError> {
        let progress = Rc::new(RefCell::new(Progress::default()));
        let buffer = Box::into_raw(buffer);
        QUEUE.with(|queue| {
            queue.waiting.push_back(Operation {
                request: BlockRequest {
                    offset_bytes,
                    address: buffer.cast::<u8>().expose_provenance() as u64,
                    bytes,
                    device: self.index,
                    operation,
                    status: 0,
                    reserved: 0,
                },
                buffer,
                progress: progress.clone(),
            });
        });
        poll_fn(|context| {
            let mut progress = progress.borrow_mut();
            let Some(status) = progress.status else {
                progress.waiting = Some(context.waker().clone());
                return Poll::Pending;
            };
            let buffer = progress.buffer.take().unwrap_or_default();
            Poll::Ready(outcome(status).map(|()| buffer))
        })
        .await
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// If they are not all there, or the device fails.
    pub async fn read(&self, offset_bytes: u64, bytes: usize) -> Result<Vec<u8>, BlockError> {
        let most = to_usize(MAX_TRANSFER_BYTES.into());
        let mut data = Vec::new();
        while data.len() < bytes {
            let count = (bytes - data.len()).min(most);
            let offset_bytes = offset_bytes + data.len() as u64;
            let buffer = vec![0; count].into_boxed_slice();
            let count = u32::try_from(count).unwrap_or(0);
            let piece = self.ask(BLOCK_READ, offset_bytes, buffer, count).await?;
            if data.is_empty() {
                data = piece.into_vec();
            } else {
                data.extend_from_slice(&piece);
            }
        }
        Ok(data)
    }

    /// Writes whole sectors. What has been written is durable after [`Self::flush`].
    ///
    /// # Errors
    /// If they are not all there, the device cannot be written, or fails: then some may have been
    /// written.
    pub async fn write(&self, offset_bytes: u64, data: Vec<u8>) -> Result<(), BlockError> {
        let most = to_usize(MAX_TRANSFER_BYTES.into());
        if data.is_empty() {
            return Ok(());
        }
        if data.len() <= most {
            let bytes = u32::try_from(data.len()).unwrap_or(0);
            let data = data.into_boxed_slice();
            return self
                .ask(BLOCK_WRITE, offset_bytes, data, bytes)
                .await
                .map(|_| ());
        }
        let mut offset_bytes = offset_bytes;
        for piece in data.chunks(most) {
            let bytes = u32::try_from(piece.len()).unwrap_or(0);
            self.ask(BLOCK_WRITE, offset_bytes, piece.into(), bytes)
                .await?;
            offset_bytes += u64::from(bytes);
        }
        Ok(())
    }

    /// Makes every write that was answered before durable.
    ///
    /// # Errors
    /// If the device fails: then it is not known what is durable.
    pub async fn flush(&self) -> Result<(), BlockError> {
        self.ask(BLOCK_FLUSH, 0, Box::default(), 0)
            .await
            .map(|_| ())
    }

    /// Gives space back, in whole sectors; it reads as zeros afterwards.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn discard(&self, offset_bytes: u64, bytes: u64) -> Result<(), BlockError> {
        let mut left = bytes;
        let mut offset_bytes = offset_bytes;
        while left > 0 {
            let count = u32::try_from(left)
                .unwrap_or(u32::MAX)
                .min(MAX_TRANSFER_BYTES);
            self.ask(BLOCK_DISCARD, offset_bytes, Box::default(), count)
                .await?;
            offset_bytes += u64::from(count);
            left -= u64::from(count);
        }
        Ok(())
    }
}

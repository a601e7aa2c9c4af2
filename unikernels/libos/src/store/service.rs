//! The store on a block device: changes of many tasks are written together, small values are kept
//! in memory.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

use super::format::Operation;
use super::log::{Disk, Log, OpenMode, StoreError};
use crate::block::{BlockDevice, BlockError};
use crate::executor::spawn;
use crate::{entropy, memory};

/// Values up to this size are kept in memory while there is room.
const CACHED_VALUE_BYTES: usize = 4096;
/// Memory that the cache and the index leave to others.
const RESERVE_BYTES: usize = 1 << 20;
/// Changes that are written together.
const MAX_GROUP: usize = 512;

impl From<BlockError> for StoreError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::NoSpace => Self::NoSpace,
            error => Self::Block(error),
        }
    }
}

struct Device(BlockDevice);

impl Disk for Device {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    async fn read(&self, offset_bytes: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        Ok(self.0.read(offset_bytes, bytes).await?)
    }

    async fn write(&self, offset_bytes: u64, data: Vec<u8>) -> Result<(), StoreError> {
        // Space behind the device that is missing at one write may be missing at the next: what is
        // on the device is not known, so this is not the same as a full store.
        self.0
            .write(offset_bytes, data)
            .await
            .map_err(StoreError::Block)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.0.flush().await.map_err(StoreError::Block)
    }
}

type Outcome = Rc<RefCell<(Option<Result<bool, StoreError>>, Option<Waker>)>>;

struct Shared {
    /// Taken by the writer while it commits; readers then find values by the cache or wait.
    log: RefCell<Option<Log<Device>>>,
    queue: RefCell<Vec<(Operation, Outcome)>>,
    cache: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    cached_bytes: Cell<usize>,
    writer: RefCell<Option<Waker>>,
    readers: RefCell<Vec<Waker>>,
}

/// Numbers of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Keys.
    pub keys: u64,
    /// Raised with every compaction.
    pub generation: u64,
}

/// A key-value store. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    shared: Rc<Shared>,
}

impl Store {
    /// Opens the store on a block device and starts the task that writes.
    ///
    /// # Errors
    /// If the device holds something else, is damaged, too small or fails.
    pub async fn open(device: BlockDevice, mode: OpenMode) -> Result<Self, StoreError> {
        let log = Log::open(Device(device), mode, entropy::number).await?;
        let shared = Rc::new(Shared {
            log: RefCell::new(Some(log)),
            queue: RefCell::default(),
            cache: RefCell::default(),
            cached_bytes: Cell::new(0),
            writer: RefCell::default(),
            readers: RefCell::default(),
        });
        spawn(write(shared.clone()));
        Ok(Self { shared })
    }

    /// Sets a key to a value; durable when this returns.
    ///
    /// # Errors
    /// If key or value are too long, the store is full, or the device fails.
    pub async fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        if memory::available_bytes() < RESERVE_BYTES / 2 + 3 * value.len() {
            return Err(StoreError::NoSpace);
        }
        self.change(Operation::Put(key.to_vec(), value))
            .await
            .map(|_| ())
    }

    /// Removes a key; durable when this returns. Says whether it was there.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.change(Operation::Delete(key.to_vec())).await
    }

    async fn change(&self, operation: Operation) -> Result<bool, StoreError> {
        let outcome = Outcome::default();
        let shared = &self.shared;
        shared.queue.borrow_mut().push((operation, outcome.clone()));
        if let Some(writer) = shared.writer.take() {
            writer.wake();
        }
        poll_fn(|context| {
            let mut outcome = outcome.borrow_mut();
            match outcome.0.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    outcome.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Calls a function with the log, once the writer does not have it.
    async fn with_log<R>(&self, mut use_it: impl FnMut(&Log<Device>) -> R) -> R {
        poll_fn(|context| match self.shared.log.borrow().as_ref() {
            Some(log) => Poll::Ready(use_it(log)),
            None => {
                self.shared
                    .readers
                    .borrow_mut()
                    .push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// The value of a key; none if it is not there.
    ///
    /// # Errors
    /// If the device fails or the value is damaged.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.shared.cache.borrow().get(key) {
            return Ok(Some(value.clone()));
        }
        loop {
            let found = self
                .with_log(|log| (log.locate(key), log.device(), log.generation()))
                .await;
            let (Some(location), device, generation) = found else {
                return Ok(None);
            };
            let data = device.read(location.offset_bytes, location.bytes).await?;
            if let Some(value) = location.value(&data) {
                return Ok(Some(value));
            }
            // Compacted twice since it was found, and overwritten: it is elsewhere now.
            if self.with_log(Log::generation).await == generation {
                return Err(StoreError::Damaged(location.offset_bytes));
            }
        }
    }

    /// Up to `most` keys from a key on, in order.
    pub async fn keys(&self, first: &[u8], most: usize) -> Vec<Vec<u8>> {
        self.with_log(|log| {
            let keys = log.keys_from(first).take(most);
            keys.map(<[u8]>::to_vec).collect()
        })
        .await
    }

    /// Its numbers.
    pub async fn counters(&self) -> Counters {
        self.with_log(|log| Counters {
            keys: log.len() as u64,
            generation: log.generation(),
        })
        .await
    }
}

impl Log<Device> {
    fn device(&self) -> BlockDevice {
        self.disk().0
    }
}

impl Shared {
    fn remember(&self, operation: Operation) {
        let mut cache = self.cache.borrow_mut();
        let mut bytes = self.cached_bytes.get();
        if let Some(old) = cache.get(operation.key()) {
            bytes -= old.len() + operation.key().len();
        }
        match operation {
            Operation::Put(key, value)
                if value.len() <= CACHED_VALUE_BYTES
                    && memory::available_bytes() > 2 * RESERVE_BYTES =>
            {
                bytes += key.len() + value.len();
                cache.insert(key, value);
            }
            other => {
                cache.remove(other.key());
            }
        }
        self.cached_bytes.set(bytes);
    }
}

/// Commits what is in the queue, again and again, all of it together.
async fn write(shared: Rc<Shared>) {
    loop {
        poll_fn(|context| {
            if shared.queue.borrow().is_empty() {
                shared.writer.replace(Some(context.waker().clone()));
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        let Some(mut log) = shared.log.take() else {
            return;
        };
        let mut group: Vec<(Operation, Outcome)> = {
            let mut queue = shared.queue.borrow_mut();
            let count = queue.len().min(MAX_GROUP);
            queue.drain(..count).collect()
        };
        // One bad change must not fail the others, and so must not the last one that fits.
        let (operations, outcomes): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        let existed = existed(&log, &operations);
        let results = match log.commit(&operations, entropy::number).await {
            Ok(()) => existed.into_iter().map(Ok).collect(),
            Err(error) if operations.len() == 1 => Vec::from([Err(error)]),
            Err(_) => {
                let mut results = Vec::new();
                for (operation, existed) in operations.iter().zip(existed) {
                    let one = core::slice::from_ref(operation);
                    let result = log.commit(one, entropy::number).await;
                    results.push(result.map(|()| existed));
                }
                results
            }
        };
        shared.log.replace(Some(log));
        for ((operation, outcome), result) in operations.into_iter().zip(outcomes).zip(results) {
            if result.is_ok() {
                shared.remember(operation);
            }
            let waiting = {
                let mut outcome = outcome.borrow_mut();
                outcome.0 = Some(result);
                outcome.1.take()
            };
            if let Some(waiting) = waiting {
                waiting.wake();
            }
        }
        shared.readers.take().into_iter().for_each(Waker::wake);
    }
}

/// Whether each change's key is there when its turn comes.
fn existed(log: &Log<Device>, operations: &[Operation]) -> Vec<bool> {
    let mut changed: BTreeMap<&[u8], bool> = BTreeMap::new();
    operations
        .iter()
        .map(|operation| {
            let key = operation.key();
            let now = matches!(operation, Operation::Put(..));
            let before = changed.insert(key, now);
            before.unwrap_or_else(|| log.contains(key))
        })
        .collect()
}

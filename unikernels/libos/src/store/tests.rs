//! The log on a disk that loses power, at every write.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::format::SECTOR;
use super::log::{Disk, Log, OpenMode, StoreError};
use super::{BatchHeader, Operation, Superblock, decode_operations};

/// Nothing here ever waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a disk in memory does not wait"),
    }
}

/// Where it is to be, and what.
type Write = (usize, Vec<u8>);

#[derive(Clone)]
struct Memory {
    durable: Rc<RefCell<Vec<u8>>>,
    /// Written and not flushed.
    pending: Rc<RefCell<Vec<Write>>>,
    /// Writes and flushes until the power fails.
    left: Rc<Cell<usize>>,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        Self {
            durable: Rc::new(RefCell::new(vec![0; bytes])),
            pending: Rc::default(),
            left: Rc::new(Cell::new(usize::MAX)),
        }
    }

    /// The power fails: of the pending sectors some are on the disk.
    fn crash(&self, mut survives: impl FnMut() -> bool) {
        for (at, data) in self.pending.borrow_mut().drain(..) {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                if survives() {
                    let at = at + index * SECTOR;
                    self.durable.borrow_mut()[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        self.left.set(usize::MAX);
    }

    fn step(&self) -> Result<(), StoreError> {
        let left = self.left.get().checked_sub(1).ok_or(StoreError::Crashed)?;
        self.left.set(left);
        Ok(())
    }
}

impl Disk for Memory {
    fn bytes(&self) -> u64 {
        self.durable.borrow().len() as u64
    }

    async fn read(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        assert!(offset.is_multiple_of(512) && bytes.is_multiple_of(512));
        let at = usize::try_from(offset).expect("small");
        let mut data = self.durable.borrow()[at..at + bytes].to_vec();
        for (begin, written) in self.pending.borrow().iter() {
            for (index, byte) in written.iter().enumerate() {
                if let Some(place) = (begin + index)
                    .checked_sub(at)
                    .and_then(|i| data.get_mut(i))
                {
                    *place = *byte;
                }
            }
        }
        Ok(data)
    }

    async fn write(&self, offset: u64, data: Vec<u8>) -> Result<(), StoreError> {
        assert!(offset.is_multiple_of(512) && data.len().is_multiple_of(512));
        let at = usize::try_from(offset).expect("small");
        assert!(
            at + data.len() <= self.durable.borrow().len(),
            "beyond the end"
        );
        self.pending.borrow_mut().push((at, data));
        self.step()
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.step()?;
        self.crash(|| true);
        Ok(())
    }
}

fn salts() -> impl FnMut() -> u64 {
    let mut last = 0x1234_5678_9abc_def1_u64;
    move || {
        last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        last
    }
}

fn open(disk: &Memory) -> Result<Log<Memory>, StoreError> {
    run(Log::open(disk.clone(), OpenMode::CreateIfEmpty, salts()))
}

fn put(key: &str, value: &[u8]) -> Operation {
    Operation::Put(key.as_bytes().to_vec(), value.to_vec())
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn apply(model: &mut Model, operation: &Operation) {
    match operation {
        Operation::Put(key, value) => model.insert(key.clone(), value.clone()),
        Operation::Delete(key) => model.remove(key),
    };
}

fn content(log: &Log<Memory>) -> Model {
    let keys: Vec<Vec<u8>> = log.keys_from(b"").map(<[u8]>::to_vec).collect();
    keys.into_iter()
        .map(|key| {
            let value = run(log.get(&key)).expect("readable").expect("there");
            (key, value)
        })
        .collect()
}

#[test]
fn what_is_committed_is_there_after_a_restart() {
    let disk = Memory::new(256 << 10);
    let mut log = open(&disk).expect("an empty disk");
    let mut random = salts();
    run(log.commit(&[put("a", b"1"), put("b", b"2")], &mut random)).expect("space");
    run(log.commit(
        &[put("a", b"3"), Operation::Delete(b"b".to_vec())],
        &mut random,
    ))
    .expect("space");
    let log = open(&disk).expect("a store");
    assert_eq!(run(log.get(b"a")), Ok(Some(b"3".to_vec())));
    assert_eq!(run(log.get(b"b")), Ok(None));
    assert_eq!(log.len(), 1);
}

#[test]
fn a_full_area_is_compacted_and_a_full_store_says_so() {
    let disk = Memory::new(200 << 10);
    let mut log = open(&disk).expect("an empty disk");
    let mut random = salts();
    for round in 0..500_u32 {
        let value = round.to_le_bytes().repeat(500);
        let key = ["a", "b", "c"][(round % 3) as usize];
        run(log.commit(&[put(key, &value)], &mut random)).expect("space after compaction");
    }
    assert!(log.generation() > 5, "compacted");
    let before = content(&log);
    assert_eq!(before, content(&open(&disk).expect("a store")));
    let mut refused = 0;
    for index in 0..200 {
        let result = run(log.commit(&[put(&alloc::format!("k{index}"), &[7; 2000])], &mut random));
        refused += usize::from(result == Err(StoreError::NoSpace));
    }
    assert!(refused > 100);
    // Full is not broken: what is there stays, and deleting makes room.
    assert_eq!(run(log.get(b"a")), Ok(before.get(&b"a"[..]).cloned()));
    let keys: Vec<Vec<u8>> = log.keys_from(b"k").map(<[u8]>::to_vec).collect();
    for key in keys {
        run(log.commit(&[Operation::Delete(key)], &mut random)).expect("a deletion fits");
    }
    run(log.commit(&[put("new", &[7; 2000])], &mut random)).expect("space again");
}

#[test]
fn what_is_no_store_is_left_alone_and_damage_is_found() {
    let disk = Memory::new(256 << 10);
    disk.durable.borrow_mut()[100] = 1;
    assert_eq!(open(&disk).err(), Some(StoreError::Foreign));
    assert_eq!(
        open(&Memory::new(64 << 10)).err(),
        Some(StoreError::TooSmall)
    );

    let disk = Memory::new(256 << 10);
    let mut log = open(&disk).expect("an empty disk");
    for key in ["a", "b", "c"] {
        run(log.commit(&[put(key, b"x")], salts())).expect("space");
    }
    // The second of three batches.
    disk.durable.borrow_mut()[8192 + 512 + 45] ^= 1;
    assert_eq!(open(&disk).err(), Some(StoreError::Damaged(8192 + 512)));
}

#[test]
fn keys_and_values_have_limits() {
    let disk = Memory::new(8 << 20);
    let mut log = open(&disk).expect("an empty disk");
    let mut commit = |operation| run(log.commit(&[operation], salts()));
    assert_eq!(commit(put("", b"")), Err(StoreError::BadKey));
    assert_eq!(commit(put(&"k".repeat(1025), b"")), Err(StoreError::BadKey));
    let long = vec![0; (1 << 20) + 1];
    assert_eq!(commit(put("k", &long)), Err(StoreError::ValueTooLong));
    assert_eq!(commit(put("k", &long[1..])), Ok(()));
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = proptest::collection::vec(b'a'..b'e', 1..3);
    (
        key,
        proptest::option::weighted(0.8, (any::<u8>(), 0..6000_usize)),
    )
        .prop_map(|(key, value)| match value {
            Some((byte, bytes)) => Operation::Put(key, vec![byte; bytes]),
            None => Operation::Delete(key),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whenever the power fails, what was acknowledged is there, and nothing else but the commit
    /// that was under way, whole or not at all.
    #[test]
    fn a_crash_loses_nothing_that_was_acknowledged(
        commits in proptest::collection::vec(proptest::collection::vec(operation(), 1..4), 1..40),
        crashes in proptest::collection::vec((1..30_usize, any::<u64>()), 1..6),
    ) {
        let disk = Memory::new(160 << 10);
        let mut log = open(&disk).expect("an empty disk");
        let mut random = salts();
        let mut model = Model::new();
        let mut crashes = crashes.into_iter();
        let mut crash = crashes.next();
        disk.left.set(crash.map_or(usize::MAX, |(steps, _)| steps));
        for operations in &commits {
            let mut next = model.clone();
            operations.iter().for_each(|operation| apply(&mut next, operation));
            match run(log.commit(operations, &mut random)) {
                Ok(()) => model = next,
                Err(StoreError::NoSpace) => {}
                Err(error) => {
                    prop_assert_eq!(error, StoreError::Crashed);
                    let mut bits = crash.map_or(0, |(_, bits)| bits);
                    disk.crash(|| {
                        bits = bits.rotate_left(1);
                        bits & 1 == 1
                    });
                    log = open(&disk).expect("a store after the crash");
                    let found = content(&log);
                    prop_assert!(found == model || found == next);
                    model = found;
                    crash = crashes.next();
                    disk.left.set(crash.map_or(usize::MAX, |(steps, _)| steps));
                }
            }
        }
        disk.left.set(usize::MAX);
        prop_assert_eq!(&content(&log), &model);
        prop_assert_eq!(&content(&open(&disk).expect("a store")), &model);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = Superblock::from_sector(&bytes);
        let _ = BatchHeader::from_bytes(&bytes);
        let _ = decode_operations(&bytes, |_, _| ());
    }

    /// A disk with anything on it is opened or refused.
    #[test]
    fn a_damaged_disk_is_no_panic(damage in proptest::collection::vec((0..12_000_usize, any::<u8>()), 1..20)) {
        let disk = Memory::new(160 << 10);
        let mut log = open(&disk).expect("an empty disk");
        for key in ["a", "b", "c"] {
            run(log.commit(&[put(key, &[1; 700])], salts())).expect("space");
        }
        for (at, byte) in damage {
            disk.durable.borrow_mut()[at] = byte;
        }
        if let Ok(log) = open(&disk) {
            for key in ["a", "b", "c"] {
                let _ = run(log.get(key.as_bytes()));
            }
        }
    }
}

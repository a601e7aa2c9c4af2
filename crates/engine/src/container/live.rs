//! A container in the engine's memory.

use super::record::{ContainerRecord, Phase};
use crate::error::{Error, Result};
use crate::health::HealthStatus;
use crate::store::{Collection, Durability};
use gamut_isolation::contract::AttachedStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What waiters look at. Changes only forward: counters grow, `removed` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// How often the first process was seen to start.
    pub starts: u64,
    /// How often it was seen to end.
    pub exits: u64,
    /// A supervisor should be alive.
    pub live: bool,
    /// Number of the last run whose supervisor is gone.
    pub ended_run: u64,
    /// The container is gone.
    pub removed: bool,
    /// Exit code of the last end.
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    /// What its health check says, if it has one.
    pub health: Option<HealthStatus>,
}

/// A container in memory: its record and what goes on with it.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Held by verbs that change its life, one at a time.
    operation: Mutex<()>,
    record: Mutex<ContainerRecord>,
    pending: Mutex<Vec<AttachedStream>>,
    life: watch::Sender<Life>,
    /// Number of the supervisor that speaks for it: what an earlier one says no longer counts.
    run: AtomicU64,
    layers: OnceLock<Vec<PathBuf>>,
    /// Number of the monitor of its health, and how to end it.
    monitor: Mutex<(u64, Option<AbortHandle>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Container {
    /// A container with this record.
    #[must_use]
    pub fn new(record: ContainerRecord) -> Self {
        let life = Life {
            live: record.state.phase.is_live(),
            exit_code: record.state.exit.map_or(0, |exit| exit.code),
            error: record.state.error.clone(),
            health: record.state.health.as_ref().map(|health| health.status),
            ..Life::default()
        };
        Self {
            id: record.id.clone(),
            operation: Mutex::new(()),
            record: Mutex::new(record),
            pending: Mutex::new(Vec::new()),
            life: watch::Sender::new(life),
            run: AtomicU64::new(0),
            layers: OnceLock::new(),
            monitor: Mutex::default(),
        }
    }

    /// Waits for the turn to change the container's life.
    pub fn operate(&self) -> MutexGuard<'_, ()> {
        lock(&self.operation)
    }

    /// The turn, if nobody has it now.
    #[must_use]
    pub fn try_operate(&self) -> Option<MutexGuard<'_, ()>> {
        self.operation.try_lock().ok()
    }

    /// A new supervisor speaks for it from now on; returns its number.
    #[must_use]
    pub fn begin_run(&self) -> u64 {
        self.run.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Number of the supervisor that speaks for it.
    #[must_use]
    pub fn current_run(&self) -> u64 {
        self.run.load(Ordering::SeqCst)
    }

    /// A copy of the record.
    #[must_use]
    pub fn record(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }

    /// Reads something of the record without copying it.
    pub fn read<T>(&self, look: impl FnOnce(&ContainerRecord) -> T) -> T {
        look(&lock(&self.record))
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.read(|record| record.state.phase)
    }

    /// Changes the record, on disk first.
    ///
    /// # Errors
    /// If it cannot be written; nothing has changed then.
    pub fn change(
        &self,
        store: &Collection,
        durability: Durability,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<()> {
        let mut record = lock(&self.record);
        let mut changed = record.clone();
        change(&mut changed);
        if changed != *record {
            store.put(&self.id, &changed, durability)?;
            *record = changed;
        }
        Ok(())
    }

    /// Changes what is known of a run. What has happened has happened: if the record cannot be
    /// written (a full disk), it is true in memory all the same, and on disk with the next change.
    pub fn settle_run(
        &self,
        store: &Collection,
        durability: Durability,
        change: impl FnOnce(&mut ContainerRecord),
    ) {
        let mut record = lock(&self.record);
        let before = record.clone();
        change(&mut record);
        if *record != before
            && let Err(error) = store.put(&self.id, &*record, durability)
        {
            tracing::error!(container = %self.id, error = %error.full_message(), "cannot write down what happened to a container");
        }
    }

    /// Changes what is known of its health: in memory, and on disk if `change` says that it
    /// matters.
    pub fn settle_health(
        &self,
        store: &Collection,
        change: impl FnOnce(&mut ContainerRecord) -> bool,
    ) {
        let mut record = lock(&self.record);
        if change(&mut record)
            && let Err(error) = store.put(&self.id, &*record, Durability::Process)
        {
            tracing::error!(container = %self.id, error = %error.full_message(), "cannot write down the health of a container");
        }
    }

    /// Replaces the monitor of its health by one that `spawn` makes for a new number.
    pub fn begin_monitor(&self, spawn: impl FnOnce(u64) -> AbortHandle) {
        let mut monitor = lock(&self.monitor);
        monitor.0 += 1;
        let begun = spawn(monitor.0);
        if let Some(before) = monitor.1.replace(begun) {
            before.abort();
        }
    }

    /// Nobody looks after its health any more.
    pub fn end_monitor(&self) {
        let mut monitor = lock(&self.monitor);
        monitor.0 += 1;
        if let Some(before) = monitor.1.take() {
            before.abort();
        }
    }

    /// Whether this is the number of the monitor that looks after it now.
    #[must_use]
    pub fn is_monitor(&self, number: u64) -> bool {
        lock(&self.monitor).0 == number
    }

    /// Tells waiters of a change.
    pub fn announce(&self, change: impl FnOnce(&mut Life)) {
        self.life.send_modify(change);
    }

    /// How its life goes on.
    #[must_use]
    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Keeps a client's stream for the next start.
    pub fn attach_at_start(&self, stream: AttachedStream) {
        lock(&self.pending).push(stream);
    }

    /// The streams kept for this start.
    #[must_use]
    pub fn take_pending(&self) -> Vec<AttachedStream> {
        std::mem::take(&mut *lock(&self.pending))
    }

    /// Directories of the image's layers, topmost first, found once.
    ///
    /// # Errors
    /// If `find` fails.
    pub fn layers(&self, find: impl FnOnce() -> Result<Vec<PathBuf>>) -> Result<&[PathBuf]> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        let found = find()?;
        Ok(self.layers.get_or_init(|| found))
    }

    /// Blocks until `reached` holds, at most `limit`.
    ///
    /// # Errors
    /// [`gamut_spec::error::ErrorKind::Timeout`] after `limit`.
    pub fn await_life(
        &self,
        runtime: &tokio::runtime::Handle,
        limit: std::time::Duration,
        reached: impl FnMut(&Life) -> bool,
    ) -> Result<Life> {
        let mut receiver = self.life();
        runtime
            .block_on(async {
                tokio::time::timeout(limit, receiver.wait_for(reached))
                    .await
                    .map(|life| life.map(|life| life.clone()))
            })
            .map_err(|_| {
                Error::new(
                    gamut_spec::error::ErrorKind::Timeout,
                    format!(
                        "container {} did not answer within {} s",
                        self.id,
                        limit.as_secs()
                    ),
                )
            })?
            .map_err(|_| Error::not_found("container", &self.id))
    }
}

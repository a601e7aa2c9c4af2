//! What happened: a bounded memory of events and a live stream of them.

use gamut_spec::time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Events remembered for `since` queries.
const REMEMBERED: usize = 4096;
/// Events a slow subscriber may lag behind before it loses some.
const CHANNEL: usize = 4096;

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// When, in nanoseconds since the epoch.
    pub time_ns: u64,
    /// `container`, `image`, `volume`, `network` or `daemon`.
    pub kind: &'static str,
    /// What, in Docker's words: `create`, `start`, `die`, ...
    pub action: String,
    /// Id (or name) of the object.
    pub id: String,
    /// Further facts: name, image, exit code, labels.
    pub attributes: BTreeMap<String, String>,
}

/// The memory of events.
#[derive(Debug)]
pub struct EventLog {
    remembered: Mutex<VecDeque<Arc<EngineEvent>>>,
    sender: broadcast::Sender<Arc<EngineEvent>>,
    /// How often what happened.
    counts: Mutex<BTreeMap<(&'static str, String), u64>>,
}

impl Default for EventLog {
    fn default() -> Self {
        let (sender, _) = broadcast::channel(CHANNEL);
        Self {
            remembered: Mutex::new(VecDeque::new()),
            sender,
            counts: Mutex::default(),
        }
    }
}

impl EventLog {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<EngineEvent>>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something happened now.
    pub fn emit(
        &self,
        kind: &'static str,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let event = Arc::new(EngineEvent {
            time_ns: time::now_ns(),
            kind,
            action: action.into(),
            id: id.to_owned(),
            attributes,
        });
        // What follows a colon is the command of a session, or the state of health.
        let verb = event.action.split(':').next().unwrap_or_default();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((kind, verb.to_owned())).or_default() += 1;
        drop(counts);
        // Under the lock, so that `subscribe_since` sees each event exactly once.
        let mut remembered = self.lock();
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(Arc::clone(&event));
        let _ = self.sender.send(event);
    }

    /// How often what happened since the engine was opened, by kind and action.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(&'static str, String), u64> {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EngineEvent>> {
        self.sender.subscribe()
    }

    /// How many listen now.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Remembered events at or after `since_ns`.
    #[must_use]
    pub fn since(&self, since_ns: u64) -> Vec<Arc<EngineEvent>> {
        self.lock()
            .iter()
            .filter(|event| event.time_ns >= since_ns)
            .cloned()
            .collect()
    }

    /// Remembered events at or after `since_ns`, and all that follow, without gap or repetition.
    #[must_use]
    pub fn subscribe_since(
        &self,
        since_ns: u64,
    ) -> (Vec<Arc<EngineEvent>>, broadcast::Receiver<Arc<EngineEvent>>) {
        let remembered = self.lock();
        let past = remembered
            .iter()
            .filter(|event| event.time_ns >= since_ns)
            .cloned()
            .collect();
        (past, self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_and_future_without_gap() {
        let log = EventLog::default();
        for number in 0..5000 {
            log.emit("container", "create", &number.to_string(), BTreeMap::new());
        }
        let (past, mut future) = log.subscribe_since(0);
        log.emit("container", "start", "x", BTreeMap::new());
        assert_eq!(past.len(), REMEMBERED);
        assert_eq!(past.last().unwrap().id, "4999");
        assert_eq!(future.recv().await.unwrap().action, "start");
    }
}

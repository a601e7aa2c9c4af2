//! Looking at containers, and waiting for them.

use super::live::{Container, Life};
use super::record::ContainerRecord;
use crate::engine::Engine;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run (at once, if it does not run now), also if it will be started again.
    NotRunning,
    /// The next end.
    NextExit,
    /// It is gone.
    Removed,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOutcome {
    /// Exit code.
    pub code: i64,
    /// Why it could not be started.
    pub error: Option<String>,
}

/// A wait that has begun: nothing that happens from now on is missed.
#[derive(Debug)]
pub struct Waiting {
    container: Arc<Container>,
    life: watch::Receiver<Life>,
    condition: WaitCondition,
    exits: u64,
}

impl Waiting {
    /// Waits for the end.
    ///
    /// # Errors
    /// If the engine is shut down meanwhile.
    pub async fn finish(mut self) -> Result<WaitOutcome> {
        let (condition, exits) = (self.condition, self.exits);
        let ended = self
            .life
            .wait_for(|life| match condition {
                WaitCondition::NotRunning => !life.live || life.exits > exits || life.removed,
                WaitCondition::NextExit => life.exits > exits || life.removed,
                WaitCondition::Removed => life.removed,
            })
            .await
            .map_err(|_| Error::not_found("container", &self.container.id))?;
        let error = (!ended.error.is_empty()).then(|| ended.error.clone());
        Ok(WaitOutcome {
            code: i64::from(ended.exit_code),
            error,
        })
    }
}

impl Engine {
    /// What is worth knowing of how a container is run, as name and value.
    ///
    /// # Errors
    /// If its level cannot look it up.
    pub fn machine_of(&self, record: &ContainerRecord) -> Result<BTreeMap<String, String>> {
        Ok(self.level(record.level)?.describe(&record.id)?)
    }

    /// A copy of a container's record; it may be named by a link, as `PARENT/ALIAS`.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` for an ambiguous id.
    pub fn container(&self, name_or_id: &str) -> Result<ContainerRecord> {
        Ok(self.find_linked(name_or_id)?.record())
    }

    /// Copies of all records, newest first.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerRecord> {
        let mut records: Vec<ContainerRecord> = self
            .index
            .all()
            .iter()
            .map(|container| container.record())
            .collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.created_ns));
        records
    }

    /// Begins to wait for a container.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn begin_wait(&self, name_or_id: &str, condition: WaitCondition) -> Result<Waiting> {
        let container = self.index.find(name_or_id)?;
        let life = container.life();
        let exits = life.borrow().exits;
        Ok(Waiting {
            container,
            life,
            condition,
            exits,
        })
    }

    /// Facts about a container that go along with its events.
    pub(crate) fn container_attributes(&self, container: &Container) -> BTreeMap<String, String> {
        container.read(|record| {
            let mut attributes = record.spec.labels.clone();
            attributes.insert("name".to_owned(), record.name.clone());
            attributes.insert("image".to_owned(), record.spec.image.clone());
            attributes
        })
    }

    /// Notes that something happened to a container.
    pub(crate) fn emit_container(
        &self,
        container: &Container,
        action: &str,
        further: BTreeMap<String, String>,
    ) {
        let mut attributes = self.container_attributes(container);
        attributes.extend(further);
        self.events
            .emit("container", action, &container.id, attributes);
    }
}

//! Stopping, killing, freezing and changing running containers.

use super::live::Container;
use super::oci;
use super::record::Phase;
use super::spec::{ResourceSpec, RestartPolicy};
use super::start::supervisor_policy;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::store::Durability;
use gamut_abi::plan::TerminalSize;
use gamut_isolation::Isolation;
use gamut_spec::error::ErrorKind;
use gamut_spec::signal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Seconds between the gentle signal and the kill, unless told otherwise.
const DEFAULT_TIMEOUT_SECONDS: i64 = 10;
/// How long after the end its record may take to be written.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

impl Engine {
    pub(crate) fn not_running(container: &Container) -> Error {
        Error::conflict(format!("container {} is not running", container.id))
    }

    pub(crate) fn level_of(&self, container: &Container) -> Result<&Arc<dyn Isolation>> {
        self.level(container.read(|record| record.level))
    }

    /// Stops a container: signal, wait, kill. Ends restarts by policy.
    ///
    /// # Errors
    /// `NotModified` if it does not run.
    pub fn stop_container(
        &self,
        caller: &Caller,
        name_or_id: &str,
        signal: Option<i32>,
        timeout_seconds: Option<i64>,
    ) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        self.stop_now(caller, &container, signal, timeout_seconds)?;
        self.emit_container(&container, "stop", BTreeMap::new());
        Ok(())
    }

    /// Stops a container whose turn the caller holds.
    pub(crate) fn stop_now(
        &self,
        caller: &Caller,
        container: &Container,
        signal: Option<i32>,
        timeout_seconds: Option<i64>,
    ) -> Result<()> {
        let record = container.record();
        if !record.state.phase.is_live() {
            if record.should_run {
                container.change(&self.store, self.run_durability(&record), |record| {
                    record.should_run = false;
                })?;
            }
            return Err(Error::new(
                ErrorKind::NotModified,
                "container is already stopped",
            ));
        }
        container.change(&self.store, self.run_durability(&record), |record| {
            record.should_run = false;
        })?;
        let seconds = timeout_seconds
            .or(record.spec.stop_timeout_seconds)
            .unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        let timeout_ms = u64::try_from(seconds)
            .ok()
            .map(|seconds| seconds.saturating_mul(1000));
        let signal = signal.unwrap_or(record.process.stop_signal);
        let level = self.level_of(container)?;
        let attributes = BTreeMap::from([("signal".to_owned(), signal.to_string())]);
        self.emit_container(container, "kill", attributes);
        level.stop(&caller.context(None), &container.id, signal, timeout_ms)?;
        self.settle(container)
    }

    /// Waits until the end that has happened is on record.
    fn settle(&self, container: &Container) -> Result<()> {
        container
            .await_life(&self.runtime, SETTLE_LIMIT, |life| !life.live)
            .map(|_| ())
    }

    /// Stops (if it runs) and starts.
    ///
    /// # Errors
    /// Those of stop and start.
    pub fn restart_container(
        self: &Arc<Self>,
        caller: &Caller,
        name_or_id: &str,
        signal: Option<i32>,
        timeout_seconds: Option<i64>,
    ) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        match self.stop_now(caller, &container, signal, timeout_seconds) {
            Err(error) if error.kind() != ErrorKind::NotModified => return Err(error),
            Err(_) => {}
            Ok(()) => self.emit_container(&container, "stop", BTreeMap::new()),
        }
        self.start_now(caller, &container)?;
        self.emit_container(&container, "restart", BTreeMap::new());
        Ok(())
    }

    /// Sends a signal. One that asks it to end (its stop signal, SIGTERM, SIGINT, SIGQUIT) also ends
    /// restarts by policy; SIGKILL does, and waits for the end.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub fn kill_container(&self, caller: &Caller, name_or_id: &str, signal: i32) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        if !container.phase().is_live() {
            return Err(Error::conflict(format!(
                "cannot kill container: {name_or_id}: container {} is not running",
                container.id
            )));
        }
        let level = self.level_of(&container)?;
        let context = caller.context(None);
        let (durability, stop_signal, policy) = container.read(|record| {
            let stop_signal = record.process.stop_signal;
            (
                self.run_durability(record),
                stop_signal,
                record.spec.restart,
            )
        });
        let is_last = signal == stop_signal
            || matches!(
                signal,
                signal::KILL | signal::TERM | libc::SIGINT | libc::SIGQUIT
            );
        if is_last {
            container.change(&self.store, durability, |record| record.should_run = false)?;
        }
        if signal == signal::KILL {
            level.stop(&context, &container.id, signal, Some(0))?;
            self.settle(&container)?;
        } else {
            let was_down = container.phase() == Phase::Restarting;
            if is_last && policy != RestartPolicy::No {
                let never = Some(supervisor_policy(RestartPolicy::No));
                level.update(&context, &container.id, None, never)?;
            }
            // Not started again, it has ended without the signal.
            if !(is_last && was_down) {
                level.signal(&context, &container.id, None, signal, false)?;
            }
        }
        let attributes = BTreeMap::from([("signal".to_owned(), signal.to_string())]);
        self.emit_container(&container, "kill", attributes);
        Ok(())
    }

    /// Freezes every process of a container.
    ///
    /// # Errors
    /// `Conflict` if it does not run or is frozen already.
    pub fn pause_container(&self, caller: &Caller, name_or_id: &str) -> Result<()> {
        self.freeze(caller, name_or_id, true)
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// `Conflict` if it is not frozen.
    pub fn unpause_container(&self, caller: &Caller, name_or_id: &str) -> Result<()> {
        self.freeze(caller, name_or_id, false)
    }

    fn freeze(&self, caller: &Caller, name_or_id: &str, freeze: bool) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        let level = self.level_of(&container)?;
        let context = caller.context(None);
        let wanted = match (container.phase(), freeze) {
            (Phase::Paused, true) => {
                return Err(Error::conflict(format!(
                    "Container {} is already paused",
                    container.id
                )));
            }
            (Phase::Running, true) => {
                level.pause(&context, &container.id)?;
                Phase::Paused
            }
            (_, true) => {
                return Err(Error::conflict(format!(
                    "container {} is not running",
                    container.id
                )));
            }
            (Phase::Paused, false) => {
                level.resume(&context, &container.id)?;
                Phase::Running
            }
            (_, false) => {
                return Err(Error::conflict(format!(
                    "Container {} is not paused",
                    container.id
                )));
            }
        };
        let mut life = container.life();
        self.runtime
            .block_on(tokio::time::timeout(SETTLE_LIMIT, async {
                while container.phase() != wanted && container.phase().is_live() {
                    if life.changed().await.is_err() {
                        return;
                    }
                }
            }))
            .map_err(|_| Error::new(ErrorKind::Timeout, "the supervisor did not answer"))
    }

    /// Resizes a container's terminal.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub fn resize_container(
        &self,
        caller: &Caller,
        name_or_id: &str,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        if !container.phase().is_live() {
            return Err(Self::not_running(&container));
        }
        let size = TerminalSize { rows, columns };
        let level = self.level_of(&container)?;
        Ok(level.resize(&caller.context(None), &container.id, None, size)?)
    }

    /// Changes limits and the restart policy, of a running container at once.
    ///
    /// # Errors
    /// `InvalidArgument` for limits that contradict each other or the container's own.
    pub fn update_container(
        &self,
        caller: &Caller,
        name_or_id: &str,
        changes: &ResourceSpec,
        restart: Option<RestartPolicy>,
    ) -> Result<Vec<String>> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        let mut limits = container.read(|record| record.spec.resources.clone());
        merge(&mut limits, changes);
        let value = oci::resource_limits(&limits)?;
        if restart.is_some_and(|policy| policy != RestartPolicy::No)
            && container.read(|record| record.spec.auto_remove)
        {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        if container.phase().is_live() {
            let resources = serde_json::from_value(value)
                .map_err(|source| Error::system("translate the limits", source))?;
            let resources = gamut_isolation::compile::resources(&resources)?;
            self.level_of(&container)?.update(
                &caller.context(None),
                &container.id,
                Some(resources),
                restart.map(supervisor_policy),
            )?;
        }
        container.change(&self.store, Durability::Disk, |record| {
            record.spec.resources = limits;
            if let Some(restart) = restart {
                record.spec.restart = restart;
            }
        })?;
        self.emit_container(&container, "update", BTreeMap::new());
        Ok(Vec::new())
    }
}

/// What is set in `changes` wins.
fn merge(limits: &mut ResourceSpec, changes: &ResourceSpec) {
    fn take<T: Clone>(limit: &mut Option<T>, change: &Option<T>) {
        if change.is_some() {
            limit.clone_from(change);
        }
    }
    take(&mut limits.cpu_shares, &changes.cpu_shares);
    if changes.nano_cpus.is_some() {
        limits.cpu_period_us = None;
        limits.cpu_quota_us = None;
    }
    if changes.cpu_period_us.is_some() || changes.cpu_quota_us.is_some() {
        limits.nano_cpus = None;
    }
    take(&mut limits.nano_cpus, &changes.nano_cpus);
    take(&mut limits.cpu_period_us, &changes.cpu_period_us);
    take(&mut limits.cpu_quota_us, &changes.cpu_quota_us);
    take(
        &mut limits.cpu_realtime_period_us,
        &changes.cpu_realtime_period_us,
    );
    take(
        &mut limits.cpu_realtime_runtime_us,
        &changes.cpu_realtime_runtime_us,
    );
    take(&mut limits.cpuset_cpus, &changes.cpuset_cpus);
    take(&mut limits.cpuset_mems, &changes.cpuset_mems);
    take(&mut limits.memory_bytes, &changes.memory_bytes);
    take(
        &mut limits.memory_reservation_bytes,
        &changes.memory_reservation_bytes,
    );
    take(&mut limits.memory_swap_bytes, &changes.memory_swap_bytes);
    take(&mut limits.memory_swappiness, &changes.memory_swappiness);
    take(&mut limits.pids_limit, &changes.pids_limit);
    take(&mut limits.blkio_weight, &changes.blkio_weight);
    if !changes.blkio_devices.is_empty() {
        limits.blkio_devices.clone_from(&changes.blkio_devices);
    }
}

//! Joining what should be (records) with what is (run directories) when the engine is opened.

use super::live::Container;
use super::record::{ContainerRecord, ExitRecord, Phase};
use super::spec::RestartPolicy;
use crate::engine::{Caller, Engine};
use crate::error::Result;
use crate::store::Durability;
use gamut_abi::status::{State, Status};
use gamut_isolation::Isolation;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What becomes of a container when the engine is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its supervisor lives: follow it.
    Adopt,
    /// It ended while no daemon looked: record how.
    Ended(ExitRecord),
    /// It does not run, and its record knows.
    Idle,
    /// Its removal was interrupted: finish it.
    Remove,
}

/// Decides on one container. A pure function of record, status and boot, so that every order of
/// crashes can be tried.
#[must_use]
pub fn decide(
    record: &ContainerRecord,
    status: Option<&Status>,
    boot_id: &str,
    now_ns: u64,
) -> Verdict {
    if record.removing {
        return Verdict::Remove;
    }
    let lost = ExitRecord {
        code: 255,
        out_of_memory: false,
        finished_ns: now_ns,
    };
    let never_started = status.is_some_and(|status| status.started_ns == 0);
    match status {
        Some(status) => match (status.state, status.exit) {
            (State::Running | State::Paused | State::Restarting, _) => Verdict::Adopt,
            // Killed between setting up and starting: nothing has run, nothing has ended.
            (State::Exited, _) if never_started && !record.state.phase.is_live() => Verdict::Idle,
            (State::Exited, Some(exit)) => {
                // Recorded, but the daemon was killed before it cleared away.
                let known = record
                    .state
                    .exit
                    .is_some_and(|known| known == exit.into() && !record.state.phase.is_live());
                if known {
                    Verdict::Idle
                } else {
                    Verdict::Ended(exit.into())
                }
            }
            // As before; the supervisor gives up by itself.
            (State::Created | State::Exited, _) if !record.state.phase.is_live() => Verdict::Idle,
            (State::Created | State::Exited, _) => Verdict::Ended(lost),
        },
        None if record.state.phase.is_live() => {
            // The machine was started again, or someone removed the run directory.
            let _ = boot_id;
            Verdict::Ended(lost)
        }
        None => Verdict::Idle,
    }
}

/// What is to be done about a container once all have been looked at.
enum Next {
    /// Nothing.
    Rest,
    /// Follow its supervisor.
    Follow(Arc<dyn Isolation>),
    /// Start it.
    Start,
}

impl Engine {
    /// Joins records and run directories. What cannot be put right about one container is logged
    /// and left for `fsck`; the others, and the daemon, are none the worse.
    pub(crate) fn reconcile(
        self: &Arc<Self>,
        records: Vec<(String, ContainerRecord)>,
    ) -> Result<()> {
        let mut live = Vec::new();
        let mut to_start = Vec::new();
        for (_, record) in records {
            let container = Arc::new(Container::new(record.clone()));
            if let Err(error) = self.index.reserve(&record.name, &record.id) {
                tracing::error!(container = %record.id, error = %error.full_message(), "two containers have one name");
            }
            self.index.insert(Arc::clone(&container));
            match self.reconcile_one(&container, &record) {
                Ok(Next::Rest) => {}
                Ok(Next::Follow(level)) => live.push((container, level)),
                Ok(Next::Start) => to_start.push(container),
                Err(error) => {
                    tracing::error!(container = %record.id, error = %error.full_message(), "cannot bring a container into order; see `gamut system fsck`");
                }
            }
        }
        let leases: Vec<_> = live
            .iter()
            .flat_map(|(container, _)| container.read(crate::networking::leases_of))
            .collect();
        self.networking.restore(&leases);
        for (container, _) in &live {
            self.keep_volumes(&container.record());
        }
        self.unmount_idle_volumes();
        // A supervisor may have started it again since: its status tells the process.
        let pids = live.iter().map(|(container, level)| {
            let status = level.status(&container.id).ok().flatten();
            (&**container, status.map_or(0, |status| status.pid))
        });
        self.restore_resolver(pids);
        for (container, level) in live {
            if let Err(error) = self.watch(&container, &*level) {
                // It ended between the two looks, as a stop that outlives its daemon does.
                tracing::info!(container = %container.id, error = %error.full_message(), "a container ended while the engine was opened");
                let run = container.begin_run();
                self.supervisor_gone(&container, run);
            }
        }
        self.sweep_directories()?;
        self.sweep_volumes();
        self.start_wanted(&to_start);
        Ok(())
    }

    fn reconcile_one(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &ContainerRecord,
    ) -> Result<Next> {
        let caller = Caller::engine("reconcile");
        let level = Arc::clone(self.level_of(container)?);
        let status = match level.status(&record.id) {
            Ok(status) => status,
            // Damaged, but somebody still speaks for it and tells how things stand.
            Err(error) if level.watch(&caller.context(None), &record.id).is_ok() => {
                tracing::warn!(container = %record.id, %error, "the status of a running container cannot be read");
                return Ok(Next::Follow(level));
            }
            Err(error) => {
                tracing::warn!(container = %record.id, %error, "the status of a container cannot be read; it counts as ended");
                None
            }
        };
        let now_ns = gamut_spec::time::now_ns();
        let verdict = decide(record, status.as_ref(), &self.boot_id, now_ns);
        if verdict == Verdict::Adopt {
            return Ok(Next::Follow(level));
        }
        // Its lease is dead: nothing of it is in force in this process.
        if !record.leases.is_empty() {
            container.settle_run(&self.store, Durability::Process, |record| {
                record.leases.clear();
            });
        }
        let mut has_run = record.state.started_ns != 0;
        // Its supervisor saw the end, so the policy has been obeyed: a new start would begin its
        // attempts all over.
        let gave_up = status.as_ref().is_some_and(|status| status.exit.is_some());
        match verdict {
            Verdict::Adopt => {}
            Verdict::Ended(exit) => {
                // The daemon may have been killed before it heard of the start, or of restarts.
                if let Some(status) = &status
                    && status.started_ns > record.state.started_ns
                {
                    has_run = true;
                    container.settle_run(&self.store, Durability::Process, |record| {
                        record.state.started_ns = status.started_ns;
                        record.state.restart_count = status.restart_count;
                    });
                }
                self.note_exit(container, exit, Phase::Exited);
                level.delete(&caller.context(None), &record.id)?;
            }
            Verdict::Idle => level.delete(&caller.context(None), &record.id)?,
            Verdict::Remove => {
                let volumes = record.removing_volumes || record.spec.auto_remove;
                self.remove_now(&caller, container, volumes)?;
                return Ok(Next::Rest);
            }
        }
        if record.spec.auto_remove && has_run {
            self.remove_now(&caller, container, true)?;
            return Ok(Next::Rest);
        }
        Ok(if should_start(record, gave_up) {
            Next::Start
        } else {
            Next::Rest
        })
    }

    /// Removes anonymous volumes whose container was never made, because the daemon was killed in
    /// between. One that has been used is kept, as one is whose container was removed without it.
    fn sweep_volumes(&self) {
        if !self.lock_damaged().is_empty() {
            return;
        }
        // A volume whose making was interrupted has a directory but no record yet. Only empty
        // directories go: rmdir(2) leaves whatever holds data to `fsck`.
        for stray in self.volumes.strays().unwrap_or_default() {
            let _ = std::fs::remove_dir(stray.join("_data"));
            let _ = std::fs::remove_dir(&stray);
        }
        for volume in self.volumes.list() {
            let is_orphan = volume.anonymous
                && volume.last_used_ns == 0
                && !volume.made_for.is_empty()
                && self.index.find(&volume.made_for).is_err();
            if is_orphan && let Err(error) = self.volumes.remove(&volume.name) {
                tracing::warn!(volume = volume.name, error = %error.full_message(), "cannot remove a volume that an interrupted command left");
            }
        }
    }

    /// Removes directories of containers whose making or removal was interrupted. A directory
    /// whose record is damaged is kept for `fsck`.
    fn sweep_directories(&self) -> Result<()> {
        let damaged: BTreeSet<String> = self
            .lock_damaged()
            .iter()
            .filter_map(|damaged| damaged.path.file_stem())
            .map(|stem| stem.to_string_lossy().into_owned())
            .collect();
        for id in self.stray_directories()? {
            if !damaged.contains(&id) {
                tracing::info!(container = %id, "removing what an interrupted command left");
                let directory = self.container_directory(&id);
                if let Err(error) = crate::volume::remove_tree(&directory) {
                    tracing::warn!(path = %directory.display(), %error, "cannot remove a leftover");
                }
            }
        }
        Ok(())
    }

    /// Directories of containers that no record speaks of.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn stray_directories(&self) -> Result<Vec<String>> {
        let place = self.options.data_root.join("containers");
        let entries = std::fs::read_dir(&place).map_err(|source| {
            crate::error::Error::system(format!("read {}", place.display()), source)
        })?;
        let found: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        // Asked after the directory was read: whoever makes a directory is known before.
        let mut known: BTreeSet<String> = self.index.in_the_making().into_iter().collect();
        known.extend(
            self.index
                .all()
                .iter()
                .map(|container| container.id.clone()),
        );
        // One that was removed since is no stray.
        let is_stray = |id: &String| !known.contains(id) && place.join(id).exists();
        Ok(found.into_iter().filter(is_stray).collect())
    }
}

/// Whether the policy wants it started with the engine. `gave_up`: its supervisor has seen its last
/// end, so it was not the machine that went down.
fn should_start(record: &ContainerRecord, gave_up: bool) -> bool {
    match record.spec.restart {
        RestartPolicy::Always => record.state.started_ns != 0,
        RestartPolicy::UnlessStopped => record.should_run,
        RestartPolicy::OnFailure(_) => {
            !gave_up && record.should_run && record.state.phase.is_live()
        }
        RestartPolicy::No => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::{Provenance, RecordedState, ResolvedProcess};
    use crate::container::spec::ContainerSpec;
    use gamut_abi::status::ExitStatus;

    fn record(phase: Phase, exit: Option<ExitRecord>, removing: bool) -> ContainerRecord {
        ContainerRecord {
            level: gamut_spec::isolation::IsolationLevel::Container,
            id: "a".repeat(64),
            name: "name".to_owned(),
            created_ns: 1,
            provenance: Provenance::default(),
            spec: ContainerSpec::default(),
            image_id: String::new(),
            process: ResolvedProcess::default(),
            mounts: Vec::new(),
            should_run: false,
            removing,
            removing_volumes: false,
            ids: None,
            endpoints: None,
            leases: Vec::new(),
            state: RecordedState {
                phase,
                exit,
                ..RecordedState::default()
            },
        }
    }

    fn statuses() -> Vec<Option<Status>> {
        let exit = ExitStatus {
            code: 3,
            signal: 0,
            out_of_memory: false,
            finished_ns: 9,
        };
        let mut list = vec![None];
        for state in [
            State::Created,
            State::Running,
            State::Paused,
            State::Restarting,
            State::Exited,
        ] {
            for (exit, started_ns) in [(None, 0), (None, 5), (Some(exit), 0), (Some(exit), 5)] {
                list.push(Some(Status {
                    id: "a".repeat(64),
                    supervisor_pid: 1,
                    pid: 2,
                    state,
                    started_ns,
                    restart_count: 0,
                    exit,
                    error: String::new(),
                }));
            }
        }
        list
    }

    /// Whatever was on record and whatever is in the run directory when the daemon comes up.
    #[test]
    fn every_order_of_crashes() {
        let known = ExitRecord {
            code: 3,
            out_of_memory: false,
            finished_ns: 9,
        };
        let phases = [
            Phase::Created,
            Phase::Running,
            Phase::Paused,
            Phase::Restarting,
            Phase::Exited,
            Phase::Dead,
        ];
        for phase in phases {
            for exit in [None, Some(known)] {
                for status in statuses() {
                    let removing = decide(&record(phase, exit, true), status.as_ref(), "", 7);
                    assert_eq!(
                        removing,
                        Verdict::Remove,
                        "an interrupted removal is finished"
                    );
                    let mut record = record(phase, exit, false);
                    let verdict = decide(&record, status.as_ref(), "", 7);
                    let runs = status.as_ref().is_some_and(|status| {
                        matches!(
                            status.state,
                            State::Running | State::Paused | State::Restarting
                        )
                    });
                    let what = format!("{phase:?} {exit:?} {status:?}: {verdict:?}");
                    assert_eq!(verdict == Verdict::Adopt, runs, "{what}");
                    if runs {
                        continue;
                    }
                    match verdict {
                        Verdict::Ended(found) => {
                            record.state.phase = Phase::Exited;
                            record.state.exit = Some(found);
                        }
                        Verdict::Idle => {
                            assert!(!phase.is_live(), "it stays on record as running: {what}");
                        }
                        _ => panic!("{what}"),
                    }
                    let has_run = status.as_ref().is_some_and(|status| status.started_ns != 0);
                    let was_told = status.as_ref().and_then(|status| status.exit).is_some();
                    if phase == Phase::Created && !has_run {
                        assert_eq!(verdict, Verdict::Idle, "an end without a start: {what}");
                    }
                    if has_run
                        && was_told
                        && status.as_ref().is_some_and(|s| s.state == State::Exited)
                    {
                        assert_eq!(record.state.exit, Some(known), "the exit is lost: {what}");
                    }
                    // Killed again before it was cleared away: the same comes out.
                    let again = decide(&record, status.as_ref(), "", 8);
                    assert_eq!(again, Verdict::Idle, "recorded twice: {what}");
                }
            }
        }
    }
}

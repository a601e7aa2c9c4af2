//! Finding what is damaged, and putting it right.

use crate::container::live::Container;
use crate::container::record::{ContainerRecord, Phase};
use crate::engine::{Caller, Engine};
use crate::error::Result;
use crate::networking::record::NetworkRecord;
use crate::store::{Damaged, Durability};
use crate::volume::{self, VolumeRecord};
use gamut_abi::status::State;
use gamut_isolation::Isolation;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// It has been put right.
    pub repaired: bool,
}

/// Findings in the making: each names its repair, which is carried out only if asked for.
struct Check {
    repair: bool,
    findings: Vec<Finding>,
}

impl Check {
    fn found(
        &mut self,
        object: impl Into<String>,
        problem: impl Into<String>,
        repair: impl FnOnce() -> Result<()>,
    ) {
        let mut problem = problem.into();
        let mut repaired = false;
        if self.repair {
            match repair() {
                Ok(()) => repaired = true,
                Err(error) => {
                    problem = format!("{problem}; cannot be repaired: {}", error.full_message());
                }
            }
        }
        self.findings.push(Finding {
            object: object.into(),
            problem,
            repaired,
        });
    }
}

impl Engine {
    /// Checks records, directories, sandboxes, volumes, images and the network; with `repair`,
    /// puts right what can be. Nothing that a user made is thrown away: damaged records are set
    /// aside, data without a record is taken up again or moved to `lost+found`.
    ///
    /// # Errors
    /// If a check itself cannot be made.
    pub fn fsck(self: &Arc<Self>, caller: &Caller, repair: bool) -> Result<Vec<Finding>> {
        let mut check = Check {
            repair,
            findings: Vec::new(),
        };
        self.check_leftovers(&mut check)?;
        self.check_records(&mut check)?;
        self.check_sandboxes(caller, &mut check)?;
        self.check_containers(caller, &mut check);
        self.check_directories(&mut check)?;
        self.check_volumes(&mut check)?;
        self.check_images(&mut check)?;
        self.check_network(&mut check);
        Ok(check.findings)
    }

    /// Half-written records that a killed daemon has left.
    fn check_leftovers(&self, check: &mut Check) -> Result<()> {
        let mut leftovers = self.store.leftovers()?;
        leftovers.extend(self.volumes.store().leftovers()?);
        leftovers.extend(self.networking.store().leftovers()?);
        for path in leftovers {
            check.found(
                format!("temporary file {}", path.display()),
                "was never completed",
                || {
                    std::fs::remove_file(&path)
                        .map_err(|source| crate::error::Error::system("remove a leftover", source))
                },
            );
        }
        Ok(())
    }

    /// Records that cannot be read, that vanished, or that differ from what is in memory.
    fn check_records(self: &Arc<Self>, check: &mut Check) -> Result<()> {
        let (on_disk, damaged) = self.store.load::<ContainerRecord>()?;
        for damage in damaged {
            let id = file_stem(&damage.path);
            match self.index.find(&id) {
                // Damaged under a running daemon, which still knows what it said.
                Ok(container) => check.found(
                    format!("container record {id}"),
                    damage.problem.clone(),
                    || self.rewrite(&container),
                ),
                Err(_) => check.found(
                    format!("container record {id}"),
                    damage.problem.clone(),
                    || self.set_aside(&self.store, &damage),
                ),
            }
        }
        let on_disk: BTreeSet<String> = on_disk.into_iter().map(|(id, _)| id).collect();
        for container in self.index.all() {
            let known = on_disk.contains(&container.id)
                || check
                    .findings
                    .iter()
                    .any(|finding| finding.object.ends_with(&container.id));
            // One that is being made, changed or removed right now is not damaged.
            if known || container.life().borrow().removed {
                continue;
            }
            let Some(_turn) = container.try_operate() else {
                continue;
            };
            if !container.life().borrow().removed {
                check.found(
                    format!("container record {}", container.id),
                    "is missing from the store",
                    || self.rewrite(&container),
                );
            }
        }
        self.check_network_records(check)?;
        let (_, damaged) = self.volumes.store().load::<VolumeRecord>()?;
        for damage in damaged {
            let name = file_stem(&damage.path);
            check.found(
                format!("volume record {name}"),
                damage.problem.clone(),
                || {
                    self.set_aside(self.volumes.store(), &damage)?;
                    match self.volumes.get(&name) {
                        Ok(record) => self.volumes.store().put(&name, &record, Durability::Disk),
                        // Its data is taken up again by the check of volumes.
                        Err(_) => Ok(()),
                    }
                },
            );
        }
        Ok(())
    }

    fn check_network_records(&self, check: &mut Check) -> Result<()> {
        let store = self.networking.store();
        let (_, damaged) = store.load::<NetworkRecord>()?;
        for damage in damaged {
            let id = file_stem(&damage.path);
            check.found(
                format!("network record {id}"),
                damage.problem.clone(),
                || {
                    self.set_aside(store, &damage)?;
                    // Damaged under a running daemon, which still knows what it said.
                    match self.networking.find(&id) {
                        Ok(record) => store.put(&id, &record, Durability::Disk),
                        Err(_) => Ok(()),
                    }
                },
            );
        }
        Ok(())
    }

    fn set_aside(&self, store: &crate::store::Collection, damage: &Damaged) -> Result<()> {
        let place = store.set_aside(damage)?;
        tracing::warn!(path = %place.display(), "a damaged record was set aside");
        self.lock_damaged()
            .retain(|known| known.path != damage.path);
        Ok(())
    }

    fn rewrite(&self, container: &Container) -> Result<()> {
        self.store
            .put(&container.id, &container.record(), Durability::Disk)
    }

    /// Run directories and control groups that no record speaks of.
    fn check_sandboxes(self: &Arc<Self>, caller: &Caller, check: &mut Check) -> Result<()> {
        for level in self.levels.iter() {
            let is_stray = |id: &String| self.index.find(id).is_err();
            let mut strays = level.list()?;
            strays.retain(is_stray);
            if strays.is_empty() {
                continue;
            }
            // Its container may have been removed together with it just now.
            let still = level.list()?;
            for id in strays.iter().filter(|id| still.contains(id)) {
                check.found(
                    format!("sandbox {id}"),
                    "has no record of its container",
                    || Ok(level.delete(&caller.context(None), id)?),
                );
            }
        }
        Ok(())
    }

    /// Containers whose record and sandbox tell different things.
    fn check_containers(self: &Arc<Self>, caller: &Caller, check: &mut Check) {
        for container in self.index.all() {
            let Ok(level) = self.level_of(&container) else {
                continue;
            };
            // One that has just ended is cleared away by and by.
            for pause_ms in [0, 20, 100, 500, 1000] {
                std::thread::sleep(Duration::from_millis(pause_ms));
                // One whose life changes right now is not damaged.
                let Some(turn) = container.try_operate() else {
                    break;
                };
                let Some(difference) = difference(&container, &**level) else {
                    break;
                };
                if pause_ms < 1000 {
                    drop(turn);
                    continue;
                }
                check.found(format!("container {}", container.id), difference, || {
                    self.settle_sandbox(caller, &container, &**level)
                });
            }
        }
    }

    /// Makes a sandbox agree with its record. The caller has the container's turn.
    fn settle_sandbox(
        &self,
        caller: &Caller,
        container: &Container,
        level: &dyn Isolation,
    ) -> Result<()> {
        let context = caller.context(None);
        if container.phase().is_live() {
            // A supervisor that still speaks for it writes down anew how things stand.
            let asked = level.update(&context, &container.id, None, None);
            if asked.is_ok() && difference(container, level).is_none() {
                return Ok(());
            }
        }
        level.delete(&context, &container.id)?;
        if container.phase().is_live() {
            self.note_exit(container, lost(), Phase::Exited);
        }
        Ok(())
    }

    /// Directories without a record, and records without a directory.
    fn check_directories(&self, check: &mut Check) -> Result<()> {
        for id in self.stray_directories()? {
            check.found(format!("container directory {id}"), "has no record", || {
                self.to_lost_and_found(&self.container_directory(&id), &id)
            });
        }
        for container in self.index.all() {
            let directory = self.container_directory(&container.id);
            let Some(_turn) = container.try_operate() else {
                continue;
            };
            if !directory.is_dir() && !container.life().borrow().removed {
                check.found(
                    format!("container {}", container.id),
                    "has lost its directory (writable layer and log)",
                    || {
                        std::fs::create_dir_all(&directory).map_err(|source| {
                            crate::error::Error::system("make the directory anew", source)
                        })
                    },
                );
            }
        }
        Ok(())
    }

    fn to_lost_and_found(&self, path: &Path, name: &str) -> Result<()> {
        let place = self.options.data_root.join("lost+found");
        std::fs::create_dir_all(&place)
            .and_then(|()| std::fs::rename(path, place.join(name)))
            .map_err(|source| crate::error::Error::system("move to lost+found", source))
    }

    /// Data without a record, records without data, mounts of volumes that are gone.
    fn check_volumes(&self, check: &mut Check) -> Result<()> {
        let strays = self
            .volumes
            .strays()
            .map_err(|source| crate::error::Error::system("read the volumes' directory", source))?;
        for stray in strays {
            let name = stray
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with('.') {
                check.found(format!("volume {name}"), "is what a removal left", || {
                    volume::remove_tree(&stray)
                        .map_err(|source| crate::error::Error::system("remove a leftover", source))
                });
            } else {
                check.found(format!("volume {name}"), "has data but no record", || {
                    self.volumes.adopt(&name)
                });
            }
        }
        for record in self.volumes.list() {
            let path = self.volumes.path(&record.name);
            if !path.is_dir() {
                check.found(
                    format!("volume {}", record.name),
                    "has lost its data",
                    || {
                        std::fs::create_dir_all(&path).map_err(|source| {
                            crate::error::Error::system("make the directory anew", source)
                        })
                    },
                );
            }
        }
        Ok(())
    }

    fn check_images(&self, check: &mut Check) -> Result<()> {
        let findings = self
            .images
            .fsck(check.repair)
            .map_err(|source| crate::error::Error::system("check the image store", source))?;
        for finding in findings {
            check.findings.push(Finding {
                object: finding.object,
                problem: finding.problem,
                repaired: finding.repaired,
            });
        }
        Ok(())
    }

    fn check_network(&self, check: &mut Check) {
        // Interfaces of a container that has just ended go when the kernel gets round to it.
        for pause_ms in [0, 50, 200, 1000] {
            std::thread::sleep(Duration::from_millis(pause_ms));
            let _still = self.networking.hold_still();
            let leases: Vec<_> = self
                .index
                .all()
                .iter()
                .flat_map(|container| container.read(crate::networking::leases_of))
                .collect();
            let found = self.networking.check(&leases, false);
            if found.is_empty() {
                return;
            }
            if pause_ms == 1000 {
                let found = if check.repair {
                    self.networking.check(&leases, true)
                } else {
                    found
                };
                check.findings.extend(found);
            }
        }
    }
}

/// In what a container's record and its sandbox differ.
fn difference(container: &Container, level: &dyn Isolation) -> Option<String> {
    let live = container.phase().is_live();
    let status = match level.status(&container.id) {
        Ok(status) => status,
        Err(error) => {
            let error = gamut_spec::error::chain(&error);
            return Some(format!("the status of its sandbox cannot be read: {error}"));
        }
    };
    let runs = status
        .as_ref()
        .is_some_and(|status| status.state != State::Exited);
    let text = match (live, runs) {
        (true, true) => return None,
        (true, false) => "is on record as running, but its sandbox says that nothing runs",
        (false, true) => "runs, but is on record as stopped",
        (false, false) => {
            let left = level.list().is_ok_and(|ids| ids.contains(&container.id));
            if status.is_none() && !left {
                return None;
            }
            "has ended, but its sandbox was not cleared away"
        }
    };
    Some(text.to_owned())
}

fn file_stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The end of a container of which nothing is known but that it does not run.
fn lost() -> crate::container::record::ExitRecord {
    crate::container::record::ExitRecord {
        code: 255,
        out_of_memory: false,
        finished_ns: gamut_spec::time::now_ns(),
    }
}

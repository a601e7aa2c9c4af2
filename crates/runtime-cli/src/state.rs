//! State directories: one per container, below one root.

use crate::arguments::Global;
use crate::bundle;
use crate::error::Error;
use crate::process::Process;
use gamut_abi::hooks::Hooks;
use gamut_abi::oci::{CONFIG_FILE, GATE_FILE, PID_FILE, STATE_FILE};
use gamut_cgroup::{Group, Hierarchies};
use gamut_container::Gate;
use gamut_isolation::compile::read_config;
use gamut_spec::isolation::IsolationLevel;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Version of the runtime specification that is spoken.
pub const OCI_VERSION: &str = gamut_isolation::compile::STATE_VERSION;

/// Directory of all states.
pub struct Root<'a> {
    path: &'a Path,
    /// It was named by the caller, and so should be there.
    is_given: bool,
    systemd_cgroup: bool,
}

/// What `create` and `run` write down before anything exists.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Id of the container.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its control group, if it has one.
    pub cgroup_path: Option<String>,
    /// systemd has made that group, and is to know of its limits and of its end.
    #[serde(default)]
    pub systemd_cgroup: bool,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// Annotations of its configuration.
    pub annotations: BTreeMap<String, String>,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// Its first process is the first one of a new PID namespace, and so takes all others along
    /// when it ends.
    pub own_pid_namespace: bool,
    /// Programs to run at fixed points of its life.
    pub hooks: Option<Hooks>,
    /// Its level of isolation.
    #[serde(default = "first_level")]
    pub level: IsolationLevel,
}

/// What records of a time had that knew one level only.
fn first_level() -> IsolationLevel {
    IsolationLevel::Container
}

/// Where a container stands (runtime-spec, runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being made, or the attempt was cut off.
    Creating,
    /// Waits for its start.
    Created,
    /// Runs.
    Running,
    /// It was running or created, and its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// The word of the specification.
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container that exists.
pub struct Container {
    /// Its state directory.
    pub directory: PathBuf,
    /// What was written down.
    pub record: Record,
    /// Its first process, if it is alive.
    pub process: Option<Process>,
    /// Where it stands.
    pub status: Status,
}

impl<'a> Root<'a> {
    /// Names the root; nothing is looked at yet.
    pub fn new(global: &'a Global) -> Self {
        Self {
            path: &global.root,
            is_given: global.root_is_given,
            systemd_cgroup: global.systemd_cgroup,
        }
    }

    /// Systemd makes the control groups of containers that name none.
    pub fn systemd_cgroup(&self) -> bool {
        self.systemd_cgroup
    }

    /// Makes the state directory of a new container.
    ///
    /// # Errors
    /// If the id is taken, or the directory cannot be made.
    pub fn make(&self, record: &Record, config: &[u8]) -> Result<PathBuf, Error> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        // The supervisor's working directory may be another one.
        let root = self.absolute()?;
        let directory = root.join(&record.id);
        let made = match builder.create(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => builder
                .recursive(true)
                .create(&root)
                .and_then(|()| builder.recursive(false).create(&directory)),
            other => other,
        };
        made.map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => Error::State {
                verb: "create",
                id: record.id.clone(),
                reason: "the id is in use; delete that container or take another id".to_owned(),
            },
            _ => Error::File {
                operation: "make state directory",
                path: directory.clone(),
                source,
            },
        })?;
        let written = serde_json::to_vec(record)
            .map_err(std::io::Error::from)
            .and_then(|text| fs::write(directory.join(STATE_FILE), text))
            .and_then(|()| fs::write(directory.join(CONFIG_FILE), config))
            .map_err(Error::file("write the state in", &directory));
        if written.is_err() {
            forget(&directory);
        }
        written.map(|()| directory)
    }

    /// Its path from the file system's root.
    ///
    /// # Errors
    /// If there is no working directory that it could refer to.
    pub fn absolute(&self) -> Result<PathBuf, Error> {
        std::path::absolute(self.path).map_err(Error::file("use root", self.path))
    }

    /// The state directory of a container, whether it exists or not.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// Looks a container up.
    ///
    /// # Errors
    /// If there is none of this id, or its state cannot be read.
    pub fn find(&self, id: &str) -> Result<Container, Error> {
        let directory = self.directory(id);
        let path = directory.join(STATE_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if directory.is_dir() {
                    return Ok(cut_off(id, directory));
                }
                return Err(Error::NotFound {
                    id: id.to_owned(),
                    root: self.path.to_owned(),
                });
            }
            Err(error) => return Err(Error::file("read", &path)(error)),
        };
        // A record that was cut off while it was written is as good as none.
        let Ok(record) = serde_json::from_slice::<Record>(&text) else {
            return Ok(cut_off(id, directory));
        };
        let (process, status) = status(&directory)?;
        Ok(Container {
            directory,
            record,
            process,
            status,
        })
    }

    /// Ids of all containers, sorted.
    ///
    /// # Errors
    /// If the root cannot be read. The default one may not exist, and is empty then.
    pub fn ids(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound && !self.is_given => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(Error::file("list", self.path)(error)),
        };
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

impl Container {
    /// Its control group, if it has one.
    ///
    /// # Errors
    /// If the hierarchies cannot be looked at.
    pub fn group(&self) -> Result<Option<Group>, Error> {
        match &self.record.cgroup_path {
            None => Ok(None),
            Some(path) if self.record.systemd_cgroup => {
                Ok(Some(Group::at_systemd(&Hierarchies::detect()?, path)?))
            }
            Some(path) => Ok(Some(Group::at(&Hierarchies::detect()?, path)?)),
        }
    }

    /// Where it stands, its control group asked, too.
    ///
    /// # Errors
    /// If that cannot be looked at.
    pub fn status_with_freezer(&self) -> Result<Status, Error> {
        if !matches!(self.status, Status::Created | Status::Running) {
            return Ok(self.status);
        }
        let frozen = match self.group()? {
            Some(group) if group.exists() => group.is_frozen()?,
            _ => false,
        };
        Ok(if frozen { Status::Paused } else { self.status })
    }

    /// The error about a verb that its state forbids.
    pub fn refuses(&self, verb: &'static str, reason: impl Into<String>) -> Error {
        Error::State {
            verb,
            id: self.record.id.clone(),
            reason: reason.into(),
        }
    }

    /// The configuration that it was made by.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn configuration(&self) -> Result<Spec, Error> {
        let path = self.directory.join(CONFIG_FILE);
        // What is wrong with it has been told when it was first read.
        let read = read_config(&bundle::read_file(&path)?);
        let (spec, _) = read.map_err(|error| bundle::wrong(&path, &error))?;
        Ok(spec)
    }
}

/// A container whose creator was killed before it had written anything down.
fn cut_off(id: &str, directory: PathBuf) -> Container {
    Container {
        directory,
        record: Record {
            id: id.to_owned(),
            bundle: PathBuf::new(),
            cgroup_path: None,
            systemd_cgroup: false,
            created_ns: 0,
            annotations: BTreeMap::new(),
            rootfs: PathBuf::new(),
            own_pid_namespace: true,
            hooks: None,
            level: first_level(),
        },
        process: None,
        status: Status::Creating,
    }
}

/// Removes the state directory of a container that did not come to be.
pub fn forget(directory: &Path) {
    // The error that led here is the one worth telling; `delete` finds what is left.
    let _ = gamut_supervisor::oci::remove_state_directory(directory);
}

fn status(directory: &Path) -> Result<(Option<Process>, Status), Error> {
    let path = directory.join(PID_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((None, Status::Creating)),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let Some((pid, start_time)) = parse_pid(&text) else {
        return Ok((None, Status::Creating));
    };
    let Some(process) =
        Process::find(pid, start_time).map_err(Error::file("look at the process of", directory))?
    else {
        return Ok((None, Status::Stopped));
    };
    let waits = directory
        .to_str()
        .map_or(Ok(false), |path| Gate::is_waited_at(path, GATE_FILE))?;
    let status = if waits {
        Status::Created
    } else {
        Status::Running
    };
    Ok((Some(process), status))
}

fn parse_pid(text: &str) -> Option<(u32, u64)> {
    let (pid, start_time) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((pid.parse().ok()?, start_time.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_whole_or_nothing() {
        assert_eq!(parse_pid("12 345\n"), Some((12, 345)));
        for text in ["", "12", "12 345", "12 \n", "x 1\n"] {
            assert_eq!(parse_pid(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_was_cut_off_can_still_be_found() {
        let root = tempfile::tempdir().unwrap();
        let global = Global {
            root: root.path().to_owned(),
            root_is_given: true,
            systemd_cgroup: false,
            log: crate::arguments::Log::default(),
        };
        fs::create_dir(root.path().join("a")).unwrap();
        let found = Root::new(&global).find("a").unwrap();
        assert_eq!(found.status, Status::Creating);
        fs::write(root.path().join("a").join(STATE_FILE), "{").unwrap();
        let found = Root::new(&global).find("a").unwrap();
        assert_eq!(found.status, Status::Creating);
        assert!(Root::new(&global).find("b").is_err());
    }
}

//! Unikernel bundles: what is started is a monitor in a jail.

use crate::bundle::Bundle;
use crate::error::Error;
use crate::state::{Container, Record};
use gamut_abi::oci::JAIL_DIRECTORY;
use gamut_isolation::Refusal;
use gamut_isolation::contract::RootSource;
use gamut_isolation::unikernel::{
    Host, Jail, JailDirectory, JailRecord, Places, Program, find_program, is_unikernel, jail,
};
use gamut_spec::isolation::IsolationLevel;
use std::path::{Path, PathBuf};

/// Called by this name, the program takes every bundle for a unikernel's.
const NAME: &str = "gamut-unikernel";

/// The annotation that names the level.
const ANNOTATION: &str = "dev.gamut.isolation";

/// Where packages put the monitor.
const INSTALLED: &str = "/usr/libexec/gamut/gamut-monitor";

/// The unikernel of a bundle.
pub struct Unikernel(Program);

/// Its jail, not made yet.
pub struct Prepared {
    jail: Jail,
    directory: JailDirectory,
}

/// Tells whether a bundle is a unikernel's: by its annotation, by the name that this program was
/// called by, or by what its program is.
///
/// # Errors
/// If it should be one and is not, or the annotation names no level that there is.
pub fn find(name: &str, bundle: &Bundle, root: &Path) -> Result<Option<Unikernel>, Error> {
    let root = RootSource::Directory(root.to_owned());
    let args = bundle
        .spec
        .process()
        .as_ref()
        .and_then(|one| one.args().as_ref());
    let program = args
        .and_then(|args| args.first())
        .map_or("", String::as_str);
    let annotations = bundle.annotations();
    let wanted = match annotations.get(ANNOTATION).map(|word| word.parse()) {
        Some(Ok(IsolationLevel::Unikernel)) => true,
        Some(Ok(IsolationLevel::Container)) => false,
        Some(_) => {
            return Err(Error::Content {
                path: bundle.path.join("config.json"),
                problem: format!("annotations.{ANNOTATION}: use container or unikernel"),
            });
        }
        None => name == NAME || is_unikernel(&root, program),
    };
    if !wanted {
        return Ok(None);
    }
    find_program(&root, program)
        .map(|program| Some(Unikernel(program)))
        .map_err(Error::from)
}

impl Unikernel {
    /// Plans the jail, whose files will be in a state directory.
    ///
    /// # Errors
    /// What a unikernel cannot have, or which field makes no sense; no monitor.
    pub fn prepare(&self, bundle: &Bundle, state_directory: &Path) -> Result<Prepared, Error> {
        let directory = JailDirectory::at(state_directory.join(JAIL_DIRECTORY));
        let monitor = monitor()?;
        let places = Places {
            monitor: &monitor,
            image: &self.0.image,
            files: self.0.files.as_deref(),
            config: &directory.config(),
            status: &directory.status(),
            debug: &directory.debug(),
            resolv_conf: &directory.resolv_conf(),
        };
        let jail = jail(&bundle.spec, &self.0.note, &places, Host::read())?;
        Ok(Prepared { jail, directory })
    }
}

impl Prepared {
    /// The bundle of the jail.
    pub fn bundle(&self, of: &Bundle) -> Bundle {
        Bundle {
            path: of.path.clone(),
            spec: self.jail.config.clone(),
            text: of.text.clone(),
        }
    }

    /// The root of the jail.
    pub fn root(&self) -> PathBuf {
        self.directory.root()
    }

    /// What was left out of the configuration, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.jail.warnings
    }

    /// Makes the files.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn make(&self) -> Result<(), Error> {
        for directory in &self.jail.block_directories {
            directory.ready()?;
        }
        self.directory
            .make(
                &self.jail.monitor,
                &JailRecord::default(),
                self.jail.resolv_conf.as_deref(),
            )
            .map_err(Error::file("make the jail in", &self.directory.root()))
    }
}

/// Refuses a verb on a unikernel.
///
/// # Errors
/// The refusal, if it is one.
pub fn refuse(container: &Container, refusal: Refusal) -> Result<(), Error> {
    if is_one(&container.record) {
        return Err(gamut_isolation::Error::Refused(refusal).into());
    }
    Ok(())
}

/// Whether a container is the jail of a unikernel.
pub fn is_one(record: &Record) -> bool {
    record.level == IsolationLevel::Unikernel
}

/// The monitor's program: named by `GAMUT_MONITOR`, beside this one, or where packages put it.
fn monitor() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("GAMUT_MONITOR") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().map_err(Error::file("find", Path::new("/proc/self/exe")))?;
    let beside = own.with_file_name("gamut-monitor");
    if beside.exists() {
        Ok(beside)
    } else {
        Ok(PathBuf::from(INSTALLED))
    }
}

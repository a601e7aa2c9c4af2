//! AppArmor profiles of containers: which one, and the default one in the kernel.
//!
//! Sources: apparmor.d(5), apparmor_parser(8), Linux `Documentation/admin-guide/LSM/apparmor.rst`.

use super::security::AppArmorChoice;
use crate::error::{Error, Result};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The profile that containers run under unless they name one.
pub const DEFAULT_PROFILE: &str = "gamut-default";

/// What leaves a program alone.
pub const UNCONFINED: &str = "unconfined";

/// The profile's text, in the language of apparmor.d(5).
const PROFILE_TEXT: &str = include_str!("apparmor.profile");

const PARSER: &str = "apparmor_parser";

/// What this host has of AppArmor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppArmor {
    /// The kernel confines.
    enabled: bool,
    /// [`DEFAULT_PROFILE`] is loaded.
    has_default: bool,
}

impl AppArmor {
    /// Looks at the host, and loads the default profile where that is possible: never for an
    /// ordinary user's engine, who may not change the kernel's policy.
    #[must_use]
    pub fn set_up(rootless: bool) -> Self {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y'));
        if !enabled || rootless {
            return Self {
                enabled,
                has_default: false,
            };
        }
        let loaded = match load_default() {
            Ok(()) => true,
            Err(error) => {
                let error = gamut_spec::error::chain(&error);
                tracing::warn!(
                    error,
                    "containers run without an AppArmor profile of their own"
                );
                false
            }
        };
        Self {
            enabled,
            has_default: loaded,
        }
    }

    /// Whether containers are confined unless they say otherwise.
    #[must_use]
    pub fn confines(self) -> bool {
        self.has_default
    }

    /// The profile of a program; `None` sets none.
    #[must_use]
    pub fn profile(self, choice: &AppArmorChoice, privileged: bool) -> Option<&str> {
        match choice {
            AppArmorChoice::Profile(name) => Some(name),
            AppArmorChoice::Unconfined => self.enabled.then_some(UNCONFINED),
            AppArmorChoice::Default if privileged => self.enabled.then_some(UNCONFINED),
            AppArmorChoice::Default => self.has_default.then_some(DEFAULT_PROFILE),
        }
    }

    /// Checks a choice before a container is made.
    ///
    /// # Errors
    /// If a profile is named and the kernel has no AppArmor.
    pub fn check(self, choice: &AppArmorChoice) -> Result<()> {
        match choice {
            AppArmorChoice::Profile(name) if !self.enabled => Err(Error::invalid(format!(
                "invalid --security-opt: AppArmor is not enabled on this host, so nothing can run \
                 under profile {name}: leave apparmor= out, or enable AppArmor at boot"
            ))),
            _ => Ok(()),
        }
    }
}

fn load_default() -> Result<()> {
    let failed = |source| Error::system(format!("load AppArmor profile {DEFAULT_PROFILE}"), source);
    if is_loaded(Path::new("/sys/kernel/security/apparmor/profiles")) {
        return Ok(());
    }
    let parser = find_parser().ok_or_else(|| {
        failed(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{PARSER} is not there: install the package apparmor"),
        ))
    })?;
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // The text is far smaller than a pipe: no deadlock with its output.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(PROFILE_TEXT.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(io::Error::other(said.trim().to_owned())));
    }
    written.map_err(failed)
}

/// A line of the list is `NAME (MODE)`. One that only complains protects nothing.
fn is_loaded(list: &Path) -> bool {
    let wanted = format!("{DEFAULT_PROFILE} (enforce)");
    fs::read_to_string(list).is_ok_and(|text| text.lines().any(|line| line == wanted))
}

fn find_parser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|directory| directory.join(PARSER))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_decides_then_privilege_then_the_host() {
        let with = AppArmor {
            enabled: true,
            has_default: true,
        };
        let without = AppArmor::default();
        let named = AppArmorChoice::Profile("mine".to_owned());
        assert_eq!(
            with.profile(&AppArmorChoice::Default, false),
            Some(DEFAULT_PROFILE)
        );
        assert_eq!(
            with.profile(&AppArmorChoice::Default, true),
            Some(UNCONFINED)
        );
        assert_eq!(
            with.profile(&AppArmorChoice::Unconfined, false),
            Some(UNCONFINED)
        );
        assert_eq!(with.profile(&named, true), Some("mine"));
        assert_eq!(without.profile(&AppArmorChoice::Default, false), None);
        assert_eq!(without.profile(&AppArmorChoice::Unconfined, false), None);
        assert!(with.check(&named).is_ok());
        assert!(without.check(&named).is_err());
        assert!(without.check(&AppArmorChoice::Unconfined).is_ok());
    }

    #[test]
    fn a_profile_that_only_complains_is_not_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("profiles");
        fs::write(&list, "other (enforce)\ngamut-default (complain)\n").unwrap();
        assert!(!is_loaded(&list));
        fs::write(&list, "gamut-default (enforce)\n").unwrap();
        assert!(is_loaded(&list));
        assert!(!is_loaded(&directory.path().join("none")));
    }
}

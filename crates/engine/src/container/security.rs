//! Security options in Docker's words.

use crate::error::{Error, Result};

/// What was asked for with `--security-opt`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// Set no_new_privs.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: SeccompChoice,
    /// The AppArmor profile.
    pub apparmor: AppArmorChoice,
    /// Neither mask nor protect paths below `/proc` and `/sys`.
    pub system_paths_unconfined: bool,
}

/// Which system call filter is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompChoice {
    /// The default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(String),
}

/// Which AppArmor profile is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AppArmorChoice {
    /// The engine's own, where the host has AppArmor.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile by name, which has to be loaded when the container starts.
    Profile(String),
}

impl SecurityOptions {
    /// Parses the options.
    ///
    /// # Errors
    /// For unknown options, and for mandatory access control that this machine does not have:
    /// protection that was asked for is never left out silently.
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            let (key, value) = option
                .split_once('=')
                .or_else(|| option.split_once(':'))
                .unwrap_or((option.as_str(), ""));
            match (key, value) {
                ("no-new-privileges", "" | "true") => parsed.no_new_privileges = true,
                ("no-new-privileges", "false") => parsed.no_new_privileges = false,
                ("seccomp", "unconfined") => parsed.seccomp = SeccompChoice::Unconfined,
                ("seccomp", "builtin") => parsed.seccomp = SeccompChoice::Default,
                ("seccomp", profile) if profile.trim_start().starts_with('{') => {
                    parsed.seccomp = SeccompChoice::Profile(profile.to_owned());
                }
                ("systempaths", "unconfined") => parsed.system_paths_unconfined = true,
                ("label", "disable") => {}
                ("apparmor", "unconfined") => parsed.apparmor = AppArmorChoice::Unconfined,
                ("apparmor", profile) if !profile.is_empty() => {
                    parsed.apparmor = AppArmorChoice::Profile(profile.to_owned());
                }
                ("label", _) => {
                    return Err(Error::invalid(
                        "invalid --security-opt: SELinux labels are not supported yet: \
                         use label=disable or leave it out",
                    ));
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "invalid --security-opt 2: {option:?}"
                    )));
                }
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<SecurityOptions> {
        SecurityOptions::parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn known_options() {
        assert!(parse(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(
            parse(&["no-new-privileges:true"])
                .unwrap()
                .no_new_privileges
        );
        assert!(
            !parse(&["no-new-privileges=false"])
                .unwrap()
                .no_new_privileges
        );
        assert_eq!(
            parse(&["seccomp=unconfined"]).unwrap().seccomp,
            SeccompChoice::Unconfined
        );
        assert!(
            parse(&["systempaths=unconfined"])
                .unwrap()
                .system_paths_unconfined
        );
        let unconfined = parse(&["label=disable", "apparmor=unconfined"]).unwrap();
        assert_eq!(unconfined.apparmor, AppArmorChoice::Unconfined);
        assert_eq!(
            parse(&["apparmor=strict"]).unwrap().apparmor,
            AppArmorChoice::Profile("strict".to_owned())
        );
    }

    #[test]
    fn protection_is_never_left_out_silently() {
        for bad in ["apparmor=", "label=type:x", "nope", "seccomp=/a/file", ""] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}

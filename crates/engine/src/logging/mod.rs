//! Log drivers: which there are, which options they take, and what a supervisor is told.
//!
//! Every driver but `none` keeps the engine's own files, so that `logs` can be read whatever the
//! driver; for those that send lines elsewhere this is a copy, which `cache-disabled` leaves out.

mod address;
mod attributes;
mod options;
mod sink;

pub use address::fuzz_address;
pub use attributes::{attributes, details};
pub(crate) use sink::sink_of;

use crate::container::spec::LogSpec;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// The drivers, as `info` tells of them.
pub const DRIVERS: [&str; 5] = ["journald", "json-file", "local", "none", "syslog"];

/// What containers get that do not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDefaults {
    /// Name of the driver.
    pub driver: String,
    /// Options, for containers of this driver.
    pub options: BTreeMap<String, String>,
}

impl Default for LogDefaults {
    fn default() -> Self {
        Self {
            driver: "json-file".to_owned(),
            options: BTreeMap::new(),
        }
    }
}

impl LogDefaults {
    /// Checks them as for a container.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn check(&self) -> Result<()> {
        resolve(
            &mut LogSpec::asked(&self.driver, self.options.clone()),
            self,
        )
    }
}

impl LogSpec {
    /// As a client asks for it; an empty driver is the engine's default.
    #[must_use]
    pub fn asked(driver: &str, options: BTreeMap<String, String>) -> Self {
        Self {
            driver: driver.to_owned(),
            options,
            ..Self::default()
        }
    }

    /// Whether the lines go elsewhere, too.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.driver.as_str(), "journald" | "syslog")
    }

    /// Whether there are files, which `logs` reads.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        match self.driver.as_str() {
            "none" => false,
            _ => {
                let disabled = self.options.get("cache-disabled");
                !self.is_remote() || !disabled.is_some_and(|text| options::is_true(text))
            }
        }
    }
}

/// Fills in the engine's defaults and checks the options.
///
/// # Errors
/// `InvalidArgument` in Docker's words, for a driver that there is not, or an option that the driver
/// does not take.
pub fn resolve(log: &mut LogSpec, defaults: &LogDefaults) -> Result<()> {
    if log.driver.is_empty() {
        log.driver.clone_from(&defaults.driver);
    }
    if log.driver == defaults.driver {
        for (name, value) in &defaults.options {
            let given = log.options.entry(name.clone());
            given.or_insert_with(|| value.clone());
        }
    }
    if !DRIVERS.contains(&log.driver.as_str()) {
        return Err(Error::invalid(format!(
            "logger: no log driver named '{}' is registered; there are {}",
            log.driver,
            DRIVERS.join(", ")
        )));
    }
    options::check(log)?;
    if log.driver == "syslog" {
        sink::check_syslog(&log.options)?;
    }
    attributes::check_tag(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(driver: &str, options: &[(&str, &str)]) -> Result<LogSpec> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut log = LogSpec::asked(driver, options.iter().map(own).collect());
        resolve(&mut log, &LogDefaults::default()).map(|()| log)
    }

    #[test]
    fn options_become_limits() {
        let log = resolved("", &[("max-size", "10k"), ("max-file", "3")]).unwrap();
        assert_eq!(log.driver, "json-file");
        assert_eq!((log.max_file_bytes, log.max_files), (10 << 10, 3));
        let endless = resolved("json-file", &[("max-size", "-1")]).unwrap();
        assert_eq!(endless.max_file_bytes, 0);
        let cached = resolved("syslog", &[("cache-max-size", "1m")]).unwrap();
        assert_eq!((cached.max_file_bytes, cached.is_kept()), (1 << 20, true));
        let bare = resolved("journald", &[("cache-disabled", "true")]).unwrap();
        assert!(bare.is_remote() && !bare.is_kept());
        assert!(!resolved("none", &[]).unwrap().is_kept());
    }

    #[test]
    fn defaults_are_for_their_driver_only() {
        let defaults = LogDefaults {
            driver: "local".to_owned(),
            options: BTreeMap::from([("max-file".to_owned(), "2".to_owned())]),
        };
        defaults.check().unwrap();
        let mut log = LogSpec::asked("", BTreeMap::new());
        resolve(&mut log, &defaults).unwrap();
        assert_eq!((log.driver.as_str(), log.max_files), ("local", 2));
        let mut other = LogSpec::asked("json-file", BTreeMap::new());
        resolve(&mut other, &defaults).unwrap();
        assert!(other.options.is_empty());
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        for (driver, options, reason) in [
            ("splunk", &[][..], "no log driver named 'splunk'"),
            (
                "json-file",
                &[("color", "red")],
                "unknown log opt 'color' for json-file",
            ),
            (
                "local",
                &[("labels", "a")],
                "unknown log opt 'labels' for local",
            ),
            ("json-file", &[("max-size", "x")], "max-size"),
            ("json-file", &[("max-file", "0")], "max-file"),
            (
                "json-file",
                &[("mode", "soon")],
                "logging mode not supported: soon",
            ),
            (
                "json-file",
                &[("max-buffer-size", "1m")],
                "mode=non-blocking",
            ),
            ("json-file", &[("tag", "{{.Color}}")], "{{.Color}}"),
            ("json-file", &[("env-regex", "^a")], "env-regex"),
            (
                "syslog",
                &[("syslog-facility", "nine")],
                "invalid syslog facility",
            ),
            (
                "syslog",
                &[("syslog-format", "xml")],
                "Invalid syslog format",
            ),
            ("syslog", &[("syslog-address", "host")], "proto://address"),
            (
                "syslog",
                &[("syslog-address", "tcp+tls://h:1")],
                "not supported yet",
            ),
        ] {
            let error = resolved(driver, options).unwrap_err().to_string();
            assert!(error.contains(reason), "{driver} {options:?}: {error}");
        }
    }
}

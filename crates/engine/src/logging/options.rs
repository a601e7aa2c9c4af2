//! The options of each driver, by table.

use crate::container::spec::LogSpec;
use crate::error::{Error, Result};
use gamut_spec::units;

const FILE: [&str; 3] = ["max-size", "max-file", "compress"];
const ATTRIBUTES: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
const SYSLOG: [&str; 3] = ["syslog-address", "syslog-facility", "syslog-format"];
/// Of drivers whose lines are kept as a copy.
const CACHE: [&str; 4] = [
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];
/// Docker's `mode` says whether a slow receiver holds up the workload; here none ever does.
const ALL: [&str; 2] = ["mode", "max-buffer-size"];

/// Bytes and files of the copy, as Docker's.
const CACHE_FILE_BYTES: u64 = 20 << 20;
const CACHE_FILES: u32 = 5;

/// Go's idea of a boolean (strconv.ParseBool).
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether a text means yes.
pub(super) fn is_true(text: &str) -> bool {
    boolean(text) == Some(true)
}

fn known(driver: &str) -> Vec<&'static str> {
    let tables: &[&[&'static str]] = match driver {
        "json-file" => &[&FILE, &ATTRIBUTES, &ALL],
        "local" => &[&FILE, &ALL],
        "journald" => &[&ATTRIBUTES, &CACHE, &ALL],
        "syslog" => &[&SYSLOG, &ATTRIBUTES, &CACHE, &ALL],
        _ => &[],
    };
    tables.concat()
}

/// Checks the options and takes limits from them.
///
/// # Errors
/// Naming the option.
pub(super) fn check(log: &mut LogSpec) -> Result<()> {
    let options = log.options.clone();
    // Docker takes whatever is given to it.
    if log.driver == "none" {
        return Ok(());
    }
    let known = known(&log.driver);
    if let Some(unknown) = options.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Error::invalid(format!(
            "unknown log opt '{unknown}' for {} log driver",
            log.driver
        )));
    }
    if log.is_remote() {
        log.max_file_bytes = CACHE_FILE_BYTES;
        log.max_files = CACHE_FILES;
    }
    for (name, value) in &options {
        let bad = || Error::invalid(format!("invalid value for log option {name}: {value:?}"));
        match name.as_str() {
            "max-size" | "cache-max-size" => {
                log.max_file_bytes = match value.as_str() {
                    // For ever.
                    "-1" => 0,
                    text => units::parse_bytes(text)
                        .filter(|bytes| *bytes > 0)
                        .ok_or_else(bad)?,
                };
            }
            "max-file" | "cache-max-file" => {
                let files = value.parse().ok().filter(|files: &u32| *files > 0);
                log.max_files = files.ok_or_else(bad)?;
            }
            "compress" | "cache-disabled" | "cache-compress" => {
                boolean(value).ok_or_else(bad)?;
            }
            "labels-regex" | "env-regex" if !value.is_empty() => {
                return Err(Error::invalid(format!(
                    "log option {name} is not supported yet: name them with {}",
                    name.trim_end_matches("-regex")
                )));
            }
            "mode" if !matches!(value.as_str(), "" | "blocking" | "non-blocking") => {
                return Err(Error::invalid(format!(
                    "logger: logging mode not supported: {value}"
                )));
            }
            "max-buffer-size" => {
                if options.get("mode").map(String::as_str) != Some("non-blocking") {
                    return Err(Error::invalid(
                        "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
                    ));
                }
                buffer_bytes(value).ok_or_else(bad)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bytes of a receiver's queue.
pub(super) fn buffer_bytes(text: &str) -> Option<u32> {
    units::parse_bytes(text)
        .filter(|bytes| *bytes > 0)
        .and_then(|bytes| u32::try_from(bytes).ok())
}

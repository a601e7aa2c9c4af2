//! Limits: CPUs, memory, ulimits.

use gamut_spec::units;
use serde_json::{Value, json};

use super::invalid;
use crate::error::Error;

/// `--cpus`: a decimal number of CPUs in billionths.
///
/// # Errors
/// [`Error::Usage`] unless it is a decimal number with at most nine places.
pub fn cpus_to_nano(text: &str) -> Result<i64, Error> {
    let bad = |reason: &str| invalid("--cpus", text, reason);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(bad("use a decimal number, as 1.5"));
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err(bad("value is too precise"));
    }
    let digits = format!("{whole}{fraction:0<9}");
    digits.parse().map_err(|_| bad("value is too large"))
}

/// A size in bytes, with an optional unit.
///
/// # Errors
/// [`Error::Usage`] for anything else.
pub fn bytes(flag: &str, text: &str) -> Result<i64, Error> {
    units::parse_bytes(text)
        .and_then(|bytes| i64::try_from(bytes).ok())
        .ok_or_else(|| invalid(flag, text, "use a size, as 512m or 2g"))
}

/// `--memory-swap`: a size, or -1 for unlimited swap.
///
/// # Errors
/// [`Error::Usage`] for anything else.
pub fn memory_swap(text: &str) -> Result<i64, Error> {
    if text == "-1" {
        return Ok(-1);
    }
    bytes("--memory-swap", text)
}

/// The ulimits that Linux has (getrlimit(2)), as docker names them.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `--ulimit NAME=SOFT[:HARD]`, -1 or `unlimited` for no limit.
///
/// # Errors
/// [`Error::Usage`] for unknown names, non-numbers, and a soft limit above the hard one.
pub fn ulimit(text: &str) -> Result<Value, Error> {
    let bad = |reason: &str| invalid("--ulimit", text, reason);
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| bad("use NAME=SOFT[:HARD]"))?;
    if !ULIMITS.contains(&name) {
        return Err(bad("invalid ulimit type"));
    }
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        _ => text
            .parse::<i64>()
            .ok()
            .filter(|number| *number >= -1)
            .ok_or_else(|| bad("limits are whole numbers, or -1 for none")),
    };
    let (soft, hard) = match value.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(value)?, number(value)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(bad("the soft limit must not be above the hard limit"));
    }
    Ok(json!({"Name": name, "Soft": soft, "Hard": hard}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus() {
        for (text, nano) in [
            ("1", 1_000_000_000),
            ("0.5", 500_000_000),
            (".25", 250_000_000),
            ("1.000000001", 1_000_000_001),
            ("2.50000000000", 2_500_000_000),
            ("0", 0),
        ] {
            assert_eq!(cpus_to_nano(text).unwrap(), nano, "{text}");
        }
        for bad in ["", ".", "-1", "1e3", "a", "0.0000000001", "99999999999999"] {
            assert!(cpus_to_nano(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory() {
        assert_eq!(memory_swap("-1").unwrap(), -1);
        assert_eq!(memory_swap("1g").unwrap(), 1 << 30);
        assert!(memory_swap("-2").is_err());
        assert!(bytes("--memory", "99999999999p").is_err());
    }

    #[test]
    fn ulimits() {
        assert_eq!(
            ulimit("nofile=1024:2048").unwrap(),
            json!({"Name": "nofile", "Soft": 1024, "Hard": 2048})
        );
        assert_eq!(ulimit("core=-1").unwrap()["Hard"], -1);
        for bad in [
            "nofile",
            "x=1",
            "nofile=2:1",
            "nofile=-1:5",
            "nofile=a",
            "nofile=-3",
        ] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}

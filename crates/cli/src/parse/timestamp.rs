//! `--since` and `--until`: durations back from now, dates, or seconds since the epoch.

use gamut_spec::{time, units};

use super::invalid;
use crate::error::Error;

/// Parses a point in time into the API's `seconds[.nanoseconds]`. `now_ns` is what durations
/// count back from. A date without zone is in local time.
///
/// # Errors
/// [`Error::Usage`] for anything else.
pub fn parse(text: &str, now_ns: u64) -> Result<String, Error> {
    if let Some(duration_ns) = units::parse_duration_ns(text)
        && text != "0"
    {
        return Ok(seconds(now_ns.saturating_sub(duration_ns)));
    }
    if let Some(time_ns) = time::parse_rfc3339(text) {
        return Ok(seconds(time_ns));
    }
    if is_epoch(text) {
        return Ok(text.to_owned());
    }
    if let Some(local) = local_seconds(text) {
        return Ok(local.to_string());
    }
    Err(invalid(
        "--since or --until",
        text,
        "use a duration (10m), a date (2006-01-02T15:04:05) or seconds since the epoch",
    ))
}

fn seconds(time_ns: u64) -> String {
    format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000)
}

/// Digits, with an optional fraction of up to nine digits.
fn is_epoch(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => is_number(whole) && is_number(fraction) && fraction.len() <= 9,
        None => is_number(text) && text.len() <= 18,
    }
}

/// `2006-01-02[T15[:04[:05[.fraction]]]]` in local time.
fn local_seconds(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once('T').unwrap_or((text, "0"));
    let numbers = |text: &str, separator: char| -> Option<Vec<i32>> {
        text.split(separator)
            .map(|part| {
                let is_number = !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
                is_number.then(|| part.parse().ok())?
            })
            .collect()
    };
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let clock = clock.split('.').next()?;
    let mut clock = numbers(clock, ':')?.into_iter();
    let (hour, minute, second) = (
        clock.next()?,
        clock.next().unwrap_or(0),
        clock.next().unwrap_or(0),
    );
    let is_in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && hour < 24
        && minute < 60
        && second <= 60
        && clock.next().is_none();
    if !is_in_range {
        return None;
    }
    // SAFETY: `tm` is plain data for which all zeroes is a valid value.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    broken_down.tm_year = year - 1900;
    broken_down.tm_mon = month - 1;
    broken_down.tm_mday = day;
    broken_down.tm_hour = hour;
    broken_down.tm_min = minute;
    broken_down.tm_sec = second;
    // mktime(3): negative means "find out whether daylight saving time is in effect".
    broken_down.tm_isdst = -1;
    // SAFETY: mktime reads and normalizes the structure it is given, nothing else.
    Some(unsafe { libc::mktime(&raw mut broken_down) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn forms() {
        assert_eq!(parse("10m", NOW_NS).unwrap(), "1699999400.000000000");
        assert_eq!(parse("1.5s", NOW_NS).unwrap(), "1699999998.500000000");
        assert_eq!(
            parse("2023-11-14T22:13:20.5Z", NOW_NS).unwrap(),
            "1700000000.500000000"
        );
        assert_eq!(parse("1700000000", NOW_NS).unwrap(), "1700000000");
        assert_eq!(parse("1700000000.25", NOW_NS).unwrap(), "1700000000.25");
        assert_eq!(parse("0", NOW_NS).unwrap(), "0");
        for local in [
            "2023-11-14",
            "2023-11-14T22",
            "2023-11-14T22:13",
            "2023-11-14T22:13:20.1",
        ] {
            assert!(parse(local, NOW_NS).is_ok(), "{local}");
        }
        for bad in [
            "",
            "x",
            "2023-13-01",
            "2023-11-14T25",
            "1.2.3",
            "-5",
            "2023-11-14T",
        ] {
            assert!(parse(bad, NOW_NS).is_err(), "{bad}");
        }
    }
}

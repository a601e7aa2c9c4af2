//! Sizes, durations and times as docker shows them.

use gamut_spec::time;

const DECIMAL: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A decimal size with three significant digits: `4.86MB`. Negative sizes (unknown) are `N/A`.
#[must_use]
pub fn size(bytes: i64) -> String {
    match u64::try_from(bytes) {
        Ok(bytes) => scaled(to_f64(bytes), 1000.0, &DECIMAL, 3),
        Err(_) => "N/A".into(),
    }
}

/// A decimal size with four significant digits: `4.861MB`. Negative sizes are `N/A`.
#[must_use]
pub fn size_precise(bytes: i64) -> String {
    match u64::try_from(bytes) {
        Ok(bytes) => scaled(to_f64(bytes), 1000.0, &DECIMAL, 4),
        Err(_) => "N/A".into(),
    }
}

/// A binary size with four significant digits: `7.617GiB`.
#[must_use]
pub fn size_binary(bytes: u64) -> String {
    scaled(to_f64(bytes), 1024.0, &BINARY, 4)
}

fn scaled(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = units.first().copied().unwrap_or_default();
    for next in units.iter().skip(1) {
        if value < base {
            break;
        }
        value /= base;
        unit = next;
    }
    format!("{}{unit}", significant(value, digits))
}

/// C's `%.{digits}g` without exponents.
fn significant(value: f64, digits: usize) -> String {
    let mut whole_digits = 1;
    let mut limit = 10.0;
    while value >= limit {
        whole_digits += 1;
        limit *= 10.0;
    }
    let text = format!("{value:.*}", digits.saturating_sub(whole_digits));
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// A count as a floating-point number, for display only.
#[expect(clippy::cast_precision_loss, reason = "shown with four digits at most")]
#[must_use]
pub fn to_f64(number: u64) -> f64 {
    number as f64
}

/// How long something lasts, in words: `2 minutes`, `About an hour`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    const HOUR: u64 = 3600;
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..HOUR => format!("{} minutes", seconds / 60),
        _ => match hours {
            0..=1 => "About an hour".into(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17_520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", seconds / HOUR / 24 / 365),
        },
    }
}

/// How long ago something was: `2 minutes ago`; `N/A` for never.
#[must_use]
pub fn ago(created_seconds: i64) -> String {
    let Ok(created) = u64::try_from(created_seconds) else {
        return "N/A".into();
    };
    if created == 0 {
        return "N/A".into();
    }
    let now = time::now_ns() / 1_000_000_000;
    format!("{} ago", duration(now.saturating_sub(created)))
}

/// A time in local time as Go prints it: `2006-01-02 15:04:05 +0100 CET`.
#[must_use]
pub fn local_time(seconds: i64) -> String {
    format_local(seconds, c"%Y-%m-%d %H:%M:%S %z %Z")
}

/// A time in local time in RFC 3339: `2006-01-02T15:04:05+01:00` (`Z` in UTC).
#[must_use]
pub fn local_rfc3339(seconds: i64) -> String {
    let (clock, zone) = rfc3339_parts(seconds);
    format!("{clock}{zone}")
}

/// The same with nine digits of nanoseconds, as events show it.
#[must_use]
pub fn local_rfc3339_ns(time_ns: i64) -> String {
    let (clock, zone) = rfc3339_parts(time_ns.div_euclid(1_000_000_000));
    let nanoseconds = time_ns.rem_euclid(1_000_000_000);
    format!("{clock}.{nanoseconds:09}{zone}")
}

fn rfc3339_parts(seconds: i64) -> (String, String) {
    let zone = format_local(seconds, c"%z");
    let zone = match zone.split_at_checked(3) {
        Some(("+00", "00")) => "Z".to_owned(),
        Some((hours, minutes)) => format!("{hours}:{minutes}"),
        None => zone,
    };
    (format_local(seconds, c"%Y-%m-%dT%H:%M:%S"), zone)
}

fn format_local(seconds: i64, format: &std::ffi::CStr) -> String {
    let mut text = [0u8; 64];
    // SAFETY: `tm` is plain data for which all zeroes is a valid value.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; localtime_r fills the second or returns null.
    // strftime writes at most `text.len()` bytes and reads `broken_down`, whose tm_zone, set by
    // localtime_r, points into the C library's zone table, which lives as long as the process.
    let length = unsafe {
        if libc::localtime_r(&raw const seconds, &raw mut broken_down).is_null() {
            0
        } else {
            libc::strftime(
                text.as_mut_ptr().cast(),
                text.len(),
                format.as_ptr(),
                &raw const broken_down,
            )
        }
    };
    let text = text.get(..length).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// The first twelve digits of an id, without `sha256:`.
#[must_use]
pub fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// At most `width` characters, the last one an ellipsis if something is cut.
#[must_use]
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_860_000, "4.86MB"),
            (13_256, "13.3kB"),
            (133_000_000, "133MB"),
            (-1, "N/A"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size_binary(8_178_892_800), "7.617GiB");
        assert_eq!(size_precise(1_234_567), "1.235MB");
    }

    #[test]
    fn durations() {
        const HOUR: u64 = 3600;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (125, "2 minutes"),
            (HOUR, "About an hour"),
            (HOUR * 5, "5 hours"),
            (HOUR * 47, "47 hours"),
            (HOUR * 48, "2 days"),
            (HOUR * 24 * 14, "2 weeks"),
            (HOUR * 24 * 60, "2 months"),
            (HOUR * 24 * 365 * 3, "3 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn texts() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("abc"), "abc");
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
        assert_eq!(ago(0), "N/A");
        assert!(local_time(1_700_000_000).starts_with("2023-11-1"));
        assert!(local_rfc3339_ns(1_700_000_000_000_000_005).contains(".000000005"));
    }
}

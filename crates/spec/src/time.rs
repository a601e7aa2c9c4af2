//! Times as nanoseconds since the epoch, and RFC 3339.

use gamut_abi::calendar::date_of_day;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since the epoch.
#[must_use]
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| u64::try_from(elapsed.as_nanos()).ok())
        .unwrap_or(0)
}

/// The zero time of Go, which Docker clients expect for "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC with nanoseconds, trailing zeros cut as Go's RFC3339Nano does; zero is
/// [`NEVER`].
#[must_use]
pub fn rfc3339(time_ns: u64) -> String {
    if time_ns == 0 {
        return NEVER.to_owned();
    }
    let seconds = time_ns / 1_000_000_000;
    let nanoseconds = time_ns % 1_000_000_000;
    let (year, month, day) = date_of_day(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanoseconds != 0 {
        let fraction = format!("{nanoseconds:09}");
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Days since the epoch of a date (inverse of [`date_of_day`]); `None` before the epoch.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let era = year / 400;
    let year_of_era = year % 400;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

/// Parses RFC 3339 with any offset and fraction into nanoseconds since the epoch.
///
/// Returns `None` for anything else, for times before 1970 and after 2554.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |range: core::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|c| c.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let separator =
        |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|c| allowed.contains(c));
    if !(separator(4, b"-") && separator(7, b"-") && separator(10, b"Tt ")) {
        return None;
    }
    if !(separator(13, b":") && separator(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanoseconds = 0u64;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let digits = fraction.get(..length.min(9))?;
        if digits.is_empty() {
            return None;
        }
        nanoseconds = digits.parse::<u64>().ok()?;
        for _ in digits.len()..9 {
            nanoseconds *= 10;
        }
        rest = fraction.get(length..)?;
    }
    let local = days(year, month, day)?.checked_mul(86_400)? + hour * 3600 + minute * 60 + second;
    let seconds = match rest.as_bytes() {
        [b'Z' | b'z'] => local,
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] => {
            let digit = |c: &u8| c.is_ascii_digit().then(|| u64::from(c - b'0'));
            let offset =
                (digit(h1)? * 10 + digit(h0)?) * 3600 + (digit(m1)? * 10 + digit(m0)?) * 60;
            if *sign == b'+' {
                local.checked_sub(offset)?
            } else {
                local + offset
            }
        }
        _ => return None,
    };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), NEVER);
        assert_eq!(
            rfc3339(1_700_000_000_120_000_000),
            "2023-11-14T22:13:20.12Z"
        );
        assert_eq!(
            parse_rfc3339("2023-11-14T22:13:20.12Z"),
            Some(1_700_000_000_120_000_000)
        );
        assert_eq!(
            parse_rfc3339("2023-11-14T23:13:20+01:00"),
            Some(1_700_000_000_000_000_000)
        );
        assert_eq!(
            parse_rfc3339("2000-02-29T00:00:00Z"),
            Some(951_782_400_000_000_000)
        );
        for bad in [
            "",
            "2023-11-14",
            "2023-13-14T22:13:20Z",
            "2023-11-14T22:13:20",
            NEVER,
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(time_ns in 1u64..18_000_000_000_000_000_000) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(time_ns)), Some(time_ns));
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse_rfc3339(&text);
        }
    }
}

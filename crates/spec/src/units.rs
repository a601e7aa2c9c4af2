//! Sizes and durations as people write them.

/// Parses a size in bytes: digits with an optional fraction and an optional unit b, k, m, g, t or
/// p (binary; `kb`, `kib` and so on mean the same), as docker's `--memory` does.
///
/// Returns `None` for anything else, negative numbers included.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let mut bytes = whole.checked_mul(1 << shift)?;
    if !fraction.is_empty() {
        let digits = fraction.get(..fraction.len().min(9))?;
        let scale = 10u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
        let part = (digits.parse::<u128>().ok()? << shift) / scale;
        bytes = bytes.checked_add(u64::try_from(part).ok()?)?;
    }
    Some(bytes)
}

/// Parses a Go duration (`1h2m3.5s`, `10ms`, `-` is refused) into nanoseconds.
#[must_use]
pub fn parse_duration_ns(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at_checked(end)?;
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_end)?;
        let scale: u64 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            let digits = fraction.get(..fraction.len().min(9))?;
            let divisor = 10u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
            let part = digits.parse::<u128>().ok()? * u128::from(scale) / divisor;
            total = total.checked_add(u64::try_from(part).ok()?)?;
        }
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("64", 64),
            ("4k", 4096),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("10 MB", 10 << 20),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.2.3", "99999999999p"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration_ns("1m30s"), Some(90_000_000_000));
        assert_eq!(parse_duration_ns("1.5s"), Some(1_500_000_000));
        assert_eq!(parse_duration_ns("0"), Some(0));
        for bad in ["", "5", "s", ".s", "1x", "-1s"] {
            assert_eq!(parse_duration_ns(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse_bytes(&text);
            let _ = parse_duration_ns(&text);
        }
    }
}

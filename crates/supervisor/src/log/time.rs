//! RFC 3339 time with nanoseconds, cheap when many lines fall into one second.

use gamut_abi::calendar::date_of_day;

/// Bytes of `2006-01-02T15:04:05.123456789Z`.
pub(crate) const TIME_BYTES: usize = 30;

/// Formats times; remembers the last second.
pub(crate) struct TimeFormat {
    second: u64,
    text: [u8; TIME_BYTES],
}

/// One time in nanoseconds since the epoch, in UTC.
pub(crate) fn rfc3339(time_ns: u64) -> String {
    String::from_utf8_lossy(&TimeFormat::new().format(time_ns)).into_owned()
}

impl TimeFormat {
    pub(crate) fn new() -> Self {
        let mut format = Self {
            second: 0,
            text: *b"1970-01-01T00:00:00.000000000Z",
        };
        format.set_second(0);
        format
    }

    /// The text of a time in nanoseconds since the epoch, in UTC.
    pub(crate) fn format(&mut self, time_ns: u64) -> [u8; TIME_BYTES] {
        let second = time_ns / 1_000_000_000;
        if second != self.second {
            self.set_second(second);
        }
        if let Some(digits) = self.text.get_mut(20..29) {
            put_decimal(digits, time_ns % 1_000_000_000);
        }
        self.text
    }

    fn set_second(&mut self, second: u64) {
        let (year, month, day) = date_of_day(second / 86_400);
        let of_day = second % 86_400;
        let fields = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, of_day / 3_600),
            (14..16, of_day / 60 % 60),
            (17..19, of_day % 60),
        ];
        for (range, value) in fields {
            if let Some(digits) = self.text.get_mut(range) {
                put_decimal(digits, value);
            }
        }
        self.second = second;
    }
}

/// Writes the last decimal digits of a value, as many as there is room for.
fn put_decimal(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(time_ns: u64) -> String {
        String::from_utf8(TimeFormat::new().format(time_ns).to_vec()).unwrap()
    }

    #[test]
    fn known_times() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            text(951_827_696_123_456_789),
            "2000-02-29T12:34:56.123456789Z"
        );
        assert_eq!(
            text(1_709_251_199_999_999_999),
            "2024-02-29T23:59:59.999999999Z"
        );
        assert_eq!(
            text(4_107_542_400_000_000_001),
            "2100-03-01T00:00:00.000000001Z"
        );
    }

    #[test]
    fn the_cache_follows_the_second() {
        let mut format = TimeFormat::new();
        format.format(1_709_251_199_999_999_999);
        assert_eq!(
            &format.format(1_709_251_200_000_000_007),
            b"2024-03-01T00:00:00.000000007Z"
        );
        assert_eq!(
            &format.format(1_709_251_200_000_000_008),
            b"2024-03-01T00:00:00.000000008Z"
        );
    }
}

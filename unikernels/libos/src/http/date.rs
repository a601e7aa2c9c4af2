//! Dates as HTTP has them (RFC 9110, 5.6.7).

use gamut_abi::calendar::date_of_day;

/// Bytes of a date.
pub const DATE_BYTES: usize = 29;

/// `Sun, 06 Nov 1994 08:49:37 GMT` of seconds since 1970 UTC.
#[must_use]
pub fn date(seconds: u64) -> [u8; DATE_BYTES] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let days = seconds / 86_400;
    let (year, month, day) = date_of_day(days);
    let time = seconds % 86_400;
    let mut text = *b"???, ?? ??? ???? ??:??:?? GMT";
    let mut put = |at: usize, piece: &[u8]| {
        if let Some(place) = text.get_mut(at..at + piece.len()) {
            place.copy_from_slice(piece);
        }
    };
    let two = |number: u64| {
        let digit = |number: u64| b'0' + u8::try_from(number % 10).unwrap_or(0);
        [digit(number / 10), digit(number)]
    };
    put(0, DAYS[usize::try_from(days % 7).unwrap_or(0)]);
    put(5, &two(day));
    put(8, MONTHS[usize::try_from(month - 1).unwrap_or(0) % 12]);
    put(12, &two(year / 100));
    put(14, &two(year % 100));
    put(17, &two(time / 3600));
    put(20, &two(time / 60 % 60));
    put(23, &two(time % 60));
    text
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn known_dates() {
        assert_eq!(&date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&date(1_709_164_800), b"Thu, 29 Feb 2024 00:00:00 GMT");
        assert_eq!(&date(1_735_689_599), b"Tue, 31 Dec 2024 23:59:59 GMT");
        let _ = date(u64::MAX / 2);
    }
}

//! Signal names and numbers (signal(7), Linux x86-64 and aarch64).

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// SIGTERM.
pub const TERM: i32 = 15;
/// SIGKILL.
pub const KILL: i32 = 9;

/// Parses `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3` or `SIGRTMAX-1`.
///
/// Returns the number, 1..=64, or `None` if there is no such signal.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).ok();
    }
    match name {
        "CLD" => return Some(17),
        "POLL" => return Some(29),
        "IOT" => return Some(6),
        _ => {}
    }
    let (base, offset) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (34, rest)
    } else {
        (64, name.strip_prefix("RTMAX")?)
    };
    let offset = if offset.is_empty() {
        0
    } else {
        offset.parse::<i32>().ok()?
    };
    let number = offset.checked_add(base)?;
    (34..=64).contains(&number).then_some(number)
}

/// Name of a signal without `SIG`, as `KILL`; its number if it has none.
#[must_use]
pub fn name(number: i32) -> String {
    number
        .checked_sub(1)
        .and_then(|index| usize::try_from(index).ok())
        .and_then(|index| NAMES.get(index))
        .map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for bad in [
            "",
            "0",
            "65",
            "SIG",
            "NOPE",
            "RTMIN-1",
            "-1",
            "RTMIN+2147483647",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(name(9), "KILL");
        assert_eq!(name(40), "40");
    }
}

//! The first line of an HTTP answer. No I/O; what a workload sends is hostile.
//!
//! Source: RFC 9112, section 4.

/// Longest status line that is looked at, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 4096;

/// A status line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatusLine {
    /// 100 to 999.
    pub(super) status: u16,
    /// The line as it came, without its end, printable.
    pub(super) text: String,
}

/// Finds the status line at the beginning of what has come so far. `None`: it is not complete.
///
/// # Errors
/// If this is not HTTP, or the line is too long.
pub(super) fn status_line(bytes: &[u8]) -> Result<Option<StatusLine>, &'static str> {
    const NOT_HTTP: &str = "the answer is not HTTP/1";
    let shown = &bytes[..bytes.len().min(MAX_LINE_BYTES)];
    let Some(end) = shown.iter().position(|byte| *byte == b'\n') else {
        let prefix = b"HTTP/1.";
        let common = shown.len().min(prefix.len());
        if shown[..common] != prefix[..common] {
            return Err(NOT_HTTP);
        }
        if shown.len() == MAX_LINE_BYTES {
            return Err("the first line of the answer is too long");
        }
        return Ok(None);
    };
    let line = shown[..end].strip_suffix(b"\r").unwrap_or(&shown[..end]);
    let digits = line
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| match rest {
            [version, b' ', a, b, c, rest @ ..] if version.is_ascii_digit() => {
                // The reason is optional, and so is the blank before it.
                rest.first()
                    .is_none_or(|byte| *byte == b' ')
                    .then_some([*a, *b, *c])
            }
            _ => None,
        })
        .ok_or(NOT_HTTP)?;
    let mut status: u16 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(NOT_HTTP);
        }
        status = status * 10 + u16::from(digit - b'0');
    }
    if status < 100 {
        return Err(NOT_HTTP);
    }
    let text = String::from_utf8_lossy(line)
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    Ok(Some(StatusLine { status, text }))
}

/// Entry for fuzzing: any bytes, in any pieces, are refused, awaited or understood.
pub fn fuzz_status_line(data: &[u8]) {
    let whole = status_line(data);
    let half = status_line(&data[..data.len() / 2]);
    // What is decided does not change when more comes.
    if let Ok(Some(line)) = half {
        assert_eq!(whole, Ok(Some(line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(text: &str) -> Result<Option<u16>, &'static str> {
        status_line(text.as_bytes()).map(|line| line.map(|line| line.status))
    }

    #[test]
    fn lines() {
        assert_eq!(status("HTTP/1.1 200 OK\r\nA: b\r\n\r\n"), Ok(Some(200)));
        assert_eq!(status("HTTP/1.0 503\n"), Ok(Some(503)));
        assert_eq!(status("HTTP/1.1 404 Not Found\r\n"), Ok(Some(404)));
        for part in ["", "H", "HTTP/1.", "HTTP/1.1 200 O"] {
            assert_eq!(status(part), Ok(None), "{part}");
        }
        for bad in [
            "SSH-2.0-x\r\n",
            "X",
            "HTTP/2 200\r\n",
            "HTTP/1.1 20 OK\r\n",
            "HTTP/1.1 2000\r\n",
            "HTTP/1.1 099 x\r\n",
            "HTTP/1.1 2x0 OK\r\n",
            "\r\n",
        ] {
            assert!(status(bad).is_err(), "{bad}");
        }
        let long = format!("HTTP/1.1 200 {}", "a".repeat(MAX_LINE_BYTES));
        assert!(status(&long).is_err());
        let line = status_line(b"HTTP/1.1 200 \x1b[31m\xff\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(line.text, "HTTP/1.1 200 [31m\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_status_line(&data);
        }

        #[test]
        fn any_reason(status in 100u16..1000, reason in "[ -~]{0,40}") {
            let text = format!("HTTP/1.1 {status} {reason}\r\n");
            fuzz_status_line(text.as_bytes());
            prop_assert_eq!(status_line(text.as_bytes()).unwrap().unwrap().status, status);
        }
    }
}

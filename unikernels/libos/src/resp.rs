//! RESP2, the protocol of Redis, without input or output: commands in, replies out
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use alloc::vec::Vec;
use core::fmt;

use crate::error::becomes_error;

/// Most arguments of a command.
const MAX_ARGUMENTS: usize = 1024;
/// Longest inline command and length line.
const MAX_LINE_BYTES: usize = 4096;

/// Why input is no command. The connection cannot go on then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RespError {
    /// Not the protocol.
    Malformed,
    /// Longer than what is taken.
    TooLong,
}

impl fmt::Display for RespError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "Protocol error: invalid command",
            Self::TooLong => "Protocol error: command too long",
        })
    }
}

becomes_error!(RespError);

/// A line up to CR LF, and where the rest begins; none if it is not complete.
fn line(input: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, RespError> {
    let rest = input.get(at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
        if rest.len() > MAX_LINE_BYTES {
            return Err(RespError::TooLong);
        }
        return Ok(None);
    };
    if end > MAX_LINE_BYTES {
        return Err(RespError::TooLong);
    }
    let line = rest.get(..end).unwrap_or_default();
    Ok(Some((
        line.strip_suffix(b"\r").unwrap_or(line),
        at + end + 1,
    )))
}

fn number(digits: &[u8]) -> Result<usize, RespError> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(digits)
        .ok()
        .filter(|_| is_number)
        .and_then(|digits| digits.parse().ok())
        .ok_or(RespError::Malformed)
}

/// A command's arguments, its name first, and how many bytes of the input it takes.
pub type Command<'input> = (Vec<&'input [u8]>, usize);

/// The first command of the input, and how many bytes it takes; none if it is not complete. An
/// empty line is a command without arguments. An argument has at most `most_bytes`.
///
/// # Errors
/// If the input is no command.
pub fn command(input: &[u8], most_bytes: usize) -> Result<Option<Command<'_>>, RespError> {
    let Some((first, mut at)) = line(input, 0)? else {
        return Ok(None);
    };
    let Some(count) = first.strip_prefix(b"*") else {
        let words = first.split(|byte| byte.is_ascii_whitespace());
        return Ok(Some((words.filter(|word| !word.is_empty()).collect(), at)));
    };
    let count = number(count)?;
    if count > MAX_ARGUMENTS {
        return Err(RespError::TooLong);
    }
    let mut arguments = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((length, begin)) = line(input, at)? else {
            return Ok(None);
        };
        let bytes = number(length.strip_prefix(b"$").ok_or(RespError::Malformed)?)?;
        if bytes > most_bytes {
            return Err(RespError::TooLong);
        }
        let end = begin + bytes;
        match input.get(begin..end + 2) {
            None => return Ok(None),
            Some(argument) => {
                arguments.push(argument.strip_suffix(b"\r\n").ok_or(RespError::Malformed)?);
            }
        }
        at = end + 2;
    }
    Ok(Some((arguments, at)))
}

/// Appends `+text`.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `-text`; line ends in it become blanks.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    out.extend(text.bytes().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        other => other,
    }));
    out.extend_from_slice(b"\r\n");
}

fn prefixed(out: &mut Vec<u8>, prefix: u8, value: u64) {
    out.push(prefix);
    out.extend_from_slice(alloc::format!("{value}").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a number.
pub fn integer(out: &mut Vec<u8>, value: u64) {
    prefixed(out, b':', value);
}

/// Appends bytes; none as the null of RESP2.
pub fn bulk(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            prefixed(out, b'$', bytes.len() as u64);
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        None => out.extend_from_slice(b"$-1\r\n"),
    }
}

/// Appends the beginning of a list of replies.
pub fn array(out: &mut Vec<u8>, count: usize) {
    prefixed(out, b'*', count as u64);
}

#[cfg(test)]
mod tests {
    use super::{RespError, array, bulk, command};
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn commands_are_read() {
        let input = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\nPING\r\n";
        let (arguments, used) = command(input, 100).expect("good").expect("complete");
        assert_eq!(arguments, [&b"GET"[..], b"a\r\nb"]);
        let (inline, _) = command(&input[used..], 100)
            .expect("good")
            .expect("complete");
        assert_eq!(inline, [&b"PING"[..]]);
        for end in 0..used {
            assert_eq!(command(&input[..end], 100), Ok(None));
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for input in [
            &b"*x\r\n"[..],
            b"*-1\r\n",
            b"*1\r\n+a\r\n",
            b"*1\r\n$1\r\nabc\r\n",
        ] {
            assert_eq!(command(input, 100), Err(RespError::Malformed));
        }
        assert_eq!(command(b"*1\r\n$101\r\n", 100), Err(RespError::TooLong));
        assert_eq!(command(b"*1025\r\n", 100), Err(RespError::TooLong));
        assert_eq!(command(&[b'a'; 5000], 100), Err(RespError::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(input: Vec<u8>) {
            let _ = command(&input, 100);
        }

        #[test]
        fn what_is_written_is_read_back(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10),
        ) {
            let mut input = vec![];
            array(&mut input, words.len());
            words.iter().for_each(|word| bulk(&mut input, Some(word)));
            let found = command(&input, 100).expect("good").expect("complete");
            prop_assert_eq!(found, (words.iter().map(Vec::as_slice).collect(), input.len()));
        }
    }
}

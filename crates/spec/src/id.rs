//! Ids and names of objects.

use std::fs::File;
use std::io::{self, Read};

/// A fresh random id of 64 hexadecimal digits, never all digits in its first twelve (so that a
/// short id is not taken for a number, as Docker takes care of).
///
/// # Errors
/// If `/dev/urandom` cannot be read.
pub fn random() -> io::Result<String> {
    let mut source = File::open("/dev/urandom")?;
    loop {
        let mut bytes = [0u8; 32];
        source.read_exact(&mut bytes)?;
        let id = hex(&bytes);
        if id.as_bytes().iter().take(12).any(|c| !c.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// Lower-case hexadecimal digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Whether `text` is a whole id: 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && is_id_prefix(text)
}

/// Whether `text` could begin an id: 1 to 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_id_prefix(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// The first twelve characters, as people see ids.
#[must_use]
pub fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// Whether `name` may name a container or volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, Docker's rule.
#[must_use]
pub fn is_object_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() >= 2
        && bytes.len() <= 255
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_fresh_and_whole() {
        let (a, b) = (random().unwrap(), random().unwrap());
        assert!(is_id(&a) && is_id(&b) && a != b);
        assert_eq!(short(&a).len(), 12);
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "web-1", "a_b.c", "0x"] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in ["", "a", "-a", ".a", "a/b", "a b", "ä1"] {
            assert!(!is_object_name(bad), "{bad}");
        }
    }
}

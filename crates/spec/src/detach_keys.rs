//! The sequence of keys by which a client leaves a process that runs on. No I/O.

use core::fmt;
use core::str::FromStr;

/// What detaches unless something else is asked for.
pub const DEFAULT_KEYS: &str = "ctrl-p,ctrl-q";

/// A sequence of keys, as `ctrl-p,ctrl-q` or `a,ctrl-\`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySequence {
    text: String,
    bytes: Vec<u8>,
}

/// Longest sequence. Nobody types more, and watching costs time with the square of it.
const MAX_KEYS: usize = 32;

/// No sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// A key that there is not.
    #[error("invalid detach keys ({text}) provided: unknown key \"{key}\"")]
    Unknown {
        /// The whole sequence.
        text: String,
        /// The key.
        key: String,
    },
    /// Too many keys.
    #[error("invalid detach keys provided: {count} keys, more than {MAX_KEYS}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl Default for KeySequence {
    fn default() -> Self {
        const CTRL_P: u8 = b'p' & 0x1f;
        const CTRL_Q: u8 = b'q' & 0x1f;
        Self {
            text: DEFAULT_KEYS.to_owned(),
            bytes: vec![CTRL_P, CTRL_Q],
        }
    }
}

impl KeySequence {
    /// Begins to watch input for the sequence.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(self.bytes.clone())
    }
}

impl fmt::Display for KeySequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for KeySequence {
    type Err = InvalidKeys;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.split(',').count();
        if count > MAX_KEYS {
            return Err(InvalidKeys::TooMany { count });
        }
        let unknown = |key: &str| InvalidKeys::Unknown {
            text: text.to_owned(),
            key: key.to_owned(),
        };
        let bytes = text
            .split(',')
            .map(|key| byte_of(key).ok_or_else(|| unknown(key)));
        Ok(Self {
            text: text.to_owned(),
            bytes: bytes.collect::<Result<_, _>>()?,
        })
    }
}

fn byte_of(key: &str) -> Option<u8> {
    let mut characters = key.bytes();
    match (
        key.strip_prefix("ctrl-"),
        characters.next(),
        characters.next(),
    ) {
        (None, Some(byte), None) if byte.is_ascii() => Some(byte),
        // ASCII: the control codes are the letters with their upper bits cut off.
        (Some(control), _, _) => match control.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter & 0x1f),
            [sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign & 0x1f),
            _ => None,
        },
        _ => None,
    }
}

/// Watches input for the sequence.
#[derive(Debug)]
pub struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

impl Watch {
    /// Watches for these bytes; none means: never.
    fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes input; returns what goes on to the container, and whether to detach now. The first
    /// keys of a sequence are held back until it is clear that they are not the sequence.
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len() + self.matched);
        for &byte in input {
            // After a mismatch, what was held back may itself end in a start of the sequence.
            while self.matched > 0 && self.keys.get(self.matched) != Some(&byte) {
                let shorter = self.shorter_match();
                let released = self.matched - shorter;
                passed.extend(self.keys.iter().take(released));
                self.matched = shorter;
            }
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (passed, true);
                }
            } else {
                passed.push(byte);
            }
        }
        (passed, false)
    }

    /// What is held back at the end of the input.
    pub fn finish(&mut self) -> Vec<u8> {
        let held = self.keys.iter().take(self.matched).copied().collect();
        self.matched = 0;
        held
    }

    /// Length of the longest proper suffix of the held keys that is a start of the sequence.
    fn shorter_match(&self) -> usize {
        let held = self.keys.get(..self.matched).unwrap_or_default();
        (0..self.matched)
            .rev()
            .find(|length| held.ends_with(self.keys.get(..*length).unwrap_or_default()))
            .unwrap_or(0)
    }
}

/// Any text is parsed, and any input watched, without panic: the sequence up to the first line
/// end, then the input.
pub fn fuzz_detach_keys(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let Ok(keys) = text.parse::<KeySequence>() else {
        return;
    };
    let mut watch = keys.watch();
    for piece in parts.next().unwrap_or_default().chunks(3) {
        let _ = watch.filter(piece);
    }
    let _ = watch.finish();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys() {
        let parse = KeySequence::from_str;
        assert_eq!(parse(DEFAULT_KEYS).unwrap(), KeySequence::default());
        assert_eq!(KeySequence::default().bytes, [16, 17]);
        assert_eq!(parse("a,ctrl-\\,ctrl-@").unwrap().bytes, [b'a', 28, 0]);
        assert_eq!(parse("a,ctrl-b").unwrap().to_string(), "a,ctrl-b");
        for bad in ["", "ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-é", "é"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let long = ["a"; MAX_KEYS].join(",");
        assert!(parse(&long).is_ok());
        assert_eq!(
            parse(&format!("{long},a")),
            Err(InvalidKeys::TooMany {
                count: MAX_KEYS + 1
            })
        );
    }

    #[test]
    fn holds_back_and_releases() {
        let mut keys = Watch::new(vec![1, 1, 2]);
        assert_eq!(keys.filter(&[9, 1]), (vec![9], false));
        assert_eq!(keys.filter(&[1]), (vec![], false));
        assert_eq!(keys.filter(&[1]), (vec![1], false));
        assert_eq!(keys.filter(&[3]), (vec![1, 1, 3], false));
        assert_eq!(keys.filter(&[1, 1, 2, 5]), (vec![], true));
        assert_eq!(Watch::new(vec![]).filter(&[16, 17]), (vec![16, 17], false));
    }

    proptest! {
        #[test]
        fn loses_nothing(
            pattern in proptest::collection::vec(0u8..3, 1..4),
            input in proptest::collection::vec(0u8..3, 0..40),
            cut in 1usize..5
        ) {
            let mut keys = Watch::new(pattern.clone());
            let mut passed = Vec::new();
            let mut is_detached = false;
            for piece in input.chunks(cut) {
                let (bytes, detach) = keys.filter(piece);
                passed.extend(bytes);
                if detach {
                    is_detached = true;
                    break;
                }
            }
            let at = input.windows(pattern.len()).position(|window| window == pattern);
            prop_assert_eq!(is_detached, at.is_some());
            match at {
                Some(at) => prop_assert_eq!(&passed[..], &input[..at]),
                None => {
                    passed.extend(keys.finish());
                    prop_assert_eq!(passed, input);
                }
            }
        }
    }
}

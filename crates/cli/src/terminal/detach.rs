//! The key sequence that leaves a container running. No I/O.

use crate::error::Error;

/// What detaches unless `--detach-keys` says otherwise.
pub const DEFAULT_KEYS: &str = "ctrl-p,ctrl-q";

/// Parses `ctrl-p,ctrl-q` or `a,ctrl-\` into bytes.
///
/// # Errors
/// [`Error::Usage`] for unknown keys.
pub fn parse(text: &str) -> Result<Vec<u8>, Error> {
    text.split(',')
        .map(|key| {
            let mut characters = key.bytes();
            let byte = match (
                key.strip_prefix("ctrl-"),
                characters.next(),
                characters.next(),
            ) {
                (None, Some(byte), None) if byte.is_ascii() => Some(byte),
                (Some(control), _, _) => match control.as_bytes() {
                    // ASCII: the control codes are the letters with their upper bits cut off.
                    [letter @ b'a'..=b'z'] => Some(letter & 0x1f),
                    [sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign & 0x1f),
                    _ => None,
                },
                _ => None,
            };
            byte.ok_or_else(|| {
                Error::Usage(format!(
                    "invalid detach keys ({text}) provided: unknown key \"{key}\""
                ))
            })
        })
        .collect()
}

/// Watches input for the sequence.
#[derive(Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Watches for these bytes; none means: never detach.
    #[must_use]
    pub fn new(keys: Vec<u8>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys() {
        assert_eq!(parse(DEFAULT_KEYS).unwrap(), [16, 17]);
        assert_eq!(parse("a,ctrl-\\,ctrl-@").unwrap(), [b'a', 28, 0]);
        for bad in ["", "ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-é", "é"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn holds_back_and_releases() {
        let mut keys = DetachKeys::new(vec![1, 1, 2]);
        assert_eq!(keys.filter(&[9, 1]), (vec![9], false));
        assert_eq!(keys.filter(&[1]), (vec![], false));
        assert_eq!(keys.filter(&[1]), (vec![1], false));
        assert_eq!(keys.filter(&[3]), (vec![1, 1, 3], false));
        assert_eq!(keys.filter(&[1, 1, 2, 5]), (vec![], true));
        assert_eq!(
            DetachKeys::new(vec![]).filter(&[16, 17]),
            (vec![16, 17], false)
        );
    }

    proptest! {
        #[test]
        fn loses_nothing(
            pattern in proptest::collection::vec(0u8..3, 1..4),
            input in proptest::collection::vec(0u8..3, 0..40),
            cut in 1usize..5
        ) {
            let mut keys = DetachKeys::new(pattern.clone());
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

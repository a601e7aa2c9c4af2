//! Splits a stream of concatenated JSON values (with or without line ends) into single values.
//! No I/O; bytes may be cut anywhere.

/// A single value is not longer than this.
const VALUE_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// A value of the stream is too long.
#[derive(Debug, thiserror::Error)]
#[error("a JSON value is longer than {VALUE_LIMIT_BYTES} bytes")]
pub struct TooLong;

/// State between two pieces.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: Vec<u8>,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Splitter {
    /// Takes a piece; calls `emit` with each value that it completes. Whether a value is valid
    /// JSON is for its parser to say.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(Vec<u8>)) -> Result<(), TooLong> {
        for &byte in bytes {
            self.push_byte(byte, &mut emit);
            if self.pending.len() > VALUE_LIMIT_BYTES {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    /// What is left at the end of the stream: a bare scalar, or a value that was cut off.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if self.pending.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut self.pending))
    }

    fn push_byte(&mut self, byte: u8, emit: &mut impl FnMut(Vec<u8>)) {
        if self.is_in_string {
            self.pending.push(byte);
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => {
                    self.is_in_string = false;
                    self.emit_if_complete(emit);
                }
                _ => {}
            }
            return;
        }
        match byte {
            // RFC 7464 marks the start of each value with a record separator.
            0x1e => {}
            b' ' | b'\t' | b'\r' | b'\n' => {
                if self.depth == 0 {
                    // The end of a bare scalar.
                    if !self.pending.is_empty() {
                        emit(std::mem::take(&mut self.pending));
                    }
                } else {
                    self.pending.push(byte);
                }
            }
            b'"' => {
                self.is_in_string = true;
                self.pending.push(byte);
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.pending.push(byte);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.pending.push(byte);
                self.emit_if_complete(emit);
            }
            _ => self.pending.push(byte),
        }
    }

    fn emit_if_complete(&mut self, emit: &mut impl FnMut(Vec<u8>)) {
        if self.depth == 0 {
            emit(std::mem::take(&mut self.pending));
        }
    }
}

/// Entry for fuzzing: the result does not depend on where the stream is cut.
pub fn fuzz_json_stream(data: &[u8]) {
    let split = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut splitter = Splitter::default();
        let mut values = Vec::new();
        for piece in pieces {
            if splitter.push(piece, |value| values.push(value)).is_err() {
                break;
            }
        }
        values.extend(splitter.finish());
        values
    };
    let whole = split(&mut std::iter::once(data));
    let bytewise = split(&mut data.chunks(1));
    assert_eq!(whole, bytewise, "cutting changed the values");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_cut_anywhere() {
        let stream = b"{\"a\":\"}\\\"\"}\r\n[1,\n2]\"x\" 12 {}";
        for size in 1..stream.len() {
            let mut splitter = Splitter::default();
            let mut values = Vec::new();
            for piece in stream.chunks(size) {
                splitter.push(piece, |value| values.push(value)).unwrap();
            }
            let values: Vec<_> = values
                .iter()
                .map(|value| std::str::from_utf8(value).unwrap())
                .collect();
            assert_eq!(
                values,
                ["{\"a\":\"}\\\"\"}", "[1,\n2]", "\"x\"", "12", "{}"]
            );
            assert_eq!(splitter.finish(), None);
        }
    }

    proptest! {
        #[test]
        fn never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_json_stream(&data);
        }
    }
}

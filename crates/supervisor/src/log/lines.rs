//! Cutting output into log lines. No I/O.

use super::Stream;
use super::time::TIME_BYTES;

/// Longest text of one log line; a longer line is cut into partial ones.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 10;

/// Bytes before the text: `TIME STREAM TAG `.
pub(crate) const PREFIX_BYTES: usize = TIME_BYTES + 10;

/// Position of the tag in a prefix.
const TAG: usize = PREFIX_BYTES - 2;

/// What stands before the text of a line.
#[derive(Clone, Copy)]
pub(crate) struct Prefix([u8; PREFIX_BYTES]);

impl Prefix {
    pub(crate) fn new(time: [u8; TIME_BYTES], stream: Stream) -> Self {
        let mut text = *b"1970-01-01T00:00:00.000000000Z stdout F ";
        if let Some((head, tail)) = text.split_first_chunk_mut::<TIME_BYTES>() {
            *head = time;
            if let (Stream::Stderr, Some(name)) = (stream, tail.get_mut(1..7)) {
                name.copy_from_slice(b"stderr");
            }
        }
        Self(text)
    }

    fn put(&self, tag: u8, pieces: [&[u8]; 2], lines: &mut Vec<u8>) {
        let mut prefix = self.0;
        if let Some(byte) = prefix.get_mut(TAG) {
            *byte = tag;
        }
        lines.extend_from_slice(&prefix);
        for piece in pieces {
            lines.extend_from_slice(piece);
        }
        lines.push(b'\n');
    }

    /// Appends one full line.
    pub(crate) fn put_full(&self, text: &[u8], lines: &mut Vec<u8>) {
        self.put(b'F', [text, &[]], lines);
    }
}

/// Cuts one stream into lines and keeps the beginning of the line that is not yet complete.
#[derive(Default)]
pub(crate) struct LineSplitter {
    /// At most [`MAX_LINE_BYTES`].
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Appends the log lines of `output` to `lines`, until `lines` holds `limit_bytes` or more.
    /// Returns how much of `output` was used up.
    pub(crate) fn push(
        &mut self,
        prefix: &Prefix,
        output: &[u8],
        lines: &mut Vec<u8>,
        limit_bytes: usize,
    ) -> usize {
        let mut rest = output;
        while !rest.is_empty() && lines.len() < limit_bytes {
            // One byte more than fits, to see whether the line ends exactly there.
            let room = MAX_LINE_BYTES - self.pending.len();
            let window = rest.get(..room + 1).unwrap_or(rest);
            if let Some(end) = find_newline(window) {
                let (text, after) = rest.split_at(end);
                prefix.put(b'F', [&self.pending, text], lines);
                self.pending.clear();
                rest = after.get(1..).unwrap_or(&[]);
            } else if window.len() > room {
                let (text, after) = rest.split_at(room);
                prefix.put(b'P', [&self.pending, text], lines);
                self.pending.clear();
                rest = after;
            } else {
                self.pending.extend_from_slice(rest);
                rest = &[];
            }
        }
        if self.pending.is_empty() && self.pending.capacity() > 0 && rest.is_empty() {
            self.pending.shrink_to(1 << 10);
        }
        output.len() - rest.len()
    }

    /// Appends what is left of an unterminated line, tagged partial.
    pub(crate) fn finish(&mut self, prefix: &Prefix, lines: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            prefix.put(b'P', [&self.pending, &[]], lines);
            self.pending = Vec::new();
        }
    }
}

/// Position of the first newline (memchr(3) of the C library is vectorised).
pub(super) fn find_newline(bytes: &[u8]) -> Option<usize> {
    // SAFETY: pointer and length describe a live slice.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), i32::from(b'\n'), bytes.len()) };
    position(bytes, found)
}

/// Position of the last newline.
pub(super) fn find_last_newline(bytes: &[u8]) -> Option<usize> {
    // SAFETY: pointer and length describe a live slice.
    let found = unsafe { libc::memrchr(bytes.as_ptr().cast(), i32::from(b'\n'), bytes.len()) };
    position(bytes, found)
}

fn position(bytes: &[u8], found: *mut libc::c_void) -> Option<usize> {
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}

/// Fuzz entry: any output, cut anywhere, comes back whole from its log lines.
#[doc(hidden)]
pub fn fuzz_line_splitter(data: &[u8]) {
    let (cut, output) = data
        .split_first()
        .map_or((1, data), |(first, rest)| (*first, rest));
    let prefix = Prefix::new(*b"1970-01-01T00:00:00.000000000Z", Stream::Stderr);
    let mut splitter = LineSplitter::default();
    let mut lines = Vec::new();
    for chunk in output.chunks(usize::from(cut) * 97 + 1) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let mut batch = Vec::new();
            let used = splitter.push(&prefix, rest, &mut batch, 64);
            rest = rest.get(used..).unwrap_or(&[]);
            lines.extend_from_slice(&batch);
        }
    }
    splitter.finish(&prefix, &mut lines);
    let mut back = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let (head, text) = line.split_at_checked(PREFIX_BYTES).unwrap_or((&[], &[]));
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        assert!(text.len() <= MAX_LINE_BYTES, "line of {} bytes", text.len());
        back.extend_from_slice(text);
        if head.get(TAG) == Some(&b'F') {
            back.push(b'\n');
        }
    }
    assert!(back == output, "output changed on its way through the log");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(char, usize)> {
        let prefix = Prefix::new(*b"1970-01-01T00:00:00.000000000Z", Stream::Stdout);
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            assert_eq!(
                splitter.push(&prefix, chunk, &mut lines, usize::MAX),
                chunk.len()
            );
        }
        splitter.finish(&prefix, &mut lines);
        lines
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| (char::from(line[TAG]), line.len() - PREFIX_BYTES - 1))
            .collect()
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_full() {
        let mut line = vec![b'x'; MAX_LINE_BYTES];
        line.push(b'\n');
        assert_eq!(split(&[&line]), [('F', MAX_LINE_BYTES)]);
        assert_eq!(
            split(&[&line[..MAX_LINE_BYTES], b"\n"]),
            [('F', MAX_LINE_BYTES)]
        );
        line.insert(0, b'x');
        assert_eq!(split(&[&line]), [('P', MAX_LINE_BYTES), ('F', 1)]);
    }

    #[test]
    fn an_unterminated_line_is_partial() {
        assert_eq!(split(&[b"one\ntw", b"o"]), [('F', 3), ('P', 3)]);
        assert_eq!(split(&[b"\n\n"]), [('F', 0), ('F', 0)]);
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn a_prefix_reads_as_cri_wants_it() {
        let mut lines = Vec::new();
        Prefix::new(*b"2024-03-01T00:00:00.000000007Z", Stream::Stderr).put_full(b"hi", &mut lines);
        assert_eq!(lines, b"2024-03-01T00:00:00.000000007Z stderr F hi\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn nothing_is_lost(data in proptest::collection::vec(prop_oneof![200 => Just(b'x'), 1 => Just(b'\n')], 0..40_000)) {
            fuzz_line_splitter(&data);
        }
    }
}

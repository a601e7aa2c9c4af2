//! Decoder of Docker's multiplexed stream: frames of `[stream, 0, 0, 0, length (big endian)]`
//! followed by that many bytes. No I/O; frames may be cut anywhere. Source: Docker Engine API,
//! "Attach to a container", stream format.

/// Length of a frame's header.
const HEADER_BYTES: usize = 8;

/// Where the bytes of a frame belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output (stdin echoes, id 0, go here too).
    Stdout,
    /// Standard error.
    Stderr,
    /// An error of the engine about this stream.
    SystemError,
}

/// A frame has an unknown stream id: the stream is not multiplexed, or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the output stream of the daemon is broken: unknown stream {0}")]
pub struct UnknownStream(pub u8);

/// State between two pieces.
#[derive(Debug)]
pub struct Demultiplexer {
    header: [u8; HEADER_BYTES],
    header_length: usize,
    stream: Stream,
    left: usize,
}

impl Default for Demultiplexer {
    fn default() -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_length: 0,
            stream: Stream::Stdout,
            left: 0,
        }
    }
}

impl Demultiplexer {
    /// Takes the next payload out of `input`, which is advanced. `None` when `input` is used up.
    ///
    /// # Errors
    /// [`UnknownStream`]; the stream cannot be read further.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<(Stream, &'a [u8])>, UnknownStream> {
        loop {
            if self.left > 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                let (payload, rest) = input.split_at(self.left.min(input.len()));
                *input = rest;
                self.left -= payload.len();
                return Ok(Some((self.stream, payload)));
            }
            let wanted = HEADER_BYTES - self.header_length;
            let (part, rest) = input.split_at(wanted.min(input.len()));
            let end = self.header_length + part.len();
            if let Some(target) = self.header.get_mut(self.header_length..end) {
                target.copy_from_slice(part);
            }
            *input = rest;
            self.header_length = end;
            if end < HEADER_BYTES {
                return Ok(None);
            }
            self.header_length = 0;
            let [id, _, _, _, l3, l2, l1, l0] = self.header;
            self.stream = match id {
                0 | 1 => Stream::Stdout,
                2 => Stream::Stderr,
                3 => Stream::SystemError,
                other => return Err(UnknownStream(other)),
            };
            let length = u32::from_be_bytes([l3, l2, l1, l0]);
            self.left = usize::try_from(length).unwrap_or(usize::MAX);
        }
    }

    /// Whether the stream may end here: no frame is cut off.
    #[must_use]
    pub fn is_at_frame_end(&self) -> bool {
        self.left == 0 && self.header_length == 0
    }
}

/// Entry for fuzzing: the payloads do not depend on where the stream is cut.
pub fn fuzz_demux(data: &[u8]) {
    let decode = |size: usize| {
        let mut demultiplexer = Demultiplexer::default();
        let mut streams: [Vec<u8>; 3] = Default::default();
        for mut piece in data.chunks(size) {
            loop {
                match demultiplexer.next(&mut piece) {
                    Ok(Some((stream, payload))) => {
                        let [stdout, stderr, system] = &mut streams;
                        match stream {
                            Stream::Stdout => stdout.extend_from_slice(payload),
                            Stream::Stderr => stderr.extend_from_slice(payload),
                            Stream::SystemError => system.extend_from_slice(payload),
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return (streams, Some(error)),
                }
            }
        }
        (streams, None)
    };
    let whole = decode(data.len().max(1));
    for size in [1, 3, 8, 11] {
        assert_eq!(decode(size), whole, "cutting changed the streams");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(id: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![id, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn empty_frames_and_unknown_streams() {
        let mut bytes = frame(1, b"");
        bytes.extend(frame(2, b"e"));
        bytes.extend(frame(9, b""));
        let mut demultiplexer = Demultiplexer::default();
        let mut input = bytes.as_slice();
        assert_eq!(
            demultiplexer.next(&mut input),
            Ok(Some((Stream::Stderr, b"e".as_slice())))
        );
        assert_eq!(demultiplexer.next(&mut input), Err(UnknownStream(9)));
    }

    #[test]
    fn knows_a_cut_frame() {
        let bytes = frame(1, b"hello");
        let mut demultiplexer = Demultiplexer::default();
        let mut input = &bytes[..10];
        while demultiplexer.next(&mut input).unwrap().is_some() {}
        assert!(!demultiplexer.is_at_frame_end());
        let mut input = &bytes[10..];
        while demultiplexer.next(&mut input).unwrap().is_some() {}
        assert!(demultiplexer.is_at_frame_end());
    }

    proptest! {
        #[test]
        fn cutting_does_not_matter(
            frames in proptest::collection::vec(
                (0u8..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..10)
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(id, data)| frame(*id, data)).collect();
            fuzz_demux(&bytes);
        }

        #[test]
        fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_demux(&data);
        }
    }
}

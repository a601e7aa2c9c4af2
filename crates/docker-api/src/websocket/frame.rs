//! Frames of WebSocket (RFC 6455, section 5). No I/O.

/// Largest payload taken from a client, in bytes: input comes in small pieces.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation,
    /// Text.
    Text,
    /// Bytes.
    Binary,
    /// The end.
    Close,
    /// A question whether the other side lives.
    Ping,
    /// The answer to it.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub opcode: Opcode,
    /// Its payload, unmasked.
    pub payload: Vec<u8>,
}

/// Why a client's bytes are no frames; the number is the status that the connection is closed with
/// (section 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadFrame {
    /// Status of the closing.
    pub status: u16,
    /// For people.
    pub reason: &'static str,
}

const fn bad(reason: &'static str) -> BadFrame {
    BadFrame {
        status: 1002,
        reason,
    }
}

/// Takes frames out of what comes from a client.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Adds bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it is whole.
    ///
    /// # Errors
    /// If it can be none; nothing more is to be expected then.
    pub fn next(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some(head) = Head::parse(&self.buffer)? else {
            return Ok(None);
        };
        let Some(masked) = self
            .buffer
            .get(head.length..head.length + head.payload_bytes)
        else {
            return Ok(None);
        };
        let payload = masked
            .iter()
            .zip(head.mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        self.buffer.drain(..head.length + head.payload_bytes);
        Ok(Some(Frame {
            opcode: head.opcode,
            payload,
        }))
    }
}

/// What precedes a payload.
struct Head {
    opcode: Opcode,
    length: usize,
    payload_bytes: usize,
    mask: [u8; 4],
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let is_last = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(bad("extensions were not agreed upon"));
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(bad("an unknown kind of frame"))?;
        if second & 0x80 == 0 {
            return Err(bad("frames of clients must be masked"));
        }
        let (payload_bytes, rest, of_length) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest, 2),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                let length = [*a, *b, *c, *d, *e, *f, *g, *h];
                (u64::from_be_bytes(length), rest, 8)
            }
            (126 | 127, _) => return Ok(None),
            (length, rest) => (u64::from(length), rest, 0),
        };
        if opcode.is_control() && (!is_last || payload_bytes > 125) {
            return Err(bad("a control frame is short and in one piece"));
        }
        let payload_bytes = usize::try_from(payload_bytes)
            .ok()
            .filter(|length| *length <= MAX_PAYLOAD_BYTES)
            .ok_or(BadFrame {
                status: 1009,
                reason: "a frame is too long",
            })?;
        let [a, b, c, d, ..] = rest else {
            return Ok(None);
        };
        Ok(Some(Self {
            opcode,
            length: 2 + of_length + 4,
            payload_bytes,
            mask: [*a, *b, *c, *d],
        }))
    }
}

/// A whole message of the server, which is not masked.
#[must_use]
pub fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 10);
    bytes.push(0x80 | opcode.bits());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => bytes.push(short),
        (_, Ok(middle)) => {
            bytes.push(126);
            bytes.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// A closing frame with a status.
#[must_use]
pub fn close(status: u16, reason: &str) -> Vec<u8> {
    let mut payload = status.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    encode(Opcode::Close, &payload)
}

/// Entry for fuzzing: any bytes, in two pieces, are frames or refused, without panic and without
/// more memory than they take.
pub fn fuzz_frames(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let mut decoder = Decoder::default();
    for piece in [first, second] {
        decoder.push(piece);
        while let Ok(Some(frame)) = decoder.next() {
            assert!(frame.payload.len() <= data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As a client sends it.
    fn masked(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut bytes = encode(opcode, payload);
        let head = bytes.len() - payload.len();
        bytes[1] |= 0x80;
        for (index, byte) in bytes[head..].iter_mut().enumerate() {
            *byte ^= mask[index % 4];
        }
        bytes.splice(head..head, mask);
        bytes
    }

    #[test]
    fn the_examples_of_the_specification() {
        let mut decoder = Decoder::default();
        decoder.push(&[
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ]);
        let hello = decoder.next().unwrap().unwrap();
        assert_eq!(
            (hello.opcode, &hello.payload[..]),
            (Opcode::Text, &b"Hello"[..])
        );
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(encode(Opcode::Text, b"Hello"), *b"\x81\x05Hello");
        assert_eq!(encode(Opcode::Binary, &[0; 256])[..4], [0x82, 0x7e, 1, 0]);
        assert_eq!(
            encode(Opcode::Binary, &[0; 65536])[..10],
            [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]
        );
        assert_eq!(close(1000, "x"), [0x88, 3, 3, 0xe8, b'x']);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (bytes, status) in [
            (&[0x81, 0x05][..], 1002),
            (&[0xc1, 0x85], 1002),
            (&[0x83, 0x85], 1002),
            (&[0x09, 0x80], 1002),
            (&[0x89, 0xfe, 0, 200], 1002),
            (&[0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0], 1009),
            (&[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255], 1009),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.next().unwrap_err().status, status, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_frames(&data);
        }

        #[test]
        fn what_is_sent_arrives(
            payload in proptest::collection::vec(any::<u8>(), 0..70_000),
            mask in any::<[u8; 4]>(),
            cut in 1_usize..5000
        ) {
            let sent = masked(Opcode::Binary, &payload, mask);
            let mut decoder = Decoder::default();
            let mut got = None;
            for piece in sent.chunks(cut) {
                prop_assert_eq!(&got, &None);
                decoder.push(piece);
                got = decoder.next().unwrap();
            }
            prop_assert_eq!(got, Some(Frame { opcode: Opcode::Binary, payload }));
        }
    }
}

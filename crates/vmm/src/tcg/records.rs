//! What a guest in QEMU says over its control line ([`gamut_abi::guest::control_line`]). No I/O;
//! whoever sends it may be anybody.

use gamut_abi::guest::control_line::{
    BACKTRACE, EXCEPTION, EXCEPTION_BYTES, EXIT, MAX_CONTENT_BYTES, MAX_FRAMES, OUT_OF_MEMORY,
    PANIC, READY,
};

use crate::ending::{Ending, Fault};
use crate::report::Registers;
use gamut_abi::guest::bytes::{u16_at, u32_at, u64_at};

/// Kind and size of a record.
const HEAD_BYTES: usize = 3;

/// Something that the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It listens.
    Ready,
    /// It has ended. The registers are all zero where there was no exception.
    End(Ending, Box<Registers>),
    /// The way that led to its end, the innermost address first.
    Backtrace(Vec<u64>),
}

/// A record that makes no sense, after which nothing can be read any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control line: {0}")]
pub struct Broken(String);

/// Puts pieces together.
#[derive(Debug, Default)]
pub struct Reader(Vec<u8>);

impl Reader {
    /// Takes what has come in. No more than one read's worth and one record is ever held.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Takes the next record, if all of it is there.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn take(&mut self) -> Result<Option<Record>, Broken> {
        let (Some(kind), Some(size)) = (self.0.first().copied(), u16_at(&self.0, 1)) else {
            return Ok(None);
        };
        let size = usize::from(size);
        if size > MAX_CONTENT_BYTES {
            return Err(Broken(format!("a record of {size} bytes")));
        }
        let Some(content) = self.0.get(HEAD_BYTES..HEAD_BYTES + size) else {
            return Ok(None);
        };
        let record = decode(kind, content)
            .ok_or_else(|| Broken(format!("a record of kind {kind} with {size} bytes")))?;
        self.0.drain(..HEAD_BYTES + size);
        Ok(Some(record))
    }
}

fn decode(kind: u8, content: &[u8]) -> Option<Record> {
    let end = |ending| Record::End(ending, Box::default());
    let words = || (0..content.len() / 8).filter_map(|index| u64_at(content, index * 8));
    let is_whole = content.len().is_multiple_of(8);
    Some(match (kind, content.len()) {
        (READY, 0) => Record::Ready,
        (EXIT, 1) => end(Ending::Exited(*content.first()?)),
        (PANIC, _) => end(Ending::Panicked(
            String::from_utf8_lossy(content).into_owned(),
        )),
        (OUT_OF_MEMORY, 4) => end(Ending::OutOfMemory(u32_at(content, 0)?)),
        (EXCEPTION, EXCEPTION_BYTES) => {
            let mut words = words();
            let fault = Fault::Exception {
                vector: u8::try_from(words.next()?).ok()?,
                error_code: words.next()?,
                address: words.next()?,
            };
            let mut registers = Registers::default();
            words
                .enumerate()
                .for_each(|(index, value)| registers.set(index, value));
            Record::End(Ending::Fault(fault), Box::new(registers))
        }
        (BACKTRACE, _) if is_whole => Record::Backtrace(words().take(MAX_FRAMES).collect()),
        _ => return None,
    })
}

/// Feeds arbitrary bytes in pieces; a target for fuzzing. The first byte is the size of a piece.
pub fn fuzz_records(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else {
        return;
    };
    let mut whole = Reader::default();
    whole.feed(data);
    let mut pieces = Reader::default();
    let mut seen = Vec::new();
    for piece in data.chunks(usize::from(size).max(1)) {
        pieces.feed(piece);
        while let Ok(Some(record)) = pieces.take() {
            seen.push(record);
        }
    }
    for record in seen {
        assert_eq!(whole.take(), Ok(Some(record)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let size = u16::try_from(content.len()).unwrap().to_le_bytes();
        [[kind].as_slice(), &size, content].concat()
    }

    #[test]
    fn records_are_read_whatever_the_pieces() {
        let exception: Vec<u8> = (0..21_u64).flat_map(u64::to_le_bytes).collect();
        let stream = [
            record(READY, &[]),
            record(BACKTRACE, &[1, 0, 0, 0, 0, 0, 0, 0]),
            record(EXIT, &[200]),
            record(PANIC, b"why"),
            record(OUT_OF_MEMORY, &[0, 1, 0, 0]),
            record(EXCEPTION, &exception),
        ]
        .concat();
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for byte in stream {
            reader.feed(&[byte]);
            while let Some(record) = reader.take().expect("it makes sense") {
                seen.push(record);
            }
        }
        let mut registers = Registers::default();
        (0..18).for_each(|index| registers.set(index, 3 + index as u64));
        let fault = Fault::Exception {
            vector: 0,
            error_code: 1,
            address: 2,
        };
        let end = |ending| Record::End(ending, Box::default());
        assert_eq!(
            seen,
            [
                Record::Ready,
                Record::Backtrace(vec![1]),
                end(Ending::Exited(200)),
                end(Ending::Panicked("why".to_owned())),
                end(Ending::OutOfMemory(256)),
                Record::End(Ending::Fault(fault), Box::new(registers)),
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for stream in [
            record(0, &[]),
            record(EXIT, &[]),
            record(BACKTRACE, &[1]),
            vec![PANIC, 0xff, 0xff],
        ] {
            let mut reader = Reader::default();
            reader.feed(&stream);
            assert!(reader.take().is_err(), "{stream:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(data: Vec<u8>) {
            fuzz_records(&data);
        }
    }
}

//! Entry for a fuzzer.

use super::{Event, Limits, Parser};

/// Parses arbitrary bytes twice, in pieces of different lengths, and checks that the parser says
/// the same both times and that its promises hold.
///
/// # Panics
/// Panics if they do not; nothing else calls this.
pub fn fuzz_tar(input: &[u8]) {
    let whole = transcript(input, usize::MAX);
    let pieces = transcript(input, 1 + input.len() % 700);
    assert_eq!(whole, pieces, "the parser depends on how its input is cut");
}

/// What the parser says, data joined.
fn transcript(input: &[u8], piece_bytes: usize) -> Vec<String> {
    let limits = Limits {
        max_entries: 1000,
        max_path_bytes: 4096,
        max_pax_bytes: 1 << 16,
        max_sparse_extents: 64,
    };
    let mut parser = Parser::new(limits);
    let mut said = Vec::new();
    let mut size_bytes = 0;
    let mut expected_offset = 0u64;
    let mut data: Vec<(u64, u64)> = Vec::new();
    for piece in input.chunks(piece_bytes.min(input.len().max(1))) {
        let mut rest = piece;
        loop {
            let step = match parser.step(rest) {
                Ok(step) => step,
                Err(error) => {
                    said.push(format!("{data:?} {error}"));
                    return said;
                }
            };
            assert!(step.consumed <= rest.len());
            rest = &rest[step.consumed..];
            match step.event {
                Event::NeedInput | Event::End if rest.is_empty() => break,
                Event::NeedInput | Event::End => {}
                Event::Entry(entry) => {
                    size_bytes = entry.size_bytes;
                    expected_offset = 0;
                    said.push(format!("{entry:?}"));
                }
                Event::Data { offset, bytes } => {
                    assert!(!bytes.is_empty() && offset >= expected_offset);
                    expected_offset = offset + bytes.len() as u64;
                    assert!(
                        expected_offset <= size_bytes,
                        "data past the end of its file"
                    );
                    match data.last_mut() {
                        Some((start, length)) if *start + *length == offset => {
                            *length += bytes.len() as u64;
                        }
                        _ => data.push((offset, bytes.len() as u64)),
                    }
                }
                Event::EntryEnd => said.push(format!("{:?}", std::mem::take(&mut data))),
            }
        }
    }
    said.push(format!("{data:?} {:?}", parser.finish()));
    said
}

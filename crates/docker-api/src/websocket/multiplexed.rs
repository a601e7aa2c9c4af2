//! Docker's multiplexed stream, taken apart: a header of eight bytes (stream, three of zero, length
//! in network order) before each piece of output. No I/O.

/// Drops the headers of a stream that comes in pieces.
#[derive(Debug, Default)]
pub struct Headers {
    header: Vec<u8>,
    left_bytes: usize,
}

impl Headers {
    /// The output in `bytes`, in order.
    pub fn strip(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(bytes.len());
        while let Some((first, rest)) = bytes.split_first() {
            if self.left_bytes > 0 {
                let (piece, rest) = bytes.split_at(self.left_bytes.min(bytes.len()));
                output.extend_from_slice(piece);
                self.left_bytes -= piece.len();
                bytes = rest;
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let [_, _, _, _, a, b, c, d] = self.header[..] {
                let length = u32::from_be_bytes([a, b, c, d]);
                self.left_bytes = usize::try_from(length).unwrap_or(usize::MAX);
                self.header.clear();
            }
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn output_comes_through(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cut in 1_usize..200
        ) {
            let mut stream = Vec::new();
            for piece in &pieces {
                stream.extend_from_slice(&[1, 0, 0, 0]);
                stream.extend_from_slice(&u32::try_from(piece.len()).unwrap().to_be_bytes());
                stream.extend_from_slice(piece);
            }
            let mut headers = Headers::default();
            let output: Vec<u8> = stream.chunks(cut).flat_map(|part| headers.strip(part)).collect();
            prop_assert_eq!(output, pieces.concat());
        }
    }
}

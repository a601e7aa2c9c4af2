//! Compression, told by its first bytes and never by a media type.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

/// How a layer or archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), any number of members.
    Gzip,
    /// zstd (RFC 8878), any number of frames.
    Zstd,
}

/// The largest window that a zstd stream may ask for: 2^27 bytes = 128 MiB, the format's own
/// recommendation for decoders, so that a hostile frame cannot claim the memory of the machine.
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER_BYTES: usize = 256 * 1024;

impl Compression {
    /// Tells the compression from the first bytes (four are enough). Formats that Gamut does not
    /// read give their name as the error.
    pub(crate) fn detect(first: &[u8]) -> Result<Self, &'static str> {
        match first {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [low, 0x2a, 0x4d, 0x18, ..] if low >> 4 == 5 => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err("lz4"),
            _ => Ok(Self::None),
        }
    }

    /// A reader of the plain content of a file.
    pub(crate) fn file_decoder(self, file: File) -> io::Result<Box<dyn Read + Send>> {
        self.decoder(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    /// A reader of the plain content of `reader`.
    pub(crate) fn decoder<'a, R: BufRead + Send + 'a>(
        self,
        reader: R,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(reader),
            Self::Gzip => Box::new(MultiGzDecoder::new(reader)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// A reader of the plain content of `reader`, whatever its compression: none, gzip or zstd, told
/// by the first bytes.
///
/// # Errors
/// The reader's, or `InvalidData` naming a compression that is not supported.
pub fn plain<'a, R: Read + Send + 'a>(reader: R) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    // One fill may bring fewer than the four bytes that tell; then the rest is awaited.
    let mut first = Vec::with_capacity(4);
    while first.len() < 4 {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            break;
        }
        let count = available.len().min(4 - first.len());
        first.extend_from_slice(available.get(..count).unwrap_or_default());
        reader.consume(count);
    }
    let compression = Compression::detect(&first).map_err(|name| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} compression is not supported; use gzip, zstd or none"),
        )
    })?;
    compression.decoder(io::Cursor::new(first).chain(reader))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_format_is_told_and_read() {
        let text = b"plain text of some length".repeat(1000);
        let two_members = [gzip(&text[..100]), gzip(&text[100..])].concat();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        for stored in [text.clone(), two_members, zstd] {
            let mut read = Vec::new();
            plain(&stored[..]).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, text);
        }
        let mut empty = Vec::new();
        plain(&b""[..]).unwrap().read_to_end(&mut empty).unwrap();
        assert!(empty.is_empty());
    }

    #[test]
    fn cut_and_foreign_streams_fail() {
        let stored = gzip(&b"x".repeat(10_000));
        let mut read = Vec::new();
        assert!(
            plain(&stored[..stored.len() - 4])
                .unwrap()
                .read_to_end(&mut read)
                .is_err()
        );
        let error = plain(&b"BZh91AY"[..]).map(drop).unwrap_err();
        assert!(error.to_string().contains("bzip2"), "{error}");
    }
}

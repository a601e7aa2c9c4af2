//! CRC-32C (Castagnoli), as in RFC 3720, B.4.

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                value >> 1 ^ 0x82f6_3b78
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

static TABLE: [u32; 256] = table();

/// The checksum of bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let mut value = u32::MAX;
    for &byte in bytes {
        let [low, ..] = value.to_le_bytes();
        value = TABLE[usize::from(low ^ byte)] ^ value >> 8;
    }
    !value
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_values() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(super::crc32c(&[0; 32]), 0x8a91_36aa);
    }
}

//! Tar headers carry a checksum: without repair no mutated header would be read any further.

const BLOCK_BYTES: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: std::ops::Range<usize> = 257..262;

/// Writes a right checksum into every block that looks like a header (source: ustar, POSIX 1003.1).
pub fn repair_checksums(data: &mut [u8]) {
    for block in data.chunks_exact_mut(BLOCK_BYTES) {
        if block.get(MAGIC) != Some(b"ustar") {
            continue;
        }
        let Some(field) = block.get_mut(CHECKSUM) else {
            continue;
        };
        field.fill(b' ');
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        if let Some(field) = block.get_mut(CHECKSUM) {
            field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

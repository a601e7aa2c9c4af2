//! What guests read from the network, from disks and from their monitor.

use gamut_abi::guest::{config, rofs::Rofs};
use gamut_libos::http::{Chunk, ChunkDecoder, Limits, Parsed, parse_request, parse_response};
use gamut_libos::net::dns_message::{RecordType, answer, question};
use gamut_libos::resp;
use gamut_libos::store::{BatchHeader, Superblock, decode_operations};

/// The configuration text: entries and their words.
pub fn fuzz_config(data: &[u8]) {
    for entry in config::entries(data) {
        assert!(!entry.key.contains(['=', '\0']));
        let _ = config::words(entry.value).count();
    }
}

/// Answers of name servers.
pub fn fuzz_dns(data: &[u8]) {
    for kind in [RecordType::A, RecordType::Aaaa] {
        if let Ok(asked) = question(7, "www.example.org", kind) {
            let _ = answer(&asked, data);
        }
    }
}

/// Requests, responses, bodies in chunks.
pub fn fuzz_http(data: &[u8]) {
    let limits = Limits::default();
    if let Ok(Parsed::Complete(head, used)) = parse_request(data, &limits) {
        assert!(used <= data.len());
        let _ = (head.path(), head.headers().count(), head.header("host"));
    }
    for is_head in [false, true] {
        if let Ok(Parsed::Complete(head, used)) = parse_response(data, &limits, is_head) {
            assert!(used <= data.len());
            let _ = head.headers().count();
        }
    }
    let mut decoder = ChunkDecoder::default();
    let mut at = 0;
    while let Ok((chunk, used)) = decoder.next(data.get(at..).unwrap_or_default()) {
        at += used;
        assert!(at <= data.len());
        if !matches!(chunk, Chunk::Data(_)) {
            break;
        }
    }
}

/// Commands in the protocol of Redis.
pub fn fuzz_resp(data: &[u8]) {
    if let Ok(Some((arguments, used))) = resp::command(data, 4096) {
        assert!(used <= data.len());
        assert!(arguments.iter().all(|argument| argument.len() <= 4096));
    }
}

/// Images of read-only file systems.
pub fn fuzz_rofs(data: &[u8]) {
    if let Ok(files) = Rofs::parse(data) {
        for file in files.files() {
            assert_eq!(files.read(file.path), Some(file.content));
        }
    }
}

/// What lies on the device of a key-value store.
pub fn fuzz_store(data: &[u8]) {
    if let Some(superblock) = Superblock::from_sector(data) {
        assert_eq!(
            Superblock::from_sector(&superblock.to_sector()),
            Some(superblock)
        );
    }
    let _ = BatchHeader::from_bytes(data);
    let _ = decode_operations(data, |_, _| ());
}

//! The configuration text of a guest: strings `key=value`, each ended by a zero byte.
//!
//! Arguments and environment cannot hold a zero byte, so nothing needs to be escaped, and a guest
//! reads it without an allocator. Under other monitors the same text comes as the first boot
//! module (initrd). Keys that a guest does not know are skipped.
//!
//! | key | value | how often |
//! | --- | --- | --- |
//! | `arg` | one argument; the first is the program's name | any, in order |
//! | `env` | `NAME=value` | any |
//! | `hostname` | host name | once |
//! | `net` | `INDEX mac=… mtu=… address=A/P… gateway=A…`, words apart by a blank; `dhcp` asks by DHCP | per device, in order |
//! | `dns` | address of a name server | any |
//! | `search` | domain searched | any |
//! | `host` | `ADDRESS NAME`, a line of `/etc/hosts` | any |
//! | `block` | `INDEX bytes=… name=… [ro]` | per device, in order |
//! | `control` | `com2`: there is a control line ([`crate::guest::control_line`]) | once, under other monitors |
//! | `rofs` | `OFFSET BYTES` of the read-only file system's image in the same boot module | once, under other monitors |
//!
//! `address` and `gateway` may occur several times, for IPv4 and IPv6. The name of a block device
//! is the place where the user wants it (`/data` of `-v store:/data`).

/// A `key=value` of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'text> {
    /// Before the first `=`.
    pub key: &'text str,
    /// After it.
    pub value: &'text str,
}

/// The entries of a text, in order. What is no UTF-8 or has no `=` is skipped.
pub fn entries(text: &[u8]) -> impl Iterator<Item = Entry<'_>> + Clone {
    text.split(|&byte| byte == 0).filter_map(|line| {
        let (key, value) = core::str::from_utf8(line).ok()?.split_once('=')?;
        Some(Entry { key, value })
    })
}

/// The values of a key, in order.
pub fn values<'text>(text: &'text [u8], key: &str) -> impl Iterator<Item = &'text str> + Clone {
    entries(text)
        .filter(move |entry| entry.key == key)
        .map(|entry| entry.value)
}

/// The words of a value: `name=value` as a pair, a bare word with an empty value.
pub fn words(value: &str) -> impl Iterator<Item = (&str, &str)> + Clone {
    value
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| word.split_once('=').unwrap_or((word, "")))
}

/// Appends an entry to a text.
///
/// # Errors
/// If key or value hold a zero byte, or the key an `=`; nothing is appended then.
pub fn push(
    text: &mut alloc::vec::Vec<u8>,
    key: &str,
    value: &str,
) -> Result<(), NotRepresentable> {
    if key.contains(['\0', '=']) || value.contains('\0') {
        return Err(NotRepresentable);
    }
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
    Ok(())
}

/// A key or value that the text cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRepresentable;

impl core::fmt::Display for NotRepresentable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a zero byte in a key or value, or an equals sign in a key")
    }
}

impl core::error::Error for NotRepresentable {}

#[cfg(test)]
mod tests {
    use super::{NotRepresentable, entries, push, values, words};
    use alloc::vec::Vec;

    #[test]
    fn what_was_pushed_is_read_back_in_order() {
        let mut text = Vec::new();
        push(&mut text, "arg", "/unikernel").expect("no zero");
        push(&mut text, "env", "A=b=c").expect("no zero");
        push(&mut text, "arg", "").expect("no zero");
        let arguments: Vec<&str> = values(&text, "arg").collect();
        assert_eq!(arguments, ["/unikernel", ""]);
        let environment: Vec<&str> = values(&text, "env").collect();
        assert_eq!(environment, ["A=b=c"]);
        assert_eq!(push(&mut text, "arg", "a\0b"), Err(NotRepresentable));
        assert_eq!(entries(&text).count(), 3);
    }

    #[test]
    fn words_are_pairs_or_bare() {
        let pairs: Vec<(&str, &str)> = words("0 mac=02:00 dhcp").collect();
        assert_eq!(pairs, [("0", ""), ("mac", "02:00"), ("dhcp", "")]);
    }

    #[test]
    fn rubbish_is_skipped() {
        assert_eq!(entries(b"\xff\xfe=1\0no equals\0\0").count(), 0);
    }
}

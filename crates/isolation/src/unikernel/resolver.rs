//! The resolver's configuration, as a guest can use it.
//!
//! An embedded resolver listens on a loopback address of the network namespace (127.0.0.11), which
//! is the kernel's and not the guest's. Engines that have one say in a comment whom it asks
//! (`# ExtServers: [...]`): those are asked by the guest itself then.

use std::net::IpAddr;

/// A file in the format of resolv.conf(5) without resolvers on the loopback; those that such a one
/// would ask stand in for it.
pub(super) fn for_guest(text: &str) -> String {
    let mut kept = String::new();
    let mut has_lost = false;
    let mut external = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(server)) if is_loopback(server) => {
                has_lost = true;
                continue;
            }
            (Some("#"), Some("ExtServers:")) => {
                let list = line.split_once('[').map_or("", |(_, list)| list);
                external.extend(
                    list.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'))
                        .filter(|word| word.parse::<IpAddr>().is_ok() && !is_loopback(word)),
                );
                continue;
            }
            _ => {}
        }
        kept.push_str(line);
        kept.push('\n');
    }
    if has_lost {
        for server in external {
            kept.push_str("nameserver ");
            kept.push_str(server);
            kept.push('\n');
        }
    }
    kept
}

fn is_loopback(server: &str) -> bool {
    server
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{for_guest, is_loopback};
    use proptest::prelude::*;

    #[test]
    fn whom_the_embedded_resolver_asks_is_asked_directly() {
        let text = "nameserver 127.0.0.11\nsearch a.test\noptions ndots:0\n\n# ExtServers: [192.0.2.1 127.0.0.53 2001:db8::1]\n";
        assert_eq!(
            for_guest(text),
            "search a.test\noptions ndots:0\n\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"
        );
        // Docker marks resolvers of the host.
        assert_eq!(
            for_guest("nameserver 127.0.0.11\n# ExtServers: [host(192.0.2.7)]\n"),
            "nameserver 192.0.2.7\n"
        );
        let plain = "nameserver 192.0.2.1\nsearch b.test\n";
        assert_eq!(for_guest(plain), plain);
        assert_eq!(for_guest("nameserver ::1\n"), "");
    }

    proptest! {
        #[test]
        fn no_loopback_is_left(text in "([a-z# \\[\\]():.0-9]{0,40}\n){0,6}") {
            let made = for_guest(&text);
            let is_lost = |line: &str| {
                let mut words = line.split_whitespace();
                words.next() == Some("nameserver") && words.next().is_some_and(is_loopback)
            };
            prop_assert!(!made.lines().any(is_lost), "{}", made);
        }
    }
}

//! The resolver's configuration, as a guest can use it.
//!
//! An engine's embedded resolver listens on 127.0.0.11 of the network namespace, to which the
//! monitor hands the guest's questions on. Other loopback addresses are the kernel's and not the
//! guest's. If nothing is left, those are asked whom an engine names in a comment as its resolver's
//! own (`# ExtServers: [...]`).

use std::net::{IpAddr, Ipv4Addr};

/// Where embedded resolvers listen, Gamut's and Docker's.
const EMBEDDED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// A file in the format of resolv.conf(5) without resolvers that the guest cannot ask; those that
/// such a one would ask stand in for it.
pub(super) fn for_guest(text: &str) -> String {
    let mut kept = String::new();
    let (mut has_lost, mut has_kept) = (false, false);
    let mut external = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(server)) if is_out_of_reach(server) => {
                has_lost = true;
                continue;
            }
            (Some("nameserver"), _) => has_kept = true,
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
    if has_lost && !has_kept {
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

fn is_out_of_reach(server: &str) -> bool {
    is_loopback(server) && server.parse() != Ok(EMBEDDED)
}

#[cfg(test)]
mod tests {
    use super::{for_guest, is_out_of_reach};
    use proptest::prelude::*;

    #[test]
    fn only_what_the_guest_can_ask_is_left() {
        // The embedded resolver knows the others by name, which those it asks do not.
        let text = "nameserver 127.0.0.11\nsearch a.test\noptions ndots:0\n\n# ExtServers: [192.0.2.1 127.0.0.53]\n";
        assert_eq!(
            for_guest(text),
            "nameserver 127.0.0.11\nsearch a.test\noptions ndots:0\n\n"
        );
        let text = "nameserver 127.0.0.1\nsearch a.test\n\n# ExtServers: [192.0.2.1 127.0.0.53 2001:db8::1]\n";
        assert_eq!(
            for_guest(text),
            "search a.test\n\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"
        );
        // Docker marks resolvers of the host.
        assert_eq!(
            for_guest("nameserver 127.0.0.1\n# ExtServers: [host(192.0.2.7)]\n"),
            "nameserver 192.0.2.7\n"
        );
        let plain = "nameserver 192.0.2.1\nsearch b.test\n";
        assert_eq!(for_guest(plain), plain);
        assert_eq!(for_guest("nameserver ::1\n"), "");
    }

    proptest! {
        #[test]
        fn nothing_out_of_reach_is_left(text in "([a-z# \\[\\]():.0-9]{0,40}\n){0,6}") {
            let made = for_guest(&text);
            let is_lost = |line: &str| {
                let mut words = line.split_whitespace();
                words.next() == Some("nameserver") && words.next().is_some_and(is_out_of_reach)
            };
            prop_assert!(!made.lines().any(is_lost), "{}", made);
        }
    }
}

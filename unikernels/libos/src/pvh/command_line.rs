//! A kernel command line as configuration text, for monitors without a boot module.
//!
//! `NAME=VALUE` words before `--` are environment, as Linux gives them to its init; what follows
//! is arguments; `ip=` configures the first network device as Linux does
//! (`Documentation/admin-guide/nfs/nfsroot.rst`):
//! `ip=ADDRESS:SERVER:GATEWAY:MASK:HOSTNAME:DEVICE:AUTOCONF:DNS:DNS`, or `ip=ADDRESS/PREFIX`, or
//! `ip=dhcp`. Without it devices ask by DHCP. Double quotes keep blanks.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use gamut_abi::guest::config::push;

/// Name of the program if nobody says.
const PROGRAM: &str = "/unikernel";
/// Prefix of the words by which monitors name virtio devices (Linux's `virtio_mmio` driver).
const DEVICE: &str = "virtio_mmio.device=";

/// A virtio device with memory-mapped registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceWord {
    /// Size of the registers, in bytes.
    pub bytes: u64,
    /// Their address.
    pub address: u64,
    /// Interrupt line.
    pub line: u32,
}

/// The words of a command line; double quotes keep blanks and are taken away.
fn words(line: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_quoted = false;
    let mut has_begun = false;
    for character in String::from_utf8_lossy(line).chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                has_begun = true;
            }
            ' ' | '\t' | '\n' if !is_quoted => {
                if core::mem::take(&mut has_begun) {
                    words.push(core::mem::take(&mut word));
                }
            }
            other => {
                word.push(other);
                has_begun = true;
            }
        }
    }
    if has_begun {
        words.push(word);
    }
    words
}

/// The virtio devices that a command line names: `virtio_mmio.device=SIZE@ADDRESS:LINE`.
#[must_use]
pub fn devices(line: &[u8]) -> Vec<DeviceWord> {
    words(line).iter().filter_map(|word| device(word)).collect()
}

fn device(word: &str) -> Option<DeviceWord> {
    let (size, rest) = word.strip_prefix(DEVICE)?.split_once('@')?;
    let mut parts = rest.split(':');
    let address = number(parts.next()?)?;
    let line = u32::try_from(number(parts.next()?)?).ok()?;
    let (digits, unit) = match size.as_bytes().last()? {
        b'K' | b'k' => (size.get(..size.len() - 1)?, 1 << 10),
        b'M' | b'm' => (size.get(..size.len() - 1)?, 1 << 20),
        _ => (size, 1),
    };
    Some(DeviceWord {
        bytes: number(digits)?.checked_mul(unit)?,
        address,
        line,
    })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Appends what a command line says to a configuration text.
pub fn translate(line: &[u8], text: &mut Vec<u8>) {
    let words = words(line);
    let words = words.iter().filter(|word| !word.starts_with(DEVICE));
    let mut is_argument = false;
    let mut add = |key: &str, value: &str| {
        // A command line has no zero bytes, so every value can be represented.
        let _ = push(text, key, value);
    };
    add("arg", PROGRAM);
    for word in words {
        if is_argument {
            add("arg", word);
        } else if word == "--" {
            is_argument = true;
        } else if let Some(value) = word.strip_prefix("ip=") {
            network(value, &mut add);
        } else if let Some((name, _)) = word.split_once('=')
            && !name.contains('.')
        {
            add("env", word);
        }
    }
}

fn network(value: &str, add: &mut impl FnMut(&str, &str)) {
    let mut parts = value.split(':');
    let mut part = || parts.next().unwrap_or_default();
    let (address, _server, gateway, mask) = (part(), part(), part(), part());
    let (hostname, _device, autoconf) = (part(), part(), part());
    if matches!(address, "dhcp" | "on" | "any") || matches!(autoconf, "dhcp" | "on" | "any") {
        add("net", "0 dhcp");
    } else if !address.is_empty() {
        let prefix = if address.contains('/') {
            String::new()
        } else {
            format!("/{}", prefix_of(mask).unwrap_or(24))
        };
        let gateway = if gateway.is_empty() {
            String::new()
        } else {
            format!(" gateway={gateway}")
        };
        add("net", &format!("0 address={address}{prefix}{gateway}"));
    }
    if !hostname.is_empty() {
        add("hostname", hostname);
    }
    for server in [part(), part()] {
        if !server.is_empty() {
            add("dns", server);
        }
    }
}

/// Length of the prefix of a mask like `255.255.255.0`.
fn prefix_of(mask: &str) -> Option<u32> {
    let mask: core::net::Ipv4Addr = mask.parse().ok()?;
    Some(mask.to_bits().leading_ones())
}

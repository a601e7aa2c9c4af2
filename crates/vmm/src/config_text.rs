//! The configuration text of a guest ([`gamut_abi::guest::config`]). No I/O.

use std::fmt::Write as _;
use std::net::IpAddr;

use gamut_abi::guest::config::push;
use gamut_abi::monitor::MonitorConfig;

/// What a guest is told of a network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicConfig {
    /// Name of the interface on the outside, for messages.
    pub interface: String,
    /// The guest's own link-layer address.
    pub mac: [u8; 6],
    /// Most bytes of a packet.
    pub mtu: u32,
    /// Addresses with prefix lengths; none: by DHCP.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Gateways of the default routes.
    pub gateways: Vec<IpAddr>,
}

/// Files of a container that are handed over as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameFiles {
    /// In the format of resolv.conf(5).
    pub resolv_conf: String,
    /// In the format of hosts(5).
    pub hosts: String,
}

impl NameFiles {
    /// Whether a name server is at this address.
    #[must_use]
    pub fn names_server(&self, address: IpAddr) -> bool {
        let (servers, _) = resolver(&self.resolv_conf);
        servers.contains(&address.to_string())
    }
}

/// Writes the text. `disk_bytes` are the sizes of the block devices, in their order.
///
/// # Errors
/// Names the field that the text cannot hold.
pub fn build(
    config: &MonitorConfig,
    nics: &[NicConfig],
    disk_bytes: &[u64],
    names: &NameFiles,
) -> Result<Vec<u8>, String> {
    let mut text = Text(Vec::new());
    text.push_all("arg", "args", &config.args)?;
    text.push_all("env", "env", &config.env)?;
    if !config.hostname.is_empty() {
        text.push("hostname", "hostname", &config.hostname)?;
    }
    for (index, nic) in nics.iter().enumerate() {
        text.push("net", "network", &net_entry(index, nic))?;
    }
    let (servers, searched) = resolver(&names.resolv_conf);
    text.push_all("dns", "resolvConfPath", &servers)?;
    text.push_all("search", "resolvConfPath", &searched)?;
    text.push_all("host", "hostsPath", &host_entries(&names.hosts))?;
    for (index, (block, bytes)) in config.blocks.iter().zip(disk_bytes).enumerate() {
        if block.name.contains(' ') {
            return Err(format!(
                "blocks[{index}].name: {:?} holds a blank",
                block.name
            ));
        }
        let access = if block.read_only { " ro" } else { "" };
        let entry = format!("{index} bytes={bytes} name={}{access}", block.name);
        text.push("block", "blocks", &entry)?;
    }
    Ok(text.0)
}

struct Text(Vec<u8>);

impl Text {
    fn push(&mut self, key: &str, field: &str, value: &str) -> Result<(), String> {
        push(&mut self.0, key, value).map_err(|problem| format!("{field}: {problem}"))
    }

    fn push_all(&mut self, key: &str, field: &str, values: &[String]) -> Result<(), String> {
        values
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| self.push(key, &format!("{field}[{index}]"), value))
    }
}

fn net_entry(index: usize, nic: &NicConfig) -> String {
    let mac: Vec<String> = nic.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut entry = format!("{index} mac={} mtu={}", mac.join(":"), nic.mtu);
    for (address, prefix) in &nic.addresses {
        let _ = write!(entry, " address={address}/{prefix}");
    }
    for gateway in &nic.gateways {
        let _ = write!(entry, " gateway={gateway}");
    }
    if nic.addresses.is_empty() {
        entry.push_str(" dhcp");
    }
    entry
}

/// Name servers and searched domains of a resolv.conf(5). A scope of an address is left out.
fn resolver(text: &str) -> (Vec<String>, Vec<String>) {
    let mut servers = Vec::new();
    let mut searched = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                servers.extend(address.map(|address| address.to_string()));
            }
            // The last one counts.
            Some("search" | "domain") => searched = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    (servers, searched)
}

/// `ADDRESS NAME` of each name in a hosts(5).
fn host_entries(text: &str) -> Vec<String> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        entries.extend(words.map(|name| format!("{address} {name}")));
    }
    entries
}

/// Feeds arbitrary bytes to the readers of both files; a target for fuzzing.
pub fn fuzz_name_files(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (servers, searched) = resolver(&text);
    let entries = host_entries(&text);
    let mut out = Text(Vec::new());
    // What lines hold has no line's end, but may hold a zero byte, which is refused.
    for (key, values) in [("dns", &servers), ("search", &searched), ("host", &entries)] {
        let _ = out.push_all(key, key, values);
    }
    assert!(
        servers
            .iter()
            .all(|server| server.parse::<IpAddr>().is_ok())
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use gamut_abi::guest::config::values;
    use gamut_abi::monitor::{Accelerator, BlockConfig, MONITOR_CONFIG_VERSION};
    use proptest::prelude::*;

    fn config() -> MonitorConfig {
        MonitorConfig {
            version: MONITOR_CONFIG_VERSION,
            image_path: "/unikernel".to_owned(),
            memory_bytes: None,
            args: vec!["app".to_owned(), "--flag".to_owned()],
            env: vec!["A=b c".to_owned()],
            hostname: "name".to_owned(),
            blocks: vec![BlockConfig {
                name: "/data".to_owned(),
                path: "/blocks/0".to_owned(),
                read_only: true,
            }],
            rofs_path: None,
            resolv_conf_path: None,
            hosts_path: None,
            accelerator: Accelerator::Auto,
            status_path: None,
            scratch_path: None,
            debug_socket_path: None,
        }
    }

    #[test]
    fn everything_is_told() {
        let nics = [NicConfig {
            interface: "eth0".to_owned(),
            mac: [2, 0x42, 0xac, 0x11, 0, 2],
            mtu: 1500,
            addresses: vec![
                ("172.17.0.2".parse().unwrap(), 16),
                ("fd00::2".parse().unwrap(), 64),
            ],
            gateways: vec!["172.17.0.1".parse().unwrap()],
        }];
        let names = NameFiles {
            resolv_conf: "# a\nnameserver 10.0.0.1\nsearch a b\nsearch c\nnameserver x\n"
                .to_owned(),
            hosts: "127.0.0.1\tlocalhost me # no\n::1 localhost\nrubbish here\n".to_owned(),
        };
        let text = build(&config(), &nics, &[4096], &names).expect("a text");
        let all = |key| values(&text, key).collect::<Vec<_>>();
        assert_eq!(all("arg"), ["app", "--flag"]);
        assert_eq!(all("env"), ["A=b c"]);
        assert_eq!(all("hostname"), ["name"]);
        assert_eq!(
            all("net"),
            [
                "0 mac=02:42:ac:11:00:02 mtu=1500 address=172.17.0.2/16 address=fd00::2/64 \
              gateway=172.17.0.1"
            ]
        );
        assert_eq!(all("dns"), ["10.0.0.1"]);
        assert_eq!(all("search"), ["c"]);
        assert_eq!(
            all("host"),
            ["127.0.0.1 localhost", "127.0.0.1 me", "::1 localhost"]
        );
        assert_eq!(all("block"), ["0 bytes=4096 name=/data ro"]);
    }

    #[test]
    fn a_device_without_address_asks_for_one() {
        let text = build(
            &config(),
            &[NicConfig::default()],
            &[],
            &NameFiles::default(),
        );
        let text = text.expect("a text");
        let entry = values(&text, "net").next().map(str::to_owned);
        assert_eq!(entry.as_deref(), Some("0 mac=00:00:00:00:00:00 mtu=0 dhcp"));
    }

    #[test]
    fn what_cannot_be_told_is_named() {
        let mut bad = config();
        bad.env = vec!["A=1".to_owned(), "B=\0".to_owned()];
        let error = build(&bad, &[], &[], &NameFiles::default()).expect_err("refused");
        assert!(error.starts_with("env[1]: "), "{error}");
    }

    proptest! {
        #[test]
        fn any_file_is_safe(data: Vec<u8>) {
            fuzz_name_files(&data);
        }
    }
}

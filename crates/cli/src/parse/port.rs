//! `--publish [[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]` and `--expose`.

use std::net::IpAddr;

use super::invalid;
use crate::error::Error;

/// One published or exposed port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// `80/tcp`, as the API names it.
    pub container: String,
    /// Address on the host; empty for all.
    pub host_ip: String,
    /// Port, or range to choose from; empty for any.
    pub host: String,
}

/// Parses one `--publish`; ranges become one entry per port.
///
/// # Errors
/// [`Error::Usage`] with the part that is wrong.
pub fn parse(text: &str) -> Result<Vec<Port>, Error> {
    let bad = |reason: &str| invalid("--publish", text, reason);
    let (address, protocol) = split_protocol(text).map_err(|reason| bad(&reason))?;
    let (front, container) = match address.rsplit_once(':') {
        Some((front, container)) => (Some(front), container),
        None => (None, address),
    };
    if container.is_empty() {
        return Err(bad("no port specified"));
    }
    let (first, last) = range(container).ok_or_else(|| bad("invalid containerPort"))?;
    let (ip, host) = match front {
        None => ("", ""),
        Some(front) => split_ip(front).ok_or_else(|| bad("invalid IP address"))?,
    };
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(bad("invalid IP address"));
    }
    let host_range = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| bad("invalid hostPort"))?),
    };
    let count = last - first;
    let ports = (0..=count).map(|offset| {
        let host = match host_range {
            None => String::new(),
            Some((low, high)) if high - low == count => (low + offset).to_string(),
            // One container port for a range of the host's: the engine takes a free one.
            Some((low, high)) => format!("{low}-{high}"),
        };
        Port {
            container: format!("{}/{protocol}", first + offset),
            host_ip: ip.to_owned(),
            host,
        }
    });
    if let Some((low, high)) = host_range
        && high - low != count
        && count != 0
    {
        return Err(bad("invalid ranges specified for container and host ports"));
    }
    Ok(ports.collect())
}

/// Parses one `--expose PORT[-PORT][/PROTOCOL]`.
///
/// # Errors
/// [`Error::Usage`] with the part that is wrong.
pub fn parse_exposed(text: &str) -> Result<Vec<String>, Error> {
    let bad = |reason: &str| invalid("--expose", text, reason);
    let (ports, protocol) = split_protocol(text).map_err(|reason| bad(&reason))?;
    let (first, last) = range(ports).ok_or_else(|| bad("invalid port"))?;
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn split_protocol(text: &str) -> Result<(&str, String), String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok((rest, protocol)),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

/// `IP:HOST`, `HOST` or `[IPv6]:HOST`, before the container's port.
fn split_ip(front: &str) -> Option<(&str, &str)> {
    if let Some(rest) = front.strip_prefix('[') {
        let (ip, host) = rest.split_once(']')?;
        return Some((ip, host.strip_prefix(':').unwrap_or(host)));
    }
    match front.rsplit_once(':') {
        Some((ip, host)) => Some((ip, host)),
        None => Some(("", front)),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| -> Option<u16> {
        let is_plain = text.bytes().all(|c| c.is_ascii_digit());
        is_plain.then(|| text.parse().ok())?
    };
    let (low, high) = (number(low)?, number(high)?);
    (low <= high && low > 0).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<(String, String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|port| (port.host_ip, port.host, port.container))
            .collect()
    }

    fn entry(ip: &str, host: &str, container: &str) -> (String, String, String) {
        (ip.into(), host.into(), container.into())
    }

    #[test]
    fn published() {
        assert_eq!(forms("80"), [entry("", "", "80/tcp")]);
        assert_eq!(forms("8080:80"), [entry("", "8080", "80/tcp")]);
        assert_eq!(forms("53:53/UDP"), [entry("", "53", "53/udp")]);
        assert_eq!(forms("127.0.0.1:1:2"), [entry("127.0.0.1", "1", "2/tcp")]);
        assert_eq!(forms("127.0.0.1::2"), [entry("127.0.0.1", "", "2/tcp")]);
        assert_eq!(forms("[::1]:1:2"), [entry("::1", "1", "2/tcp")]);
        assert_eq!(forms("8000-9000:80"), [entry("", "8000-9000", "80/tcp")]);
        assert_eq!(
            forms("81-82:91-92"),
            [entry("", "81", "91/tcp"), entry("", "82", "92/tcp")]
        );
    }

    #[test]
    fn refusals() {
        for bad in [
            "", "x", "80:", "0", "70000", "1:2:3", "a:1:2", "80/icmp", "1-3:1-2", "2-1", "1:+2",
            "[::1:1:2", ":::",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exposed() {
        assert_eq!(parse_exposed("1-2/udp").unwrap(), ["1/udp", "2/udp"]);
        assert!(parse_exposed("1:2").is_err());
    }
}

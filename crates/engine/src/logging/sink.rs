//! Where a container's lines go besides its files.

use super::address::SyslogAddress;
use super::{attributes, options};
use crate::container::record::ContainerRecord;
use crate::error::{Error, Result};
use gamut_abi::control::{LogSink, SinkAddress, SinkFormat, SyslogStyle};
use gamut_spec::id;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Socket of systemd's journal (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where the machine's own syslog may listen.
const LOCAL_SYSLOG: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// Bytes that wait for a slow receiver, as Docker's.
const BUFFER_BYTES: u32 = 1 << 20;
/// A server that does not answer for so long is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Facilities (RFC 5424 section 6.2.1; 12 to 15 have no names that all agree on).
const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

fn facility(text: &str) -> Result<u8> {
    if text.is_empty() {
        return Ok(3);
    }
    let by_name = FACILITIES.iter().find(|(name, _)| *name == text);
    let by_number = || text.parse().ok().filter(|number| *number <= 23);
    by_name
        .map(|(_, number)| *number)
        .or_else(by_number)
        .ok_or_else(|| Error::invalid(format!("invalid syslog facility: {text:?}")))
}

fn style(text: &str) -> Result<SyslogStyle> {
    match text {
        "" => Ok(SyslogStyle::Local),
        "rfc3164" => Ok(SyslogStyle::Rfc3164),
        "rfc5424" => Ok(SyslogStyle::Rfc5424),
        "rfc5424micro" => Ok(SyslogStyle::Rfc5424Micro),
        _ => Err(Error::invalid("Invalid syslog format")),
    }
}

fn text<'a>(options: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    options.get(name).map_or("", String::as_str)
}

/// # Errors
/// Naming the option.
pub(super) fn check_syslog(options: &BTreeMap<String, String>) -> Result<()> {
    SyslogAddress::parse(text(options, "syslog-address"))?;
    facility(text(options, "syslog-facility"))?;
    style(text(options, "syslog-format"))?;
    Ok(())
}

/// The receiver of a container's lines; `None` if its driver has none.
///
/// # Errors
/// As Docker's daemon at the start of a container: if nothing listens there.
pub(crate) fn sink_of(record: &ContainerRecord, hostname: &str) -> Result<Option<LogSink>> {
    let options = &record.spec.log.options;
    let max_queue_bytes = options::buffer_bytes(text(options, "max-buffer-size"));
    let (address, format) = match record.spec.log.driver.as_str() {
        "journald" => (
            SinkAddress::UnixDatagram(JOURNAL.to_owned()),
            SinkFormat::Journal {
                fields: journal_fields(record),
            },
        ),
        "syslog" => (
            address(SyslogAddress::parse(text(options, "syslog-address"))?)?,
            SinkFormat::Syslog {
                style: style(text(options, "syslog-format"))?,
                facility: facility(text(options, "syslog-facility"))?,
                hostname: hostname.to_owned(),
                tag: printable(&attributes::tag(record)),
            },
        ),
        _ => return Ok(None),
    };
    check_reachable(&address)?;
    Ok(Some(LogSink {
        address,
        format,
        max_queue_bytes: max_queue_bytes.unwrap_or(BUFFER_BYTES),
    }))
}

/// What would end the tag, or the message, is left out of it.
fn printable(tag: &str) -> String {
    tag.chars()
        .map(|c| if c.is_control() || c == ' ' { '_' } else { c })
        .collect()
}

fn journal_fields(record: &ContainerRecord) -> Vec<(String, String)> {
    let tag = attributes::tag(record);
    let mut fields = vec![
        ("CONTAINER_ID".to_owned(), id::short(&record.id).to_owned()),
        ("CONTAINER_ID_FULL".to_owned(), record.id.clone()),
        ("CONTAINER_NAME".to_owned(), record.name.clone()),
        ("CONTAINER_TAG".to_owned(), tag.clone()),
        ("IMAGE_NAME".to_owned(), record.spec.image.clone()),
        ("SYSLOG_IDENTIFIER".to_owned(), tag),
    ];
    for (name, value) in attributes(record) {
        let name = field_name(&name);
        if !name.is_empty() {
            fields.push((name, value));
        }
    }
    fields
}

/// Names of fields are of capitals, digits and underscores, and do not begin with one of those.
fn field_name(name: &str) -> String {
    let allowed: String = name
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c if c.is_ascii_uppercase() || c.is_ascii_digit() => c,
            _ => '_',
        })
        .collect();
    allowed.trim_start_matches('_').chars().take(64).collect()
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::new(
        gamut_spec::error::ErrorKind::Internal,
        format!("failed to initialize logging driver: {what}"),
    )
}

/// In numbers: a supervisor looks up no names.
fn address(address: SyslogAddress) -> Result<SinkAddress> {
    let resolve = |host: &str, port: u16| -> Result<String> {
        let found = (host, port).to_socket_addrs();
        let found = found.map_err(|error| failed(format!("look up {host}: {error}")))?;
        let mut found: Vec<SocketAddr> = found.collect();
        // What most servers listen on first.
        found.sort_by_key(SocketAddr::is_ipv6);
        let first = found
            .first()
            .ok_or_else(|| failed(format!("look up {host}: no address")))?;
        Ok(first.to_string())
    };
    Ok(match address {
        SyslogAddress::Local => {
            let path = LOCAL_SYSLOG.iter().find(|path| Path::new(path).exists());
            let path = path
                .ok_or_else(|| failed(format!("nothing listens at {}", LOCAL_SYSLOG.join(", "))))?;
            if UnixDatagram::unbound().is_ok_and(|socket| socket.connect(path).is_ok()) {
                SinkAddress::UnixDatagram((*path).to_owned())
            } else {
                SinkAddress::UnixStream((*path).to_owned())
            }
        }
        SyslogAddress::Unix(path) => SinkAddress::UnixStream(path),
        SyslogAddress::UnixDatagram(path) => SinkAddress::UnixDatagram(path),
        SyslogAddress::Udp(host, port) => SinkAddress::Udp(resolve(&host, port)?),
        SyslogAddress::Tcp(host, port) => SinkAddress::Tcp(resolve(&host, port)?),
    })
}

fn check_reachable(address: &SinkAddress) -> Result<()> {
    let (name, result) = match address {
        SinkAddress::UnixDatagram(path) => (
            path,
            UnixDatagram::unbound().and_then(|socket| socket.connect(path)),
        ),
        SinkAddress::UnixStream(path) => (path, UnixStream::connect(path).map(drop)),
        SinkAddress::Tcp(address) => {
            let parsed = address.parse::<SocketAddr>();
            let connected = parsed
                .map_err(std::io::Error::other)
                .and_then(|to| TcpStream::connect_timeout(&to, CONNECT_LIMIT).map(drop));
            (address, connected)
        }
        // Nobody answers there.
        SinkAddress::Udp(_) => return Ok(()),
    };
    result.map_err(|error| {
        if name == JOURNAL {
            return failed(format!(
                "journald is not enabled on this host: {name}: {error}"
            ));
        }
        failed(format!("dial {name}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields() {
        assert_eq!(field_name("com.example/tier-1"), "COM_EXAMPLE_TIER_1");
        assert_eq!(field_name("__x"), "X");
        assert_eq!(field_name("ü"), "");
        assert_eq!(facility("local7").unwrap(), 23);
        assert_eq!(facility("12").unwrap(), 12);
        assert_eq!(printable("a b\nc"), "a_b_c");
    }
}

//! `syslog-address`: `PROTOCOL://ADDRESS`. No I/O.

use crate::error::{Error, Result};
use gamut_spec::error::ErrorKind;

/// Port of syslog.
const PORT: u16 = 514;

/// Where syslog listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SyslogAddress {
    /// The machine's own, wherever its socket is.
    Local,
    /// A unix stream socket, by its path.
    Unix(String),
    /// A unix datagram socket, by its path.
    UnixDatagram(String),
    /// Host and port.
    Udp(String, u16),
    /// Host and port.
    Tcp(String, u16),
}

impl SyslogAddress {
    /// # Errors
    /// `InvalidArgument` for no such form, `Unsupported` for TLS.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Local);
        }
        let bad = || {
            Error::invalid(format!(
                "syslog-address should be in form proto://address, got {text}"
            ))
        };
        let (protocol, rest) = text.split_once("://").ok_or_else(bad)?;
        match protocol {
            "unix" | "unixgram" if rest.starts_with('/') => Ok(if protocol == "unix" {
                Self::Unix(rest.to_owned())
            } else {
                Self::UnixDatagram(rest.to_owned())
            }),
            "udp" | "tcp" => {
                let (host, port) = host_and_port(rest).ok_or_else(bad)?;
                Ok(if protocol == "udp" {
                    Self::Udp(host, port)
                } else {
                    Self::Tcp(host, port)
                })
            }
            "tcp+tls" => Err(Error::new(
                ErrorKind::Unsupported,
                format!("syslog-address {text}: syslog over TLS is not supported yet"),
            )),
            _ => Err(bad()),
        }
    }
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            match after {
                "" => (host, None),
                after => (host, Some(after.strip_prefix(':')?)),
            }
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => PORT,
        Some(text) => text.parse().ok().filter(|port| *port > 0)?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Entry for fuzzing: any text is taken apart or refused without panic.
pub fn fuzz_address(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = SyslogAddress::parse(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let parse = |text: &str| SyslogAddress::parse(text).unwrap();
        assert_eq!(parse(""), SyslogAddress::Local);
        assert_eq!(parse("udp://log"), SyslogAddress::Udp("log".into(), 514));
        assert_eq!(
            parse("tcp://[::1]:99"),
            SyslogAddress::Tcp("::1".into(), 99)
        );
        assert_eq!(
            parse("unix:///dev/log"),
            SyslogAddress::Unix("/dev/log".into())
        );
        for bad in [
            "log",
            "udp://",
            "udp://h:0",
            "udp://h:x",
            "unix://rel",
            "ftp://h",
        ] {
            assert!(SyslogAddress::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC*") {
            fuzz_address(text.as_bytes());
        }
    }
}

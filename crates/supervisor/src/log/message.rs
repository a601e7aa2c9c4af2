//! One log line as a receiver wants it: a message of syslog or of systemd's journal. No I/O.
//!
//! Sources: RFC 3164 section 4.1, RFC 5424 section 6, systemd's "Native Journal Protocol".

use super::Stream;
use super::time::rfc3339;
use gamut_abi::control::{SinkFormat, SyslogStyle};

/// Severities (RFC 5424 section 6.2.1).
const ERROR: u8 = 3;
const INFORMATIONAL: u8 = 6;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A line, or a part of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) stream: Stream,
    /// The line goes on.
    pub(super) partial: bool,
    /// Nanoseconds since the epoch.
    pub(super) time_ns: u64,
    pub(super) text: &'a [u8],
}

/// The message that tells of a line.
pub(super) fn encode(format: &SinkFormat, pid: u32, line: Line<'_>) -> Vec<u8> {
    let severity = match line.stream {
        Stream::Stdout => INFORMATIONAL,
        Stream::Stderr => ERROR,
    };
    match format {
        SinkFormat::Journal { fields } => journal(fields, severity, line),
        SinkFormat::Syslog {
            style,
            facility,
            hostname,
            tag,
        } => {
            let priority = u16::from(*facility) * 8 + u16::from(severity);
            let hostname = if hostname.is_empty() { "-" } else { hostname };
            let time = rfc3339(line.time_ns);
            let head = match style {
                SyslogStyle::Local => format!("<{priority}>{} {tag}[{pid}]: ", stamp(line.time_ns)),
                SyslogStyle::Rfc3164 => {
                    format!(
                        "<{priority}>{} {hostname} {tag}[{pid}]: ",
                        stamp(line.time_ns)
                    )
                }
                SyslogStyle::Rfc5424 => {
                    let time = time.get(..19).unwrap_or_default();
                    format!("<{priority}>1 {time}Z {hostname} {tag} {pid} {tag} - ")
                }
                SyslogStyle::Rfc5424Micro => {
                    let time = time.get(..26).unwrap_or_default();
                    format!("<{priority}>1 {time}Z {hostname} {tag} {pid} {tag} - ")
                }
            };
            let mut message = head.into_bytes();
            // What ends a message must not come from inside.
            message.extend(line.text.iter().map(|byte| match byte {
                b'\n' | 0 => b' ',
                other => *other,
            }));
            message.push(b'\n');
            message
        }
    }
}

fn journal(fields: &[(String, String)], severity: u8, line: Line<'_>) -> Vec<u8> {
    let mut message = Vec::with_capacity(512 + line.text.len());
    field(&mut message, "MESSAGE", line.text);
    field(&mut message, "PRIORITY", severity.to_string().as_bytes());
    field(
        &mut message,
        "SYSLOG_TIMESTAMP",
        rfc3339(line.time_ns).as_bytes(),
    );
    if line.partial {
        field(&mut message, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    for (name, value) in fields {
        field(&mut message, name, value.as_bytes());
    }
    message
}

/// `NAME=VALUE`, or with its length where the value has lines of its own.
fn field(message: &mut Vec<u8>, name: &str, value: &[u8]) {
    message.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        message.push(b'\n');
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        message.extend_from_slice(&length.to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value);
    message.push(b'\n');
}

/// `Mmm dd hh:mm:ss` in the machine's time zone, which is what syslogd takes it for.
fn stamp(time_ns: u64) -> String {
    let seconds = libc::time_t::try_from(time_ns / 1_000_000_000).unwrap_or(0);
    // SAFETY: all zeros is a valid tm.
    let mut date: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut date) };
    let month = usize::try_from(date.tm_mon)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .unwrap_or(&"Jan");
    format!(
        "{month} {:>2} {:02}:{:02}:{:02}",
        date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syslog(style: SyslogStyle) -> SinkFormat {
        SinkFormat::Syslog {
            style,
            facility: 3,
            hostname: "host".to_owned(),
            tag: "web".to_owned(),
        }
    }

    fn line(text: &[u8]) -> Line<'_> {
        Line {
            stream: Stream::Stderr,
            partial: false,
            time_ns: 1_709_251_199_123_456_789,
            text,
        }
    }

    fn text(format: &SinkFormat, line: Line<'_>) -> String {
        String::from_utf8(encode(format, 7, line)).unwrap()
    }

    #[test]
    fn syslog_in_its_forms() {
        assert_eq!(
            text(&syslog(SyslogStyle::Rfc5424), line(b"a\nb")),
            "<27>1 2024-02-29T23:59:59Z host web 7 web - a b\n"
        );
        assert_eq!(
            text(&syslog(SyslogStyle::Rfc5424Micro), line(b"a")),
            "<27>1 2024-02-29T23:59:59.123456Z host web 7 web - a\n"
        );
        let old = text(&syslog(SyslogStyle::Rfc3164), line(b"a"));
        assert!(
            old.starts_with("<27>") && old.ends_with(" host web[7]: a\n"),
            "{old}"
        );
        let local = text(&syslog(SyslogStyle::Local), line(b"a"));
        assert_eq!(
            local.len(),
            "<27>Feb 29 23:59:59 web[7]: a\n".len(),
            "{local}"
        );
    }

    #[test]
    fn a_journal_entry_cannot_be_forged_by_its_text() {
        let fields = vec![("CONTAINER_ID".to_owned(), "0123".to_owned())];
        let format = SinkFormat::Journal { fields };
        let plain = text(&format, line(b"hello"));
        assert!(plain.starts_with("MESSAGE=hello\nPRIORITY=3\n"), "{plain}");
        assert!(plain.ends_with("CONTAINER_ID=0123\n"), "{plain}");
        let hostile = encode(&format, 7, line(b"x\nPRIORITY=0"));
        let expected = [
            b"MESSAGE\n".as_slice(),
            &12u64.to_le_bytes(),
            b"x\nPRIORITY=0\n",
        ]
        .concat();
        assert!(hostile.starts_with(&expected));
    }
}

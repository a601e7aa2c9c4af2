//! Messages of the domain name system (RFC 1035), without input or output: questions for
//! addresses, and the addresses of an answer.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::becomes_error;

/// Longest name, as it is sent (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 255;
const MAX_LABEL_BYTES: usize = 63;
const HEADER_BYTES: usize = 12;
const CLASS_INTERNET: u16 = 1;
const TYPE_CNAME: u16 = 5;
const FLAG_RESPONSE: u16 = 1 << 15;
const FLAG_TRUNCATED: u16 = 1 << 9;
const FLAG_RECURSION_DESIRED: u16 = 1 << 8;
const CODE_NO_SUCH_NAME: u16 = 3;
/// A chain of pointers or of aliases is followed so far.
const MAX_STEPS: usize = 16;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 (A).
    A,
    /// IPv6 (AAAA; RFC 3596).
    Aaaa,
}

impl RecordType {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// Why a message is not the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// The name cannot be asked for: empty, too long, or with an empty part.
    BadName,
    /// It is no answer to this question, or damaged.
    NotAnAnswer,
    /// There is no such name.
    NoSuchName,
    /// The server refused or failed, with its code.
    ServerFailed(u16),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName => f.write_str("not a name: empty, too long, or with an empty part"),
            Self::NotAnAnswer => f.write_str("the message is no answer to the question"),
            Self::NoSuchName => f.write_str("no such name"),
            Self::ServerFailed(code) => write!(f, "the name server failed with code {code}"),
        }
    }
}

becomes_error!(MessageError);

/// A question for the addresses of a name.
///
/// # Errors
/// If the name cannot be asked for.
pub fn question(id: u16, name: &str, kind: RecordType) -> Result<Vec<u8>, MessageError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    for field in [id, FLAG_RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend_from_slice(&field.to_be_bytes());
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return Err(MessageError::BadName);
        }
        message.extend(u8::try_from(label.len()));
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    if message.len() - HEADER_BYTES > MAX_NAME_BYTES {
        return Err(MessageError::BadName);
    }
    message.extend_from_slice(&kind.number().to_be_bytes());
    message.extend_from_slice(&CLASS_INTERNET.to_be_bytes());
    Ok(message)
}

/// A place in a message.
struct Reader<'message> {
    message: &'message [u8],
    at: usize,
}

impl<'message> Reader<'message> {
    fn take(&mut self, count: usize) -> Result<&'message [u8], MessageError> {
        let end = self
            .at
            .checked_add(count)
            .ok_or(MessageError::NotAnAnswer)?;
        let bytes = self
            .message
            .get(self.at..end)
            .ok_or(MessageError::NotAnAnswer)?;
        self.at = end;
        Ok(bytes)
    }

    fn half(&mut self) -> Result<u16, MessageError> {
        let bytes = self.take(2)?;
        let bytes = bytes.try_into().map_err(|_| MessageError::NotAnAnswer)?;
        Ok(u16::from_be_bytes(bytes))
    }

    /// Reads a name: labels in lower case, each behind its length.
    fn name(&mut self) -> Result<Vec<u8>, MessageError> {
        let mut name = Vec::new();
        let mut place = self.at;
        let mut has_jumped = false;
        for _ in 0..MAX_NAME_BYTES {
            let length = *self.message.get(place).ok_or(MessageError::NotAnAnswer)?;
            match length >> 6 {
                0 => {
                    let end = place + 1 + usize::from(length);
                    let label = self
                        .message
                        .get(place..end)
                        .ok_or(MessageError::NotAnAnswer)?;
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    place = end;
                    if name.len() > MAX_NAME_BYTES {
                        return Err(MessageError::NotAnAnswer);
                    }
                    if length == 0 {
                        if !has_jumped {
                            self.at = place;
                        }
                        return Ok(name);
                    }
                }
                3 => {
                    let second = *self
                        .message
                        .get(place + 1)
                        .ok_or(MessageError::NotAnAnswer)?;
                    if !has_jumped {
                        self.at = place + 2;
                    }
                    has_jumped = true;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, second]));
                    // Only backward (RFC 1035, 4.1.4: "a prior occurrence"), so it ends.
                    if target >= place {
                        return Err(MessageError::NotAnAnswer);
                    }
                    place = target;
                }
                _ => return Err(MessageError::NotAnAnswer),
            }
        }
        Err(MessageError::NotAnAnswer)
    }
}

/// The addresses in an answer to a question that [`question`] made, through aliases. None if the
/// name has none of the kind. A truncated answer gives those that are there.
///
/// # Errors
/// If it is no answer to this question, or the server says that there is none.
pub fn answer(question: &[u8], message: &[u8]) -> Result<Vec<IpAddr>, MessageError> {
    let mut asked = Reader {
        message: question,
        at: 0,
    };
    let id = asked.half()?;
    asked.at = HEADER_BYTES;
    let mut name = asked.name()?;
    let kind = asked.half()?;

    let mut reader = Reader { message, at: 0 };
    let header = [(); 6].map(|()| reader.half());
    let [answer_id, flags, questions, answers, _, _] = header;
    let (flags, answers) = (flags?, answers?);
    if answer_id? != id || flags & FLAG_RESPONSE == 0 || questions? != 1 {
        return Err(MessageError::NotAnAnswer);
    }
    if reader.name()? != name || reader.half()? != kind || reader.half()? != CLASS_INTERNET {
        return Err(MessageError::NotAnAnswer);
    }
    match flags & 0xf {
        0 => {}
        CODE_NO_SUCH_NAME => return Err(MessageError::NoSuchName),
        code => return Err(MessageError::ServerFailed(code)),
    }
    let mut aliases: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut addresses: Vec<(Vec<u8>, IpAddr)> = Vec::new();
    for _ in 0..answers {
        let record = record(&mut reader, kind, &mut aliases, &mut addresses);
        match record {
            Ok(()) => {}
            Err(_) if flags & FLAG_TRUNCATED != 0 => break,
            Err(error) => return Err(error),
        }
    }
    for _ in 0..MAX_STEPS {
        let Some((_, target)) = aliases.iter().find(|(alias, _)| *alias == name) else {
            break;
        };
        name.clone_from(target);
    }
    let mine = addresses.into_iter().filter(|(owner, _)| *owner == name);
    Ok(mine.map(|(_, address)| address).collect())
}

fn record(
    reader: &mut Reader<'_>,
    kind: u16,
    aliases: &mut Vec<(Vec<u8>, Vec<u8>)>,
    addresses: &mut Vec<(Vec<u8>, IpAddr)>,
) -> Result<(), MessageError> {
    let owner = reader.name()?;
    let record_kind = reader.half()?;
    let class = reader.half()?;
    reader.take(4)?;
    let bytes = usize::from(reader.half()?);
    let begin = reader.at;
    let data = reader.take(bytes)?;
    let end = reader.at;
    if class != CLASS_INTERNET {
        return Ok(());
    }
    if record_kind == TYPE_CNAME {
        reader.at = begin;
        let target = reader.name()?;
        if reader.at != end {
            return Err(MessageError::NotAnAnswer);
        }
        aliases.push((owner, target));
    } else if record_kind == kind {
        let address = if let Ok(bytes) = <[u8; 4]>::try_from(data) {
            IpAddr::V4(Ipv4Addr::from(bytes))
        } else if let Ok(bytes) = <[u8; 16]>::try_from(data) {
            IpAddr::V6(Ipv6Addr::from(bytes))
        } else {
            return Err(MessageError::NotAnAnswer);
        };
        addresses.push((owner, address));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MessageError, RecordType, answer, question};
    use alloc::vec::Vec;
    use core::net::IpAddr;
    use proptest::prelude::*;

    /// An answer: the question's sections, then records with data.
    fn reply(question: &[u8], flags: u16, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut message = question.to_vec();
        message.splice(2..4, flags.to_be_bytes());
        let count = u16::try_from(records.len()).expect("few");
        message.splice(6..8, count.to_be_bytes());
        for (owner, kind, data) in records {
            message.extend_from_slice(owner);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            message.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    }

    #[test]
    fn addresses_are_found_through_aliases() {
        let asked = question(7, "Www.Example.org", RecordType::A).expect("a name");
        let target = b"\x04real\xc0\x10";
        let message = reply(
            &asked,
            0x8180,
            &[
                (b"\xc0\x0c", 5, target),
                (b"\x04real\x07example\x03org\0", 1, &[192, 0, 2, 1]),
                (b"\x05other\x07example\x03org\0", 1, &[192, 0, 2, 2]),
            ],
        );
        let found: IpAddr = "192.0.2.1".parse().expect("an address");
        assert_eq!(answer(&asked, &message), Ok(Vec::from([found])));
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let asked = question(7, "example.org.", RecordType::Aaaa).expect("a name");
        let missing = reply(&asked, 0x8183, &[]);
        assert_eq!(answer(&asked, &missing), Err(MessageError::NoSuchName));
        let refused = reply(&asked, 0x8185, &[]);
        assert_eq!(answer(&asked, &refused), Err(MessageError::ServerFailed(5)));
        let other = question(8, "example.org", RecordType::Aaaa).expect("a name");
        let stray = reply(&other, 0x8180, &[]);
        assert_eq!(answer(&asked, &stray), Err(MessageError::NotAnAnswer));
        assert_eq!(answer(&asked, &asked), Err(MessageError::NotAnAnswer));
        // A pointer to itself.
        let looped = reply(&asked, 0x8180, &[(b"\xc0\x1d", 28, &[0; 16])]);
        assert_eq!(answer(&asked, &looped), Err(MessageError::NotAnAnswer));
    }

    #[test]
    fn names_that_cannot_be_asked_for_are_refused() {
        let long = "a".repeat(64);
        let deep = "abcdefg.".repeat(40);
        for name in ["", ".", "a..b", long.as_str(), deep.as_str()] {
            let asked = question(1, name, RecordType::A);
            assert_eq!(asked, Err(MessageError::BadName), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(message: Vec<u8>, damage: Vec<(usize, u8)>) {
            let asked = question(7, "www.example.org", RecordType::A).expect("a name");
            let _ = answer(&asked, &message);
            let mut damaged = reply(&asked, 0x8180, &[(b"\xc0\x0c", 1, &[1, 2, 3, 4])]);
            for (at, byte) in damage {
                let length = damaged.len();
                damaged[at % length] = byte;
            }
            let _ = answer(&asked, &damaged);
        }
    }
}

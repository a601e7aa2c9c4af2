//! DNS messages (RFC 1035, RFC 6891): reading a question, writing an answer. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;
/// Bytes of an answer by UDP to whoever does not say more (RFC 1035, 4.2.1).
pub const PLAIN_UDP_BYTES: usize = 512;
/// Bytes of an answer by UDP at most, whatever a question says.
pub const MAX_UDP_BYTES: usize = 4096;
/// The longest name, with length bytes (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 255;
/// How long an answer about a container may be remembered, in seconds: it may be replaced any time.
const TTL_SECONDS: u32 = 5;
/// The name at the beginning of the question, as a pointer.
const POINTER_TO_QUESTION: u16 = 0xC00C;

/// Record types.
pub const A: u16 = 1;
/// Names of addresses.
pub const PTR: u16 = 12;
/// IPv6 addresses.
pub const AAAA: u16 = 28;
const OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Response codes.
pub const NO_ERROR: u8 = 0;
/// The question is malformed.
pub const FORMAT_ERROR: u8 = 1;
/// Nobody could be asked.
pub const SERVER_FAILURE: u8 = 2;
/// An operation that is none of ours.
pub const NOT_IMPLEMENTED: u8 = 4;

/// A question that somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    id: u16,
    recursion_desired: bool,
    /// The question as it stands in the message.
    question: Vec<u8>,
    /// The name in lower case without the last dot; empty where it is no name of letters, digits
    /// and the like, which is nobody's here.
    pub name: String,
    /// Record type.
    pub kind: u16,
    /// Of the internet's class.
    pub is_internet: bool,
    /// Bytes that an answer by UDP may have.
    pub udp_bytes: usize,
    has_options: bool,
}

/// What a message that is no question of ours is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not at all: it is an answer, or too short to be answered.
    Silence,
    /// With this.
    Reply(Vec<u8>),
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

/// Where a name that begins at `at` ends. Of a pointer, the end of the pointer.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return at.checked_add(1),
            1..=63 => at = at.checked_add(1 + length)?,
            // A pointer ends a name.
            192.. => return at.checked_add(2).filter(|end| *end <= bytes.len()),
            _ => return None,
        }
    }
}

/// The name that begins at `at`, which must have no pointers, and where it ends.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let start = at;
    let mut name = String::new();
    let mut is_plain = true;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if at - start > MAX_NAME_BYTES || length > 63 {
            return None;
        }
        if length == 0 {
            break;
        }
        let label = bytes.get(at..at + length)?;
        at += length;
        is_plain &= label
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(
            label
                .iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
    }
    Some((if is_plain { name } else { String::new() }, at))
}

impl Query {
    /// Reads a message.
    ///
    /// # Errors
    /// How a message that is no question of ours is to be answered.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let (Some(id), Some(flags)) = (word(bytes, 0), word(bytes, 2)) else {
            return Err(Refusal::Silence);
        };
        if bytes.len() < HEADER_BYTES || flags & 0x8000 != 0 {
            return Err(Refusal::Silence);
        }
        let refuse = |code| Err(Refusal::Reply(bare(id, flags & 0x0100 != 0, code)));
        if flags & 0x7800 != 0 {
            return refuse(NOT_IMPLEMENTED);
        }
        Self::parse_body(bytes, id, flags).map_or_else(|| refuse(FORMAT_ERROR), Ok)
    }

    fn parse_body(bytes: &[u8], id: u16, flags: u16) -> Option<Self> {
        if word(bytes, 4)? != 1 {
            return None;
        }
        let (name, end) = read_name(bytes, HEADER_BYTES)?;
        let kind = word(bytes, end)?;
        let class = word(bytes, end + 2)?;
        let mut query = Self {
            id,
            recursion_desired: flags & 0x0100 != 0,
            question: bytes.get(HEADER_BYTES..end + 4)?.to_vec(),
            name,
            kind,
            is_internet: class == CLASS_IN,
            udp_bytes: PLAIN_UDP_BYTES,
            has_options: false,
        };
        let records = usize::from(word(bytes, 6)?)
            + usize::from(word(bytes, 8)?)
            + usize::from(word(bytes, 10)?);
        let mut at = end + 4;
        for _ in 0..records {
            let fixed = skip_name(bytes, at)?;
            if word(bytes, fixed)? == OPT {
                query.has_options = true;
                query.udp_bytes =
                    usize::from(word(bytes, fixed + 2)?).clamp(PLAIN_UDP_BYTES, MAX_UDP_BYTES);
            }
            let length = usize::from(word(bytes, fixed + 8)?);
            at = fixed.checked_add(10 + length)?;
            if at > bytes.len() {
                return None;
            }
        }
        Some(query)
    }

    /// The address whose name is asked for (`4.3.2.1.in-addr.arpa`, RFC 1035, 3.5; thirty-two
    /// digits and `ip6.arpa`, RFC 3596, 2.5).
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address4()
            .map(IpAddr::V4)
            .or_else(|| self.address6().map(IpAddr::V6))
    }

    fn address6(&self) -> Option<Ipv6Addr> {
        let mut number = 0_u128;
        let mut digits = 0;
        for digit in self.name.strip_suffix(".ip6.arpa")?.rsplit('.') {
            let value = u128::from_str_radix(digit, 16).ok();
            let value = value.filter(|_| digit.len() == 1)?;
            digits += 1;
            if digits > 32 {
                return None;
            }
            number = (number << 4) | value;
        }
        (digits == 32).then_some(number.into())
    }

    fn address4(&self) -> Option<Ipv4Addr> {
        let mut parts = self.name.strip_suffix(".in-addr.arpa")?.split('.');
        let mut octets = [0_u8; 4];
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        parts.next().is_none().then_some(Ipv4Addr::from(octets))
    }

    /// An answer with a code and no records.
    #[must_use]
    pub fn reply(&self, code: u8) -> Vec<u8> {
        self.message(code, false, &[])
    }

    /// An answer with addresses, which may be none. `limit` bytes at most: a longer one is cut and
    /// says so.
    #[must_use]
    pub fn reply_addresses(&self, addresses: &[IpAddr], limit: usize) -> Vec<u8> {
        let records: Vec<Vec<u8>> = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => record(A, &address.octets()),
                IpAddr::V6(address) => record(AAAA, &address.octets()),
            })
            .collect();
        let whole = self.message(NO_ERROR, false, &records);
        if whole.len() <= limit {
            return whole;
        }
        self.message(NO_ERROR, true, &[])
    }

    /// An answer with a name. One that cannot stand in a message is left out.
    #[must_use]
    pub fn reply_name(&self, name: &str) -> Vec<u8> {
        let Some(encoded) = encode_name(name) else {
            return self.reply(NO_ERROR);
        };
        self.message(NO_ERROR, false, &[record(PTR, &encoded)])
    }

    /// Whether a message answers this question.
    #[must_use]
    pub fn is_answered_by(&self, answer: &[u8]) -> bool {
        let same_question = answer
            .get(HEADER_BYTES..HEADER_BYTES + self.question.len())
            .is_some_and(|question| question.eq_ignore_ascii_case(&self.question));
        word(answer, 0) == Some(self.id)
            && word(answer, 2).is_some_and(|flags| flags & 0x8000 != 0)
            && word(answer, 4) == Some(1)
            && same_question
    }

    /// The answer cut to the question, which says that it was cut.
    #[must_use]
    pub fn reply_cut(&self) -> Vec<u8> {
        self.message(NO_ERROR, true, &[])
    }

    fn message(&self, code: u8, is_cut: bool, records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = header(self.id, self.recursion_desired, code, is_cut);
        message.extend(1_u16.to_be_bytes());
        message.extend(
            u16::try_from(records.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        message.extend(0_u16.to_be_bytes());
        message.extend(u16::from(self.has_options).to_be_bytes());
        message.extend(&self.question);
        message.extend(records.iter().flatten());
        if self.has_options {
            // The root's name, the type, our own size, no flags, no options.
            message.push(0);
            message.extend(OPT.to_be_bytes());
            message.extend(
                u16::try_from(MAX_UDP_BYTES)
                    .unwrap_or(u16::MAX)
                    .to_be_bytes(),
            );
            message.extend([0; 6]);
        }
        message
    }
}

/// The response code of an answer.
#[must_use]
pub fn code(answer: &[u8]) -> Option<u8> {
    answer.get(3).map(|byte| byte & 0x0F)
}

/// Id and flags: an answer, with recursion.
fn header(id: u16, recursion_desired: bool, code: u8, is_cut: bool) -> Vec<u8> {
    let flags = 0x8080
        | if recursion_desired { 0x0100 } else { 0 }
        | if is_cut { 0x0200 } else { 0 }
        | u16::from(code & 0x0F);
    [id.to_be_bytes(), flags.to_be_bytes()].concat()
}

/// An answer to a message whose question cannot be read.
fn bare(id: u16, recursion_desired: bool, code: u8) -> Vec<u8> {
    let mut message = header(id, recursion_desired, code, false);
    message.resize(HEADER_BYTES, 0);
    message
}

fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut record = POINTER_TO_QUESTION.to_be_bytes().to_vec();
    record.extend(kind.to_be_bytes());
    record.extend(CLASS_IN.to_be_bytes());
    record.extend(TTL_SECONDS.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    record.extend(data);
    record
}

/// A name in the form of messages; `None` if a label is too long or the whole is.
fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut encoded = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        encoded.push(length);
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    (encoded.len() <= MAX_NAME_BYTES).then_some(encoded)
}

/// Entry for fuzzing: any bytes are a question or refused, and what answers a question answers it.
pub fn fuzz_query(data: &[u8]) {
    let query = match Query::parse(data) {
        Ok(query) => query,
        Err(Refusal::Silence) => return,
        Err(Refusal::Reply(reply)) => {
            assert_eq!(reply.len(), HEADER_BYTES);
            return;
        }
    };
    let addresses = [IpAddr::from(Ipv6Addr::LOCALHOST); 300];
    for reply in [
        query.reply(SERVER_FAILURE),
        query.reply_cut(),
        query.reply_name(&query.name),
        query.reply_addresses(&addresses, query.udp_bytes),
        query.reply_addresses(&addresses, usize::MAX),
    ] {
        assert!(query.is_answered_by(&reply));
        assert!(matches!(Query::parse(&reply), Err(Refusal::Silence)));
    }
    assert!(query.reply_addresses(&addresses, query.udp_bytes).len() <= query.udp_bytes);
    let _ = query.address();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(name: &str, kind: u16, options: bool) -> Vec<u8> {
        let mut message = vec![0xAB, 0xCD, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(options)];
        message.extend(encode_name(name).unwrap());
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        if options {
            message.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        }
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let query = Query::parse(&question("Web.Front", A, false)).unwrap();
        assert_eq!((query.name.as_str(), query.kind), ("web.front", A));
        assert!(query.is_internet);
        let reply = query.reply_addresses(&[IpAddr::from([10, 0, 0, 7])], query.udp_bytes);
        assert!(query.is_answered_by(&reply));
        assert_eq!(reply[..8], [0xAB, 0xCD, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(reply.ends_with(&[0xC0, 0x0C, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 7]));
        assert_eq!(code(&query.reply(SERVER_FAILURE)), Some(2));
    }

    #[test]
    fn long_answers_are_cut_by_what_the_client_takes() {
        let many = [IpAddr::from(Ipv4Addr::LOCALHOST); 100];
        let plain = Query::parse(&question("svc", A, false)).unwrap();
        let cut = plain.reply_addresses(&many, plain.udp_bytes);
        assert!(cut.len() <= 512 && cut[2] & 2 != 0);
        let extended = Query::parse(&question("svc", A, true)).unwrap();
        assert_eq!(extended.udp_bytes, 4096);
        let whole = extended.reply_addresses(&many, extended.udp_bytes);
        assert!(whole[2] & 2 == 0 && whole[7] == 100 && whole[11] == 1);
    }

    #[test]
    fn names_of_addresses() {
        let query = Query::parse(&question("4.3.2.10.in-addr.arpa", PTR, false)).unwrap();
        assert_eq!(query.address(), Some(IpAddr::from([10, 2, 3, 4])));
        let reply = query.reply_name("db.back");
        assert!(reply.ends_with(b"\x02db\x04back\0"));
        for bad in [
            "4.3.2.in-addr.arpa",
            "1.4.3.2.10.in-addr.arpa",
            "x.3.2.10.in-addr.arpa",
            "web",
            "1.0.0.0.ip6.arpa",
            &format!("{}+.ip6.arpa", "0.".repeat(31)),
            &format!("{}1.ip6.arpa", "0.".repeat(32)),
        ] {
            assert_eq!(
                Query::parse(&question(bad, PTR, false)).unwrap().address(),
                None
            );
        }
    }

    #[test]
    fn addresses_of_the_sixth_version() {
        let name = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        let query = Query::parse(&question(&name, PTR, false)).unwrap();
        let address: IpAddr = "fd00::2".parse().unwrap();
        assert_eq!(query.address(), Some(address));
        let query = Query::parse(&question("db", AAAA, false)).unwrap();
        let reply = query.reply_addresses(&[address], 512);
        assert_eq!(reply[7], 1);
        assert!(reply.ends_with(&[
            0, 28, 0, 1, 0, 0, 0, 5, 0, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2
        ]));
        let none = query.reply_addresses(&[], 512);
        assert_eq!((code(&none), none[7]), (Some(NO_ERROR), 0));
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let good = question("web", A, false);
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert_eq!(Query::parse(&answer), Err(Refusal::Silence));
        let mut update = good.clone();
        update[2] |= 0x28;
        assert!(
            matches!(Query::parse(&update), Err(Refusal::Reply(reply)) if code(&reply) == Some(4))
        );
        let mut two = good.clone();
        two[5] = 2;
        assert!(
            matches!(Query::parse(&two), Err(Refusal::Reply(reply)) if code(&reply) == Some(1))
        );
        for length in 0..good.len() {
            assert!(Query::parse(&good[..length]).is_err(), "{length}");
        }
        let mut pointer = good;
        pointer[12] = 0xC0;
        assert!(Query::parse(&pointer).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_query(&data);
        }

        #[test]
        fn nearly_questions(at in 0_usize..40, byte: u8, options: bool) {
            let mut data = question("some.name.test", AAAA, options);
            if let Some(place) = data.get_mut(at) {
                *place = byte;
            }
            fuzz_query(&data);
        }
    }
}

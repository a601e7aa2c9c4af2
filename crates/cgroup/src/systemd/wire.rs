//! Messages of D-Bus, as far as talking to systemd takes. No I/O.
//!
//! Source: D-Bus Specification, "Type System", "Marshaling (Wire Format)", "Message Format".

/// Longest message in bytes that is taken; the specification allows 128 MiB, systemd's answers to
/// what is asked here are far smaller.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Bytes of a message before its header fields.
pub(crate) const FIXED_BYTES: usize = 16;

/// A value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Flag(_) => "b",
            Self::Number(_) => "t",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
        }
    }
}

/// Kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// Marshals in little-endian order.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        while !self.0.len().is_multiple_of(to) {
            self.0.push(0);
        }
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A string or an object path.
    pub(crate) fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.u32(u32::from(flag));
    }

    /// An array: its length stands before it, not counting the padding of its first element.
    pub(crate) fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let bytes = length(self.0.len() - start).to_le_bytes();
        self.0[at..at + 4].copy_from_slice(&bytes);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Flag(flag) => self.flag(*flag),
            Value::Number(number) => {
                self.align(8);
                self.0.extend_from_slice(&number.to_le_bytes());
            }
            Value::Numbers(numbers) => self.array(4, |array| {
                for number in numbers {
                    array.u32(*number);
                }
            }),
            Value::Bytes(bytes) => self.array(1, |array| array.0.extend_from_slice(bytes)),
        }
    }

    /// `a(sv)`
    pub(crate) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |array| {
            for (name, value) in properties {
                array.align(8);
                array.text(name);
                array.variant(value);
            }
        });
    }
}

/// A length as it is marshalled. Nothing written here is near the limit.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Where a call goes.
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// A whole method call.
pub(crate) fn call(serial: u32, target: &Target<'_>, signature: &str, body: &Writer) -> Vec<u8> {
    let mut out = Writer(vec![b'l', 1, 0, 1]);
    out.u32(length(body.0.len()));
    out.u32(serial);
    out.array(8, |fields| {
        let texts = [
            (1, "o", target.path),
            (2, "s", target.interface),
            (3, "s", target.member),
            (6, "s", target.destination),
        ];
        for (code, kind, text) in texts {
            fields.align(8);
            fields.0.push(code);
            fields.signature(kind);
            fields.text(text);
        }
        if !signature.is_empty() {
            fields.align(8);
            fields.0.push(8);
            fields.signature("g");
            fields.signature(signature);
        }
    });
    out.align(8);
    out.0.extend_from_slice(&body.0);
    out.0
}

/// How long a message is, from its first [`FIXED_BYTES`]; `None` if it is not one that is taken.
pub(crate) fn message_length(start: &[u8; FIXED_BYTES]) -> Option<usize> {
    let big = match start[0] {
        b'l' => false,
        b'B' => true,
        _ => return None,
    };
    let number = |at: usize| {
        let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
        let value = if big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        };
        usize::try_from(value).ok()
    };
    let fields = number(12)?.checked_next_multiple_of(8)?;
    let total = FIXED_BYTES.checked_add(fields)?.checked_add(number(4)?)?;
    (total <= MAX_MESSAGE_BYTES).then_some(total)
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// The call that this answers, 0 if none.
    pub(crate) reply_to: u32,
    pub(crate) error_name: String,
    pub(crate) member: String,
    pub(crate) signature: String,
    /// Strings and object paths of the body, in order, as far as it consists of them and of
    /// 32-bit numbers.
    pub(crate) texts: Vec<String>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        Some(if self.big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn text_of(&mut self, bytes: usize) -> Option<String> {
        let text = self.take(bytes)?.to_vec();
        (self.take(1)? == [0]).then_some(())?;
        String::from_utf8(text).ok()
    }

    fn text(&mut self) -> Option<String> {
        let bytes = usize::try_from(self.u32()?).ok()?;
        self.text_of(bytes)
    }

    fn signature(&mut self) -> Option<String> {
        let bytes = usize::from(*self.take(1)?.first()?);
        self.text_of(bytes)
    }
}

/// Reads a whole message; `None` if it is damaged or has fields of unknown types.
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    let start: &[u8; FIXED_BYTES] = bytes.first_chunk()?;
    (message_length(start)? == bytes.len()).then_some(())?;
    let kind = match start[1] {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return None,
    };
    let mut message = Message {
        kind,
        reply_to: 0,
        error_name: String::new(),
        member: String::new(),
        signature: String::new(),
        texts: Vec::new(),
    };
    let mut reader = Reader {
        bytes,
        at: 12,
        big: start[0] == b'B',
    };
    let end = usize::try_from(reader.u32()?)
        .ok()?
        .checked_add(FIXED_BYTES)?;
    while reader.at < end {
        read_field(&mut reader, &mut message)?;
    }
    reader.align(8)?;
    for kind in message.signature.clone().bytes() {
        match kind {
            b's' | b'o' => message.texts.push(reader.text()?),
            b'u' => drop(reader.u32()?),
            // Nothing behind it is of interest.
            _ => break,
        }
    }
    Some(message)
}

/// Reads a header field: a struct of a code and a variant.
fn read_field(reader: &mut Reader<'_>, message: &mut Message) -> Option<()> {
    reader.align(8)?;
    let code = *reader.take(1)?.first()?;
    let signature = reader.signature()?;
    match (code, signature.as_str()) {
        (3, "s") => message.member = reader.text()?,
        (4, "s") => message.error_name = reader.text()?,
        (5, "u") => message.reply_to = reader.u32()?,
        (8, "g") => message.signature = reader.signature()?,
        (_, "s" | "o") => drop(reader.text()?),
        (_, "u") => drop(reader.u32()?),
        (_, "g") => drop(reader.signature()?),
        _ => return None,
    }
    Some(())
}

/// Entry for a fuzzer: any bytes are read as a message without a panic.
pub fn fuzz_dbus(bytes: &[u8]) {
    let _ = parse(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target<'a>() -> Target<'a> {
        Target {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
        }
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let mut body = Writer::default();
        body.text("a.scope");
        let bytes = call(
            7,
            &Target {
                destination: "d",
                path: "/p",
                interface: "i",
                member: "m",
            },
            "s",
            &body,
        );
        let wanted: &[u8] = b"l\x01\0\x01\x0c\0\0\0\x07\0\0\0\x47\0\0\0\
            \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\
            \x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0m\0\0\0\0\0\0\0\
            \x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\
            \x08\x01g\0\x01s\0\0\
            \x07\0\0\0a.scope\0";
        assert_eq!(bytes, wanted, "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn properties_are_aligned() {
        let mut body = Writer::default();
        body.properties(&[
            ("A", Value::Flag(true)),
            ("B", Value::Number(1)),
            ("C", Value::Numbers(vec![5])),
            ("D", Value::Bytes(vec![1, 2])),
        ]);
        let wanted: &[u8] = b"\x66\0\0\0\0\0\0\0\
            \x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0\
            \x01\0\0\0B\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\
            \x01\0\0\0C\0\x02au\0\0\0\x04\0\0\0\x05\0\0\0\0\0\0\0\
            \x01\0\0\0D\0\x02ay\0\0\0\x02\0\0\0\x01\x02";
        let got = &body.0[8..];
        assert_eq!(got, &wanted[8..], "{got:?}");
        assert_eq!(usize::from(body.0[0]), got.len());
    }

    #[test]
    fn signals_and_errors_are_read() {
        let mut body = Writer::default();
        body.u32(3);
        for text in ["/job/3", "a.scope", "done"] {
            body.text(text);
        }
        let mut bytes = call(1, &target(), "uoss", &body);
        bytes[1] = 4;
        let message = parse(&bytes).unwrap();
        assert_eq!(message.kind, Kind::Signal);
        assert_eq!(message.texts, ["/job/3", "a.scope", "done"]);
        assert_eq!(message.member, "StartTransientUnit");
        // In the other byte order, a reply to call 9 with one text.
        let big: &[u8] = b"B\x02\0\x01\0\0\0\x07\0\0\0\x01\0\0\0\x0f\x05\x01u\0\0\0\0\x09\
            \x08\x01g\0\x01s\0\0\0\0\0\x02ok\0";
        let message = parse(big).unwrap();
        assert_eq!((message.kind, message.reply_to), (Kind::Return, 9));
        assert_eq!(message.texts, ["ok"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_dbus(&bytes);
        }

        #[test]
        fn what_is_written_is_read(
            texts in proptest::collection::vec("[^\u{0}]{0,20}", 0..5),
            cut in any::<u16>(),
        ) {
            let mut body = Writer::default();
            for text in &texts {
                body.text(text);
            }
            let bytes = call(1, &target(), &"s".repeat(texts.len()), &body);
            let message = parse(&bytes).unwrap();
            prop_assert_eq!(message.texts, texts);
            let cut = usize::from(cut) % bytes.len();
            prop_assert_eq!(parse(&bytes[..cut]), None);
        }
    }
}

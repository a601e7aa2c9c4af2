//! Requests.

use super::head::{
    BodyLength, Fields, Header, HttpError, Limits, Parsed, is_token, line, split, version,
};

/// Longest method that is understood.
const MAX_METHOD_BYTES: usize = 32;

/// The first line and the header fields of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead<'message> {
    /// `GET` and so on.
    pub method: &'message str,
    /// What it is for: mostly a path with a query.
    pub target: &'message str,
    /// 0 or 1, of HTTP/1.
    pub minor_version: u8,
    /// How long its body is.
    pub body: BodyLength,
    /// Whether the connection may serve further requests.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    fields: Fields<'message>,
}

impl<'message> RequestHead<'message> {
    /// The header fields, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'message>> + Clone + use<'message> {
        self.fields.all()
    }

    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'message [u8]> {
        self.fields.values(name).next()
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &'message str {
        let end = self.target.find('?').unwrap_or(self.target.len());
        self.target.get(..end).unwrap_or_default()
    }
}

/// Reads the head of a request.
///
/// # Errors
/// If it is not HTTP, too long, or ambiguous; the connection cannot serve further requests then.
pub fn parse_request<'message>(
    bytes: &'message [u8],
    limits: &Limits,
) -> Result<Parsed<RequestHead<'message>>, HttpError> {
    // Some clients send an empty line behind a body (RFC 9112, 2.2).
    let empty = match bytes {
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    let Some(head) = split(bytes.get(empty..).unwrap_or_default(), limits)? else {
        return Ok(Parsed::Partial);
    };
    let mut rest = head;
    let first = line(&mut rest)?;
    let mut words = first.split(|&byte| byte == b' ');
    let mut word = || words.next().unwrap_or_default();
    let (method, target, tail) = (word(), word(), word());
    if words.next().is_some() {
        return Err(HttpError::Malformed(
            "a first line of more than three words",
        ));
    }
    let minor_version = version(tail)?;
    let is_method = (1..=MAX_METHOD_BYTES).contains(&method.len());
    if !is_method || !method.iter().copied().all(is_token) {
        return Err(HttpError::Malformed("no method"));
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(HttpError::Malformed("no proper target"));
    }
    let text = |bytes| core::str::from_utf8(bytes).map_err(|_| HttpError::Malformed("not ASCII"));
    let fields = Fields::parse(rest)?;
    let hosts = fields.values("host").count();
    if hosts > 1 || (hosts == 0 && minor_version == 1) {
        return Err(HttpError::Malformed("not exactly one Host"));
    }
    let body = fields.body_length()?.unwrap_or(BodyLength::Known(0));
    let keeps_alive = if minor_version == 0 {
        // A body in chunks is not of that version: its end is not to be trusted.
        body != BodyLength::Chunked && fields.has_word("connection", "keep-alive")
    } else {
        !fields.has_word("connection", "close")
    };
    let head_bytes = empty + head.len();
    let request = RequestHead {
        method: text(method)?,
        target: text(target)?,
        minor_version,
        body,
        keeps_alive,
        expects_continue: minor_version == 1 && fields.has_word("expect", "100-continue"),
        fields,
    };
    Ok(Parsed::Complete(request, head_bytes))
}

#[cfg(test)]
mod tests {
    use super::super::head::{BodyLength, HttpError, Limits, Parsed};
    use super::{RequestHead, parse_request};
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Parsed<RequestHead<'_>>, HttpError> {
        parse_request(text.as_bytes(), &Limits::default())
    }

    fn complete(text: &str) -> RequestHead<'_> {
        match parse(text) {
            Ok(Parsed::Complete(request, used)) => {
                assert_eq!(used, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_read() {
        let request = complete("GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-Y:  z \r\n\r\n");
        assert_eq!((request.method, request.path()), ("GET", "/a/b"));
        assert_eq!(request.header("x-y"), Some(&b"z"[..]));
        assert!(request.keeps_alive);
        assert_eq!(request.body, BodyLength::Known(0));
        let post = complete(
            "POST / HTTP/1.1\r\nhost:\r\nTransfer-Encoding: Chunked\r\nConnection: x, Close\r\n\r\n",
        );
        assert_eq!((post.body, post.keeps_alive), (BodyLength::Chunked, false));
        let old = complete("\r\nGET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert!(old.keeps_alive);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "GET /\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
            "GE\tT / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let result = parse(text);
            assert!(
                matches!(result, Err(HttpError::Malformed(_))),
                "{text:?}: {result:?}"
            );
        }
        let encoded = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        assert_eq!(parse(encoded), Err(HttpError::Encoding));
        assert_eq!(parse("GET / HTTP/2.0\r\n\r\n"), Err(HttpError::Version));
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(8192));
        assert_eq!(parse(&long), Err(HttpError::HeadTooLong));
        let mut many = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
        many.push_str(&"X: y\r\n".repeat(64));
        many.push_str("\r\n");
        assert_eq!(parse(&many), Err(HttpError::HeadTooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse_request(&bytes, &Limits::default());
        }

        #[test]
        fn every_beginning_is_partial_or_refused_in_the_end(
            path in "/[a-z]{0,20}",
            name in "[A-Za-z-]{1,12}",
            value in "[ -~]{0,20}",
        ) {
            let text = format!("PUT {path} HTTP/1.1\r\nHost: a\r\nX{name}: {value}\r\n\r\n");
            for end in 0..text.len() {
                prop_assert_eq!(
                    parse_request(&text.as_bytes()[..end], &Limits::default()),
                    Ok(Parsed::Partial)
                );
            }
            let whole = parse(&text);
            prop_assert!(matches!(whole, Ok(Parsed::Complete(..))));
            if let Ok(Parsed::Complete(request, used)) = whole {
                prop_assert_eq!(used, text.len());
                prop_assert_eq!(request.target, path);
                prop_assert_eq!(request.header(&format!("x{name}")), Some(value.trim().as_bytes()));
            }
        }
    }
}

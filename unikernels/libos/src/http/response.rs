//! Responses.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::head::{BodyLength, Fields, Header, HttpError, Limits, Parsed, line, split, version};

/// A status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusCode(pub u16);

impl StatusCode {
    /// 200.
    pub const OK: Self = Self(200);
    /// 201.
    pub const CREATED: Self = Self(201);
    /// 204.
    pub const NO_CONTENT: Self = Self(204);
    /// 400.
    pub const BAD_REQUEST: Self = Self(400);
    /// 404.
    pub const NOT_FOUND: Self = Self(404);
    /// 405.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// 408.
    pub const REQUEST_TIMEOUT: Self = Self(408);
    /// 413.
    pub const CONTENT_TOO_LARGE: Self = Self(413);
    /// 431.
    pub const HEADERS_TOO_LARGE: Self = Self(431);
    /// 500.
    pub const INTERNAL_ERROR: Self = Self(500);
    /// 501.
    pub const NOT_IMPLEMENTED: Self = Self(501);
    /// 503.
    pub const UNAVAILABLE: Self = Self(503);
    /// 505.
    pub const VERSION_NOT_SUPPORTED: Self = Self(505);
    /// 507.
    pub const INSUFFICIENT_STORAGE: Self = Self(507);

    /// The words that go with it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            201 => "Created",
            204 => "No Content",
            301 => "Moved Permanently",
            302 => "Found",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            409 => "Conflict",
            413 => "Content Too Large",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            507 => "Insufficient Storage",
            _ => "",
        }
    }

    /// Whether a response with it has no body, and says so by having none.
    #[must_use]
    pub fn is_bodyless(self) -> bool {
        self.0 < 200 || self.0 == 204 || self.0 == 304
    }
}

impl From<HttpError> for StatusCode {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Malformed(_) => Self::BAD_REQUEST,
            HttpError::HeadTooLong => Self::HEADERS_TOO_LARGE,
            HttpError::BodyTooLong => Self::CONTENT_TOO_LARGE,
            HttpError::Version => Self::VERSION_NOT_SUPPORTED,
            HttpError::Encoding => Self::NOT_IMPLEMENTED,
        }
    }
}

/// A response to be sent. Length, date and connection are added by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its media type; none if it is empty.
    pub content_type: &'static str,
    /// Further header fields. Values with CR or LF are left out.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// Its body.
    pub body: Cow<'static, [u8]>,
}

impl Response {
    /// A response with a status and no body.
    #[must_use]
    pub const fn new(status: StatusCode) -> Self {
        Self {
            status,
            content_type: "",
            headers: Vec::new(),
            body: Cow::Borrowed(b""),
        }
    }

    /// A text, with status 200.
    pub fn text(body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            content_type: "text/plain; charset=utf-8",
            body: match body.into() {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
            ..Self::new(StatusCode::OK)
        }
    }

    /// Bytes, with status 200.
    pub fn bytes(body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            content_type: "application/octet-stream",
            body: body.into(),
            ..Self::new(StatusCode::OK)
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with a further header field.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Appends it as it is sent. `is_head` says that the request was `HEAD`.
    pub fn write(&self, date: &[u8], is_head: bool, keeps_alive: bool, out: &mut Vec<u8>) {
        struct Out<'out>(&'out mut Vec<u8>);
        impl core::fmt::Write for Out<'_> {
            fn write_str(&mut self, text: &str) -> core::fmt::Result {
                self.0.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
        if self.status == StatusCode::OK {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let (code, reason) = (self.status.0, self.status.reason());
            let _ = write!(Out(out), "HTTP/1.1 {code} {reason}\r\n");
        }
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
        if !self.content_type.is_empty() {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(self.content_type.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in &self.headers {
            if !value.contains(['\r', '\n', '\0']) {
                let _ = write!(Out(out), "{name}: {value}\r\n");
            }
        }
        if !self.status.is_bodyless() {
            let _ = write!(Out(out), "Content-Length: {}\r\n", self.body.len());
        }
        if !keeps_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !is_head && !self.status.is_bodyless() {
            out.extend_from_slice(&self.body);
        }
    }
}

/// The first line and the header fields of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead<'message> {
    /// Its status.
    pub status: StatusCode,
    /// How long its body is.
    pub body: BodyLength,
    /// Whether the connection can be used again.
    pub keeps_alive: bool,
    fields: Fields<'message>,
}

impl<'message> ResponseHead<'message> {
    /// The header fields, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'message>> + Clone + use<'message> {
        self.fields.all()
    }

    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'message [u8]> {
        self.fields.values(name).next()
    }
}

/// Reads the head of a response to a request; `is_head` says that it was `HEAD`.
///
/// # Errors
/// If it is not HTTP, too long, or ambiguous.
pub fn parse_response<'message>(
    bytes: &'message [u8],
    limits: &Limits,
    is_head: bool,
) -> Result<Parsed<ResponseHead<'message>>, HttpError> {
    let Some(head) = split(bytes, limits)? else {
        return Ok(Parsed::Partial);
    };
    let mut rest = head;
    let first = line(&mut rest)?;
    let mut words = first.splitn(3, |&byte| byte == b' ');
    let mut word = || words.next().unwrap_or_default();
    let minor_version = version(word())?;
    let status = word();
    let is_status = status.len() == 3 && status.iter().all(u8::is_ascii_digit);
    let status = core::str::from_utf8(status)
        .ok()
        .filter(|_| is_status)
        .and_then(|status| status.parse().ok())
        .map(StatusCode)
        .ok_or(HttpError::Malformed("no status"))?;
    let fields = Fields::parse(rest)?;
    let body = if is_head || status.is_bodyless() {
        BodyLength::Known(0)
    } else {
        fields.body_length()?.unwrap_or(BodyLength::UntilClose)
    };
    let may_keep = if minor_version == 0 {
        fields.has_word("connection", "keep-alive")
    } else {
        !fields.has_word("connection", "close")
    };
    let response = ResponseHead {
        status,
        body,
        keeps_alive: may_keep && body != BodyLength::UntilClose,
        fields,
    };
    Ok(Parsed::Complete(response, head.len()))
}

#[cfg(test)]
mod tests {
    use super::super::head::{BodyLength, Limits, Parsed};
    use super::{Response, StatusCode, parse_response};
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let response = Response::text("hello")
            .with_status(StatusCode::NOT_FOUND)
            .with_header("X-A", "b")
            .with_header("X-Evil", "a\r\nSet-Cookie: b");
        let mut out = Vec::new();
        response.write(b"now", false, false, &mut out);
        let Ok(Parsed::Complete(head, used)) = parse_response(&out, &Limits::default(), false)
        else {
            panic!("{:?}", String::from_utf8_lossy(&out));
        };
        assert_eq!(head.status, StatusCode::NOT_FOUND);
        assert_eq!(head.body, BodyLength::Known(5));
        assert!(!head.keeps_alive);
        assert_eq!(head.header("x-a"), Some(&b"b"[..]));
        assert_eq!(head.header("set-cookie"), None);
        assert_eq!(&out[used..], b"hello");
    }

    #[test]
    fn some_responses_have_no_body() {
        let mut out = Vec::new();
        Response::new(StatusCode::NO_CONTENT).write(b"now", false, true, &mut out);
        assert!(!String::from_utf8_lossy(&out).contains("Content-Length"));
        out.clear();
        Response::text("hello").write(b"now", true, true, &mut out);
        assert!(out.ends_with(b"Content-Length: 5\r\n\r\n"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, is_head: bool) {
            let _ = parse_response(&bytes, &Limits::default(), is_head);
        }
    }
}

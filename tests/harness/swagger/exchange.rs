//! Requests and answers out of what went over a connection.

use super::{Operation, Problem, Swagger, Version, parse_version};

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// `GET`, ...
    pub method: String,
    /// Path as it was sent, with version and query.
    pub target: String,
    /// Status of the answer.
    pub status: u16,
    /// `Content-Type` of the answer.
    pub content_type: String,
    /// `Api-Version` of the answer.
    pub newest: Option<Version>,
    /// Body of the answer, without its transfer encoding.
    pub body: Vec<u8>,
}

impl Exchange {
    /// The version that the client named, else the newest of the server.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.target
            .split('/')
            .nth(1)
            .filter(|first| first.starts_with('v'))
            .and_then(parse_version)
            .or(self.newest)
    }

    /// The path without version and query.
    #[must_use]
    pub fn path(&self) -> &str {
        let path = self.target.split('?').next().unwrap_or_default();
        let mut parts = path.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(""), Some(first), Some(rest))
                if first.starts_with('v') && parse_version(first).is_some() =>
            {
                &path[path.len() - rest.len() - 1..]
            }
            _ => path,
        }
    }

    /// The operation that was asked for, and what is wrong with the answer.
    #[must_use]
    pub fn check(&self, swagger: &Swagger) -> (Option<Operation>, Vec<Problem>) {
        match swagger.find(&self.method, self.path()) {
            None => (None, Vec::new()),
            Some(operation) => {
                let problems =
                    swagger.check(&operation, self.status, &self.content_type, &self.body);
                (Some(operation), problems)
            }
        }
    }
}

/// The exchanges on one connection, from the bytes of both directions. What was cut off, and what
/// follows a switch of protocols, is left out.
#[must_use]
pub fn exchanges(mut requests: &[u8], mut answers: &[u8]) -> Vec<Exchange> {
    let mut list = Vec::new();
    while let Some((head, rest)) = head(requests) {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let Some(answer) = answer(&mut answers, method) else {
            break;
        };
        list.push(Exchange {
            method: method.to_owned(),
            target: target.to_owned(),
            ..answer
        });
        if list.last().is_some_and(|last| last.status == 101) {
            break;
        }
        let Some((_, rest)) = body(&head, rest, true) else {
            break;
        };
        requests = rest;
    }
    list
}

fn answer(answers: &mut &[u8], method: &str) -> Option<Exchange> {
    loop {
        let (head, rest) = head(answers)?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        if status == 100 {
            *answers = rest;
            continue;
        }
        let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
        let (body, rest) = if bodiless {
            (Vec::new(), rest)
        } else {
            body(&head, rest, false)?
        };
        *answers = rest;
        return Some(Exchange {
            method: String::new(),
            target: String::new(),
            status,
            content_type: header(&head, "content-type").unwrap_or_default().to_owned(),
            newest: header(&head, "api-version").and_then(parse_version),
            body,
        });
    }
}

/// A head and what follows it.
fn head(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    Some((head, &bytes[end + 4..]))
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A body and what follows it. Without a length it is empty in a request, and in an answer all
/// that follows.
fn body<'b>(head: &str, rest: &'b [u8], is_request: bool) -> Option<(Vec<u8>, &'b [u8])> {
    if header(head, "transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        return Some(chunks(rest));
    }
    match header(head, "content-length") {
        Some(length) => {
            let length: usize = length.parse().ok()?;
            let body = rest.get(..length)?;
            Some((body.to_vec(), &rest[length..]))
        }
        None if is_request => Some((Vec::new(), rest)),
        None => Some((rest.to_vec(), &[])),
    }
}

/// What came of a chunked body: a client may have hung up on a stream.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut body = Vec::new();
    let next = |rest: &[u8]| -> Option<(usize, usize)> {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = std::str::from_utf8(&rest[..end]).ok()?;
        Some((usize::from_str_radix(length.trim(), 16).ok()?, end + 2))
    };
    while let Some((length, start)) = next(rest) {
        let end = start + length;
        if length == 0 {
            return (body, rest.get(end + 2..).unwrap_or_default());
        }
        match rest.get(start..end) {
            Some(chunk) => body.extend_from_slice(chunk),
            None => break,
        }
        rest = rest.get(end + 2..).unwrap_or_default();
    }
    (body, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_taken_apart() {
        let requests = b"GET /v1.41/info?x=1 HTTP/1.1\r\nHost: d\r\n\r\n\
            POST /v1.41/containers/create HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}\
            HEAD /_ping HTTP/1.1\r\n\r\n\
            POST /v1.41/exec/5/start HTTP/1.1\r\nContent-Length: 0\r\n\r\nraw GET / HTTP/1.1\r\n\r\n";
        let answers = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
            Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n3\r\nabc\r\n0\r\n\r\n\
            HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n[1]\
            HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 2\r\n\r\n\
            HTTP/1.1 101 UPGRADED\r\n\r\nraw HTTP/1.1 200 OK\r\n\r\n";
        let list = exchanges(requests, answers);
        let short: Vec<_> = list
            .iter()
            .map(|one| (one.method.as_str(), one.path(), one.status, one.version()))
            .collect();
        assert_eq!(
            short,
            [
                ("GET", "/info", 200, Some((1, 41))),
                ("POST", "/containers/create", 201, Some((1, 41))),
                ("HEAD", "/_ping", 200, Some((1, 44))),
                ("POST", "/exec/5/start", 101, Some((1, 41))),
            ]
        );
        assert_eq!(list[0].body, b"{}abc");
        assert_eq!(list[1].body, b"[1]");
        assert_eq!(list[0].content_type, "application/json");
    }

    #[test]
    fn a_stream_that_was_left_counts_as_far_as_it_came() {
        let requests = b"GET /v1.41/events HTTP/1.1\r\n\r\n";
        let answers = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n9\r\n{";
        assert_eq!(exchanges(requests, answers)[0].body, b"{}");
        assert_eq!(exchanges(requests, b"HTTP/1.1 200 OK\r\n"), []);
    }
}

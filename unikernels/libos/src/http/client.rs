//! The client: one request over one connection.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use super::chunked::{Chunk, ChunkDecoder};
use super::head::{BodyLength, HttpError, Limits, Parsed};
use super::response::{StatusCode, parse_response};
use crate::error::becomes_error;
use crate::executor::timeout;
use crate::net::{ResolveError, TcpError, TcpStream, resolve};

/// Bytes that are read at once.
const READ_BYTES: usize = 8192;

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// The address is no `http://HOST[:PORT][/PATH]`.
    BadUrl(String),
    /// The host has no address.
    Resolve(ResolveError),
    /// The connection failed.
    Tcp(TcpError),
    /// The answer is no HTTP, or too long.
    Http(HttpError),
    /// The connection ended before the answer did.
    Incomplete,
    /// It took too long.
    TimedOut,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl(url) => write!(f, "{url:?} is not http://HOST[:PORT][/PATH]"),
            Self::Resolve(error) => error.fmt(f),
            Self::Tcp(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Incomplete => f.write_str("the connection ended before the answer did"),
            Self::TimedOut => f.write_str("the answer took too long"),
        }
    }
}

becomes_error!(ClientError);

impl From<TcpError> for ClientError {
    fn from(error: TcpError) -> Self {
        Self::Tcp(error)
    }
}

impl From<HttpError> for ClientError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Vec<u8>,
}

/// Host, port and target of a URL.
fn parts(url: &str) -> Option<(&str, u16, String)> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = (rest.get(..end)?, rest.get(end..)?);
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let bracket = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority.get(bracket..)?.rfind(':') {
        Some(colon) => {
            let colon = bracket + colon;
            (
                authority.get(..colon)?,
                authority.get(colon + 1..)?.parse().ok()?,
            )
        }
        None => (authority, 80),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_host)).then_some((host, port, target))
}

/// Asks for what is at a URL.
///
/// # Errors
/// If there is no answer within `patience`, or none that is understood. Whatever status it has, an
/// answer is no error.
pub async fn get(url: &str, limits: &Limits, patience: Duration) -> Result<Answer, ClientError> {
    timeout(patience, ask("GET", url, &[], limits))
        .await
        .unwrap_or(Err(ClientError::TimedOut))
}

/// Makes a request with a method and a body.
///
/// # Errors
/// As for [`get`].
pub async fn request(
    method: &str,
    url: &str,
    body: &[u8],
    limits: &Limits,
    patience: Duration,
) -> Result<Answer, ClientError> {
    timeout(patience, ask(method, url, body, limits))
        .await
        .unwrap_or(Err(ClientError::TimedOut))
}

async fn ask(method: &str, url: &str, body: &[u8], limits: &Limits) -> Result<Answer, ClientError> {
    let (host, port, target) = parts(url).ok_or_else(|| ClientError::BadUrl(url.to_owned()))?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = resolve(name).await.map_err(ClientError::Resolve)?;
    let mut connected = Err(TcpError::Unreachable);
    for address in addresses {
        connected = TcpStream::connect(SocketAddr::new(address, port)).await;
        if connected.is_ok() {
            break;
        }
    }
    let mut stream = connected?;
    let mut message = format!("{method} {target} HTTP/1.1\r\nHost: {host}");
    if port != 80 {
        message.push_str(&format!(":{port}"));
    }
    message.push_str("\r\nConnection: close\r\nUser-Agent: gamut\r\n");
    if !body.is_empty() {
        message.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    message.push_str("\r\n");
    stream.write_all(message.as_bytes()).await?;
    stream.write_all(body).await?;
    read_answer(&mut stream, method == "HEAD", limits).await
}

async fn read_answer(
    stream: &mut TcpStream,
    is_head: bool,
    limits: &Limits,
) -> Result<Answer, ClientError> {
    let mut input = Vec::new();
    let (status, length) = loop {
        if let Parsed::Complete(head, used) = parse_response(&input, limits, is_head)? {
            let (status, length) = (head.status, head.body);
            input.drain(..used);
            // 100 Continue and its like precede the answer.
            if status.0 >= 200 {
                break (status, length);
            }
        } else if stream.read_to(&mut input, READ_BYTES).await? == 0 {
            return Err(ClientError::Incomplete);
        }
    };
    let mut decoder = ChunkDecoder::default();
    let mut body = Vec::new();
    loop {
        match length {
            BodyLength::Chunked => {
                let mut used = 0;
                loop {
                    let rest = input.get(used..).unwrap_or_default();
                    let (chunk, taken) = decoder.next(rest)?;
                    used += taken;
                    match chunk {
                        Chunk::Data(data) => body.extend_from_slice(data),
                        Chunk::Partial => break,
                        Chunk::End => return Ok(Answer { status, body }),
                    }
                    if body.len() > limits.body_bytes {
                        return Err(HttpError::BodyTooLong.into());
                    }
                }
                input.drain(..used);
            }
            BodyLength::Known(bytes) => {
                if bytes > limits.body_bytes as u64 {
                    return Err(HttpError::BodyTooLong.into());
                }
                let bytes = crate::to_usize(bytes);
                if input.len() >= bytes {
                    input.truncate(bytes);
                    return Ok(Answer {
                        status,
                        body: input,
                    });
                }
            }
            BodyLength::UntilClose if input.len() > limits.body_bytes => {
                return Err(HttpError::BodyTooLong.into());
            }
            BodyLength::UntilClose => {}
        }
        if stream.read_to(&mut input, READ_BYTES).await? == 0 {
            return match length {
                BodyLength::UntilClose => Ok(Answer {
                    status,
                    body: input,
                }),
                _ => Err(ClientError::Incomplete),
            };
        }
    }
}

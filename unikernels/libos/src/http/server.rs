//! The server: connections are kept alive, requests may be pipelined, bodies may come in chunks.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;

use super::chunked::{Chunk, ChunkDecoder};
use super::date::{DATE_BYTES, date};
use super::head::{BodyLength, HttpError, Limits, Parsed};
use super::request::{RequestHead, parse_request};
use super::response::{Response, StatusCode};
use crate::executor::{Either, select, sleep, spawn, timeout};
use crate::net::{TcpError, TcpListener, TcpStream};
use crate::{clock, shutdown, to_usize};

/// Bytes that are read at once.
const READ_BYTES: usize = 4096;
/// Responses are gathered up to this size while further requests are there already.
const GATHERED_BYTES: usize = 16 << 10;
/// How long a connection may be idle, and how long a request may take to arrive.
const IDLE: Duration = Duration::from_secs(60);
const ARRIVAL: Duration = Duration::from_secs(20);
/// How long open connections have at a shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// A request with its body.
#[derive(Debug)]
pub struct Request<'message> {
    /// First line and header fields.
    pub head: &'message RequestHead<'message>,
    /// The body.
    pub body: &'message [u8],
}

impl<'message> Request<'message> {
    /// `GET` and so on.
    #[must_use]
    pub fn method(&self) -> &'message str {
        self.head.method
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &'message str {
        self.head.path()
    }
}

/// An HTTP server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    limits: Limits,
}

/// Why a connection ends.
enum End {
    /// Nothing more is to be said.
    Quiet,
    /// The client is told what was wrong.
    Refusal(StatusCode),
}

impl From<HttpError> for End {
    fn from(error: HttpError) -> Self {
        Self::Refusal(error.into())
    }
}

impl From<TcpError> for End {
    fn from(_: TcpError) -> Self {
        Self::Quiet
    }
}

impl Server {
    /// A server at a port.
    ///
    /// # Errors
    /// If somebody else listens there.
    pub fn bind(port: u16) -> Result<Self, TcpError> {
        Ok(Self {
            listener: TcpListener::bind(port)?,
            limits: Limits::default(),
        })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until the guest is asked to stop: then no more connections are taken, requests that
    /// have begun are answered, and it returns.
    pub async fn serve<H>(mut self, handler: H)
    where
        H: AsyncFn(&Request<'_>) -> Response + 'static,
    {
        let handler = Rc::new(handler);
        let open = Rc::new(Cell::new(0_usize));
        loop {
            let accepted = select(self.listener.accept(), shutdown::requested()).await;
            let Either::First(stream) = accepted else {
                break;
            };
            let handler = handler.clone();
            let limits = self.limits;
            let open = open.clone();
            open.set(open.get() + 1);
            spawn(async move {
                Connection::new(stream, limits).run(&*handler).await;
                open.set(open.get() - 1);
            });
        }
        drop(self.listener);
        let drained = async {
            while open.get() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // Whoever is still not done then is broken off.
        let _ = timeout(DRAIN, drained).await;
    }
}

struct Connection {
    stream: TcpStream,
    limits: Limits,
    input: Vec<u8>,
    /// Bytes of the input that have been used.
    used: usize,
    output: Vec<u8>,
    date_second: u64,
    date: [u8; DATE_BYTES],
}

impl Connection {
    fn new(stream: TcpStream, limits: Limits) -> Self {
        Self {
            stream,
            limits,
            input: Vec::new(),
            used: 0,
            output: Vec::new(),
            date_second: u64::MAX,
            date: date(0),
        }
    }

    async fn run<H: AsyncFn(&Request<'_>) -> Response>(mut self, handler: &H) {
        let end = self.serve(handler).await;
        if let End::Refusal(status) = end {
            let response = Response::text(status.reason()).with_status(status);
            self.update_date();
            response.write(&self.date, false, false, &mut self.output);
        }
        if self.send().await.is_err() {
            return;
        }
        // The client may still be sending: a connection that is closed with unread bytes is
        // broken, and the answer could be lost with it (RFC 9112, 9.6).
        self.stream.shutdown();
        if let End::Refusal(_) = end {
            let mut rest = [0; 512];
            let drain = async { while let Ok(1..) = self.stream.read(&mut rest).await {} };
            let _ = timeout(Duration::from_secs(2), drain).await;
        }
    }

    /// Serves requests until the connection ends.
    async fn serve<H: AsyncFn(&Request<'_>) -> Response>(&mut self, handler: &H) -> End {
        loop {
            match self.serve_one(handler).await {
                Ok(true) => {}
                Ok(false) => return End::Quiet,
                Err(end) => return end,
            }
        }
    }

    /// Serves the next request. Says whether the connection goes on.
    async fn serve_one<H: AsyncFn(&Request<'_>) -> Response>(
        &mut self,
        handler: &H,
    ) -> Result<bool, End> {
        let (head_bytes, length, must_continue) = loop {
            if let Parsed::Complete(head, bytes) = parse_request(self.rest(), &self.limits)? {
                break (bytes, head.body, head.expects_continue);
            }
            if !self.read_head().await? {
                return Ok(false);
            }
        };
        let body = self.read_body(head_bytes, length, must_continue).await?;
        self.update_date();
        let rest = self.input.get(self.used..).unwrap_or_default();
        let Parsed::Complete(head, _) = parse_request(rest, &self.limits)? else {
            return Ok(false);
        };
        let body_bytes = match &body {
            Body::InPlace(bytes) => rest.get(head_bytes..head_bytes + bytes).unwrap_or_default(),
            Body::Gathered(bytes, _) => bytes,
        };
        let request = Request {
            head: &head,
            body: body_bytes,
        };
        let response = handler(&request).await;
        let keeps_alive = head.keeps_alive && !shutdown::is_requested();
        let is_head = head.method == "HEAD";
        response.write(&self.date, is_head, keeps_alive, &mut self.output);
        self.used += match body {
            Body::InPlace(bytes) => head_bytes + bytes,
            Body::Gathered(_, used) => used,
        };
        if self.output.len() > GATHERED_BYTES {
            self.send().await?;
        }
        Ok(keeps_alive)
    }

    fn rest(&self) -> &[u8] {
        self.input.get(self.used..).unwrap_or_default()
    }

    /// Reads more of a head; what has been gathered is sent first. False if the client is done,
    /// or the guest is to stop.
    async fn read_head(&mut self) -> Result<bool, End> {
        self.send().await?;
        let has_begun = !self.rest().is_empty();
        let patience = if has_begun { ARRIVAL } else { IDLE };
        let read = timeout(patience, self.read());
        let count = match select(read, shutdown::requested()).await {
            Either::First(Ok(count)) => count?,
            Either::First(Err(_)) if has_begun => {
                return Err(End::Refusal(StatusCode::REQUEST_TIMEOUT));
            }
            Either::First(Err(_)) | Either::Second(()) => return Ok(false),
        };
        Ok(count > 0)
    }

    /// Reads what is there; 0 if the client has closed its side.
    async fn read(&mut self) -> Result<usize, TcpError> {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.stream.read_to(&mut self.input, READ_BYTES).await
    }

    async fn read_in_time(&mut self) -> Result<(), End> {
        match timeout(ARRIVAL, self.read()).await {
            Ok(Ok(0)) => Err(End::Quiet),
            Ok(result) => Ok(result.map(|_| ())?),
            Err(_) => Err(End::Refusal(StatusCode::REQUEST_TIMEOUT)),
        }
    }

    /// Reads the body of a request whose head is at the beginning of the input.
    async fn read_body(
        &mut self,
        head_bytes: usize,
        length: BodyLength,
        must_continue: bool,
    ) -> Result<Body, End> {
        if let BodyLength::Known(bytes) = length
            && bytes > self.limits.body_bytes as u64
        {
            return Err(HttpError::BodyTooLong.into());
        }
        if must_continue && length != BodyLength::Known(0) {
            self.output
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.send().await?;
        }
        if let BodyLength::Known(bytes) = length {
            let bytes = to_usize(bytes);
            while self.rest().len() < head_bytes + bytes {
                self.send().await?;
                self.read_in_time().await?;
            }
            return Ok(Body::InPlace(bytes));
        }
        let mut decoder = ChunkDecoder::default();
        let mut body = Vec::new();
        let mut used = head_bytes;
        loop {
            let rest = self.rest().get(used..).unwrap_or_default();
            let (chunk, taken) = decoder.next(rest)?;
            used += taken;
            match chunk {
                Chunk::End => return Ok(Body::Gathered(body, used)),
                Chunk::Data(data) if body.len() + data.len() > self.limits.body_bytes => {
                    return Err(HttpError::BodyTooLong.into());
                }
                Chunk::Data(data) => body.extend_from_slice(data),
                Chunk::Partial => {
                    self.send().await?;
                    // Chunks that have been taken need not be kept; the head is.
                    let begin = self.used + head_bytes;
                    self.input.drain(begin..self.used + used);
                    used = head_bytes;
                    self.read_in_time().await?;
                }
            }
        }
    }

    /// Sends what has been gathered.
    async fn send(&mut self) -> Result<(), TcpError> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
            self.output.shrink_to(GATHERED_BYTES);
        }
        Ok(())
    }

    fn update_date(&mut self) {
        let second = clock::wall_ns() / 1_000_000_000;
        if second != self.date_second {
            self.date_second = second;
            self.date = date(second);
        }
    }
}

/// Where a body is.
enum Body {
    /// In the input, behind the head, with so many bytes.
    InPlace(usize),
    /// Put together, with the bytes that head and body take in the input.
    Gathered(Vec<u8>, usize),
}

//! Requests and replies.

use super::executable::{Executable, high_duplicate};
use super::reaper;
use super::spawn::spawn;
use super::{ClientError, Watcher};
use crate::sys::{descriptors, io as io_calls};
use gamut_abi::control::{Launch, Reply, Request, Verb};
use gamut_abi::wire::{self, HEADER_BYTES};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a supervisor may take to answer a watcher, in milliseconds.
const WATCH_LIMIT_MS: i32 = 30_000;

/// On whose behalf requests are made, for the supervisor's log.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Id of the API request.
    pub request_id: String,
    /// User id of the API's peer.
    pub peer_uid: u32,
}

/// Starts a supervisor and has it set up a sandbox. Returns the connection, over which
/// [`Verb::Start`] can follow, and what had to be given up (one sentence each).
///
/// `descriptors` are those of the plan's namespaces, then one stream per entry of
/// [`Launch::attach`]. The supervisor is no child of the caller: there is nothing to reap. When
/// the last connection is dropped before the start, it cleans up and leaves after ten seconds;
/// once started, it does not depend on the caller any more.
///
/// # Errors
/// [`ClientError::Refused`] if the sandbox cannot be set up, and then nothing is left of it;
/// [`ClientError::Deadline`] if it takes longer than `timeout`, and then the supervisor gives up
/// as above (or goes on, if [`Launch::start`] is set and it got that far).
pub fn launch(
    executable: &Executable,
    context: &Context,
    launch: &Launch,
    descriptors: Vec<OwnedFd>,
    timeout: Option<Duration>,
) -> Result<(Client, Vec<String>), ClientError> {
    let (ours, low) =
        UnixStream::pair().map_err(|error| ClientError::io("make a socket pair", error))?;
    let theirs = high_duplicate(low.as_fd())
        .map_err(|error| ClientError::io("duplicate a socket", error))?;
    // Only the supervisor keeps this end, so that its death is seen at once.
    drop(low);
    spawn(executable, theirs.as_fd(), &launch.plan.id)
        .map_err(|error| ClientError::io("start a supervisor", error))?;
    reaper::launched();
    drop(theirs);
    let mut client = Client::new(ours).with_context(context.clone());
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let verb = Verb::Launch(Box::new(launch.clone()));
    let reply = client.request_within(verb, &borrowed, timeout);
    // The supervisor has its own by now; ours would keep streams open.
    drop(borrowed);
    drop(descriptors);
    match reply? {
        Reply::Created { warnings } => Ok((client, warnings)),
        _ => Err(ClientError::Unexpected),
    }
}

/// A connection to a supervisor. One request at a time; open several for more.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    context: Context,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            context: Context::default(),
        }
    }

    /// Connects to the supervisor of a run directory.
    ///
    /// # Errors
    /// [`ClientError::Io`]: `NotFound` or `ConnectionRefused` if none is there.
    pub fn connect(run_directory: &Path) -> Result<Self, ClientError> {
        let connect = || {
            // By way of /proc, because the path of a socket is short (unix(7)).
            let directory = File::open(run_directory)?;
            UnixStream::connect(format!(
                "/proc/self/fd/{}/control.sock",
                directory.as_raw_fd()
            ))
        };
        connect().map(Self::new).map_err(|error| {
            let operation = format!("connect to the supervisor of {}", run_directory.display());
            ClientError::io(operation, error)
        })
    }

    /// Says on whose behalf the next requests are made.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Makes a request and waits for its answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn request(
        &mut self,
        verb: Verb,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, ClientError> {
        self.request_within(verb, descriptors, None)
    }

    /// As [`Self::request`], but waits at most `timeout`. After any error but
    /// [`ClientError::Refused`] the connection is of no use any more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn request_within(
        &mut self,
        verb: Verb,
        descriptors: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<Reply, ClientError> {
        let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.send(verb, descriptors, due)?;
        let mut header = [0; HEADER_BYTES];
        self.receive(&mut header, due)?;
        let mut body = vec![0; wire::body_length(&header).map_err(ClientError::Wire)?];
        self.receive(&mut body, due)?;
        match wire::decode_body(&body).map_err(ClientError::Wire)? {
            Reply::Failed(failure) => Err(ClientError::Refused(failure)),
            reply => Ok(reply),
        }
    }

    /// Turns the connection into a stream of events, beginning with the current status. Once it
    /// returns, the supervisor knows the watcher, and nothing that happens is missed.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn watch(mut self) -> Result<Watcher, ClientError> {
        self.send(Verb::Watch, &[], None)?;
        // A supervisor that ends before it has read the request would reset the connection, and
        // the events of a short run would be lost.
        if !io_calls::wait_readable(self.stream.as_fd(), WATCH_LIMIT_MS) {
            return Err(ClientError::Deadline);
        }
        self.stream
            .set_read_timeout(None)
            .map_err(|error| ClientError::io("watch the supervisor", error))?;
        Ok(Watcher::new(self.stream))
    }

    fn send(
        &mut self,
        verb: Verb,
        descriptors: &[BorrowedFd<'_>],
        due: Option<Instant>,
    ) -> Result<(), ClientError> {
        let Context {
            request_id,
            peer_uid,
        } = self.context.clone();
        let request = Request {
            request_id,
            peer_uid,
            verb,
        };
        let frame = wire::encode(&request).map_err(ClientError::Wire)?;
        let timeout = remaining(due)?;
        let fail = |error| failed("send to the supervisor", error);
        self.stream.set_write_timeout(timeout).map_err(fail)?;
        let sent = descriptors::send(self.stream.as_fd(), &frame, descriptors).map_err(fail)?;
        self.stream
            .write_all(frame.get(sent..).unwrap_or(&[]))
            .map_err(fail)
    }

    fn receive(&mut self, mut buffer: &mut [u8], due: Option<Instant>) -> Result<(), ClientError> {
        while !buffer.is_empty() {
            let fail = |error| failed("read the supervisor's answer", error);
            self.stream
                .set_read_timeout(remaining(due)?)
                .map_err(fail)?;
            match io::Read::read(&mut self.stream, buffer) {
                Ok(0) => {
                    let error = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "it has left; its status file tells the rest",
                    );
                    return Err(fail(error));
                }
                Ok(count) => buffer = buffer.get_mut(count..).unwrap_or(&mut []),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(())
    }
}

fn failed(operation: &str, error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Deadline,
        _ => ClientError::io(operation, error),
    }
}

/// Time left, `None` for no limit.
fn remaining(due: Option<Instant>) -> Result<Option<Duration>, ClientError> {
    match due {
        None => Ok(None),
        Some(due) => match due.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(ClientError::Deadline),
        },
    }
}

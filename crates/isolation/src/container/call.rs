//! One verb on its way to a supervisor: deadline, cancellation, and what its failures mean.

use crate::contract::Context;
use crate::error::Error;
use gamut_abi::control::{Failure, FailureKind, Reply, Verb};
use gamut_supervisor::{Client, ClientError};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// A supervisor answers at once; one that does not within this is not well. Only a stop may take
/// as long as it likes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a waiting verb looks whether its caller is still there.
const CANCELLATION_POLL: Duration = Duration::from_millis(50);

/// A verb being carried out for somebody.
pub(super) struct Call<'a> {
    pub(super) context: &'a Context,
    pub(super) operation: &'static str,
    pub(super) id: &'a str,
    begun: Instant,
}

impl<'a> Call<'a> {
    /// Begins a verb.
    ///
    /// # Errors
    /// If the caller has hung up or the deadline has passed.
    pub(super) fn begin(
        context: &'a Context,
        operation: &'static str,
        id: &'a str,
    ) -> Result<Self, Error> {
        let call = Self {
            context,
            operation,
            id,
            begun: Instant::now(),
        };
        call.check()?;
        Ok(call)
    }

    /// Whether the caller still wants it and there is time.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::Timeout`].
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.context.is_cancelled() {
            return Err(Error::Cancelled {
                operation: self.operation,
                id: self.id.to_owned(),
            });
        }
        match self.context.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(self.timeout()),
            _ => Ok(()),
        }
    }

    fn timeout(&self) -> Error {
        let until = self.context.deadline.unwrap_or_else(Instant::now);
        let allowed = until.saturating_duration_since(self.begun);
        Error::Timeout {
            operation: self.operation,
            id: self.id.to_owned(),
            allowed_ms: u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Time left for something that ends by itself soon.
    pub(super) fn time_left(&self) -> Duration {
        match self.context.deadline {
            Some(deadline) => deadline
                .saturating_duration_since(Instant::now())
                .min(PATIENCE),
            None => PATIENCE,
        }
    }

    pub(super) fn system(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::System {
            operation: self.operation,
            id: self.id.to_owned(),
            source: source.into(),
        }
    }

    pub(super) fn state(&self, reason: impl Into<String>) -> Error {
        Error::State {
            operation: self.operation,
            id: self.id.to_owned(),
            reason: reason.into(),
        }
    }

    pub(super) fn not_found(&self) -> Error {
        Error::NotFound {
            object: "workload",
            id: self.id.to_owned(),
        }
    }

    /// On whose behalf, as the client library has it.
    pub(super) fn client_context(&self) -> gamut_supervisor::Context {
        gamut_supervisor::Context {
            request_id: self.context.request_id.clone(),
            peer_uid: self.context.peer_uid,
        }
    }

    /// Connects to the supervisor of a run directory.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a run directory, [`Error::State`] without a supervisor.
    pub(super) fn connect(&self, run_directory: &Path) -> Result<Client, Error> {
        match Client::connect(run_directory) {
            Ok(client) => Ok(client.with_context(self.client_context())),
            Err(ClientError::Io { source, .. }) if is_nobody(source.kind()) => {
                if run_directory.exists() {
                    Err(self.state("it is not running"))
                } else {
                    Err(self.not_found())
                }
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Makes a request that is answered at once.
    ///
    /// # Errors
    /// As [`Self::failed`] translates them.
    pub(super) fn request(
        &self,
        client: &mut Client,
        verb: Verb,
        descriptors: &[OwnedFd],
    ) -> Result<Reply, Error> {
        self.check()?;
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        client
            .request_within(verb, &descriptors, Some(self.time_left()))
            .map_err(|error| self.failed(error))
    }

    /// Makes a request that may take as long as it likes, on a thread of its own, so that the
    /// caller can go. What was asked for happens nevertheless. `None`: the supervisor has left.
    ///
    /// # Errors
    /// As [`Self::failed`] translates them.
    pub(super) fn request_patiently(
        &self,
        mut client: Client,
        verb: Verb,
    ) -> Result<Option<Reply>, Error> {
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new()
            .name(self.operation.to_owned())
            .spawn(move || {
                // Whoever asked may be gone.
                let _ = sender.send(client.request_within(verb, &[], None));
            })
            .map_err(|error| self.system(error))?;
        loop {
            match receiver.recv_timeout(CANCELLATION_POLL) {
                Ok(Ok(reply)) => return Ok(Some(reply)),
                Ok(Err(ClientError::Io { source, .. })) if is_gone(source.kind()) => {
                    return Ok(None);
                }
                Ok(Err(error)) => return Err(self.failed(error)),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.system("the waiting thread has ended"));
                }
            }
        }
    }

    /// What a failure of the client library means to the caller of the contract.
    pub(super) fn failed(&self, error: ClientError) -> Error {
        match error {
            ClientError::Refused(failure) => self.refused(failure),
            ClientError::Deadline if self.context.deadline.is_some() => self.timeout(),
            ClientError::Io { ref source, .. } if is_gone(source.kind()) => {
                self.state("its supervisor has just left")
            }
            other => self.system(other),
        }
    }

    fn refused(&self, failure: Failure) -> Error {
        match failure.kind {
            FailureKind::State => self.state(failure.message),
            FailureKind::ExecutableNotFound => Error::ExecutableNotFound(failure.message),
            FailureKind::ExecutableDenied => Error::ExecutableDenied(failure.message),
            FailureKind::Invalid | FailureKind::Unsupported => Error::Invalid {
                field: self.operation.to_owned(),
                problem: failure.message,
            },
            FailureKind::System => self.system(failure.message),
        }
    }
}

/// Nobody listens on the socket, or there is none.
fn is_nobody(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// The other side went away in the middle.
fn is_gone(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

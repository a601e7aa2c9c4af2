//! Listening to a stage, and cleaning up behind it when it fails.

use crate::channel::{Channel, Message};
use crate::error::{Context, Error};
use crate::sys::{self, Errno};
use gamut_abi::control::FailureKind;
use std::os::fd::OwnedFd;

/// A child that is killed and reaped unless it is let go.
#[derive(Debug)]
pub(crate) struct Unreaped(Option<u32>);

impl Unreaped {
    pub(crate) fn new(pid: u32) -> Self {
        Self(Some(pid))
    }

    /// Its process id, 0 if let go.
    pub(crate) fn pid(&self) -> u32 {
        self.0.unwrap_or_default()
    }

    /// It is the caller's business from now on.
    pub(crate) fn let_go(mut self) -> u32 {
        self.0.take().unwrap_or_default()
    }

    /// Waits for its end, which is near.
    fn reap(mut self) -> Option<i32> {
        self.0.take().and_then(sys::reap)
    }
}

impl Drop for Unreaped {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            sys::kill_and_reap(pid);
        }
    }
}

/// What a stage waits for its parent to do.
pub(crate) enum Request {
    /// The root is built: run the hooks of the host.
    Hooks,
    /// Map the ids of a copy of the n-th mount of the plan.
    MapIds { index: u32, tree: OwnedFd },
}

/// What a stage has said so far.
pub(crate) struct Conversation {
    pub channel: Channel,
    pub warnings: Vec<String>,
    pub terminal: Option<OwnedFd>,
    child: Option<(Unreaped, OwnedFd)>,
    /// Children whose word is waited for.
    awaited: Vec<u32>,
    ready: bool,
    request: Option<Request>,
    failure: Option<Error>,
}

impl Conversation {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            channel,
            warnings: Vec::new(),
            terminal: None,
            child: None,
            awaited: Vec::new(),
            ready: false,
            request: None,
            failure: None,
        }
    }

    /// A conversation with children that a container they share a PID namespace with could stop:
    /// that is an error then, not a reason to wait for ever.
    pub(crate) fn with_child(channel: Channel, pid: u32) -> Result<Self, Error> {
        channel
            .look_up_from_time_to_time()
            .doing("listen to", "the stage")?;
        let mut conversation = Self::new(channel);
        conversation.awaited.push(pid);
        Ok(conversation)
    }

    /// Takes the next message; false once there are no more.
    fn listen(&mut self) -> Result<bool, Error> {
        let message = loop {
            match self.channel.listen() {
                Err(Errno(libc::EAGAIN)) => self.check_that_none_is_stopped()?,
                message => break message.doing("listen to", "the stage")?,
            }
        };
        match message {
            None => return Ok(false),
            Some(Message::Ready) => self.ready = true,
            Some(Message::Hooks) => self.request = Some(Request::Hooks),
            Some(Message::MapIds { index, tree }) => {
                self.request = Some(Request::MapIds { index, tree });
            }
            Some(Message::Warning(text)) => self.warnings.push(text),
            Some(Message::Terminal(master)) => self.terminal = Some(master),
            // Of a helper that mounts, never of a stage.
            Some(Message::Mount(_)) => {}
            Some(Message::Child { pid, pidfd }) => {
                self.awaited.push(pid);
                self.child = Some((Unreaped::new(pid), pidfd));
            }
            Some(Message::Failed(error)) => {
                self.failure.get_or_insert(error);
            }
        }
        Ok(true)
    }

    fn check_that_none_is_stopped(&self) -> Result<(), Error> {
        if self.awaited.iter().any(|pid| sys::is_stopped(*pid)) {
            return Err(Error {
                kind: FailureKind::State,
                message: String::from(
                    "a process of the container has stopped the new process before it could become its program",
                ),
                errno: 0,
            });
        }
        Ok(())
    }

    /// Does what the stage, process `pid`, waits for.
    fn serve(
        &mut self,
        pid: u32,
        serve: &mut impl FnMut(u32, Request) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(request) = self.request.take() {
            serve(pid, request)?;
            // If the stage is gone, what it said comes next.
            let _ = self.channel.go();
        }
        Ok(())
    }

    /// Until the stage, which is `first` itself, waits for the start. `serve` is called with its
    /// process id and what it waits for before that.
    pub(crate) fn until_ready_directly(
        &mut self,
        first: Unreaped,
        mut serve: impl FnMut(u32, Request) -> Result<(), Error>,
    ) -> Result<Unreaped, Error> {
        while self.listen()? {
            self.serve(first.pid(), &mut serve)?;
            if self.ready {
                return Ok(first);
            }
        }
        Err(self.failed(first))
    }

    /// Until the stage, a sibling of `first`, waits for the start. `on_child` is called once
    /// with its process id, `serve` as above.
    pub(crate) fn until_ready(
        &mut self,
        first: Unreaped,
        mut on_child: impl FnMut(&Channel, u32) -> Result<(), Error>,
        mut serve: impl FnMut(u32, Request) -> Result<(), Error>,
    ) -> Result<(OwnedFd, Unreaped), Error> {
        let mut known = false;
        while self.listen()? {
            if let Some((child, _)) = &self.child
                && !known
            {
                known = true;
                on_child(&self.channel, child.pid())?;
            }
            if let Some(pid) = self.child.as_ref().map(|(child, _)| child.pid()) {
                self.serve(pid, &mut serve)?;
            }
            if self.ready
                && self.failure.is_none()
                && let Some((child, pidfd)) = self.child.take()
            {
                first.reap();
                return Ok((pidfd, child));
            }
        }
        Err(self.failed(first))
    }

    /// Until the process has become its program: its end of the channel closes on execve.
    pub(crate) fn until_executed(&mut self, process: Unreaped) -> Result<u32, Error> {
        while self.listen()? {}
        if self.failure.is_some() {
            return Err(self.failed(process));
        }
        Ok(process.let_go())
    }

    /// As [`Self::until_executed`] for a process that is somebody else's child.
    pub(crate) fn until_closed(&mut self) -> Result<(), Error> {
        while self.listen()? {}
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// As [`Self::until_executed`] for a process that `first` makes.
    pub(crate) fn until_child_executed(
        &mut self,
        first: Unreaped,
    ) -> Result<(u32, OwnedFd), Error> {
        while self.listen()? {}
        match (self.failure.is_some(), self.child.take()) {
            (false, Some((child, pidfd))) => {
                first.reap();
                Ok((child.let_go(), pidfd))
            }
            (_, child) => {
                self.child = child;
                Err(self.failed(first))
            }
        }
    }

    /// Every other end is closed: the stage has ended, or is about to. Reaps it and answers why.
    fn failed(&mut self, first: Unreaped) -> Error {
        // Kills what still runs.
        let child = self.child.take();
        if let Some(error) = self.failure.take() {
            drop(child);
            drop(first);
            return error;
        }
        let status = match child {
            Some((child, _)) => child.reap(),
            None => first.reap(),
        };
        let how = match status {
            Some(status) if libc::WIFSIGNALED(status) => {
                ["was killed by signal ", &libc::WTERMSIG(status).to_string()].concat()
            }
            Some(status) => ["exited with ", &libc::WEXITSTATUS(status).to_string()].concat(),
            None => String::from("vanished"),
        };
        Error {
            kind: FailureKind::System,
            message: [
                "set up the container: its process ",
                &how,
                "; if that was SIGKILL (9), its memory limit may be too low to start in",
            ]
            .concat(),
            errno: 0,
        }
    }
}

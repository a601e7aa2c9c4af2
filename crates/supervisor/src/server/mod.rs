//! The supervisor process.
//!
//! It is started with a connected unix stream socket as descriptor 3, over which the first
//! request, [`Verb::Launch`](gamut_abi::control::Verb::Launch), arrives. From then on it depends
//! on nobody: the daemon may go and come, and reconnect through `control.sock`. It leaves when
//! its process has ended for good and every attached client has got its output.

mod connection;
mod core;
mod dispatch;
mod exec;
mod exit;
mod launch;
mod memory;
mod restart;
mod run_directory;
mod sandbox;
mod stdio;
mod token;
mod verbs;

pub(crate) use launch::{discard, group_failure, make_group};
pub(crate) use token::LOG_TOKEN;

use self::core::Core;
use crate::sys::epoll::{Epoll, Ready};
use crate::sys::process::{ChildSignal, detach};
use crate::sys::{descriptors, io};
use sandbox::Sandbox;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use token::Token;

/// The descriptor over which the daemon sends the launch.
const LAUNCH_DESCRIPTOR: u32 = 3;

/// Replies and events that nobody takes delay the end of the supervisor by at most this.
const FAREWELL: Duration = Duration::from_secs(5);

/// Log lines that their receiver does not take delay it by at most this.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a supervisor on descriptor 3 until its work is done. Takes over the whole process:
/// session, signals, descriptors.
#[must_use]
pub fn main() -> ExitCode {
    detach(LAUNCH_DESCRIPTOR);
    // SAFETY: the launching process puts the socket there and `detach` closed all others; nothing
    // else in this process owns it. If it is not there, the first use fails cleanly.
    let launcher = unsafe { OwnedFd::from_raw_fd(3) };
    match Server::new(launcher).and_then(Server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes one line to the daemon's log, unless that would block.
pub(crate) fn report(text: &str) {
    let stderr = std::io::stderr();
    if io::is_writable(stderr.as_fd()) {
        let mut line = String::from("gamut-supervisor: ");
        for letter in text.chars().take(900) {
            // Names and arguments are others': they must neither end a line nor reach a terminal.
            if letter.is_control() {
                line.extend(letter.escape_default());
            } else {
                line.push(letter);
            }
        }
        line.push('\n');
        // Nobody is there to hear of a failure.
        let _ = io::write(stderr.as_fd(), line.as_bytes());
    }
}

/// The loop and what it works on.
struct Server {
    core: Core,
    sandbox: Option<Sandbox>,
    /// Descriptors 3: the launching connection, whose end before the launch ends everything.
    launcher: u32,
    /// Nothing is left to do; replies go out until then.
    leaving_at: Option<Instant>,
}

impl Server {
    fn new(launcher: OwnedFd) -> std::io::Result<Self> {
        crate::sys::process::set_close_on_exec(launcher.as_fd())?;
        let mut core = Core::new(Epoll::new()?, ChildSignal::new()?)?;
        let launcher = core.add_connection(launcher)?;
        Ok(Self {
            core,
            sandbox: None,
            launcher,
            leaving_at: None,
        })
    }

    fn run(mut self) -> std::io::Result<()> {
        let mut ready: Vec<Ready> = Vec::new();
        loop {
            if self.is_over() {
                break;
            }
            let timeout = self
                .deadline()
                .map(|due| due.saturating_duration_since(Instant::now()));
            self.core.epoll.wait(&mut ready, timeout)?;
            for event in &ready {
                if let Some(token) = Token::decode(event.token) {
                    self.handle(token, event.events);
                }
            }
            self.tick();
        }
        if let Some(log) = &mut self.core.log {
            log.leave(crate::sys::clock::now_ns());
        }
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.leave();
        }
        Ok(())
    }

    fn handle(&mut self, token: Token, events: u32) {
        match token {
            Token::Children => self.children_ended(),
            Token::Listener => self.accept(),
            Token::Connection(id) => self.connection_ready(id, events),
            Token::Hub(hub, part) => {
                self.core
                    .with_hub(hub, |hub, tools| hub.ready(tools, part, events));
            }
            // It is looked at in every turn.
            Token::Log => {}
            Token::OutOfMemory => {
                if let Some(sandbox) = &mut self.sandbox {
                    sandbox.out_of_memory.notified(Instant::now());
                }
            }
        }
    }

    fn children_ended(&mut self) {
        self.core.children.clear();
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.reap(&mut self.core);
        }
    }

    /// Accepts connections of root and of the supervisor's own user.
    fn accept(&mut self) {
        let Some(sandbox) = &self.sandbox else { return };
        loop {
            match sandbox.directory.accept() {
                Ok(Some(stream)) => {
                    let stream = OwnedFd::from(stream);
                    // SAFETY: geteuid only returns a number.
                    let own = unsafe { libc::geteuid() };
                    let allowed = descriptors::peer_uid(stream.as_fd())
                        .is_ok_and(|uid| uid == 0 || uid == own);
                    if allowed && let Err(error) = self.core.add_connection(stream) {
                        report(&format!("cannot take a connection: {error}"));
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    // Without a spare descriptor the waiting connection would wake us for ever.
                    if !self.core.with_spare(|| sandbox.directory.accept()) {
                        report(&format!("cannot accept a connection: {error}"));
                    }
                    return;
                }
            }
        }
    }

    fn tick(&mut self) {
        if std::mem::take(&mut self.core.children_due) {
            self.children_ended();
        }
        let now = Instant::now();
        self.core.tick(now);
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.tick(&mut self.core, now);
        }
        self.core.prune();
    }

    fn deadline(&self) -> Option<Instant> {
        let sandbox = self.sandbox.as_ref().and_then(Sandbox::deadline);
        [self.core.deadline(), sandbox, self.leaving_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// What the log's receiver has not taken yet delays the end by a moment only: clients wait.
    fn log_is_flushed(&self, leaving_at: Instant, now: Instant) -> bool {
        let patience = FAREWELL.saturating_sub(LOG_PATIENCE);
        self.core
            .log
            .as_ref()
            .is_none_or(crate::log::LogWriter::is_flushed)
            || now + patience >= leaving_at
    }

    /// Nothing is left to do, and everybody knows or had the time to.
    fn is_over(&mut self) -> bool {
        let done = match &self.sandbox {
            Some(sandbox) => sandbox.is_over() && self.core.hubs.is_empty(),
            None => {
                self.leaving_at.is_some() || !self.core.connections.contains_key(&self.launcher)
            }
        };
        if !done {
            return false;
        }
        let now = Instant::now();
        let leaving_at = *self.leaving_at.get_or_insert(now + FAREWELL);
        leaving_at <= now
            || (self.log_is_flushed(leaving_at, now)
                && self
                    .core
                    .connections
                    .values()
                    .all(connection::Connection::is_flushed))
    }
}

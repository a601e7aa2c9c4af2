//! From requests to what they ask for.

use super::connection::Input;
use super::sandbox::{Sandbox, refusal};
use super::{FAREWELL, Server, report};
use crate::sys::epoll;
use gamut_abi::control::{Event, Failure, FailureKind, Launch, Reply, Request, Verb};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// When a request is answered.
enum Answer {
    Now(Reply),
    /// By [`Sandbox::stop`]'s end.
    Later,
    /// The connection has become a watcher.
    Never,
}

impl Server {
    /// Handles what epoll reported about a connection.
    pub(super) fn connection_ready(&mut self, id: u32, events: u32) {
        let Some(connection) = self.core.connections.get_mut(&id) else {
            return;
        };
        if events & epoll::OUT != 0 {
            connection.flush();
        }
        let gone = events & (epoll::HUP | epoll::ERR) != 0;
        if events & epoll::IN != 0 && !connection.busy {
            match connection.read() {
                Input::Request(request, descriptors) => self.answer(id, *request, descriptors),
                Input::Incomplete => {}
                Input::End => return self.core.close_connection(id),
                Input::Broken(why) => {
                    // A newer daemon's verb ends here too: it is told what is wrong.
                    let text = format!("request not understood: {why}");
                    let failure = refusal(FailureKind::Unsupported, text);
                    self.core.reply(id, &Reply::Failed(failure));
                    return self.core.close_connection(id);
                }
            }
        } else if gone {
            return self.core.close_connection(id);
        }
        self.core.settle_connection(id);
    }

    fn answer(&mut self, id: u32, request: Request, descriptors: Vec<OwnedFd>) {
        let Request {
            request_id,
            peer_uid,
            verb,
        } = request;
        let result = if let Verb::Launch(launch) = verb {
            self.launch(id, *launch, descriptors).map(Answer::Now)
        } else {
            self.carry_out(id, verb, descriptors)
        };
        match result {
            Ok(Answer::Now(reply)) => self.core.reply(id, &reply),
            Ok(Answer::Later) => {
                if let Some(connection) = self.core.connections.get_mut(&id) {
                    connection.busy = true;
                }
            }
            Ok(Answer::Never) => {}
            Err(failure) => {
                let message = &failure.message;
                report(&format!(
                    "{message} (request {request_id} of uid {peer_uid})"
                ));
                self.core.reply(id, &Reply::Failed(failure));
            }
        }
    }

    fn launch(
        &mut self,
        id: u32,
        launch: Launch,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, Failure> {
        if self.sandbox.is_some() || self.leaving_at.is_some() || id != self.launcher {
            return Err(refusal(
                FailureKind::State,
                "launch: this supervisor has its sandbox",
            ));
        }
        let start = launch.start;
        let launched = Sandbox::launch(&mut self.core, launch, descriptors).and_then(
            |(mut sandbox, warnings)| {
                if start && let Err(failure) = sandbox.start(&mut self.core) {
                    sandbox.leave();
                    return Err(failure);
                }
                Ok((sandbox, warnings))
            },
        );
        match launched {
            Ok((sandbox, warnings)) => {
                self.sandbox = Some(sandbox);
                Ok(Reply::Created { warnings })
            }
            Err(failure) => {
                self.leaving_at = Some(Instant::now() + FAREWELL);
                Err(failure)
            }
        }
    }

    fn carry_out(
        &mut self,
        id: u32,
        verb: Verb,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, Failure> {
        let core = &mut self.core;
        let Some(sandbox) = &mut self.sandbox else {
            return Err(refusal(
                FailureKind::State,
                "the first request must be a launch",
            ));
        };
        let done = |()| Answer::Now(Reply::Done);
        match verb {
            Verb::Launch(_) => Err(refusal(FailureKind::State, "launch: already launched")),
            Verb::Start => sandbox
                .start(core)
                .map(|pid| Answer::Now(Reply::Started { pid })),
            Verb::Signal { signal, all } => sandbox.signal(core, signal, all).map(done),
            Verb::Stop { signal, timeout_ms } => {
                sandbox.stop(core, id, signal, timeout_ms).map(|gone| {
                    if gone {
                        Answer::Now(Reply::Done)
                    } else {
                        Answer::Later
                    }
                })
            }
            Verb::Resize { exec_id, size } => {
                sandbox.resize(core, exec_id.as_deref(), size).map(done)
            }
            Verb::Exec(exec) => sandbox.exec(core, *exec, descriptors).map(Answer::Now),
            Verb::ExecSignal { exec_id, signal } => sandbox.exec_signal(&exec_id, signal).map(done),
            Verb::Attach(attach) => sandbox.attach(core, attach, descriptors).map(done),
            Verb::Pause => sandbox.pause(core).map(done),
            Verb::Resume => sandbox.unpause(core).map(done),
            Verb::Update { resources, restart } => sandbox
                .update(core, resources.map(|resources| *resources), restart)
                .map(done),
            Verb::Watch => {
                if let Some(connection) = core.connections.get_mut(&id) {
                    connection.watcher = true;
                }
                core.tell(id, &Event::Status(sandbox.status()));
                Ok(Answer::Never)
            }
            Verb::Status => Ok(Answer::Now(Reply::Status(sandbox.status()))),
        }
    }
}

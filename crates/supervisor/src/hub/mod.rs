//! The stdio of one process: its output goes to the log and to every attached client, their
//! input to its stdin. Every buffer is bounded; when one is full, its source is not read.

mod client;
mod input;
mod output;
mod queue;

pub(crate) use queue::ByteQueue;

use crate::log::{LogWriter, Stream};
use crate::sys::clock::now_ns;
use crate::sys::epoll::{self, Epoll};
use crate::sys::io;
use client::Client;
use gamut_abi::control::Attach;
use input::Input;
use output::{Output, Progress};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// After the process is gone, output that others still hold open is awaited this long.
const QUIET: Duration = Duration::from_millis(100);

/// What every step of a hub may use.
pub(crate) struct Tools<'a> {
    pub(crate) epoll: &'a Epoll,
    pub(crate) log: Option<&'a mut LogWriter>,
    pub(crate) scratch: &'a mut [u8],
    pub(crate) now: Instant,
}

/// The supervisor's ends of a process's stdio.
#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Which part of a hub an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Output(Stream),
    Input,
    Client(u32),
}

/// How a hub is set up.
pub(crate) struct HubOptions {
    /// Output is raw, not framed; stdin has no end.
    pub(crate) terminal: bool,
    /// The end of the first client's input ends stdin.
    pub(crate) stdin_once: bool,
    /// Output goes to the log too.
    pub(crate) logged: bool,
}

/// See the module's text.
pub(crate) struct Hub {
    options: HubOptions,
    token: fn(u32, Part) -> u64,
    id: u32,
    outputs: [Output; 2],
    input: Input,
    clients: BTreeMap<u32, Client>,
    next_client: u32,
    /// The process is gone.
    gone: bool,
}

impl Hub {
    /// Takes over the ends of a process's stdio and sets them non-blocking.
    ///
    /// # Errors
    /// Those of fcntl(2) and epoll_ctl(2).
    pub(crate) fn new(
        id: u32,
        token: fn(u32, Part) -> u64,
        ends: Ends,
        options: HubOptions,
        epoll: &Epoll,
    ) -> std::io::Result<Self> {
        for end in [&ends.stdin, &ends.stdout, &ends.stderr]
            .into_iter()
            .flatten()
        {
            io::set_nonblocking(end.as_fd())?;
        }
        let output = |end, stream| Output::new(end, stream, token(id, Part::Output(stream)));
        let mut hub = Self {
            outputs: [
                output(ends.stdout, Stream::Stdout),
                output(ends.stderr, Stream::Stderr),
            ],
            input: Input::new(ends.stdin, options.terminal, token(id, Part::Input)),
            options,
            token,
            id,
            clients: BTreeMap::new(),
            next_client: 0,
            gone: false,
        };
        hub.refresh(epoll)?;
        Ok(hub)
    }

    /// The terminal, or the pipe of stdout while it is open.
    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.outputs
            .first()
            .filter(|_| self.options.terminal)
            .and_then(Output::descriptor)
    }

    /// Connects a client.
    ///
    /// # Errors
    /// Those of fcntl(2) and epoll_ctl(2).
    pub(crate) fn attach(
        &mut self,
        epoll: &Epoll,
        stream: OwnedFd,
        attach: Attach,
        now: Instant,
    ) -> std::io::Result<()> {
        io::set_nonblocking(stream.as_fd())?;
        while self.clients.contains_key(&self.next_client) {
            self.next_client = self.next_client.wrapping_add(1);
        }
        let id = self.next_client;
        self.next_client = id.wrapping_add(1);
        let token = (self.token)(self.id, Part::Client(id));
        let mut client = Client::new(stream, attach, !self.options.terminal, token, now);
        if self.gone && self.outputs_closed() {
            client.close_when_flushed(now);
        }
        self.clients.insert(id, client);
        self.refresh(epoll)
    }

    /// Handles what epoll reported.
    pub(crate) fn ready(&mut self, tools: &mut Tools<'_>, part: Part, events: u32) {
        match part {
            Part::Output(stream) => {
                self.read_output(tools, stream);
            }
            Part::Input => self.input.ready(tools.epoll, events),
            Part::Client(id) => self.client_ready(tools, id, events),
        }
        self.settle(tools);
    }

    /// The process is gone: reads everything it left behind, whatever room the clients have (it
    /// is bounded by what a pipe holds).
    pub(crate) fn process_gone(&mut self, tools: &mut Tools<'_>) {
        self.gone = true;
        self.input.close(tools.epoll);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(output) = self.outputs.get_mut(stream.index()) else {
                continue;
            };
            output.process_gone(tools.now + QUIET);
            while self.read_output(tools, stream) == Progress::More {}
        }
        self.settle(tools);
    }

    /// The process is gone and nothing more will come from it.
    pub(crate) fn is_drained(&self) -> bool {
        self.gone && self.outputs_closed()
    }

    /// Closes every client's stream once it has got everything.
    pub(crate) fn close_clients(&mut self, tools: &mut Tools<'_>) {
        for client in self.clients.values_mut() {
            client.close_when_flushed(tools.now);
        }
        self.settle(tools);
    }

    /// Drained, and no client is left.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_drained() && self.clients.is_empty()
    }

    /// When [`Self::tick`] must be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let outputs = self.outputs.iter().filter_map(Output::deadline);
        outputs
            .chain(self.clients.values().filter_map(Client::deadline))
            .min()
    }

    /// Does what has become due.
    pub(crate) fn tick(&mut self, tools: &mut Tools<'_>) {
        for output in &mut self.outputs {
            if output.tick(tools.epoll, tools.now) {
                flush_log(output, tools, self.options.logged);
            }
        }
        let late = |client: &Client| client.deadline().is_some_and(|due| due <= tools.now);
        let ids: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, client)| late(client))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.drop_client(tools.epoll, id);
        }
        self.settle(tools);
    }

    /// Ends everything at once.
    pub(crate) fn close(&mut self, epoll: &Epoll) {
        self.input.close(epoll);
        for output in &mut self.outputs {
            output.close(epoll);
        }
        while let Some((_, mut client)) = self.clients.pop_first() {
            client.close(epoll);
        }
    }

    fn outputs_closed(&self) -> bool {
        self.outputs
            .iter()
            .all(|output| output.descriptor().is_none())
    }

    /// Reads one chunk of output and passes it on.
    fn read_output(&mut self, tools: &mut Tools<'_>, stream: Stream) -> Progress {
        let Some(output) = self.outputs.get_mut(stream.index()) else {
            return Progress::Idle;
        };
        let (progress, count) = output.read(tools, self.options.terminal, self.gone);
        if let Some(chunk @ [_, ..]) = tools.scratch.get(..count) {
            if let (true, Some(log)) = (self.options.logged, tools.log.as_deref_mut()) {
                log.append(stream, &mut output.lines, chunk, now_ns());
            }
            for client in self.clients.values_mut() {
                client.send(stream, chunk, tools.now);
            }
        }
        if progress == Progress::Closed {
            flush_log(output, tools, self.options.logged);
        }
        progress
    }

    fn client_ready(&mut self, tools: &mut Tools<'_>, id: u32, events: u32) {
        let room = self.input.room();
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if events & (epoll::HUP | epoll::ERR) != 0 {
            client.stop_output();
        } else if events & epoll::OUT != 0 {
            client.flush(tools.now);
        }
        if client.wants_to_read(room) {
            match client.read(tools.scratch, room) {
                client::Read::Bytes(count) => {
                    if let Some(bytes) = tools.scratch.get(..count) {
                        self.input.push(tools.epoll, bytes);
                    }
                }
                client::Read::Nothing => {}
                client::Read::End => {
                    if self.options.stdin_once && !self.options.terminal {
                        self.input.close_when_flushed(tools.epoll);
                    }
                }
            }
        }
    }

    fn drop_client(&mut self, epoll: &Epoll, id: u32) {
        if let Some(mut client) = self.clients.remove(&id) {
            client.close(epoll);
            if client.feeds_stdin() && self.options.stdin_once && !self.options.terminal {
                self.input.close_when_flushed(epoll);
            }
        }
    }

    /// Drops clients that are done and awaits the right events of everything else.
    fn settle(&mut self, tools: &mut Tools<'_>) {
        let done: Vec<u32> = self
            .clients
            .iter_mut()
            .filter_map(|(id, client)| client.is_done(tools.now).then_some(*id))
            .collect();
        for id in done {
            self.drop_client(tools.epoll, id);
        }
        if let Err(error) = self.refresh(tools.epoll) {
            crate::server::report(&format!("cannot wait for a stream: {error}"));
        }
    }

    /// Tells epoll what is awaited now.
    fn refresh(&mut self, epoll: &Epoll) -> std::io::Result<()> {
        let room = self.input.room();
        let mut result = Ok(());
        for output in &mut self.outputs {
            let stream = output.stream;
            let blocked = !self.gone && self.clients.values().any(|client| client.blocks(stream));
            result = result.and(output.refresh(epoll, blocked));
        }
        result = result.and(self.input.refresh(epoll));
        for client in self.clients.values_mut() {
            result = result.and(client.refresh(epoll, room));
        }
        result
    }
}

/// Logs what is left of the last line of an output that has ended.
fn flush_log(output: &mut Output, tools: &mut Tools<'_>, logged: bool) {
    if let (true, Some(log)) = (logged, tools.log.as_deref_mut()) {
        log.finish(output.stream, &mut output.lines, now_ns());
    }
}

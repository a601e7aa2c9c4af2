//! What the loop owns besides the sandbox: connections, hubs, the log.

use super::connection::Connection;
use super::report;
use super::token::{HUB_MASK, Token, hub_token};
use crate::hub::{Ends, Hub, HubOptions, Tools};
use crate::log::LogWriter;
use crate::sys::epoll::{self, Epoll, Registration};
use crate::sys::process::ChildSignal;
use gamut_abi::control::{Event, Reply};
use gamut_abi::wire;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

/// Output is read in pieces of at most this.
const CHUNK_BYTES: usize = 64 << 10;

/// See the module's text.
pub(super) struct Core {
    pub(super) epoll: Epoll,
    pub(super) children: ChildSignal,
    pub(super) connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    pub(super) hubs: BTreeMap<u32, Hub>,
    next_hub: u32,
    pub(super) log: Option<LogWriter>,
    scratch: Vec<u8>,
    /// Given up for a moment when descriptors run out.
    spare: Option<File>,
    /// A child may have ended without SIGCHLD telling.
    pub(super) children_due: bool,
}

impl Core {
    pub(super) fn new(epoll: Epoll, children: ChildSignal) -> std::io::Result<Self> {
        Registration::new(Token::Children.encode()).set(
            &epoll,
            children.descriptor(),
            Some(epoll::IN),
        )?;
        Ok(Self {
            epoll,
            children,
            connections: BTreeMap::new(),
            next_connection: 0,
            hubs: BTreeMap::new(),
            next_hub: 0,
            log: None,
            scratch: vec![0; CHUNK_BYTES],
            spare: File::open("/dev/null").ok(),
            children_due: false,
        })
    }

    /// Runs something that makes processes. They must not inherit a blocked SIGCHLD, and one that
    /// ends meanwhile does so unnoticed: it is looked for at the next tick.
    pub(super) fn make_process<T>(&mut self, make: impl FnOnce() -> T) -> T {
        self.children_due = true;
        self.children.unblocked(make)
    }

    /// Awaits input on a descriptor that lives as long as the loop.
    pub(super) fn watch(&self, token: Token, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        Registration::new(token.encode()).set(&self.epoll, fd, Some(epoll::IN))
    }

    pub(super) fn add_connection(&mut self, socket: OwnedFd) -> std::io::Result<u32> {
        while self.connections.contains_key(&self.next_connection) {
            self.next_connection = self.next_connection.wrapping_add(1);
        }
        let id = self.next_connection;
        self.next_connection = id.wrapping_add(1);
        let connection = Connection::new(socket, Token::Connection(id).encode(), &self.epoll)?;
        self.connections.insert(id, connection);
        Ok(id)
    }

    pub(super) fn close_connection(&mut self, id: u32) {
        if let Some(mut connection) = self.connections.remove(&id) {
            connection.close(&self.epoll);
        }
    }

    /// Answers a request; the connection may have gone meanwhile.
    pub(super) fn reply(&mut self, id: u32, reply: &Reply) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.busy = false;
        match wire::encode(reply) {
            Ok(frame) => connection.send(&frame),
            Err(error) => report(&format!("cannot encode a reply: {error}")),
        }
        self.settle_connection(id);
    }

    /// Tells one watcher.
    pub(super) fn tell(&mut self, id: u32, event: &Event) {
        match wire::encode(event) {
            Ok(frame) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.send(&frame);
                }
                self.settle_connection(id);
            }
            Err(error) => report(&format!("cannot encode an event: {error}")),
        }
    }

    /// Tells every watcher.
    pub(super) fn broadcast(&mut self, event: &Event) {
        let watchers: Vec<u32> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| connection.watcher.then_some(*id))
            .collect();
        for id in watchers {
            self.tell(id, event);
        }
    }

    /// Awaits the right events of a connection, or closes it if it is beyond help.
    pub(super) fn settle_connection(&mut self, id: u32) {
        if let Some(connection) = self.connections.get_mut(&id)
            && (connection.is_lost() || connection.refresh(&self.epoll).is_err())
        {
            self.close_connection(id);
        }
    }

    /// Makes a hub.
    ///
    /// # Errors
    /// Those of fcntl(2) and epoll_ctl(2).
    pub(super) fn add_hub(&mut self, ends: Ends, options: HubOptions) -> std::io::Result<u32> {
        while self.hubs.contains_key(&self.next_hub) {
            self.next_hub = self.next_hub.wrapping_add(1) & HUB_MASK;
        }
        let id = self.next_hub;
        self.next_hub = id.wrapping_add(1) & HUB_MASK;
        let hub = Hub::new(id, hub_token, ends, options, &self.epoll)?;
        self.hubs.insert(id, hub);
        Ok(id)
    }

    /// Does something with a hub, if it still exists.
    pub(super) fn with_hub<T>(
        &mut self,
        id: u32,
        work: impl FnOnce(&mut Hub, &mut Tools<'_>) -> T,
    ) -> Option<T> {
        let hub = self.hubs.get_mut(&id)?;
        let mut tools = Tools {
            epoll: &self.epoll,
            log: self.log.as_mut(),
            scratch: &mut self.scratch,
            now: Instant::now(),
        };
        Some(work(hub, &mut tools))
    }

    /// The hub has got all that will ever come (one that does not exist has).
    pub(super) fn is_drained(&self, id: u32) -> bool {
        self.hubs.get(&id).is_none_or(Hub::is_drained)
    }

    pub(super) fn close_hub(&mut self, id: u32) {
        if let Some(mut hub) = self.hubs.remove(&id) {
            hub.close(&self.epoll);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let log = self.log.as_ref().and_then(LogWriter::deadline);
        let hubs = self.hubs.values().filter_map(Hub::deadline);
        hubs.chain(log).min()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let due: Vec<u32> = self
            .hubs
            .iter()
            .filter_map(|(id, hub)| hub.deadline().is_some_and(|due| due <= now).then_some(*id))
            .collect();
        for id in due {
            self.with_hub(id, Hub::tick);
        }
        if let Some(log) = &mut self.log {
            log.settle(&self.epoll, now);
        }
    }

    /// Forgets hubs that have nothing left to do.
    pub(super) fn prune(&mut self) {
        let epoll = &self.epoll;
        self.hubs.retain(|_, hub| {
            let finished = hub.is_finished();
            if finished {
                hub.close(epoll);
            }
            !finished
        });
    }

    /// Runs `accept` with one more descriptor to spare and drops what it yields; false if there
    /// was no spare one.
    pub(super) fn with_spare<T>(&mut self, accept: impl FnOnce() -> T) -> bool {
        let had_spare = self.spare.take().is_some();
        drop(accept());
        self.spare = File::open("/dev/null").ok();
        had_spare
    }
}

//! A connection to systemd, and calls over it.
//!
//! Source: D-Bus Specification, "Authentication Protocol"; org.freedesktop.systemd1(5).

use super::wire::{self, FIXED_BYTES, Kind, Message, Target, Writer};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long systemd may take for one job. It has many at boot.
const TIMEOUT: Duration = Duration::from_secs(30);

/// systemd's own socket, for root alone, and the bus.
const PRIVATE_SOCKET: &str = "/run/systemd/private";
const BUS_SOCKET: &str = "/run/dbus/system_bus_socket";

const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// An error that systemd answered: its name and its words.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Why a call did not work.
#[derive(Debug)]
pub(crate) enum CallError {
    Transport(io::Error),
    Refused(Refusal),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Transport(error)
    }
}

/// A connection.
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    deadline: Instant,
    /// Jobs that ended while something else was waited for: path and result.
    ended: Vec<(String, String)>,
}

fn broken(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl Bus {
    /// Connects to systemd.
    pub(crate) fn connect() -> io::Result<Self> {
        match UnixStream::connect(PRIVATE_SOCKET) {
            Ok(stream) => Self::over(stream, false),
            Err(_) => Self::over(UnixStream::connect(BUS_SOCKET)?, true),
        }
    }

    /// Introduces itself; on a bus, asks to hear of jobs.
    pub(crate) fn over(stream: UnixStream, is_bus: bool) -> io::Result<Self> {
        let mut bus = Self {
            stream,
            serial: 0,
            deadline: Instant::now() + TIMEOUT,
            ended: Vec::new(),
        };
        bus.authenticate()?;
        if is_bus {
            bus.subscribe().map_err(|error| match error {
                CallError::Transport(error) => error,
                CallError::Refused(refusal) => io::Error::other(refusal.text),
            })?;
        }
        Ok(bus)
    }

    fn authenticate(&mut self) -> io::Result<()> {
        // SAFETY: cannot fail.
        let uid = unsafe { libc::geteuid() }.to_string();
        let hex: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.wait_no_longer()?;
        // In one piece, and no call before the answer: systemd overlooks a short message that it
        // reads together with BEGIN, until something else arrives.
        let hello = ["\0AUTH EXTERNAL ", &hex, "\r\nBEGIN\r\n"].concat();
        self.stream.write_all(hello.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0];
            self.wait_no_longer()?;
            self.stream.read_exact(&mut byte)?;
            answer.extend_from_slice(&byte);
            if answer.len() > 512 {
                return Err(broken("the answer to AUTH does not end"));
            }
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "systemd does not accept this user",
            ));
        }
        Ok(())
    }

    fn subscribe(&mut self) -> Result<(), CallError> {
        let daemon = |member| Target {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
        };
        self.call(&daemon("Hello"), "", &Writer::default())?;
        let mut rule = Writer::default();
        rule.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
        self.call(&daemon("AddMatch"), "s", &rule)?;
        self.manager("Subscribe", "", &Writer::default())?;
        Ok(())
    }

    /// Calls a method of systemd's manager, and answers the texts of its reply.
    pub(crate) fn manager(
        &mut self,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<Vec<String>, CallError> {
        let target = Target {
            destination: SYSTEMD,
            path: SYSTEMD_PATH,
            interface: MANAGER,
            member,
        };
        self.call(&target, signature, body)
    }

    fn call(
        &mut self,
        target: &Target<'_>,
        signature: &str,
        body: &Writer,
    ) -> Result<Vec<String>, CallError> {
        self.serial += 1;
        self.deadline = Instant::now() + TIMEOUT;
        let bytes = wire::call(self.serial, target, signature, body);
        self.wait_no_longer()?;
        self.stream.write_all(&bytes)?;
        loop {
            let message = self.receive()?;
            if message.reply_to != self.serial {
                continue;
            }
            match message.kind {
                Kind::Return => return Ok(message.texts),
                Kind::Error => {
                    return Err(CallError::Refused(Refusal {
                        text: message.texts.into_iter().next().unwrap_or_default(),
                        name: message.error_name,
                    }));
                }
                Kind::Call | Kind::Signal => {}
            }
        }
    }

    /// Waits for the end of a job and answers its result, `done` if all is well.
    pub(crate) fn wait_for_job(&mut self, job: &str) -> io::Result<String> {
        self.deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(at) = self.ended.iter().position(|(path, _)| path == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            self.receive()?;
        }
    }

    /// The next message. The end of a job is remembered.
    fn receive(&mut self) -> io::Result<Message> {
        let mut bytes = vec![0; FIXED_BYTES];
        self.fill(&mut bytes, 0)?;
        let start: &[u8; FIXED_BYTES] = bytes.first_chunk().ok_or_else(|| broken("no header"))?;
        let length = wire::message_length(start)
            .ok_or_else(|| broken("systemd sent something that is no message"))?;
        bytes.resize(length, 0);
        self.fill(&mut bytes, FIXED_BYTES)?;
        let message =
            wire::parse(&bytes).ok_or_else(|| broken("systemd sent a damaged message"))?;
        if message.kind == Kind::Signal
            && message.member == "JobRemoved"
            && let [job, _unit, result] = &message.texts[..]
        {
            self.ended.push((job.clone(), result.clone()));
        }
        Ok(message)
    }

    fn fill(&mut self, bytes: &mut [u8], from: usize) -> io::Result<()> {
        let mut at = from;
        while at < bytes.len() {
            self.wait_no_longer()?;
            match self.stream.read(&mut bytes[at..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => at += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets the next operation wait until the deadline, and not beyond.
    fn wait_no_longer(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))
    }
}

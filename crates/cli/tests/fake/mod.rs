//! A tiny HTTP server on a unix socket, one thread for each connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A request, its body read.
pub struct Request {
    pub method: String,
    pub path: String,
}

impl Request {
    /// The path without version prefix and query.
    pub fn route(&self) -> &str {
        let path = self.path.split('?').next().unwrap();
        path.strip_prefix("/v1.51").unwrap_or(path)
    }
}

/// What happened, in order; threads can wait for it.
#[derive(Default)]
pub struct Events {
    log: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Events {
    pub fn note(&self, what: &str) {
        self.log.lock().unwrap().push(what.to_owned());
        self.changed.notify_all();
    }

    pub fn count(&self, what: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|entry| *entry == what).count()
    }

    pub fn wait_for(&self, what: &str) {
        let log = self.log.lock().unwrap();
        let (_log, waited) = self
            .changed
            .wait_timeout_while(log, Duration::from_secs(10), |log| {
                !log.iter().any(|entry| entry == what)
            })
            .unwrap();
        assert!(!waited.timed_out(), "{what} did not happen");
    }
}

/// A running server.
pub struct Engine {
    directory: tempfile::TempDir,
    events: Arc<Events>,
}

impl Engine {
    /// Serves requests by `handle`, which returns whether the connection goes on.
    pub fn start(
        handle: impl Fn(&Request, &Events, &mut UnixStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("engine.sock")).unwrap();
        let events = Arc::new(Events::default());
        let (shared, handle) = (events.clone(), Arc::new(handle));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (events, handle) = (shared.clone(), handle.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &events, &*handle));
            }
        });
        Self { directory, events }
    }

    pub fn socket(&self) -> PathBuf {
        Path::new(self.directory.path()).join("engine.sock")
    }

    pub fn log(&self) -> Vec<String> {
        self.events.log.lock().unwrap().clone()
    }

    pub fn count(&self, what: &str) -> usize {
        self.events.count(what)
    }

    pub fn wait_for(&self, what: &str) {
        self.events.wait_for(what);
    }
}

fn serve(
    mut stream: UnixStream,
    events: &Events,
    handle: &(impl Fn(&Request, &Events, &mut UnixStream) -> bool + ?Sized),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split(' ');
        let request = Request {
            method: words.next().unwrap().to_owned(),
            path: words.next().unwrap().to_owned(),
        };
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let header = header.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        // Noted before it is handled: a handler may wait for its like.
        let is_start = request.route().ends_with("/start");
        if !is_start {
            events.note(&format!("{} {}", request.method, request.route()));
        }
        let goes_on = handle(&request, events, &mut stream);
        if is_start {
            events.note(&format!("{} {}", request.method, request.route()));
        }
        if !goes_on {
            return;
        }
    }
}

/// Answers with a JSON body; the connection goes on.
pub fn json(stream: &mut UnixStream, status: u16, body: &str) -> bool {
    // A client that has seen enough may be gone.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    true
}

/// Turns the connection into a raw stream.
pub fn upgrade(stream: &mut UnixStream) {
    stream
        .write_all(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        .unwrap();
}

/// A frame of the multiplexed stream.
pub fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

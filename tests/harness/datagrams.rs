//! A server of datagrams, for containers whose image has none.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::namespaces::enter;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Answering {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// Starts one at a port in a network namespace.
    ///
    /// # Panics
    /// If the port cannot be had.
    #[must_use]
    pub fn start(namespace: &File, port: u16) -> Self {
        let namespace = namespace.as_raw_fd();
        let socket = std::thread::scope(|scope| {
            let bound = scope.spawn(move || {
                enter(namespace).expect("the namespace can be entered");
                UdpSocket::bind(("0.0.0.0", port)).expect("the port is free")
            });
            bound.join().expect("no panic in it")
        });
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("not zero");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((count, from)) = socket.recv_from(&mut question) {
                    let answer = [b"answer to ", &question[..count]].concat();
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The socket holds the namespace: it must be closed before leaks are looked for.
            let _ = thread.join();
        }
    }
}

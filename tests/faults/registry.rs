//! A tiny registry on loopback, honest or not, in a daemon's network namespace.

use gamut_tests::Daemon;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::image::{OciImage, digest};

/// What the registry does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vice {
    /// Nothing, but it takes this many milliseconds for each 64 KiB.
    Slow(u64),
    /// Every blob of a layer has a bit flipped.
    WrongLayer,
    /// The configuration has a bit flipped.
    WrongConfig,
    /// Connections are cut in the middle of every layer, and no ranges are served.
    Cut,
    /// Layers are answered with more bytes than announced.
    Longer,
    /// What it answers is no HTTP.
    Garbage,
    /// The manifest is no JSON.
    BadManifest,
    /// The manifest names layers that are not there.
    Missing,
    /// It accepts and says nothing.
    Silent,
}

/// A registry that serves one image as `any/name:tag`.
pub struct Registry {
    pub address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Starts one in the daemon's network.
    pub fn start(daemon: &Daemon, image: &OciImage, vice: Vice) -> Self {
        let listener = daemon
            .namespaces()
            .inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let image = Arc::new(image.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (image, stopped) = (Arc::clone(&image), Arc::clone(&stopped));
                std::thread::spawn(move || {
                    let _ = serve(stream, &image, vice, &stopped);
                });
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Stops it.
    pub fn stop(mut self, daemon: &Daemon) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = daemon
            .namespaces()
            .inside(|| TcpStream::connect(&self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(
    stream: TcpStream,
    image: &OciImage,
    vice: Vice,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let blobs: BTreeMap<String, Vec<u8>> = image.blobs().into_iter().collect();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
        }
        match vice {
            Vice::Garbage => return stream.write_all(b"\x00\x01 no HTTP at all\r\n\r\n"),
            Vice::Silent => {
                while !stop.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Ok(());
            }
            _ => {}
        }
        let mut words = first.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut kind = "application/octet-stream";
        let mut is_layer = false;
        let found = if path.contains("/manifests/") {
            kind = "application/vnd.oci.image.manifest.v1+json";
            match vice {
                Vice::BadManifest => Some(b"{\"schemaVersion\": 2, \"layers\": [".to_vec()),
                _ => Some(image.manifest.clone()),
            }
        } else if path.contains("/blobs/") {
            is_layer = image.layers.iter().any(|layer| digest(layer) == name);
            blobs
                .get(&name)
                .cloned()
                .filter(|_| !(is_layer && vice == Vice::Missing))
        } else {
            Some(b"{}".to_vec())
        };
        let Some(mut body) = found else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")?;
            continue;
        };
        let is_config = name == digest(&image.config);
        if (is_layer && vice == Vice::WrongLayer) || (is_config && vice == Vice::WrongConfig) {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        let announced = body.len();
        if is_layer && vice == Vice::Longer {
            body.extend_from_slice(&[0; 4096]);
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {announced}\r\n\r\n"
        )?;
        if method == "HEAD" {
            continue;
        }
        if is_layer && vice == Vice::Cut {
            stream.write_all(&body[..body.len() / 2])?;
            return stream.shutdown(std::net::Shutdown::Both);
        }
        for chunk in body.chunks(64 * 1024) {
            stream.write_all(chunk)?;
            if let Vice::Slow(milliseconds) = vice {
                std::thread::sleep(Duration::from_millis(milliseconds));
            }
        }
    }
}

//! The forwarder: a process in the engine's network namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{Answer, Forward, Kind, Port, Refused, Request, list, route, socket, tcp, udp};
use crate::error::{Error, Result};
use crate::message::{self, Protocol};

/// The longest request.
const MAX_REQUEST_BYTES: u64 = 1 << 20;

/// One port that is served.
struct Served {
    forward: Forward,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ends the connections as well: their tasks hang on this one.
        self.task.abort();
    }
}

struct Forwarder {
    run: PathBuf,
    served: BTreeMap<Port, Served>,
}

/// Runs the forwarder of the engine with this run directory, for ever.
///
/// # Errors
/// Why it could not start.
pub fn run(run: &Path) -> Result<()> {
    if let Err(error) = route::set_up() {
        let error = gamut_spec::error::chain(&error);
        tracing::warn!(
            error,
            "published ports work, but workloads see the gateway's address as their clients'"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::system("start the runtime", source))?;
    runtime.block_on(serve(run))
}

async fn serve(run: &Path) -> Result<()> {
    let path = socket(run);
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .map_err(|source| Error::system(format!("listen at {}", path.display()), source))?;
    let mut forwarder = Forwarder {
        run: run.to_owned(),
        served: BTreeMap::new(),
    };
    forwarder.load();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = forwarder.attend(stream).await {
                    tracing::warn!(%error, "a request could not be read");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a request");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

impl Forwarder {
    /// Takes up the ports of a forwarder that was killed.
    fn load(&mut self) {
        let Ok(bytes) = fs::read(list(&self.run)) else {
            return;
        };
        let forwards: Vec<Forward> = serde_json::from_slice(&bytes).unwrap_or_default();
        for refused in self.replace(&forwards, true) {
            tracing::warn!("{}", refused.message);
        }
    }

    async fn attend(&mut self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut limited = (&mut stream).take(MAX_REQUEST_BYTES);
        let read = limited.read_to_end(&mut bytes);
        tokio::time::timeout(message::PATIENCE, read).await??;
        // Somebody only looks whether we are there.
        if bytes.is_empty() {
            return Ok(());
        }
        let request: Request = serde_json::from_slice(&bytes)?;
        let refused = self.replace(&request.forwards, request.lenient);
        let answer = serde_json::to_vec(&Answer { refused })?;
        stream.write_all(&answer).await
    }

    /// Makes `forwards` the ports that are served; if one cannot be had and that is no matter
    /// (`lenient`), all but that.
    fn replace(&mut self, forwards: &[Forward], lenient: bool) -> Vec<Refused> {
        let mut fresh = BTreeMap::new();
        let mut refused = Vec::new();
        for forward in forwards {
            let port = forward.port();
            let stays = self
                .served
                .get(&port)
                .is_some_and(|served| served.forward == *forward);
            if stays || fresh.contains_key(&port) {
                continue;
            }
            // The same port to another workload: the old one has to make room first.
            let replaced = self.served.remove(&port);
            match self.start(*forward) {
                Ok(served) => {
                    fresh.insert(port, served);
                }
                Err(error) => {
                    refused.push(Refused {
                        message: gamut_spec::error::chain(&error),
                        kind: Kind::from(error.kind()),
                    });
                    if let Some(replaced) = replaced {
                        self.served.insert(port, replaced);
                    }
                    if !lenient {
                        return refused;
                    }
                }
            }
        }
        let wanted: std::collections::BTreeSet<Port> = forwards.iter().map(Forward::port).collect();
        self.served.retain(|port, _| wanted.contains(port));
        self.served.append(&mut fresh);
        self.save();
        refused
    }

    fn start(&self, forward: Forward) -> Result<Served> {
        let socket = message::bind_on_host(
            &self.run,
            forward.protocol,
            forward.host_address,
            forward.host_port,
        )?;
        let failed = |source| Error::system("listen on a port of the host", source);
        let task = match forward.protocol {
            Protocol::Tcp => {
                let listener = std::net::TcpListener::from(socket);
                let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
                tokio::spawn(tcp::serve(listener, forward.target))
            }
            Protocol::Udp => {
                let host = std::net::UdpSocket::from(socket);
                let host = tokio::net::UdpSocket::from_std(host).map_err(failed)?;
                tokio::spawn(udp::serve(Arc::new(host), forward.target))
            }
        };
        Ok(Served { forward, task })
    }

    /// For a forwarder that takes our place.
    fn save(&self) {
        let forwards: Vec<Forward> = self.served.values().map(|served| served.forward).collect();
        let path = list(&self.run);
        let new = path.with_extension("new");
        let saved = serde_json::to_vec(&forwards)
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, &path));
        if let Err(error) = saved {
            tracing::warn!(%error, path = %path.display(), "cannot write the list of published ports");
        }
    }
}

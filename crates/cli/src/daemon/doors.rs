//! Where the daemon listens.

use crate::client::address::TlsOptions;
use crate::commands::daemon::DaemonArguments;
use crate::contexts::Store;
use crate::error::Error;
use gamut_docker_api::{Server, TlsFiles};
use std::ffi::CString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// Port of an engine behind TLS, as Docker's.
const TLS_PORT: u16 = 2376;

/// The doors of a daemon.
pub(super) struct Doors {
    sockets: Vec<PathBuf>,
    /// Who may use the sockets beside root.
    group: Option<u32>,
    tls: Vec<SocketAddr>,
    files: Option<TlsFiles>,
    metrics: Option<SocketAddr>,
}

impl Doors {
    /// Takes what the arguments say.
    ///
    /// # Errors
    /// Addresses that are none; TCP without mutual TLS.
    pub fn choose(arguments: &DaemonArguments, run_root: &Path) -> Result<Self, Error> {
        let mut doors = Self {
            sockets: Vec::new(),
            group: arguments.group.as_deref().map(group_id).transpose()?,
            tls: Vec::new(),
            files: None,
            metrics: arguments.metrics_addr,
        };
        let options = TlsOptions {
            verify: arguments.tlsverify,
            authority: arguments.tlscacert.clone(),
            certificate: arguments.tlscert.clone(),
            key: arguments.tlskey.clone(),
        };
        for host in &arguments.host {
            match host.split_once("://") {
                // Docker's word for the default one.
                Some(("unix", "")) => doors.sockets.push(run_root.join("gamut.sock")),
                Some(("unix", path)) if path.starts_with('/') => {
                    doors.sockets.push(PathBuf::from(path));
                }
                Some(("tcp", address)) => {
                    if !options.verify {
                        return Err(Error::Message(format!(
                            "cannot listen at {host}: whoever reaches the engine is root on this machine, so TCP needs mutual TLS: give --tlsverify with --tlscacert, --tlscert and --tlskey. From elsewhere, ssh:// reaches the unix socket without that"
                        )));
                    }
                    doors.tls.extend(addresses(host, address)?);
                }
                _ => {
                    return Err(Error::Message(format!(
                        "cannot listen at {host}: use unix:///PATH, or tcp://ADDRESS[:PORT] with --tlsverify"
                    )));
                }
            }
        }
        if arguments.host.is_empty() {
            doors.sockets.push(run_root.join("gamut.sock"));
        }
        if !doors.tls.is_empty() {
            let named = std::env::var_os("DOCKER_CERT_PATH").filter(|path| !path.is_empty());
            let directory =
                named.map_or_else(|| Store::open().configuration_directory(), PathBuf::from);
            doors.files = Some(options.files(&directory));
        }
        Ok(doors)
    }

    /// Listens everywhere.
    ///
    /// # Errors
    /// Naming the address.
    pub async fn open(&self) -> Result<Server, Error> {
        let mut server = Server::default();
        let failed =
            |place: String| move |error| Error::Message(format!("listen at {place}: {error}"));
        for socket in &self.sockets {
            let listening = server.listen_unix(socket, self.group);
            listening.map_err(failed(socket.display().to_string()))?;
        }
        if let Some(files) = &self.files {
            for address in &self.tls {
                let listening = server.listen_tls(*address, files).await;
                listening.map_err(failed(format!("tcp://{address}")))?;
            }
        }
        if let Some(address) = self.metrics {
            let listening = server.listen_metrics(address).await;
            listening.map_err(failed(format!("http://{address}")))?;
        }
        Ok(server)
    }
}

impl std::fmt::Display for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sockets = self
            .sockets
            .iter()
            .map(|path| format!("unix://{}", path.display()));
        let tls = self.tls.iter().map(|address| format!("tcp://{address}"));
        let metrics = self
            .metrics
            .iter()
            .map(|address| format!("http://{address}"));
        let all: Vec<String> = sockets.chain(tls).chain(metrics).collect();
        f.write_str(&all.join(" "))
    }
}

/// `ADDRESS:PORT`, or `ADDRESS` for the usual port.
fn addresses(host: &str, text: &str) -> Result<Vec<SocketAddr>, Error> {
    let with_port = match text.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => text.to_owned(),
        _ => format!("{text}:{TLS_PORT}"),
    };
    let found = with_port.to_socket_addrs();
    let found =
        found.map_err(|error| Error::Message(format!("cannot listen at {host}: {error}")))?;
    Ok(found.collect())
}

/// Number of a group given by name or number.
fn group_id(group: &str) -> Result<u32, Error> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let name = CString::new(group)
        .map_err(|_| Error::Message(format!("group {group:?} is no name of a group")))?;
    // SAFETY: `name` is a valid C string; the result points into static storage that is read at
    // once, before any thread that might call getgrnam as well is started.
    let entry = unsafe { libc::getgrnam(name.as_ptr()) };
    if entry.is_null() {
        return Err(Error::Message(format!("there is no group {group}")));
    }
    // SAFETY: not null, so it points to a valid `struct group`.
    Ok(unsafe { (*entry).gr_gid })
}

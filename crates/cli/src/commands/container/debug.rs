//! `debug`: GDB on the machine of a unikernel.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::client::{Client, Hijacked, Query};
use crate::commands::Verb;
use crate::error::Error;

/// Flags of `gamut debug`.
#[derive(Debug, Args)]
pub struct DebugArguments {
    /// Wait for another debugger at this address instead of running gdb
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// The unikernel
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

impl Verb for DebugArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        match &self.listen {
            Some(address) => listen(&client, &self.container, address).await,
            None => run_gdb(&client, &self.container).await,
        }
    }
}

/// Connects to the machine, which stops the guest.
async fn connect(client: &Client, container: &str) -> Result<Hijacked, Error> {
    let path = format!("/gamut/v1{}", super::path(container, "debug"));
    client.hijack(&path, &Query::new(), &Value::Null).await
}

async fn listen(client: &Client, container: &str, address: &str) -> Result<u8, Error> {
    let failed = |error: std::io::Error| Error::Message(format!("--listen {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    eprintln!("waiting for a debugger (in gdb: target remote {bound})");
    let (debugger, _) = listener.accept().await.map_err(failed)?;
    let machine = connect(client, container).await?;
    relay(machine, debugger).await;
    Ok(0)
}

async fn run_gdb(client: &Client, container: &str) -> Result<u8, Error> {
    // Before gdb is there, so that a refusal is told.
    let machine = connect(client, container).await?;
    let folder = Folder::make()?;
    let socket = folder.0.join("gdb.sock");
    let listener = UnixListener::bind(&socket)
        .map_err(|error| Error::Message(format!("listen on {}: {error}", socket.display())))?;
    let mut gdb = start_gdb(&socket)?;
    // Ctrl-C is for gdb, which passes it on to the guest.
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let ended = tokio::task::spawn_blocking(move || gdb.wait());
    tokio::pin!(ended);
    let status = tokio::select! {
        status = &mut ended => status,
        accepted = listener.accept() => {
            if let Ok((debugger, _)) = accepted {
                relay(machine, debugger).await;
            }
            ended.await
        }
    };
    let status = status
        .map_err(std::io::Error::other)
        .and_then(|status| status)
        .map_err(|error| Error::Message(format!("wait for gdb: {error}")))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}

fn start_gdb(socket: &Path) -> Result<std::process::Child, Error> {
    std::process::Command::new("gdb")
        .arg("-q")
        .arg("-ex")
        .arg(format!("target remote {}", socket.display()))
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Message(
                "gdb is not installed: install it, or use --listen ADDRESS:PORT for another \
                 debugger"
                    .to_owned(),
            ),
            _ => Error::Message(format!("run gdb: {error}")),
        })
}

/// Copies both ways until one of them has nothing more to say.
async fn relay(machine: Hijacked, debugger: impl AsyncRead + AsyncWrite) {
    let (mut from_debugger, mut to_debugger) = tokio::io::split(debugger);
    let Hijacked {
        mut reader,
        mut writer,
        ..
    } = machine;
    // Whichever way fails: the debugging is over.
    tokio::select! {
        _ = tokio::io::copy(&mut reader, &mut to_debugger) => {}
        _ = tokio::io::copy(&mut from_debugger, &mut writer) => {}
    }
    let _ = writer.shutdown().await;
    let _ = to_debugger.shutdown().await;
}

/// A directory that only this user can look into, which goes in the end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, Error> {
        let base =
            std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("gamut-debug-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Error::Message(format!("make {}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only the socket is in there.
        let _ = std::fs::remove_file(self.0.join("gdb.sock"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

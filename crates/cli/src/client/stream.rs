//! The bytes below HTTP: a unix socket, TLS over TCP, or a command's standard input and output.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use gamut_docker_api::TlsFiles;

/// A connection to an engine.
#[derive(Debug)]
pub enum Stream {
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// ssh(1), which ends with this.
    Command {
        /// Its standard input, until it is closed.
        input: Option<ChildStdin>,
        /// Its standard output.
        output: ChildStdout,
        /// The process; it is killed when this is dropped.
        _child: Box<Child>,
    },
}

/// Connects with mutual TLS.
///
/// # Errors
/// What is wrong with the files, the connection, or the server's certificate.
pub async fn connect_tls(host: &str, port: u16, files: &TlsFiles) -> io::Result<Stream> {
    let config = files.client().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(config));
    Ok(Stream::Tls(Box::new(
        connector.connect(name, stream).await?,
    )))
}

/// Starts `gamut system dial-stdio` on another machine.
///
/// # Errors
/// If ssh(1) cannot be started. What it says goes to standard error.
pub fn start_ssh(destination: &str, port: Option<u16>) -> io::Result<Stream> {
    let mut command = Command::new("ssh");
    // No terminal: what it asks for would get lost in the stream.
    command.arg("-T");
    if let Some(port) = port {
        command.arg("-p").arg(port.to_string());
    }
    let mut child = command
        .args(["--", destination, "gamut", "system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    Ok(Stream::Command {
        input: Some(child.stdin.take().ok_or_else(missing)?),
        output: child.stdout.take().ok_or_else(missing)?,
        _child: Box::new(child),
    })
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Command { output, .. } => Pin::new(output).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Command {
                input: Some(input), ..
            } => Pin::new(input).poll_write(context, bytes),
            Self::Command { input: None, .. } => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Command {
                input: Some(input), ..
            } => Pin::new(input).poll_flush(context),
            Self::Command { input: None, .. } => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            // A pipe has no half that could be shut down: it is closed.
            Self::Command { input, .. } => {
                *input = None;
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// A plain unix socket keeps its type: attached clients take it out of HTTP as it is.
pub enum Connected {
    /// A unix socket.
    Unix(UnixStream),
    /// Anything else.
    Other(Stream),
}

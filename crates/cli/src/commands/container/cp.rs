//! `cp`.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hyper::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{extract, path};
use crate::client::body::RequestBody;
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::{Verb, number, text};
use crate::error::Error;
use crate::output::print;
use crate::terminal::sink::Sink;

const STAT_HEADER: &str = "X-Docker-Container-Path-Stat";
const TAR_TYPE: &str = "application/x-tar";
/// Go's fs.ModeDir and fs.ModeSymlink, the form in which the API gives modes.
const MODE_DIRECTORY: i64 = 1 << 31;
const MODE_SYMLINK: i64 = 1 << 27;

/// Flags of `gamut cp`.
#[derive(Debug, Args)]
pub struct CpArguments {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    pub archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Suppress messages
    #[arg(short, long)]
    pub quiet: bool,
    /// CONTAINER:PATH, a local path, or - for a tar archive on standard input
    #[arg(value_name = "SRC_PATH")]
    pub source: String,
    /// CONTAINER:PATH, a local path, or - for a tar archive on standard output
    #[arg(value_name = "DEST_PATH")]
    pub target: String,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Container { name: String, path: String },
    Local(String),
    Stream,
}

impl Place {
    /// Docker's rule: `-` is a stream; an absolute path or one that starts with `.` is local, so
    /// that files with colons can be named; else the part before the first colon is a container.
    fn parse(text: &str) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        if text.starts_with(['/', '.']) {
            return Self::Local(text.to_owned());
        }
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !name.starts_with('.') => Self::Container {
                name: name.to_owned(),
                path: path.to_owned(),
            },
            _ => Self::Local(text.to_owned()),
        }
    }
}

impl Verb for CpArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       gamut cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        match (Place::parse(&self.source), Place::parse(&self.target)) {
            (Place::Container { name, path }, Place::Stream) => {
                self.copy_out_stream(&client, &name, &path).await
            }
            (Place::Container { name, path }, Place::Local(target)) => {
                self.copy_out(&client, &name, &path, &target).await
            }
            (Place::Stream, Place::Container { name, path }) => {
                self.copy_in_stream(&client, &name, &path).await
            }
            (Place::Local(source), Place::Container { name, path }) => {
                self.copy_in(&client, &source, &name, &path).await
            }
            (Place::Container { .. }, Place::Container { .. }) => Err(Error::Usage(
                "copying between containers is not supported".into(),
            )),
            _ => Err(Error::Usage(
                "must specify at least one container source".into(),
            )),
        }
    }
}

impl CpArguments {
    async fn copy_out_stream(
        &self,
        client: &Client,
        name: &str,
        source: &str,
    ) -> Result<u8, Error> {
        let source = self.resolve(client, name, source).await?;
        let query = Query::new().with("path", &source);
        let call = Call::new(Method::GET, &path(name, "archive"), &query);
        let mut stream = client.stream(call).await?;
        while let Some(bytes) = stream.next_bytes().await? {
            Sink::Stdout.write(&bytes).await?;
        }
        Ok(0)
    }

    async fn copy_out(
        &self,
        client: &Client,
        name: &str,
        source: &str,
        target: &str,
    ) -> Result<u8, Error> {
        let source = self.resolve(client, name, source).await?;
        let query = Query::new().with("path", &source);
        let call = Call::new(Method::GET, &path(name, "archive"), &query);
        let mut stream = client
            .stream(call)
            .await
            .map_err(|error| missing(error, name, &source))?;
        let stat = stream.header(STAT_HEADER).and_then(decode_stat);
        let is_directory = stat
            .as_ref()
            .is_some_and(|stat| number(stat, "mode") & MODE_DIRECTORY != 0);
        let wants_content = source.ends_with("/.") || source == ".";
        let (parent, base) = local_target(Path::new(target), is_directory, wants_content)?;
        let (sender, receiver) = mpsc::channel(4);
        let keeps_owner = self.archive;
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut reader = ChannelReader::new(receiver);
            let result = extract::unpack(&mut reader, &parent, base.as_deref(), keeps_owner);
            // The engine is not to be cut off in the middle of a good answer.
            let _ = io::copy(&mut reader, &mut io::sink());
            result
        });
        let mut failure = None;
        loop {
            match stream.next_bytes().await {
                Ok(Some(bytes)) => {
                    if sender.send(Ok(bytes.to_vec())).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let broken = io::Error::other("the connection broke");
                    let _ = sender.send(Err(broken)).await;
                    failure = Some(error);
                    break;
                }
            }
        }
        drop(sender);
        let result = unpacking
            .await
            .map_err(|error| Error::Message(error.to_string()))?;
        match failure {
            Some(error) => Err(error),
            None => result.map(|bytes| self.tell(bytes, target)),
        }
    }

    async fn copy_in_stream(&self, client: &Client, name: &str, target: &str) -> Result<u8, Error> {
        let body = RequestBody::from_reader(io::stdin());
        self.put(client, name, target, body).await?;
        Ok(0)
    }

    async fn copy_in(
        &self,
        client: &Client,
        source: &str,
        name: &str,
        target: &str,
    ) -> Result<u8, Error> {
        let wants_content = source.ends_with("/.") || source == ".";
        let is_marked_directory = source.ends_with('/') || wants_content;
        let source_path = PathBuf::from(source);
        let failed = || Error::io(format!("cannot read {source}"));
        let metadata = if self.follow_link || is_marked_directory {
            fs::metadata(&source_path)
        } else {
            fs::symlink_metadata(&source_path)
        }
        .map_err(failed())?;
        if is_marked_directory && !metadata.is_dir() {
            return Err(Error::Message(format!("{source} is not a directory")));
        }
        let canonical = if metadata.is_symlink() {
            source_path.clone()
        } else {
            fs::canonicalize(&source_path).map_err(failed())?
        };
        let base = canonical
            .file_name()
            .map_or_else(|| ".".into(), |name| name.to_string_lossy().into_owned());
        let (directory, entry) = self
            .container_target(
                client,
                name,
                target,
                metadata.is_dir(),
                wants_content,
                &base,
            )
            .await?;
        let follows = self.follow_link;
        let body = RequestBody::from_writer(move |pipe| {
            let mut builder = tar::Builder::new(io::BufWriter::new(pipe));
            builder.follow_symlinks(false);
            builder.mode(tar::HeaderMode::Complete);
            if metadata.is_dir() {
                builder.append_dir_all(&entry, &canonical)?;
            } else if follows {
                builder.append_file(&entry, &mut fs::File::open(&canonical)?)?;
            } else {
                builder.append_path_with_name(&canonical, &entry)?;
            }
            builder.into_inner()?.flush()
        });
        self.put(client, name, &directory, body).await?;
        Ok(0)
    }

    /// Where in the container to unpack, and the name of the archive's root there.
    async fn container_target(
        &self,
        client: &Client,
        name: &str,
        target: &str,
        source_is_directory: bool,
        wants_content: bool,
        base: &str,
    ) -> Result<(String, String), Error> {
        let mut target = target.to_owned();
        let mut stat = self.stat(client, name, &target).await?;
        // A link at the end of the target is followed, as by cp(1).
        if let Some(found) = &stat
            && number(found, "mode") & MODE_SYMLINK != 0
        {
            target = link_target(&target, text(found, "linkTarget"));
            stat = self.stat(client, name, &target).await?;
        }
        let Some(found) = stat else {
            if target.ends_with('/') && !source_is_directory {
                return Err(Error::Message(format!(
                    "no such directory: {name}:{target}"
                )));
            }
            let (parent, last) = split_last(&target);
            return Ok((parent, last));
        };
        if number(&found, "mode") & MODE_DIRECTORY != 0 {
            let entry = if source_is_directory && wants_content {
                "."
            } else {
                base
            };
            return Ok((target, entry.to_owned()));
        }
        if source_is_directory {
            return Err(Error::Message(format!(
                "cannot overwrite the file {name}:{target} with a directory"
            )));
        }
        Ok(split_last(&target))
    }

    async fn put(
        &self,
        client: &Client,
        name: &str,
        directory: &str,
        body: RequestBody,
    ) -> Result<(), Error> {
        let query = Query::new()
            .with("path", directory)
            .with("noOverwriteDirNonDir", "true")
            .flag("copyUIDGID", self.archive);
        let call = Call::new(Method::PUT, &path(name, "archive"), &query).body(TAR_TYPE, body);
        client.call(call).await?;
        Ok(())
    }

    /// With `-L`, the target of a link at the end of a path in the container.
    async fn resolve(&self, client: &Client, name: &str, source: &str) -> Result<String, Error> {
        if self.follow_link
            && let Some(stat) = self.stat(client, name, source).await?
            && number(&stat, "mode") & MODE_SYMLINK != 0
        {
            return Ok(link_target(source, text(&stat, "linkTarget")));
        }
        Ok(source.to_owned())
    }

    /// What is at a path in the container; `None` if nothing.
    async fn stat(
        &self,
        client: &Client,
        name: &str,
        source: &str,
    ) -> Result<Option<Value>, Error> {
        let query = Query::new().with("path", source);
        match client
            .head(&path(name, "archive"), &query, STAT_HEADER)
            .await
        {
            Ok(header) => Ok(header.as_deref().and_then(decode_stat)),
            Err(error) if error.status() == Some(404) => {
                // A HEAD does not say what is missing: if it is the container, ask with a body.
                client.get(&path(name, "json"), &Query::new()).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn tell(&self, bytes: u64, target: &str) -> u8 {
        use std::io::IsTerminal as _;
        if !self.quiet && io::stderr().is_terminal() {
            let size = crate::output::units::size_precise(i64::try_from(bytes).unwrap_or(i64::MAX));
            print::note(&format!("Successfully copied {size} to {target}"));
        }
        0
    }
}

fn missing(error: Error, name: &str, source: &str) -> Error {
    match error {
        Error::Api {
            status: 404,
            message,
        } if message.is_empty() => Error::Api {
            status: 404,
            message: format!("Could not find the file {source} in container {name}"),
        },
        other => other,
    }
}

/// Where to unpack on this machine, and what the archive's root is called there (`None`: its
/// content goes into the directory itself).
fn local_target(
    target: &Path,
    source_is_directory: bool,
    wants_content: bool,
) -> Result<(PathBuf, Option<PathBuf>), Error> {
    if target.is_dir() {
        if wants_content {
            return Ok((target.to_owned(), None));
        }
        // The name of the source, which the archive carries.
        return Ok((target.to_owned(), Some(PathBuf::new())));
    }
    let exists = fs::symlink_metadata(target).is_ok();
    if exists && source_is_directory {
        return Err(Error::Message(format!(
            "cannot copy a directory to the file {}",
            target.display()
        )));
    }
    let is_marked_directory = target.to_string_lossy().ends_with('/');
    if is_marked_directory && !source_is_directory {
        return Err(Error::Message(format!(
            "no such directory: {}",
            target.display()
        )));
    }
    let Some(name) = target.file_name() else {
        return Err(Error::Message(format!(
            "no such directory: {}",
            target.display()
        )));
    };
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    if !parent.is_dir() {
        return Err(Error::Message(format!(
            "no such directory: {}",
            parent.display()
        )));
    }
    Ok((parent, Some(PathBuf::from(name))))
}

fn split_last(path: &str) -> (String, String) {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some(("", last)) => ("/".into(), last.to_owned()),
        Some((parent, last)) => (parent.to_owned(), last.to_owned()),
        None => ("/".into(), trimmed.to_owned()),
    }
}

fn link_target(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let (parent, _) = split_last(link);
    format!("{}/{target}", parent.trim_end_matches('/'))
}

fn decode_stat(header: &str) -> Option<Value> {
    serde_json::from_slice(&decode_base64(header)?).ok()
}

/// RFC 4648, standard or URL-safe alphabet, padding optional.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut bits: u32 = 0;
    let mut count = 0;
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(decoded)
}

/// Reads what arrives on a channel.
struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
}

impl ChannelReader {
    fn new(receiver: mpsc::Receiver<io::Result<Vec<u8>>>) -> Self {
        Self {
            receiver,
            current: io::Cursor::default(),
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.current.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = io::Cursor::new(piece?),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let container = |name: &str, path: &str| Place::Container {
            name: name.into(),
            path: path.into(),
        };
        assert_eq!(Place::parse("c:/x"), container("c", "/x"));
        assert_eq!(Place::parse("c:x:y"), container("c", "x:y"));
        assert_eq!(Place::parse("./c:x"), Place::Local("./c:x".into()));
        assert_eq!(Place::parse("/c:x"), Place::Local("/c:x".into()));
        assert_eq!(Place::parse("file"), Place::Local("file".into()));
        assert_eq!(Place::parse("-"), Place::Stream);
    }

    #[test]
    fn paths_and_base64() {
        assert_eq!(split_last("/a/b/"), ("/a".into(), "b".into()));
        assert_eq!(split_last("/a"), ("/".into(), "a".into()));
        assert_eq!(split_last("a"), ("/".into(), "a".into()));
        assert_eq!(link_target("/a/l", "t"), "/a/t");
        assert_eq!(link_target("/l", "/t"), "/t");
        assert_eq!(decode_base64("eyJhIjoxfQ==").unwrap(), b"{\"a\":1}");
        assert_eq!(decode_base64("/+8").unwrap(), [0xff, 0xef]);
        assert_eq!(decode_base64("!"), None);
    }
}

//! `load`, `save` and `import`.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use gamut_spec::reference::Reference;
use hyper::Method;
use serde_json::Value;

use crate::client::body::RequestBody;
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::Verb;
use crate::error::Error;
use crate::output::print;
use crate::output::progress::Progress;
use crate::terminal::sink::Sink;

const TAR_TYPE: &str = "application/x-tar";

/// Flags of `gamut load`.
#[derive(Debug, Args)]
pub struct LoadArguments {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    pub quiet: bool,
}

impl Verb for LoadArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let body = match &self.input {
            Some(path) => RequestBody::from_reader(
                File::open(path).map_err(Error::io(format!("open {path}")))?,
            ),
            None if io::stdin().is_terminal() => {
                return Err(Error::Usage(
                    "requested load from stdin, but stdin is empty".into(),
                ));
            }
            None => RequestBody::from_reader(io::stdin()),
        };
        let query = Query::new().with("quiet", if self.quiet { "1" } else { "0" });
        let call = Call::new(Method::POST, "/images/load", &query).body(TAR_TYPE, body);
        let mut stream = client.stream(call).await?;
        let mut progress = if self.quiet {
            Progress::quiet()
        } else {
            Progress::new(false)
        };
        while let Some(message) = stream.next_json().await? {
            match message.get("stream").and_then(Value::as_str) {
                Some(text) => print::out(text)?,
                None => progress.take(&message)?,
            }
        }
        Ok(0)
    }
}

/// Flags of `gamut save`.
#[derive(Debug, Args)]
pub struct SaveArguments {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<String>,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

impl Verb for SaveArguments {
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        if self.output.is_none() && io::stdout().is_terminal() {
            return Err(Error::Usage(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect".into(),
            ));
        }
        let query = self
            .images
            .iter()
            .fold(Query::new(), |query, image| query.with("names", image));
        let call = Call::new(Method::GET, "/images/get", &query);
        receive(&client, call, self.output.as_deref()).await
    }
}

/// Receives an archive into a file, or to standard output.
///
/// # Errors
/// Connection failures, the engine's own errors, and files that cannot be written.
pub async fn receive(client: &Client, call: Call, output: Option<&str>) -> Result<u8, Error> {
    let mut stream = client.stream(call).await?;
    let Some(path) = output else {
        while let Some(bytes) = stream.next_bytes().await? {
            Sink::Stdout.write(&bytes).await?;
        }
        return Ok(0);
    };
    let mut target = Target::create(path)?;
    while let Some(bytes) = stream.next_bytes().await? {
        target
            .file
            .write_all(&bytes)
            .map_err(Error::io(format!("write {path}")))?;
    }
    target.finish()?;
    Ok(0)
}

/// A file that takes its name only when it is whole.
struct Target {
    path: String,
    temporary: Option<String>,
    file: File,
}

impl Target {
    fn create(path: &str) -> Result<Self, Error> {
        // A device or pipe (`-o /dev/stdout`) is written to, not replaced.
        let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        if is_special {
            let failed = Error::io(format!("open {path}"));
            let file = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(failed)?;
            return Ok(Self {
                path: path.to_owned(),
                temporary: None,
                file,
            });
        }
        let name = Path::new(path)
            .file_name()
            .ok_or_else(|| Error::Usage(format!("{path} is no name of a file")))?;
        let temporary = format!(".{}.{}", name.to_string_lossy(), std::process::id());
        let temporary = Path::new(path).with_file_name(temporary);
        let file = File::create_new(&temporary)
            .map_err(Error::io(format!("create {}", temporary.display())))?;
        Ok(Self {
            path: path.to_owned(),
            temporary: Some(temporary.to_string_lossy().into_owned()),
            file,
        })
    }

    fn finish(mut self) -> Result<(), Error> {
        if let Some(temporary) = self.temporary.take() {
            fs::rename(&temporary, &self.path)
                .map_err(Error::io(format!("write {}", self.path)))?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The failure that led here is the one to tell.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Flags of `gamut import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Set platform of the image (os/arch[/variant])
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// A tar archive, or - for standard input
    #[arg(value_name = "FILE|-", allow_hyphen_values = true)]
    pub file: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

impl Verb for ImportArguments {
    const USAGE: &'static str = "[OPTIONS] FILE|- [REPOSITORY[:TAG]]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let reference = match &self.reference {
            Some(text) => {
                Some(Reference::parse(text).map_err(|error| Error::Message(error.to_string()))?)
            }
            None => None,
        };
        let body = match self.file.as_str() {
            "-" => RequestBody::from_reader(io::stdin()),
            path => RequestBody::from_reader(
                File::open(path).map_err(Error::io(format!("open {path}")))?,
            ),
        };
        let name = reference.as_ref().map(Reference::familiar_name);
        let mut query = Query::new()
            .with("fromSrc", "-")
            .maybe("repo", name.as_deref())
            .maybe("tag", reference.as_ref().and_then(Reference::tag))
            .maybe("message", self.message.as_deref())
            .maybe("platform", self.platform.as_deref());
        for change in &self.change {
            query = query.with("changes", change);
        }
        let call = Call::new(Method::POST, "/images/create", &query).body(TAR_TYPE, body);
        let mut stream = client.stream(call).await?;
        let mut progress = Progress::new(false);
        while let Some(message) = stream.next_json().await? {
            progress.take(&message)?;
        }
        Ok(0)
    }
}

//! Verbs on unikernels.

mod files;

use std::fs::File;
use std::sync::Arc;

use clap::Args;
use hyper::Method;

use crate::client::body::RequestBody;
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::{Verb, text};
use crate::error::Error;
use crate::output::print;
use crate::parse::limits;

/// Flags of `gamut unikernel pack`.
#[derive(Debug, Args)]
pub struct PackArguments {
    /// Name of the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Option<String>,
    /// Make it the unikernel form of this image, under the same name or that of --tag
    #[arg(long, value_name = "IMAGE")]
    pub add_to: Option<String>,
    /// Argument that always follows the program's name
    #[arg(long, value_name = "TEXT")]
    pub arg: Vec<String>,
    /// Argument that follows unless `run` gives others
    #[arg(long, value_name = "TEXT")]
    pub cmd: Vec<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Set metadata on the image
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Port that it serves
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub expose: Vec<String>,
    /// Where it expects a block device
    #[arg(long, value_name = "PATH")]
    pub volume: Vec<String>,
    /// Memory it gets unless `run` says otherwise
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// File, or directory with what is in it, that the program can read; without PATH it is at /
    #[arg(long = "file", value_name = "SOURCE[:PATH]")]
    pub files: Vec<String>,
    /// The ELF file
    #[arg(value_name = "ELF")]
    pub file: String,
}

impl Verb for PackArguments {
    const USAGE: &'static str = "[OPTIONS] ELF";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let memory = self
            .memory
            .as_deref()
            .map(|text| limits::bytes("--memory", text))
            .transpose()?
            .map(|bytes| bytes.to_string());
        let mut query = Query::new()
            .maybe("name", self.tag.as_deref())
            .maybe("addTo", self.add_to.as_deref())
            .maybe("memory", memory.as_deref());
        for port in &self.expose {
            let protocol = if port.contains('/') { "" } else { "/tcp" };
            query = query.with("expose", &format!("{port}{protocol}"));
        }
        for (name, values) in [
            ("arg", &self.arg),
            ("cmd", &self.cmd),
            ("env", &self.env),
            ("label", &self.label),
            ("volume", &self.volume),
        ] {
            for value in values {
                query = query.with(name, value);
            }
        }
        let file = File::open(&self.file).map_err(Error::io(format!("open {}", self.file)))?;
        let call = Call::new(Method::POST, "/gamut/v1/unikernels", &query);
        let call = if self.files.is_empty() {
            call.body("application/octet-stream", RequestBody::from_reader(file))
        } else {
            let mut found = Vec::new();
            for source in &self.files {
                found.extend(files::find(source)?);
            }
            let body = RequestBody::from_writer(move |pipe| files::archive(file, &found, pipe));
            call.body("application/x-tar", body)
        };
        let made = client.call(call).await?;
        print::line(text(&made, "Id"))?;
        Ok(0)
    }
}

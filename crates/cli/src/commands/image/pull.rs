//! `pull`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::reference::Reference;
use hyper::Method;

use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::Verb;
use crate::credentials;
use crate::error::Error;
use crate::output::print;
use crate::output::progress::Progress;

/// Flags of `gamut pull`.
#[derive(Debug, Args)]
pub struct PullArguments {
    /// Set platform if the image has several (os/arch[/variant])
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    pub quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub image: String,
}

impl Verb for PullArguments {
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG|@DIGEST]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let reference = parse(&self.image)?;
        let (progress, names_tag) = if self.quiet {
            (Progress::quiet(), false)
        } else {
            (Progress::new(false), true)
        };
        pull(
            &client,
            &self.image,
            self.platform.as_deref(),
            names_tag,
            progress,
        )
        .await?;
        print::line(&reference.to_string())?;
        Ok(0)
    }
}

fn parse(image: &str) -> Result<Reference, Error> {
    Reference::parse(image).map_err(|error| Error::Message(error.to_string()))
}

/// Pulls an image, showing its progress.
///
/// # Errors
/// Bad references, connection failures, and what the engine tells in its stream.
pub async fn pull(
    client: &Client,
    image: &str,
    platform: Option<&str>,
    names_tag: bool,
    mut progress: Progress,
) -> Result<(), Error> {
    let reference = parse(image)?;
    if names_tag && reference.tag().is_some() && !image.contains('@') {
        let has_tag = image
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':'));
        if !has_tag {
            print::line("Using default tag: latest")?;
        }
    }
    let tag = reference.digest().or_else(|| reference.tag());
    let query = Query::new()
        .with("fromImage", &reference.familiar_name())
        .maybe("tag", tag)
        .maybe("platform", platform);
    let mut call = Call::new(Method::POST, "/images/create", &query);
    if let Some(header) = credentials::header_for(&reference)? {
        call = call.header(credentials::HEADER, &header);
    }
    let mut stream = client.stream(call).await?;
    while let Some(message) = stream.next_json().await? {
        progress.take(&message)?;
    }
    Ok(())
}

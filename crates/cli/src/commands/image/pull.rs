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
    /// Download all tagged images in the repository
    #[arg(short, long)]
    pub all_tags: bool,
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
        if self.all_tags && !Reference::is_bare(&self.image) {
            return Err(Error::Usage("tag can't be used with --all-tags/-a".into()));
        }
        let progress = if self.quiet {
            Progress::quiet()
        } else {
            Progress::new(false)
        };
        if self.all_tags {
            fetch(
                &client,
                &reference,
                None,
                self.platform.as_deref(),
                progress,
            )
            .await?;
            print::line(&reference.familiar_name())?;
            return Ok(0);
        }
        let names_tag = !self.quiet;
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
    progress: Progress,
) -> Result<(), Error> {
    let reference = parse(image)?;
    if names_tag && Reference::is_bare(image) {
        print::line("Using default tag: latest")?;
    }
    let tag = reference.digest().or_else(|| reference.tag());
    fetch(client, &reference, tag, platform, progress).await
}

/// All tags without a tag.
async fn fetch(
    client: &Client,
    reference: &Reference,
    tag: Option<&str>,
    platform: Option<&str>,
    mut progress: Progress,
) -> Result<(), Error> {
    let query = Query::new()
        .with("fromImage", &reference.familiar_name())
        .maybe("tag", tag)
        .maybe("platform", platform);
    let mut call = Call::new(Method::POST, "/images/create", &query);
    if let Some(header) = credentials::header_for(reference)? {
        call = call.header(credentials::HEADER, &header);
    }
    let mut stream = client.stream(call).await?;
    while let Some(message) = stream.next_json().await? {
        progress.take(&message)?;
    }
    Ok(())
}

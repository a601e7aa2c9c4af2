//! `push`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::reference::Reference;
use hyper::Method;

use super::path;
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::Verb;
use crate::credentials;
use crate::error::Error;
use crate::output::print;
use crate::output::progress::Progress;

/// Flags of `gamut push`.
#[derive(Debug, Args)]
pub struct PushArguments {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    pub quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    pub image: String,
}

impl Verb for PushArguments {
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let reference =
            Reference::parse(&self.image).map_err(|error| Error::Message(error.to_string()))?;
        let has_tag = !Reference::is_bare(&self.image);
        if self.all_tags && has_tag {
            return Err(Error::Usage("tag can't be used with --all-tags/-a".into()));
        }
        if !self.all_tags && !has_tag && !self.quiet {
            print::line("Using default tag: latest")?;
        }
        let tag = if self.all_tags {
            ""
        } else {
            reference.tag().unwrap_or("latest")
        };
        let query = Query::new().with("tag", tag);
        let header = credentials::header_for(&reference)?;
        let call = Call::new(
            Method::POST,
            &path(&reference.familiar_name(), "push"),
            &query,
        )
        // The engine wants one, however empty.
        .header(credentials::HEADER, header.as_deref().unwrap_or("e30="));
        let mut progress = if self.quiet {
            Progress::quiet()
        } else {
            Progress::new(false)
        };
        let mut stream = client.stream(call).await?;
        while let Some(message) = stream.next_json().await? {
            progress.take(&message)?;
        }
        if self.quiet {
            print::line(&reference.to_string())?;
        }
        Ok(0)
    }
}

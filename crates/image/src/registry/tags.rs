//! Which tags a repository has.
//!
//! Source: OCI distribution specification, "Listing Tags".

use std::collections::BTreeSet;

use gamut_spec::reference::Reference;
use serde::Deserialize;

use super::client::Client;
use super::connection::{header_text, read_limited};
use super::download::retrying;
use super::{PullOptions, sources::Sources};
use crate::error::{Error, Result};
use crate::progress::NoProgress;

const PAGE: &str = "1000";
const MAX_PAGE_BYTES: u64 = 4 << 20;
/// More than any repository that somebody pulls whole.
const MAX_TAGS: usize = 100_000;

#[derive(Deserialize)]
struct Page {
    /// `null` where there are none.
    tags: Option<Vec<String>>,
}

/// All tags of a reference's repository, sorted. The reference's own is not looked at.
///
/// # Errors
/// [`Error::Registry`] if there is no such repository or it cannot be asked; [`Error::Malformed`]
/// if its answer makes no sense.
pub fn tags(reference: &Reference, options: &PullOptions) -> Result<Vec<String>> {
    let sources = Sources::new(reference, options)?;
    sources.first(|client| retrying(&NoProgress, || all_pages(client)))
}

fn all_pages(client: &Client) -> Result<Vec<String>> {
    let object = format!("{}: list of tags", client.connection.object);
    let mut tags = BTreeSet::new();
    let first = client.url("tags/list").with_query("n", PAGE);
    let mut url = first.clone();
    loop {
        let mut answer = client.get(&url, &[])?;
        let is_last = header_text(&answer, "link").is_none();
        let body = read_limited(&mut answer, MAX_PAGE_BYTES, &object, "4 MiB for a page")?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|error| Error::malformed(&object, format!("no list: {error}")))?;
        let page = page.tags.unwrap_or_default();
        let last = page.last().cloned();
        let before = tags.len();
        tags.extend(page);
        if tags.len() > MAX_TAGS {
            return Err(Error::malformed(&object, "more than 100,000 tags"));
        }
        match last {
            // A server that sends the same page for ever does not hold us.
            Some(last) if !is_last && tags.len() > before => {
                url = first.with_query("last", &last);
            }
            _ => return Ok(tags.into_iter().collect()),
        }
    }
}

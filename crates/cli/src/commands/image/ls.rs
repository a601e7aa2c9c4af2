//! `images`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::client::{Client, Query};
use crate::commands::{Verb, list, number, text};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::{print, units};
use crate::parse::filter;

/// Fields and headers of images.
pub const HEADERS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "VIRTUAL SIZE"),
    ("Forms", "FORMS"),
];
const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_WITH_DIGEST: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const TABLE_WITH_FORMS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.Forms}}";
const TABLE_WITH_BOTH: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.Forms}}";
const LINUX: &str = "linux";
const UNIKERNEL: &str = "unikernel";
const NONE: &str = "<none>";

/// Flags of `gamut images`.
#[derive(Debug, Args)]
pub struct ImagesArguments {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    pub all: bool,
    /// Show digests
    #[arg(long)]
    pub digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// Only images with this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

impl Verb for ImagesArguments {
    const USAGE: &'static str = "[OPTIONS] [REPOSITORY[:TAG]]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let mut filters = self.filter.clone();
        filters.extend(
            self.reference
                .iter()
                .map(|name| format!("reference={name}")),
        );
        let filters = filter::parse(&filters)?;
        let query = Query::new()
            .flag("all", self.all)
            .maybe("filters", filters.as_deref());
        let images = client.get("/images/json", &query).await?;
        let images = images.as_array().map(Vec::as_slice).unwrap_or_default();
        let shows_digests = self.digests
            || self
                .format
                .as_ref()
                .is_some_and(|format| format.contains(".Digest"));
        let rows: Vec<Row> = images
            .iter()
            .flat_map(|image| rows(image, shows_digests, self.no_trunc))
            .collect();
        // Where there are images for Linux only, the table is the one that people know.
        let shows_forms = rows.iter().any(|row| row.text("Forms") != LINUX);
        let layout = Layout {
            table: match (self.digests, shows_forms) {
                (false, false) => TABLE,
                (true, false) => TABLE_WITH_DIGEST,
                (false, true) => TABLE_WITH_FORMS,
                (true, true) => TABLE_WITH_BOTH,
            },
            headers: HEADERS,
        };
        let format = match (&self.format, self.quiet) {
            (None, true) => Some("{{.ID}}"),
            (Some(format), true) if format.starts_with("table") => Some("{{.ID}}"),
            (format, _) => format.as_deref(),
        };
        print::out(&render(format, &layout, &rows)?)?;
        Ok(0)
    }
}

/// One row for each name of an image; an image without name has one row.
#[must_use]
pub fn rows(image: &Value, shows_digests: bool, is_full: bool) -> Vec<Row> {
    let strings = |name: &str| -> Vec<&str> {
        list(image, name)
            .iter()
            .filter_map(Value::as_str)
            .filter(|text| !text.starts_with("<none>"))
            .collect()
    };
    let digests = strings("RepoDigests");
    let digest_of = |repository: &str| {
        digests
            .iter()
            .filter_map(|text| text.split_once('@'))
            .find(|(name, _)| *name == repository)
            .map_or(NONE, |(_, digest)| digest)
    };
    let mut names: Vec<(&str, &str, &str)> = strings("RepoTags")
        .into_iter()
        .filter_map(|text| text.rsplit_once(':'))
        .map(|(repository, tag)| (repository, tag, digest_of(repository)))
        .collect();
    if names.is_empty() {
        names = digests
            .iter()
            .filter_map(|text| text.split_once('@'))
            .map(|(repository, digest)| (repository, NONE, digest))
            .collect();
        if !shows_digests {
            names.dedup_by_key(|(repository, _, _)| *repository);
        }
    }
    if names.is_empty() {
        names.push((NONE, NONE, NONE));
    }
    names
        .into_iter()
        .map(|(repository, tag, digest)| row(image, repository, tag, digest, is_full))
        .collect()
}

/// The forms in which a program is under a name.
fn forms(image: &Value, name: &str) -> String {
    let own = match text(image, "Form") {
        "" => LINUX,
        form => form,
    };
    let has_unikernel = image
        .get("Unikernels")
        .is_some_and(|unikernels| unikernels.get(name).is_some());
    if has_unikernel {
        format!("{own}, {UNIKERNEL}")
    } else {
        own.to_owned()
    }
}

fn row(image: &Value, repository: &str, tag: &str, digest: &str, is_full: bool) -> Row {
    let (id, created) = (text(image, "Id"), number(image, "Created"));
    let size = number(image, "Size");
    let optional = |name: &str| match number(image, name) {
        unknown if unknown < 0 => "N/A".to_owned(),
        bytes => units::size_precise(bytes),
    };
    let shared = number(image, "SharedSize");
    let unique = if shared < 0 { -1 } else { size - shared };
    let containers = match image.get("Containers").and_then(Value::as_i64) {
        Some(count) if count >= 0 => count.to_string(),
        _ => "N/A".to_owned(),
    };
    Row::new()
        .with("Repository", repository)
        .with("Tag", tag)
        .with("Digest", digest)
        .with("ID", if is_full { id } else { units::short_id(id) })
        .with("CreatedSince", units::ago(created))
        .with("CreatedAt", units::local_time(created))
        .with("Size", units::size(size))
        .with("Containers", containers)
        .with("SharedSize", optional("SharedSize"))
        .with("UniqueSize", units::size_precise(unique))
        .with("VirtualSize", units::size_precise(size))
        .with("Forms", forms(image, &format!("{repository}:{tag}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_images() {
        let image = json!({
            "Id": "sha256:0123456789abcdef", "Created": 1, "Size": 4_860_000, "SharedSize": -1,
            "Containers": -1, "RepoTags": ["localhost:5000/a:1", "b:2"],
            "RepoDigests": ["b@sha256:dd"]
        });
        let rows = rows(&image, false, false);
        let texts: Vec<[&str; 4]> = rows
            .iter()
            .map(|row| ["Repository", "Tag", "Digest", "ID"].map(|name| row.text(name)))
            .collect();
        assert_eq!(
            texts,
            [
                ["localhost:5000/a", "1", "<none>", "0123456789ab"],
                ["b", "2", "sha256:dd", "0123456789ab"]
            ]
        );
        assert_eq!(rows[0].text("Size"), "4.86MB");
        assert_eq!(rows[0].text("Forms"), "linux");
        let both = json!({
            "Id": "sha256:0", "RepoTags": ["a:1", "a:2"], "Form": "linux",
            "Unikernels": {"a:2": "sha256:1"}
        });
        let texts: Vec<String> = super::rows(&both, false, false)
            .iter()
            .map(|row| row.text("Forms").to_owned())
            .collect();
        assert_eq!(texts, ["linux", "linux, unikernel"]);
        let bare = super::rows(
            &json!({"Id": "sha256:0", "RepoTags": ["<none>:<none>"]}),
            false,
            false,
        );
        assert_eq!(bare[0].text("Repository"), "<none>");
    }
}

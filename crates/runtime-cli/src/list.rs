//! `list` and `state`.

use crate::arguments::List;
use crate::error::Error;
use crate::print;
use crate::state::{Container, OCI_VERSION, Root, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A container as callers read it (runtime-spec, runtime.md, "State"), in runc's order, with what
/// runc adds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    oci_version: &'a str,
    id: &'a str,
    /// "MAY be absent or zero if the container has stopped"; callers expect the number.
    pid: u32,
    status: &'a str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

impl<'a> View<'a> {
    fn new(container: &'a Container, status: Status) -> Self {
        let record = &container.record;
        View {
            oci_version: OCI_VERSION,
            id: &record.id,
            pid: container.process.as_ref().map_or(0, |found| found.pid),
            status: status.word(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: gamut_spec::time::rfc3339(record.created_ns),
            annotations: &record.annotations,
            owner: owner(&container.directory),
        }
    }
}

/// Who owns the state directory: a name of the host's, or `#` and the id.
fn owner(directory: &Path) -> String {
    let Ok(metadata) = fs::metadata(directory) else {
        return String::new();
    };
    let uid = metadata.uid().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Shows a container.
///
/// # Errors
/// If there is none, or its state cannot be read.
pub fn state(root: &Root<'_>, id: &str) -> Result<(), Error> {
    let container = root.find(id)?;
    let view = View::new(&container, container.status_with_freezer()?);
    let text = serde_json::to_string_pretty(&view).map_err(|error| Error::Output(error.into()))?;
    print(&format!("{text}\n"))
}

/// Lists all containers.
///
/// # Errors
/// If the root or a state in it cannot be read.
pub fn list(root: &Root<'_>, options: &List) -> Result<(), Error> {
    let mut containers = Vec::new();
    for id in root.ids()? {
        match root.find(&id) {
            Ok(container) => containers.push(container),
            // Deleted meanwhile.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if options.quiet {
        let ids: String = containers
            .iter()
            .map(|container| format!("{}\n", container.record.id))
            .collect();
        return print(&ids);
    }
    let views = containers
        .iter()
        .map(|container| Ok(View::new(container, container.status_with_freezer()?)))
        .collect::<Result<Vec<_>, Error>>()?;
    if options.json {
        let text = serde_json::to_string(&views).map_err(|error| Error::Output(error.into()))?;
        return print(&format!("{text}\n"));
    }
    print(&table(&views))
}

fn table(views: &[View<'_>]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(views.iter().map(|view| {
        [
            view.id.to_owned(),
            view.pid.to_string(),
            view.status.to_owned(),
            view.bundle.display().to_string(),
            view.created.clone(),
            view.owner.clone(),
        ]
    }));
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max();
        (longest.unwrap_or(0) + 3).max(12)
    });
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

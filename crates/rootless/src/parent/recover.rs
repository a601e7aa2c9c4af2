//! Finding the namespaces again after the process outside was killed: workloads still live there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::namespaces::Namespaces;

const KINDS: [&str; 3] = ["user", "mnt", "net"];

fn path(directory: &Path) -> PathBuf {
    directory.join("namespaces")
}

/// Writes down which namespaces the engine's are.
pub(super) fn note(directory: &Path, namespaces: &Namespaces) -> Result<()> {
    let names = namespaces
        .names()
        .map_err(|source| Error::system("look at the namespaces", source))?;
    let path = path(directory);
    let new = path.with_extension("new");
    let text = format!("{}\n{}\n", boot_id(), names.join("\n"));
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|source| Error::system(format!("write {}", path.display()), source))
}

/// The namespaces that were noted, if a process of this user still lives in all of them: the
/// forwarder or a supervisor.
pub(super) fn find(directory: &Path) -> Option<Namespaces> {
    let text = fs::read_to_string(path(directory)).ok()?;
    let mut lines = text.lines();
    if lines.next()? != boot_id() {
        return None;
    }
    let noted: Vec<&str> = lines.collect();
    if noted.len() != KINDS.len() {
        return None;
    }
    // SAFETY: geteuid(2) only returns a number.
    let uid = unsafe { libc::geteuid() };
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if entry.metadata().is_ok_and(|metadata| metadata.uid() != uid) {
            continue;
        }
        let lives_there = KINDS.iter().zip(&noted).all(|(kind, noted)| {
            fs::read_link(entry.path().join("ns").join(kind))
                .is_ok_and(|link| link.to_str() == Some(*noted))
        });
        if !lives_there {
            continue;
        }
        // It may have ended, and its number been given to another, since.
        if let Ok(namespaces) = Namespaces::of(pid)
            && namespaces.names().is_ok_and(|names| names == noted)
        {
            return Some(namespaces);
        }
    }
    None
}

fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

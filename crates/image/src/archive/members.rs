//! The members of an archive, taken in while it streams, in whatever order they come.

use std::collections::{HashMap, VecDeque};
use std::io::Read;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{MAX_CONFIG_BYTES, MAX_LAYER_BLOB_BYTES};
use crate::pipeline::{LayerWriter, PendingLayer, StagedLayer};
use crate::progress::{Progress, Step, report};
use crate::store::ImageStore;
use crate::store::incoming::Incoming;
use crate::tar::{Entry, Kind, Limits, Reader};

/// Members up to this size are held in memory; beyond, they can only be layers.
const SMALL_BYTES: u64 = 256 * 1024;
/// All that is held in memory.
const MAX_SMALL_TOTAL_BYTES: u64 = 128 * 1024 * 1024;
/// An image archive has a few members per layer.
const MAX_MEMBERS: usize = 100_000;
/// Layers that may lag behind the stream with their unpacking.
const MAX_PENDING: usize = 3;
const MAX_LINKS: usize = 8;

/// What an archive holds.
pub(super) struct Members {
    members: HashMap<String, Member>,
    small_bytes: u64,
}

enum Member {
    Small(Vec<u8>),
    /// A layer taken in, or why it could not be: that matters only if it is asked for.
    Layer {
        raw: (Digest, u64),
        staged: Box<Result<StagedLayer>>,
    },
    /// A layer taken before, or found in the store by the digest in its name.
    Taken {
        diff_id: Digest,
        raw: (Digest, u64),
    },
    Link(String),
}

/// A layer of an archive.
pub(super) struct Taken {
    pub(super) diff_id: Digest,
    /// Digest and length as it stands in the archive.
    pub(super) raw: (Digest, u64),
}

impl Members {
    /// Reads a whole archive. Large members are unpacked as layers while they stream.
    pub(super) fn read(
        store: &ImageStore,
        incoming: &mut Incoming<'_>,
        reader: impl Read,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let tar_error = |source| Error::Tar {
            object: "image archive".to_owned(),
            source,
        };
        let mut archive = Reader::new(reader, Limits::default());
        let mut this = Self {
            members: HashMap::new(),
            small_bytes: 0,
        };
        let mut pending: VecDeque<(String, PendingLayer)> = VecDeque::new();
        while let Some(entry) = archive.next_entry().map_err(tar_error)? {
            if progress.is_cancelled() {
                return Err(Error::Cancelled("load".to_owned()));
            }
            let name = normalize(&entry.path);
            match entry.kind {
                Kind::Symlink => {
                    let link = String::from_utf8_lossy(&entry.link);
                    let target = match name.rsplit_once('/') {
                        Some((dir, _)) if !link.starts_with('/') => format!("{dir}/{link}"),
                        _ => link.into_owned(),
                    };
                    this.insert(name, Member::Link(normalize(target.as_bytes())))?;
                }
                Kind::HardLink => {
                    this.insert(name, Member::Link(normalize(&entry.link)))?;
                }
                Kind::File => {
                    this.read_file(
                        store,
                        incoming,
                        &mut archive,
                        &entry,
                        name,
                        &mut pending,
                        progress,
                    )?;
                }
                _ => {}
            }
        }
        while let Some((name, layer)) = pending.pop_front() {
            this.settle(name, layer)?;
        }
        Ok(this)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of a loop, with its state"
    )]
    fn read_file(
        &mut self,
        store: &ImageStore,
        incoming: &mut Incoming<'_>,
        archive: &mut Reader<impl Read>,
        entry: &Entry,
        name: String,
        pending: &mut VecDeque<(String, PendingLayer)>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let read_error = |source| Error::Read {
            what: format!("image archive: {}", entry.path.escape_ascii()),
            source,
        };
        let mut first = Vec::new();
        archive
            .take(SMALL_BYTES)
            .read_to_end(&mut first)
            .map_err(read_error)?;
        let is_document = matches!(first.first(), Some(b'{' | b'['))
            && first.get(257..262) != Some(b"ustar")
            && entry.size_bytes <= MAX_CONFIG_BYTES;
        if is_document {
            archive.read_to_end(&mut first).map_err(read_error)?;
        }
        if is_document || entry.size_bytes <= SMALL_BYTES {
            self.small_bytes += first.len() as u64;
            if self.small_bytes > MAX_SMALL_TOTAL_BYTES {
                return Err(Error::TooLarge {
                    object: "image archive: all small members together".to_owned(),
                    limit: "128 MiB".to_owned(),
                });
            }
            return self.insert(name, Member::Small(first));
        }
        if entry.size_bytes > MAX_LAYER_BLOB_BYTES {
            return Err(Error::TooLarge {
                object: format!("image archive: {name}"),
                limit: "256 GiB for a layer".to_owned(),
            });
        }
        if let Some(digest) = digest_in_name(&name)
            && let Some(diff_id) = stored_layer(store, &digest)
            && incoming.reuse_layer(&diff_id)
        {
            let raw = (digest, entry.size_bytes);
            return self.insert(name, Member::Taken { diff_id, raw });
        }
        while pending.len() >= MAX_PENDING {
            if let Some((name, layer)) = pending.pop_front() {
                self.settle(name, layer)?;
            }
        }
        let id: String = name
            .rsplit('/')
            .find(|part| part.len() >= 32)
            .unwrap_or(&name)
            .chars()
            .take(12)
            .collect();
        let mut writer = LayerWriter::new(&store.layout, &format!("image archive: {name}"));
        writer.write(&first)?;
        drop(first);
        let mut reported_bytes = 0;
        writer.copy_from(archive, &mut |current_bytes| {
            if progress.is_cancelled() {
                return Err(Error::Cancelled("load".to_owned()));
            }
            if current_bytes >= reported_bytes + REPORT_BYTES || current_bytes == entry.size_bytes {
                reported_bytes = current_bytes;
                report(
                    progress,
                    &id,
                    Step::Loading {
                        current_bytes,
                        total_bytes: entry.size_bytes,
                    },
                );
            }
            Ok(())
        })?;
        pending.push_back((name, writer.finish()?));
        Ok(())
    }

    fn insert(&mut self, name: String, member: Member) -> Result<()> {
        if self.members.len() >= MAX_MEMBERS {
            return Err(Error::TooLarge {
                object: "image archive".to_owned(),
                limit: format!("{MAX_MEMBERS} members"),
            });
        }
        self.members.insert(name, member);
        Ok(())
    }

    fn settle(&mut self, name: String, layer: PendingLayer) -> Result<()> {
        let raw = layer.raw;
        let staged = match layer.wait() {
            // A full disk ends the load at once; it has nothing to do with this member.
            Err(error) if error.is_disk_full() || matches!(error, Error::Io { .. }) => {
                return Err(error);
            }
            staged => Box::new(staged),
        };
        self.insert(name, Member::Layer { raw, staged })
    }

    fn resolve(&self, name: &str) -> String {
        let mut name = normalize(name.as_bytes());
        for _ in 0..MAX_LINKS {
            match self.members.get(&name) {
                Some(Member::Link(target)) => name.clone_from(target),
                _ => break,
            }
        }
        name
    }

    /// A small member, if there is one of that name.
    pub(super) fn document(&self, name: &str) -> Option<&[u8]> {
        match self.members.get(&self.resolve(name)) {
            Some(Member::Small(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// A small member that something else in the archive names.
    pub(super) fn required(&self, name: &str) -> Result<&[u8]> {
        self.document(name).ok_or_else(|| {
            Error::malformed(
                "image archive",
                format!(
                    "{name} is named but missing (or larger than 8 MiB); the archive is incomplete"
                ),
            )
        })
    }

    /// Hands a layer to `incoming`. May be asked again for the same.
    pub(super) fn take_layer(
        &mut self,
        store: &ImageStore,
        incoming: &mut Incoming<'_>,
        name: &str,
    ) -> Result<Taken> {
        let resolved = self.resolve(name);
        let missing = || {
            Error::malformed(
                "image archive",
                format!("layer {name} is named but missing; the archive is incomplete"),
            )
        };
        let (raw, staged) = match self.members.remove(&resolved).ok_or_else(missing)? {
            Member::Taken { diff_id, raw } => {
                self.members
                    .insert(resolved, Member::Taken { diff_id, raw });
                return Ok(Taken { diff_id, raw });
            }
            Member::Layer { raw, staged } => (raw, (*staged)?),
            Member::Small(bytes) => {
                let mut writer = LayerWriter::new(&store.layout, &format!("image archive: {name}"));
                writer.write(&bytes)?;
                let pending = writer.finish()?;
                // Documents stay: something may be both, as an empty layer of two zero blocks is.
                (pending.raw, pending.wait()?)
            }
            Member::Link(_) => return Err(missing()),
        };
        if let Some(expected) = digest_in_name(&resolved)
            && expected != raw.0
        {
            return Err(Error::DigestMismatch {
                object: format!("image archive: {name}"),
                expected: expected.to_string(),
                actual: raw.0.to_string(),
            });
        }
        let diff_id = incoming.add_layer(staged).diff_id;
        self.members
            .insert(resolved, Member::Taken { diff_id, raw });
        Ok(Taken { diff_id, raw })
    }
}

/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 4 * 1024 * 1024;

fn stored_layer(store: &ImageStore, digest: &Digest) -> Option<Digest> {
    let state = store.shared.state();
    let found = state
        .records
        .layer_by_blob(digest)
        .or_else(|| state.records.layer_by_diff_id(digest))?;
    Some(found.diff_id)
}

/// The digest that a member of an OCI layout is named by.
pub(super) fn digest_in_name(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?)
}

/// A name without `./`, `//` and `..`.
fn normalize(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

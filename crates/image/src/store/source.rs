//! Where the plain archive of a stored layer comes from: its blob, or its recipe and files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{ImageStore, Key, Lease};
use crate::assembly::Assembled;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::records::LayerRecord;

/// Where the plain archive of a layer comes from.
pub(crate) struct LayerSource {
    pub(crate) record: LayerRecord,
    blob: PathBuf,
    /// The unpacked files that the recipe needs.
    files: Option<PathBuf>,
    /// Keeps files of another image's layer from being swept.
    _lease: Option<Lease>,
}

impl LayerSource {
    /// The layer `record` in `blob`; if that is a recipe, with the unpacked files in `files`.
    pub(crate) fn new(record: &LayerRecord, blob: PathBuf, files: &Path) -> Self {
        Self {
            record: record.clone(),
            blob,
            files: record.is_recipe.then(|| files.to_owned()),
            _lease: None,
        }
    }

    /// Reads the plain archive. Whether it is what the diff id promises is the reader's to check.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>> {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let blob = File::open(&self.blob)?;
            match &self.files {
                None => self.record.compression.file_decoder(blob),
                Some(files) => {
                    let root = OwnedFd::from(File::open(files)?);
                    let label = format!("layer {}", self.record.diff_id);
                    Ok(Box::new(Assembled::new(blob, root, &label)?))
                }
            }
        };
        open().map_err(|source| self.failed(source))
    }

    /// The archive could not be read: names the layer.
    pub(crate) fn failed(&self, source: io::Error) -> Error {
        Error::Read {
            what: format!("layer {} (run `gamut system fsck`)", self.record.diff_id),
            source,
        }
    }

    /// The archive has another digest than expected.
    pub(crate) fn mismatch(&self, expected: &Digest, actual: &Digest) -> Error {
        Error::DigestMismatch {
            object: format!(
                "layer {} in blob {} (run `gamut system fsck`)",
                self.record.diff_id, self.record.blob
            ),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }
}

impl ImageStore {
    /// Where a layer of an image comes from: `chain` says where that has it unpacked. Blob and
    /// layer must be leased.
    ///
    /// # Errors
    /// [`Error::Malformed`] if what it is made of is not there any more.
    pub(crate) fn source(&self, record: &LayerRecord, chain: &Digest) -> Result<LayerSource> {
        let blob = self.layout.blob(&record.blob);
        let gone = |what: String| {
            let reason = format!("{what} is missing; pull or load the image again");
            Error::malformed(format!("layer {}", record.diff_id), reason)
        };
        if record.lost || !blob.exists() {
            return Err(gone(format!("blob {}", record.blob)));
        }
        let own = self.layout.layer_fs(chain);
        if !record.is_recipe || own.is_dir() {
            return Ok(LayerSource::new(record, blob, &own));
        }
        // The same layer above others will do.
        let chains = self.shared.state().records.chains_of(&record.diff_id);
        for chain in chains {
            // Leased first, looked for afterwards: then it cannot go in between.
            let lease = self.shared.lease([Key::Layer(chain)]);
            let files = self.layout.layer_fs(&chain);
            if files.is_dir() {
                let mut source = LayerSource::new(record, blob, &files);
                source._lease = Some(lease);
                return Ok(source);
            }
        }
        Err(gone("what it was unpacked to".to_owned()))
    }
}

//! What the threads of a layer on its way in do.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::CHUNK_BYTES;
use super::chunks::{ChunkReader, ChunkSender, Pool};
use crate::assembly::{Keeper, Kept};
use crate::blobs::StagedDir;
use crate::compression::Compression;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::layer::{self, ExtractOptions, Extracted, Recorder, Unrecorded, sys};
use crate::writeback::Writeback;

/// Hashes the bytes as they come and writes them to `blob`, if there is one.
pub(super) fn store(mut chunks: ChunkReader, blob: Option<(File, &Path)>) -> Result<(Digest, u64)> {
    let blob = blob.map(|(file, path)| (Arc::new(OwnedFd::from(file)), path));
    let mut writeback = Writeback::default();
    let mut handed_over = 0;
    let mut hasher = Hasher::default();
    loop {
        let chunk = match chunks.fill_buf() {
            Ok([]) => return Ok(hasher.finish()),
            Ok(chunk) => chunk,
            Err(source) => {
                let what = "the bytes of a layer".to_owned();
                return Err(Error::Read { what, source });
            }
        };
        if let Some((file, path)) = &blob {
            sys::write_all_at(file.as_fd(), chunk, hasher.bytes())
                .map_err(Error::io("write", path))?;
        }
        hasher.update(chunk);
        let count = chunk.len();
        chunks.consume(count);
        if let Some((file, _)) = &blob
            && hasher.bytes() - handed_over >= Writeback::STEP_BYTES
        {
            writeback.begin(file, handed_over, hasher.bytes());
            handed_over = hasher.bytes();
        }
    }
}

/// Decompresses and hashes.
pub(super) fn decode(
    compression: Compression,
    chunks: ChunkReader,
    output: ChunkSender,
    failed: &AtomicBool,
) -> io::Result<(Digest, u64)> {
    let mut decoder = compression.decoder(chunks)?;
    let mut hasher = Hasher::default();
    let pool = Pool::default();
    loop {
        let mut chunk = pool.take();
        decoder
            .by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            output.end();
            return Ok(hasher.finish());
        }
        if failed.load(Ordering::Relaxed) {
            // Do not go on inflating what is refused anyway, a bomb for instance.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        hasher.update(&chunk);
        output.send(pool.chunk(chunk));
    }
}

/// Unpacks into `dir`, and keeps the archive by `keeper`, if there is one.
pub(super) fn unpack(
    dir: &StagedDir,
    reader: &mut impl BufRead,
    label: &str,
    keeper: Option<Keeper>,
) -> Result<(Extracted, Option<Kept>)> {
    match keeper {
        None => Ok((extract_into(dir, reader, label)?, None)),
        Some(mut keeper) => {
            let extracted = extract_recorded(dir, reader, label, &mut keeper)?;
            Ok((extracted, Some(keeper.finish()?)))
        }
    }
}

/// Unpacks a plain tar stream into `dir/fs`.
pub(crate) fn extract_into(
    dir: &StagedDir,
    reader: &mut impl BufRead,
    label: &str,
) -> Result<Extracted> {
    extract_recorded(dir, reader, label, &mut Unrecorded)
}

fn extract_recorded(
    dir: &StagedDir,
    reader: &mut impl BufRead,
    label: &str,
    recorder: &mut dyn Recorder,
) -> Result<Extracted> {
    let fs = dir.path.join("fs");
    std::fs::create_dir(&fs).map_err(Error::io("create", &fs))?;
    layer::extract_recorded(reader, &fs, &ExtractOptions::here(), recorder).map_err(|source| {
        Error::Layer {
            object: label.to_owned(),
            source,
        }
    })
}

//! Keeping the archive of a layer that is being unpacked: as a recipe, or whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;

use flate2::Crc;

use super::format::{Content, MAGIC, MAX_LITERAL_BYTES, MAX_PATH_BYTES, Part, encode};
use super::read::Assembled;
use crate::blobs::{Layout, StagedFile};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Error, Result};
use crate::layer::{Recorder, sys};

/// The level of what is compressed here: the fastest of zstd's ordinary levels.
const ZSTD_LEVEL: i32 = 1;
const BUFFER_BYTES: usize = 256 << 10;

/// What is kept of an archive.
pub(crate) struct Kept {
    pub(crate) blob: StagedFile,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    /// Whether the blob is a recipe; else it is the archive, compressed by zstd.
    pub(crate) is_recipe: bool,
}

/// Keeps an archive whose bytes it is told of by the extraction.
pub(crate) struct Keeper {
    layout: Layout,
    form: Form,
}

enum Form {
    Recipe(Recipe),
    Whole(Compressed),
}

impl Keeper {
    /// Keeps a recipe, as long as that will do.
    pub(crate) fn recipe(layout: &Layout) -> Result<Self> {
        let blob = Compressed::new(layout, MAGIC)?;
        let layout = layout.clone();
        let form = Form::Recipe(Recipe {
            blob,
            literal: Vec::new(),
            piece: None,
            encoded: Vec::new(),
        });
        Ok(Self { layout, form })
    }

    /// Keeps all of the archive.
    pub(crate) fn whole(layout: &Layout) -> Result<Self> {
        let form = Form::Whole(Compressed::new(layout, b"")?);
        let layout = layout.clone();
        Ok(Self { layout, form })
    }

    /// All of the archive has been seen.
    pub(crate) fn finish(self) -> Result<Kept> {
        match self.form {
            Form::Whole(blob) => blob.finish(false),
            Form::Recipe(recipe) => recipe.finish(),
        }
    }

    /// Goes over from the recipe to the whole archive, while the files are all there.
    fn keep_whole(&mut self, root: BorrowedFd<'_>) -> Result<()> {
        let whole = Form::Whole(Compressed::new(&self.layout, b"")?);
        let Form::Recipe(recipe) = std::mem::replace(&mut self.form, whole) else {
            return Ok(());
        };
        let kept = recipe.finish()?;
        let Form::Whole(whole) = &mut self.form else {
            return Ok(());
        };
        let mut copy = || -> io::Result<u64> {
            let root = sys::open_directory(root, b"")?;
            let mut so_far = Assembled::new(File::open(&kept.blob.path)?, root, "the layer")?;
            io::copy(&mut so_far, &mut whole.encoder)
        };
        copy().map_err(Error::io("copy what is kept in", &kept.blob.path))?;
        Ok(())
    }
}

impl Recorder for Keeper {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.form {
            Form::Recipe(recipe) => recipe.literal(bytes),
            Form::Whole(whole) => whole.encoder.write_all(bytes),
        }
    }

    fn content(&mut self, path: &[u8], offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut self.form {
            Form::Recipe(recipe) if path.len() > MAX_PATH_BYTES => recipe.literal(bytes),
            Form::Recipe(recipe) => recipe.content(path, offset, bytes),
            Form::Whole(whole) => whole.encoder.write_all(bytes),
        }
    }

    fn replacing(&mut self, root: BorrowedFd<'_>) -> io::Result<()> {
        if matches!(self.form, Form::Whole(_)) {
            return Ok(());
        }
        self.keep_whole(root).map_err(|error| match error {
            Error::Io { source, .. } => source,
            error => io::Error::other(error),
        })
    }
}

/// A recipe being written.
struct Recipe {
    blob: Compressed,
    /// Written before anything else is.
    literal: Vec<u8>,
    /// Behind the literal, which is empty while this grows.
    piece: Option<Piece>,
    encoded: Vec<u8>,
}

/// A piece of a file, which grows.
struct Piece {
    path: Vec<u8>,
    offset: u64,
    length: u64,
    crc: Crc,
}

impl Recipe {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.end_piece()?;
        for bytes in bytes.chunks(MAX_LITERAL_BYTES) {
            if self.literal.len() + bytes.len() > MAX_LITERAL_BYTES {
                self.end_literal()?;
            }
            self.literal.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn content(&mut self, path: &[u8], offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.end_literal()?;
        let goes_on = |piece: &Piece| piece.path == path && piece.offset + piece.length == offset;
        if !self.piece.as_ref().is_some_and(goes_on) {
            self.end_piece()?;
        }
        let piece = self.piece.get_or_insert_with(|| Piece {
            path: path.to_vec(),
            offset,
            length: 0,
            crc: Crc::new(),
        });
        piece.crc.update(bytes);
        piece.length += bytes.len() as u64;
        Ok(())
    }

    fn end_literal(&mut self) -> io::Result<()> {
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal);
            self.put(Part::Literal(&literal))?;
            self.literal = literal;
            self.literal.clear();
        }
        Ok(())
    }

    fn end_piece(&mut self) -> io::Result<()> {
        let Some(piece) = self.piece.take() else {
            return Ok(());
        };
        self.put(Part::Content(Content {
            path: &piece.path,
            offset: piece.offset,
            length: piece.length,
            crc32: piece.crc.sum(),
        }))
    }

    fn put(&mut self, part: Part<'_>) -> io::Result<()> {
        self.encoded.clear();
        encode(part, &mut self.encoded);
        self.blob.encoder.write_all(&self.encoded)
    }

    fn finish(mut self) -> Result<Kept> {
        self.end_piece()
            .and_then(|()| self.end_literal())
            .and_then(|()| self.put(Part::End))
            .map_err(Error::io("write", &self.blob.staged.path))?;
        self.blob.finish(true)
    }
}

/// A blob that is compressed and hashed while it is written.
struct Compressed {
    staged: StagedFile,
    encoder: zstd::stream::write::Encoder<'static, HashingWriter<BufWriter<File>>>,
}

impl Compressed {
    /// Begins one; `first` is not compressed.
    fn new(layout: &Layout, first: &[u8]) -> Result<Self> {
        let (staged, file) = layout.stage_file()?;
        let begin = || {
            let mut writer = HashingWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file));
            writer.write_all(first)?;
            zstd::stream::write::Encoder::new(writer, ZSTD_LEVEL)
        };
        let encoder = begin().map_err(Error::io("write", &staged.path))?;
        Ok(Self { staged, encoder })
    }

    fn finish(self, is_recipe: bool) -> Result<Kept> {
        let finished = self.encoder.finish().and_then(HashingWriter::finish);
        let (digest, bytes) = finished.map_err(Error::io("write", &self.staged.path))?;
        Ok(Kept {
            blob: self.staged,
            digest,
            bytes,
            is_recipe,
        })
    }
}

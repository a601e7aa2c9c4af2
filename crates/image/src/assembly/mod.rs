//! Layer archives that are not stored a second time beside their unpacked files.
//!
//! A large layer that came as a plain tar is kept as its unpacked files and a *recipe*: all bytes
//! of the archive that are no file's content (headers, padding, what follows its end), as they
//! were, and for each file's content where it is to be found. Putting both together again gives
//! the archive bit for bit, however it was written. [`Keeper`] writes the recipe while the layer is
//! unpacked, [`Assembled`] reads the archive.
//!
//! A recipe speaks of files by their place in the layer, so it fits every place where the layer is
//! unpacked. Each piece of content has a CRC-32, by which a changed file is told by name; that the
//! whole is right is told by its digest, which is the reader's to compare.
//!
//! Where an archive holds an entry that replaces an earlier one, the files cannot give back all of
//! it: then the archive is kept whole, compressed.

mod format;
mod keep;
mod read;
#[cfg(test)]
mod tests;

pub use format::fuzz_assembly;
pub(crate) use keep::{Keeper, Kept};
pub(crate) use read::Assembled;

//! Content store, archives, registries, hardened layer extraction, built-in images.
//!
//! [`ImageStore`] is the whole of it: images come in by [`ImageStore::pull`], [`ImageStore::load`],
//! [`ImageStore::import`], [`ImageStore::commit`] and [`ImageStore::ensure_builtin`], go out by
//! [`ImageStore::push`] and [`ImageStore::save`], and are handed to containers as a stack of unpacked directories by [`ImageStore::layers`].
//!
//! Everything is synchronous. Nothing is believed before its digest has been verified, and
//! nothing is visible before it is on disk.

pub mod builtin;
pub mod layer;
pub mod tar;

mod archive;
mod assembly;
mod blobs;
mod changes;
mod compression;
mod config;
mod digest;
mod error;
mod healthcheck;
mod layout;
mod manifest;
mod parallel;
mod pipeline;
mod platform;
mod progress;
mod records;
mod referrers;
mod registry;
mod store;
mod unikernel;
mod writeback;

pub use archive::import::ImportOptions;
pub use assembly::fuzz_assembly;
pub use compression::plain as decompressed;
pub use config::{ExecutionConfig, History, ImageConfiguration, fuzz_config};
pub use digest::Digest;
pub use error::{Error, Result};
pub use manifest::{
    Descriptor, Index, Manifest, ManifestDocument, fuzz_manifest, parse_manifest_document,
};
pub use platform::Platform;
pub use progress::{Event, NoProgress, Progress, Step};
pub use registry::{
    Credentials, Distribution, LoggedIn, PullOptions, PullPolicy, Pushed, RegistryOptions,
    RegistrySettings, SearchResult, fuzz_challenge, fuzz_registry_settings, login, search, tags,
};
pub use store::commit::CommitOptions;
pub use store::fsck::Finding;
pub use store::prune::{PruneFilter, Pruned};
pub use store::remove::Removal;
pub use store::usage::{DiskUsage, ImageUsage};
pub use store::{Image, ImageStore, ImageSummary};
pub use unikernel::{
    MAX_UNIKERNEL_BYTES, Package, UNIKERNEL_FILES_PATH, UNIKERNEL_PATH, UnikernelOptions,
    fuzz_unikernel_package,
};

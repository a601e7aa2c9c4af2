//! Containers: what is asked for, what is recorded, and their lifecycle.

pub mod attach;
mod boot;
pub mod capabilities;
pub mod create;
mod dependency;
mod etc_files;
pub mod exec;
mod features;
mod health;
pub mod index;
pub mod live;
pub mod name;
pub mod oci;
pub mod query;
pub mod reconcile;
pub mod record;
pub mod remove;
mod rootless;
pub mod security;
pub mod spec;
pub mod start;
pub mod stop;
pub mod systemd;
pub mod user_namespace;
pub(crate) mod volume_content;
pub mod watch;

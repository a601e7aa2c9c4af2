//! End-to-end tests: the real binary on real namespaces, images and sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod boot;
mod commit;
mod compose;
mod copy;
mod docker;
mod escapes;
mod exec;
mod harness;
mod health;
mod images;
mod ipv6;
mod isolation;
mod levels;
mod libraries;
mod lifecycle;
mod limits;
mod logs;
mod macvlan;
mod names;
mod namespaces;
mod nesting;
mod network;
mod networks;
mod registries;
mod restart;
mod rootless;
mod run;
mod scale;
mod security;
mod shares;
mod system;
mod systemd;
mod terminal;
mod user_namespaces;
mod volumes;

//! Types, ids, units, names and references that every other crate speaks.
//!
//! No I/O but reading `/dev/urandom` for ids ([`id::random`]) and the clock ([`time::now_ns`]).

pub mod detach_keys;
pub mod error;
pub mod form;
pub mod id;
pub mod id_map;
pub mod isolation;
pub mod reference;
pub mod signal;
pub mod time;
pub mod units;

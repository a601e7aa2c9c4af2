//! The escapes of the field, tried: each test is a published attack, or a classic, against a real
//! container, and is refused. docs/security.md lists them.
//!
//! The containers run `attacker` (tests/attacker), whose lines that begin with `GOT` are what it
//! got hold of.

mod cgroups;
mod copying;
mod defaults;
mod descriptors;
mod executable;
mod hanging;
mod looking;
mod mount_races;
mod privileges;
mod proc;
mod reach;
mod text;
mod users;

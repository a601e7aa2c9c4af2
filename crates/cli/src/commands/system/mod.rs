//! Verbs on the engine as a whole.

pub mod check;
pub mod df;
pub mod dial;
pub mod events;
pub mod info;
pub mod inspect;
pub mod prune;
pub mod version;

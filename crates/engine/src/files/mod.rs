//! Files of containers: copying in and out, and filling volumes.
//!
//! Everything in a container's tree is hostile, and while the container runs it changes under
//! our hands. No path is ever handed to the system as such: names are resolved by openat2(2)
//! with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` from a descriptor of the container's root,
//! and what was found is read or changed through its own descriptor.

pub mod archive;
pub mod changes;
pub mod commit;
pub mod copy;
mod create;
mod extract;
mod node;
mod pack;
mod path;
#[cfg(test)]
mod tests;
mod view;
mod walk;

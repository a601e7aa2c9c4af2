//! The isolation contract and its implementations.
//!
//! Two nouns: a **sandbox** (namespaces, or a machine, with its network) and a **workload** in it.
//! One trait, [`Isolation`], an implementation per level; nothing outside this crate asks which
//! level it is dealing with.

pub mod compile;
pub mod container;
pub mod contract;
pub mod error;
mod events;
pub mod levels;
pub mod process;
pub mod unikernel;
mod user_namespace;

pub use compile::SUBPATH_OPTION;
pub use container::{ContainerLevel, ContainerOptions};
pub use contract::{Context, Isolation};
pub use error::{Error, Refusal};
pub use levels::Levels;
pub use process::ProcessLevel;
pub use unikernel::UnikernelLevel;
pub use user_namespace::is_nested as is_in_user_namespace;

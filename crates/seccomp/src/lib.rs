//! OCI seccomp profiles compiled to classic BPF, and the default profile.
//!
//! [`compile`] turns an OCI profile into a program for seccomp(2); [`resolve_docker_profile`]
//! reads the format of `docker run --security-opt seccomp=FILE`; [`default_profile`] is the
//! field's default. Nothing here does I/O.
//!
//! # How a profile is read
//! - A call from an architecture that the profile does not list kills the process. The machine's
//!   own architecture is always listed; ones that this machine cannot run are left out.
//! - A rule whose action is the default action is dropped, as runc does.
//! - Of several rules for one call, the first without conditions decides. Only if there is none,
//!   those with conditions are tried in the profile's order, then the default action applies.
//!   (The conditional ones of libseccomp have no documented order.)
//! - The conditions of a rule must all hold. If a rule names one argument more than once, each of
//!   its conditions becomes a rule of its own, as runc does.
//! - `SCMP_CMP_MASKED_EQ` compares the masked argument with the masked second value.
//! - On 32-bit architectures the lower halves are compared. A rule without conditions for a
//!   socket or System V IPC call of i386 also covers its way through `socketcall` or `ipc`.
//! - If the default action forbids, calls newer than the newest one named in the profile fail
//!   with ENOSYS rather than with the default action, as in runc: C libraries then fall back to
//!   an older call.
//! - Names that no architecture has are ignored, since profiles are written for newer kernels;
//!   [`Program::unknown_names`] lists them. Where the default action permits and such a name is
//!   forbidden, every call newer than our tables fails with ENOSYS, so that the rule is kept
//!   although its number is not known.
//! - A profile without `flags` gets `SECCOMP_FILTER_FLAG_SPEC_ALLOW`, as in runc; TSYNC is
//!   left out, since a filter is installed by a process of one thread.
//!
//! Sources: OCI runtime-spec `config-linux.md#seccomp`, seccomp(2), bpf(4),
//! libseccomp `seccomp_rule_add(3)`, runc `libcontainer/seccomp`.

mod architecture;
mod assembler;
mod compile;
mod conditions;
mod default_profile;
mod docker;
mod error;
mod rules;
mod syscalls_i386;
mod syscalls_other;
mod syscalls_x86_64;

pub use compile::{Program, compile};
pub use default_profile::default_profile;
pub use docker::{fuzz_profile, resolve_docker_profile};
pub use error::Error;

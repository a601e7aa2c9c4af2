//! What a plain process cannot have.

use crate::error::{Error, Refusal};
use gamut_spec::isolation::IsolationLevel;

macro_rules! refusal {
    ($capability:literal, $reason:literal) => {
        Refusal {
            level: IsolationLevel::Process,
            capability: $capability,
            reason: $reason,
            alternative: "use --isolation container",
        }
    };
}

/// Everything that the level refuses.
pub(super) const REFUSALS: &[Refusal] = &[
    refusal!(
        "checkpoint",
        "a plain process shares its state with the host's other processes"
    ),
    refusal!("debug", "a plain process has no machine of its own"),
    refusal!(
        "image",
        "a plain process runs in a directory of the host, without layers"
    ),
    refusal!(
        "init",
        "a plain process has no process id namespace to be the first of"
    ),
    refusal!("limits", "a plain process has no control group of its own"),
    refusal!("logs", "no supervisor keeps the output of a plain process"),
    refusal!("network", "a plain process uses the host's network"),
    refusal!("restart", "no supervisor watches over a plain process"),
    refusal!(
        "stats",
        "a plain process has no control group that counts for it"
    ),
    refusal!("terminal", "a plain process has no /dev of its own"),
    refusal!("user", "a plain process runs as the engine's own user"),
];

/// The refusal of a capability that is in the list.
pub(super) fn refuse(capability: &str) -> Error {
    match REFUSALS
        .iter()
        .find(|refusal| refusal.capability == capability)
    {
        Some(refusal) => Error::Refused(*refusal),
        None => Error::Invalid {
            field: capability.to_owned(),
            problem: "is not supported at isolation level process".to_owned(),
        },
    }
}

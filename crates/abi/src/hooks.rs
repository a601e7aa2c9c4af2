//! Programs that run at fixed points of a container's life.
//!
//! Source: OCI runtime-spec, config.md ("POSIX-platform Hooks") and runtime.md ("Lifecycle").

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute path: of the host, or of the container for `startContainer`.
    pub path: String,
    /// Its arguments, the first being its name; the path alone if empty.
    pub args: Vec<String>,
    /// Its environment as `NAME=value`; `None` inherits that of whoever runs it.
    pub env: Option<Vec<String>>,
    /// It is killed, and has failed, after so many seconds.
    pub timeout_s: Option<u32>,
}

/// All programs of a container, in the order in which they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The container's state as a JSON object that still lacks `status`, `pid` and its closing
    /// brace; see [`Hooks::state`].
    pub state: String,
    /// Directory of the bundle, in which those on the host run.
    pub bundle: String,
    /// In the runtime's namespaces, before the root is changed (deprecated by the specification).
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, before the root is changed.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, by paths of the host, before the root is changed.
    pub create_container: Vec<Hook>,
    /// In the container, just before its program is executed.
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, once the program runs.
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, once the container is removed.
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// The state that a hook reads from its standard input (runtime.md, "State").
    #[must_use]
    pub fn state(&self, status: &str, pid: u32) -> String {
        alloc::format!("{},\"status\":\"{status}\",\"pid\":{pid}}}", self.state)
    }

    /// Whether any hook waits until the root is built and not yet entered.
    #[must_use]
    pub fn waits_before_root(&self) -> bool {
        !(self.prestart.is_empty()
            && self.create_runtime.is_empty()
            && self.create_container.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_completed() {
        let hooks = Hooks {
            state: String::from("{\"id\":\"a\""),
            ..Hooks::default()
        };
        assert_eq!(
            hooks.state("created", 7),
            "{\"id\":\"a\",\"status\":\"created\",\"pid\":7}"
        );
        assert!(!hooks.waits_before_root());
    }
}

//! Images from registries.
//!
//! Sources: OCI distribution-spec 1.1, Docker's token authentication specification.

mod address;
mod authentication;
mod client;
mod download;
mod pull;

use crate::platform::Platform;

/// Who the caller is to a registry.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password or access token.
    pub password: String,
    /// A refresh token of an earlier login, instead of name and password.
    pub identity_token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// When to ask the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always.
    #[default]
    Always,
    /// Only if the store has no image of that name.
    Missing,
}

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Which image of an index; the host's platform if `None`.
    pub platform: Option<Platform>,
    /// For registries that ask.
    pub credentials: Option<Credentials>,
    /// Whether registries on loopback addresses may be spoken to without TLS. Others never are.
    pub insecure_loopback: bool,
    /// When to ask the registry.
    pub policy: PullPolicy,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: None,
            credentials: None,
            insecure_loopback: true,
            policy: PullPolicy::default(),
        }
    }
}

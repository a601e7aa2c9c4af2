//! Images from and to registries.
//!
//! Sources: OCI distribution-spec 1.1, Docker's token authentication specification.

mod address;
mod authentication;
mod certificates;
mod client;
mod connection;
mod distribution;
mod download;
mod login;
mod pull;
mod push;
mod search;
mod settings;
mod sources;
mod tags;
mod token;
mod upload;

use std::sync::Arc;

use crate::platform::Platform;

pub use authentication::fuzz_challenge;
pub use distribution::Distribution;
pub use login::{LoggedIn, login};
pub use push::Pushed;
pub use search::{SearchResult, search};
pub use settings::{RegistrySettings, fuzz_registry_settings};
pub use tags::tags;

/// Who the caller is to a registry.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password or access token.
    pub password: String,
    /// A refresh token of an earlier login, instead of name and password.
    pub identity_token: Option<String>,
    /// A token to be sent as it is, instead of all the others.
    pub registry_token: Option<String>,
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
    /// For registries that ask. Mirrors do not get them.
    pub credentials: Option<Credentials>,
    /// Whether registries on loopback addresses may be spoken to without TLS.
    pub insecure_loopback: bool,
    /// Mirrors, and which registries are trusted how.
    pub settings: Arc<RegistrySettings>,
    /// When to ask the registry.
    pub policy: PullPolicy,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: None,
            credentials: None,
            insecure_loopback: true,
            settings: Arc::default(),
            policy: PullPolicy::default(),
        }
    }
}

/// How to speak to a registry other than by pulling.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// For registries that ask.
    pub credentials: Option<Credentials>,
    /// Whether registries on loopback addresses may be spoken to without TLS.
    pub insecure_loopback: bool,
    /// Which registries are trusted how. Mirrors are for pulls only.
    pub settings: Arc<RegistrySettings>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            insecure_loopback: true,
            settings: Arc::default(),
        }
    }
}

impl RegistryOptions {
    fn trust(&self) -> connection::Trust {
        connection::Trust {
            settings: Arc::clone(&self.settings),
            insecure_loopback: self.insecure_loopback,
        }
    }
}

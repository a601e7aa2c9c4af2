//! Arguments, environment and names, from the configuration that the guest was started with.

use gamut_abi::guest::config;

use crate::boot;

/// The arguments; the first is the program's name.
pub fn args() -> impl Iterator<Item = &'static str> + Clone {
    config::values(boot::config(), "arg")
}

/// The environment, as names and values, in order.
pub fn vars() -> impl Iterator<Item = (&'static str, &'static str)> + Clone {
    config::values(boot::config(), "env").filter_map(|line| line.split_once('='))
}

/// The value of an environment variable.
#[must_use]
pub fn var(name: &str) -> Option<&'static str> {
    vars().find_map(|(known, value)| (known == name).then_some(value))
}

/// The host name; empty if it has none.
#[must_use]
pub fn hostname() -> &'static str {
    config::values(boot::config(), "hostname")
        .next()
        .unwrap_or_default()
}

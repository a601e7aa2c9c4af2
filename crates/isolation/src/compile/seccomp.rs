//! `linux.seccomp`, compiled once per content.

use super::field::invalid;
use crate::error::Error;
use gamut_abi::plan::Seccomp;
use oci_spec::runtime::LinuxSeccomp;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Filters kept; a host rarely has more than a handful of profiles.
const CACHE_ENTRIES: usize = 16;

/// A profile and what came of it. The profile itself is the key: comparing it is as fast as
/// hashing it, and nothing can collide.
type Entry = (LinuxSeccomp, Seccomp);

/// The filters used last, the latest first.
static CACHE: Mutex<VecDeque<Entry>> = Mutex::new(VecDeque::new());

/// Compiles a profile, or finds it among those used last.
pub(super) fn seccomp(profile: &LinuxSeccomp) -> Result<Seccomp, Error> {
    // Whatever panicked while it held the lock, the entries are whole.
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = cache.iter().position(|(known, _)| known == profile)
        && let Some(entry) = cache.remove(index)
    {
        let filter = entry.1.clone();
        cache.push_front(entry);
        return Ok(filter);
    }
    drop(cache);
    let program = gamut_seccomp::compile(profile)
        .map_err(|error| invalid("linux.seccomp", gamut_spec::error::chain(&error)))?;
    let filter = Seccomp {
        program: program.instructions,
        flags: program.flags,
    };
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    cache.push_front((profile.clone(), filter.clone()));
    cache.truncate(CACHE_ENTRIES);
    Ok(filter)
}

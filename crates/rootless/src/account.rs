//! Who the user is.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// The user of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Name in the user database, or the number where it has none.
    pub name: String,
    /// Home directory: `HOME`, else that of the user database.
    pub home: Option<PathBuf>,
}

/// Whether this process is an ordinary user's: the engine then needs a user namespace.
#[must_use]
pub fn is_ordinary_user() -> bool {
    // SAFETY: geteuid(2) only returns a number.
    unsafe { libc::geteuid() != 0 }
}

impl Account {
    /// Looks up the user of this process. To be called before threads are started (getpwuid(3)).
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: both only return a number.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let entry = entry(uid);
        let named = std::env::var_os("HOME").filter(|home| Path::new(home).is_absolute());
        let home = named
            .map(PathBuf::from)
            .or_else(|| entry.as_ref().map(|(_, home)| home.clone()));
        Self {
            uid,
            gid,
            name: entry.map_or_else(|| uid.to_string(), |(name, _)| name),
            home,
        }
    }
}

/// Name and home directory of a user.
fn entry(uid: u32) -> Option<(String, PathBuf)> {
    // SAFETY: getpwuid returns null or a struct in static storage, which is read at once; its
    // strings are NUL-terminated. No other thread runs yet (see `Account::current`).
    unsafe {
        let entry = libc::getpwuid(uid);
        if entry.is_null() {
            return None;
        }
        let text = |pointer: *const libc::c_char| {
            (!pointer.is_null()).then(|| CStr::from_ptr(pointer).to_string_lossy().into_owned())
        };
        Some((
            text((*entry).pw_name)?,
            PathBuf::from(text((*entry).pw_dir)?),
        ))
    }
}

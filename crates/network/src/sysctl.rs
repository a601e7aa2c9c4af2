//! Kernel settings of the calling thread's network namespace (`/proc/sys/net`).

use std::fs;

use crate::error::{Error, Result};

/// Reads a setting, without the line end.
pub(crate) fn read(name: &str) -> Result<String> {
    let path = path(name);
    let text = fs::read_to_string(&path)
        .map_err(|source| Error::system(format!("read {path}"), source))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting.
pub(crate) fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, value).map_err(|source| {
        Error::system(
            format!("write {value:?} to {path} (is /proc/sys writable?)"),
            source,
        )
    })
}

/// Writes a setting if it has another value. Returns whether it did.
pub(crate) fn ensure(name: &str, value: &str) -> Result<bool> {
    if read(name)? == value {
        return Ok(false);
    }
    write(name, value)?;
    Ok(true)
}

/// Writes a setting that this kernel may lack (built without IPv6, for instance).
pub(crate) fn write_if_present(name: &str, value: &str) -> Result<()> {
    match write(name, value) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Parts are joined by `/`, since interface names may contain dots.
fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

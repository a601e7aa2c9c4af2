//! Naming the field of `config.json` that is wrong, and checks that many fields share.

use crate::error::Error;
use std::path::Path;

/// An error about one field.
pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Invalid {
        field: field.into(),
        problem: problem.into(),
    }
}

/// An error about a field that would change behaviour and that nothing here carries out.
pub(super) fn unsupported(field: impl Into<String>, way_out: &str) -> Error {
    invalid(field, format!("not supported yet; {way_out}"))
}

/// Text that the kernel can take: without NUL bytes.
pub(super) fn text(field: &str, text: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(invalid(
            field,
            "contains a NUL byte, which no Linux interface can carry",
        ));
    }
    Ok(())
}

/// A path as text: valid UTF-8, without NUL bytes.
pub(super) fn path_text(field: &str, path: &Path) -> Result<String, Error> {
    let Some(as_text) = path.to_str() else {
        return Err(invalid(
            field,
            format!("{} is not valid UTF-8", path.display()),
        ));
    };
    text(field, as_text)?;
    Ok(as_text.to_owned())
}

/// An absolute path as text.
pub(super) fn absolute(field: &str, path: &Path) -> Result<String, Error> {
    let as_text = path_text(field, path)?;
    if !path.is_absolute() {
        return Err(invalid(
            field,
            format!("{as_text:?} is not an absolute path"),
        ));
    }
    Ok(as_text)
}

/// The path with `.`, `..` and repeated slashes resolved by the text alone, as `/a/b`.
pub(super) fn lexically_clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_their_text() {
        for (path, clean) in [
            ("/", "/"),
            ("//a/./b/", "/a/b"),
            ("/a/../../b", "/b"),
            ("/proc/../proc", "/proc"),
        ] {
            assert_eq!(lexically_clean(path), clean);
        }
    }
}

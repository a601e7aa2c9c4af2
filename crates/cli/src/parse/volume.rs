//! `--volume [SOURCE:]TARGET[:OPTIONS]` and `--tmpfs TARGET[:OPTIONS]`.

use std::path::{Component, Path, PathBuf};

use super::invalid;
use crate::error::Error;

/// One `--volume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// `TARGET` alone: an anonymous volume.
    Anonymous(String),
    /// A bind or a named volume, as the API's `Binds` takes it.
    Bind(String),
}

/// Options that may follow the target, separated by commas.
const OPTIONS: [&str; 19] = [
    "ro",
    "rw",
    "z",
    "Z",
    "nocopy",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "bind",
    "rbind",
    "consistent",
    "cached",
    "delegated",
    "U",
    "idmap",
    "",
];

/// Parses one `--volume`. A source that starts with `.` or `/` is a path (relative to
/// `current_directory`), anything else a volume's name.
///
/// # Errors
/// [`Error::Usage`] with the part that is wrong.
pub fn parse(text: &str, current_directory: &Path) -> Result<Volume, Error> {
    let bad = |reason: &str| invalid("--volume", text, reason);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => {
            check_target(target).map_err(bad)?;
            return Ok(Volume::Anonymous((*target).to_owned()));
        }
        [source, target] => (*source, *target, None),
        [source, target, options] => (*source, *target, Some(*options)),
        _ => return Err(bad("too many colons")),
    };
    if source.is_empty() {
        return Err(bad("empty section between colons"));
    }
    check_target(target).map_err(bad)?;
    if let Some(options) = options
        && let Some(unknown) = options.split(',').find(|option| !OPTIONS.contains(option))
    {
        return Err(bad(&format!("invalid mode: {unknown}")));
    }
    let source = if source.starts_with(['/', '.']) {
        normalize(&current_directory.join(source))
    } else if is_volume_name(source) {
        source.to_owned()
    } else {
        return Err(bad(
            "a volume's name has only letters, digits, '_', '.' and '-'; a path starts with / or .",
        ));
    };
    Ok(Volume::Bind(match options {
        Some(options) if !options.is_empty() => format!("{source}:{target}:{options}"),
        _ => format!("{source}:{target}"),
    }))
}

/// `--tmpfs TARGET[:OPTIONS]` into target and options.
///
/// # Errors
/// [`Error::Usage`] for a relative target.
pub fn tmpfs(text: &str) -> Result<(String, String), Error> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    check_target(target).map_err(|reason| invalid("--tmpfs", text, reason))?;
    Ok((target.to_owned(), options.to_owned()))
}

fn check_target(target: &str) -> Result<(), &'static str> {
    if target.is_empty() {
        return Err("the path in the container is empty");
    }
    if !target.starts_with('/') {
        return Err("the path in the container must be absolute");
    }
    if Path::new(target) == Path::new("/") {
        return Err("the path in the container can't be '/'");
    }
    Ok(())
}

fn is_volume_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && bytes.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

/// Removes `.` and resolves `..` by name only, as the shell's user means it.
fn normalize(path: &Path) -> String {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::Normal(name) => normal.push(name),
            _ => {}
        }
    }
    normal.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> String {
        match parse(text, Path::new("/w/d")).unwrap() {
            Volume::Bind(bind) => bind,
            Volume::Anonymous(target) => panic!("anonymous: {target}"),
        }
    }

    #[test]
    fn forms() {
        assert_eq!(
            parse("/data", Path::new("/")).unwrap(),
            Volume::Anonymous("/data".into())
        );
        assert_eq!(bind("/a:/b"), "/a:/b");
        assert_eq!(bind("./x/../y:/b:ro,z"), "/w/d/y:/b:ro,z");
        assert_eq!(bind("..:/b"), "/w:/b");
        assert_eq!(bind("name-1.x:/b:nocopy"), "name-1.x:/b:nocopy");
    }

    #[test]
    fn refusals() {
        for bad in [
            "",
            "x",
            "/a:b",
            "/a:/",
            ":/a",
            "/a:/b:bogus",
            "/a:/b:ro:x",
            "a/b:/c",
            "_x:/c",
            "a:",
        ] {
            assert!(parse(bad, Path::new("/")).is_err(), "{bad}");
        }
        assert!(tmpfs("x").is_err());
        assert_eq!(tmpfs("/t:size=1m").unwrap().1, "size=1m");
    }
}

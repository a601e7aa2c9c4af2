//! `--device HOST[:CONTAINER][:PERMISSIONS]`.

use serde_json::{Value, json};

use super::invalid;
use crate::error::Error;

/// Parses one device into the API's `DeviceMapping`. A name without `/` (`vendor.com/class=name`)
/// is left to the engine.
///
/// # Errors
/// [`Error::Usage`] for relative paths and unknown permissions.
pub fn parse(text: &str) -> Result<Value, Error> {
    let bad = |reason: &str| invalid("--device", text, reason);
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, second] if is_permissions(second) => (*host, *host, *second),
        [host, container] => (*host, *container, "rwm"),
        [host, container, permissions] => (*host, *container, *permissions),
        _ => return Err(bad("use HOST[:CONTAINER][:PERMISSIONS]")),
    };
    if !is_permissions(permissions) {
        return Err(bad("permissions are a combination of r, w and m"));
    }
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(bad("device paths are absolute"));
    }
    Ok(json!({
        "PathOnHost": host,
        "PathInContainer": container,
        "CgroupPermissions": permissions,
    }))
}

fn is_permissions(text: &str) -> bool {
    let mut rest: Vec<char> = vec!['r', 'w', 'm'];
    !text.is_empty()
        && text.chars().all(|c| {
            let before = rest.len();
            rest.retain(|known| *known != c);
            rest.len() < before
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let fields = |text: &str| {
            let value = parse(text).unwrap();
            ["PathOnHost", "PathInContainer", "CgroupPermissions"]
                .map(|key| value[key].as_str().unwrap().to_owned())
        };
        assert_eq!(fields("/dev/a"), ["/dev/a", "/dev/a", "rwm"]);
        assert_eq!(fields("/dev/a:rw"), ["/dev/a", "/dev/a", "rw"]);
        assert_eq!(fields("/dev/a:/dev/b"), ["/dev/a", "/dev/b", "rwm"]);
        assert_eq!(fields("/dev/a:/dev/b:m"), ["/dev/a", "/dev/b", "m"]);
        for bad in ["", "a", "/dev/a:b:c", "/a:/b:x", "/a:/b:rr", "/a:/b:r:w"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

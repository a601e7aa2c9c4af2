//! Names of slices and scopes, and the paths of their groups (systemd.slice(5)).

use crate::error::Error;

/// Longest name of a unit in bytes (systemd `UNIT_NAME_MAX`, less the NUL).
const MAX_UNIT_NAME_BYTES: usize = 255;

/// Where containers go if nothing is said.
const DEFAULT_SLICE: &str = "system.slice";

fn is_unit_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_UNIT_NAME_BYTES
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
}

/// Path of the control group of the scope that OCI's `SLICE:PREFIX:NAME` means:
/// `user-1.slice:gamut:abc` is `/user.slice/user-1.slice/gamut-abc.scope`. An empty slice is
/// `system.slice`, an empty prefix is left out.
///
/// # Errors
/// If it is not of this form, or names of units would come out that systemd does not take.
pub fn systemd_path(text: &str) -> Result<String, Error> {
    let refuse = |hint| Err(Error::invalid("use the systemd cgroup path", text, hint));
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return refuse("it must be of the form SLICE:PREFIX:NAME");
    };
    if name.is_empty() {
        return refuse("it has no name behind the second colon");
    }
    if name.ends_with(".slice") || name.ends_with(".scope") {
        return refuse("the name must not end in .slice or .scope: a scope is made of it");
    }
    let slice = if slice.is_empty() {
        DEFAULT_SLICE
    } else {
        slice
    };
    let Some(mut path) = slice_path(slice) else {
        return refuse("its first part must be the name of a slice, as system.slice or a-b.slice");
    };
    let unit = if prefix.is_empty() {
        [name, ".scope"].concat()
    } else {
        [prefix, "-", name, ".scope"].concat()
    };
    if !is_unit_name(&unit) {
        return refuse(
            "only letters, digits and :-_.\\@ can be in the name of a unit of systemd, up to 255 of them",
        );
    }
    path.push('/');
    path.push_str(&unit);
    Ok(path)
}

/// Path of a slice's group: `a-b.slice` is inside `a.slice`, `-.slice` is the root.
fn slice_path(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    if !is_unit_name(slice) || name.split('-').any(str::is_empty) || name.contains('@') {
        return None;
    }
    let mut path = String::new();
    let ends = name.match_indices('-').map(|(at, _)| at);
    for end in ends.chain([name.len()]) {
        path.push('/');
        path.push_str(&name[..end]);
        path.push_str(".slice");
    }
    Some(path)
}

/// Slice and scope whose group is at a path.
pub(super) fn split_path(path: &str) -> Result<(&str, &str), Error> {
    let (parent, scope) = path.rsplit_once('/').unwrap_or(("", path));
    let slice = match parent.rsplit_once('/') {
        Some((_, slice)) => slice,
        None => "-.slice",
    };
    let fits = is_unit_name(scope)
        && scope.ends_with(".scope")
        && slice_path(slice).is_some_and(|path| path == parent);
    if fits {
        Ok((slice, scope))
    } else {
        Err(Error::invalid(
            "find the systemd unit of control group",
            path,
            "it is not the path of a scope in a slice, as /system.slice/NAME.scope",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_names_of_slices() {
        for (text, path) in [
            ("system.slice:gamut:abc", "/system.slice/gamut-abc.scope"),
            (":cri:1", "/system.slice/cri-1.scope"),
            ("a-b-c.slice::x", "/a.slice/a-b.slice/a-b-c.slice/x.scope"),
            ("-.slice:p:n", "/p-n.scope"),
        ] {
            assert_eq!(systemd_path(text).unwrap(), path);
            let (slice, scope) = split_path(path).unwrap();
            assert!(path.ends_with(scope));
            assert_eq!(slice_path(slice).unwrap() + "/" + scope, path);
        }
    }

    #[test]
    fn wrong_paths_are_refused() {
        for text in [
            "a.slice:b",
            "a.slice:b:c:d",
            "a.slice:b:",
            "a:b:c",
            "a--b.slice:b:c",
            "-a.slice:b:c",
            "../x.slice:b:c",
            "a.slice:b:c/d",
            "a.slice:b:c.slice",
        ] {
            assert!(systemd_path(text).is_err(), "{text}");
        }
        for path in [
            "/gamut/abc",
            "/b.slice/x",
            "/a-b.slice/x.scope",
            "x.scope.d",
        ] {
            assert!(split_path(path).is_err(), "{path}");
        }
    }
}

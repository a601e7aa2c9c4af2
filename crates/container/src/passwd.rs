//! `/etc/passwd` and `/etc/group` of a container: pure parsing, no I/O.
//!
//! The rules are Docker's for `--user` and `USER`: see passwd(5), group(5), and the Dockerfile
//! reference. The files belong to the image and are hostile.

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// Most supplementary groups a process may have (setgroups(2)).
pub const MAX_GROUPS: usize = 65_536;

/// Who a process is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, sorted, each once.
    pub groups: Vec<u32>,
    /// Home directory, if the user is listed.
    pub home: Option<String>,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Lines that can be read at all; comments, damaged and non-UTF-8 lines are passed over.
fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(User {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

/// An id as a number. The last two values mean "leave it" to the kernel and are refused.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|id| *id < u32::MAX - 1)
}

fn no_such(what: &str, text: &str, file: &str) -> String {
    [
        "unable to find ",
        what,
        " ",
        text,
        ": no matching entries in ",
        file,
        " file",
    ]
    .concat()
}

/// Finds out who `user[:group]` is. Names and numbers are looked up in the files; a number that
/// is not listed is taken as it is, with group 0. An empty text is root.
///
/// # Errors
/// A sentence that says which name is unknown.
pub fn look_up(
    spec: &str,
    additional_groups: &[String],
    passwd: &[u8],
    group: &[u8],
) -> Result<Identity, String> {
    let (user, explicit_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let id = number(user);
    let listed = users(passwd).find(|entry| match id {
        Some(id) => entry.uid == id,
        None => entry.name == user,
    });
    let mut identity = match (&listed, id) {
        (Some(entry), _) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: Some(entry.home.to_owned()).filter(|home| home.starts_with('/')),
        },
        (None, Some(uid)) => Identity {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: None,
        },
        (None, None) => return Err(no_such("user", user, "passwd")),
    };
    if identity.uid >= u32::MAX - 1 || identity.gid >= u32::MAX - 1 {
        return Err(["user ", user, " has an id that the kernel does not accept"].concat());
    }
    if let Some(wanted) = explicit_group {
        identity.gid = group_id(wanted, group).ok_or_else(|| no_such("group", wanted, "group"))?;
    } else if let Some(entry) = &listed {
        identity.groups.extend(
            groups(group)
                .filter(|line| {
                    line.members
                        .split(',')
                        .any(|member| member.trim() == entry.name)
                })
                .map(|line| line.gid),
        );
    }
    for wanted in additional_groups {
        identity
            .groups
            .push(group_id(wanted, group).ok_or_else(|| no_such("group", wanted, "group"))?);
    }
    // The primary group is one of them, so that a file may deny it (CVE-2022-36109).
    identity.groups.push(identity.gid);
    identity.groups.retain(|gid| *gid < u32::MAX - 1);
    identity.groups.sort_unstable();
    identity.groups.dedup();
    if identity.groups.len() > MAX_GROUPS {
        return Err(["user ", user, " is in more groups than a process may have"].concat());
    }
    Ok(identity)
}

fn group_id(wanted: &str, group: &[u8]) -> Option<u32> {
    let id = number(wanted);
    id.or_else(|| {
        groups(group)
            .find(|line| line.name == wanted)
            .map(|line| line.gid)
            .filter(|gid| *gid < u32::MAX - 1)
    })
}

/// The home directory of a user id, if it is listed.
#[must_use]
pub fn home_of(uid: u32, passwd: &[u8]) -> Option<String> {
    let entry = users(passwd).find(|entry| entry.uid == uid)?;
    Some(entry.home.to_owned()).filter(|home| home.starts_with('/'))
}

/// For a fuzz target: the first line is the user, up to the first NUL is passwd, the rest group.
pub fn fuzz_passwd(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let spec = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let mut files = parts
        .next()
        .unwrap_or_default()
        .splitn(2, |byte| *byte == 0);
    let passwd = files.next().unwrap_or_default();
    let group = files.next().unwrap_or_default();
    if let Ok(identity) = look_up(&spec, std::slice::from_ref(&spec), passwd, group) {
        assert!(identity.groups.len() <= MAX_GROUPS);
        assert!(identity.groups.contains(&identity.gid));
        assert!(identity.uid < u32::MAX - 1 && identity.gid < u32::MAX - 1);
        let _ = home_of(identity.uid, passwd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"# users\nroot:x:0:0:root:/root:/bin/sh\nbroken\n\
        app:x:1000:1001::/home/app:/bin/sh\nwide:x:4294967295:0::/:\n5:x:77:78::/five:\n";
    const GROUP: &[u8] = b"root:x:0:root\napp:x:1001:\nwheel:x:10:root,app\ndata:x:2000: app \n";

    fn who(spec: &str) -> Result<Identity, String> {
        look_up(spec, &[], PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers() {
        let root = who("").unwrap();
        assert_eq!(
            (root.uid, root.gid, root.home.as_deref()),
            (0, 0, Some("/root"))
        );
        assert_eq!(root.groups, [0, 10]);
        let app = who("app").unwrap();
        assert_eq!((app.uid, app.gid), (1000, 1001));
        assert_eq!(app.groups, [10, 1001, 2000]);
        assert_eq!(who("1000").unwrap(), app);
        let group = who("app:wheel").unwrap();
        assert_eq!((group.uid, group.gid, group.groups), (1000, 10, vec![10]));
        let unknown = who("4242").unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home), (4242, 0, None));
        assert_eq!(who("4242:4343").unwrap().gid, 4343);
        // A number is an id, even where a user is named so.
        assert_eq!(who("5").unwrap().uid, 5);
    }

    #[test]
    fn unknown_names_are_said() {
        assert_eq!(
            who("bob").unwrap_err(),
            "unable to find user bob: no matching entries in passwd file"
        );
        assert_eq!(
            who("app:nope").unwrap_err(),
            "unable to find group nope: no matching entries in group file"
        );
        assert!(who("-1").is_err());
        assert!(who("4294967295").is_err());
        assert!(who("wide").is_err());
        let more = look_up("app", &["data".into(), "99".into()], PASSWD, GROUP).unwrap();
        assert_eq!(more.groups, [10, 99, 1001, 2000]);
        assert!(look_up("app", &["none".into()], PASSWD, GROUP).is_err());
    }

    #[test]
    fn homes() {
        assert_eq!(home_of(1000, PASSWD).as_deref(), Some("/home/app"));
        assert_eq!(home_of(9, PASSWD), None);
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_panic(input in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz_passwd(&input);
        }

        #[test]
        fn nearly_valid_files(spec in "[a-c0-9:]{0,4}",
            passwd in "([a-c]{1,2}:x?:[0-9]{1,11}:[0-9]{0,11}::/?h:\n?){0,5}",
            group in "([a-c]{1,2}:x:[0-9]{1,11}:[a-c,]{0,5}\n?){0,5}")
        {
            fuzz_passwd([spec.as_bytes(), b"\n", passwd.as_bytes(), b"\0", group.as_bytes()].concat().as_slice());
        }
    }
}

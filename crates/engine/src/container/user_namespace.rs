//! Which ids of the machine a container's ids are: `--userns`.
//!
//! `host` leaves them as they are; `auto` leases a range that no other container and no user of
//! the machine has. The lease is part of the container's record and goes with it. Files of images
//! and volumes keep the ids of the inside: their mounts are mapped.

use super::spec::{ContainerSpec, IpcMode, NamespaceMode, NetworkMode};
use crate::error::{Error, Result};
use crate::options::Options;
use gamut_spec::error::ErrorKind;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Ids of a container unless it asks for another number.
const USUAL_COUNT: u32 = 65_536;
/// Ids to lease from: systemd and distributions leave them unused ("Users, Groups, UIDs and GIDs
/// on systemd Systems"), and they are few enough for a signed number, so that
/// `net.ipv4.ping_group_range` can hold them.
const POOL: std::ops::Range<u32> = 0x7000_0000..0x7fff_0000;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserNamespaceMode {
    /// What the engine does by default.
    #[default]
    Default,
    /// The engine's own ids.
    Host,
    /// A range that nobody else has, of this many ids if that matters.
    Auto(Option<u32>),
    /// That of another container, by name or id.
    Container(String),
}

impl FromStr for UserNamespaceMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Err(Error::invalid(format!(
                "invalid USER mode {text:?}: {why}; use host, auto, auto:size=N or container:NAME"
            )))
        };
        match text.split_once(':') {
            None => match text {
                "" => Ok(Self::Default),
                "host" => Ok(Self::Host),
                "auto" | "private" => Ok(Self::Auto(None)),
                "keep-id" | "nomap" => Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("--userns {text} is not supported yet: use host or auto"),
                )),
                _ => invalid("it is unknown"),
            },
            Some(("container", name)) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            Some(("auto", option)) => match option.split_once('=') {
                Some(("size", number)) => match number.parse::<u32>() {
                    Ok(count) if (1..=POOL.end - POOL.start).contains(&count) => {
                        Ok(Self::Auto(Some(count)))
                    }
                    _ => invalid("the size is no number of ids"),
                },
                _ => invalid("the option is unknown"),
            },
            Some(_) => invalid("it is unknown"),
        }
    }
}

impl std::fmt::Display for UserNamespaceMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => Ok(()),
            Self::Host => f.write_str("host"),
            Self::Auto(None) => f.write_str("auto"),
            Self::Auto(Some(count)) => write!(f, "auto:size={count}"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

/// Ids of the machine: those of a container from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdRange {
    /// First id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }
}

/// What is to be done for a container, once it is known to make sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    Host,
    /// Lease this many ids.
    Lease(u32),
    /// Take those of this container.
    Share(String),
}

/// Checks what was asked for.
///
/// # Errors
/// In Docker's words for what a user namespace rules out.
pub(super) fn wanted(spec: &ContainerSpec, options: &Options) -> Result<Wanted> {
    let wanted = match (&spec.user_namespace, options.remap_users) {
        (UserNamespaceMode::Host, _) | (UserNamespaceMode::Default, false) => Wanted::Host,
        (UserNamespaceMode::Default, true) => Wanted::Lease(USUAL_COUNT),
        (UserNamespaceMode::Auto(count), _) => Wanted::Lease(count.unwrap_or(USUAL_COUNT)),
        (UserNamespaceMode::Container(name), _) => Wanted::Share(name.clone()),
    };
    if wanted == Wanted::Host {
        return Ok(wanted);
    }
    if options.rootless.is_some() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "--userns auto is root's: the containers of a rootless engine have the user's own subordinate ids; use --userns host",
        ));
    }
    let refuse = |what: &str| {
        Err(Error::invalid(format!(
            "{what} when user namespaces are enabled: use --userns host"
        )))
    };
    if spec.privileged {
        return refuse("privileged mode is incompatible with user namespaces; it cannot be used");
    }
    match spec.network {
        NetworkMode::Host => return refuse("cannot share the host's network namespace"),
        NetworkMode::Container(_) => {
            return refuse("cannot share another container's network namespace");
        }
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Network(_) => {}
    }
    let ipc_mode = match &spec.ipc_mode {
        IpcMode::Private | IpcMode::Shareable | IpcMode::None => &NamespaceMode::Private,
        IpcMode::Host => &NamespaceMode::Host,
        IpcMode::Container(name) => &NamespaceMode::Container(name.clone()),
    };
    for (mode, name) in [
        (&spec.pid_mode, "PID"),
        (ipc_mode, "IPC"),
        (&spec.uts_mode, "UTS"),
    ] {
        match mode {
            NamespaceMode::Private => {}
            NamespaceMode::Host => {
                return refuse(&format!("cannot share the host {name} namespace"));
            }
            NamespaceMode::Container(_) => {
                return refuse(&format!(
                    "cannot share another container's {name} namespace"
                ));
            }
        }
    }
    Ok(wanted)
}

/// The first range of the pool that overlaps none of `taken`, at a multiple of its usual size.
///
/// # Errors
/// `Unavailable` if there is none.
pub(super) fn lease(count: u32, mut taken: Vec<IdRange>) -> Result<IdRange> {
    taken.sort_unstable();
    let mut first = POOL.start;
    for range in taken {
        if range.end() <= u64::from(first) {
            continue;
        }
        if u64::from(range.first) >= u64::from(first) + u64::from(count) {
            break;
        }
        first =
            u32::try_from(range.end().next_multiple_of(u64::from(USUAL_COUNT))).unwrap_or(u32::MAX);
    }
    if u64::from(first) + u64::from(count) > u64::from(POOL.end) {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "no {count} user ids are free for this container: remove containers, or use --userns host"
            ),
        ));
    }
    Ok(IdRange { first, count })
}

/// Every range in `/etc/subuid` and `/etc/subgid`, whosever it is.
pub(super) fn subordinate_ranges() -> Vec<IdRange> {
    ["/etc/subuid", "/etc/subgid"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| all_ranges(&text))
        .collect()
}

fn all_ranges(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':').skip(1);
            Some(IdRange {
                first: fields.next()?.parse().ok()?,
                count: fields.next()?.parse().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_read_and_written() {
        for word in ["", "host", "auto", "auto:size=5000", "container:web"] {
            assert_eq!(word.parse::<UserNamespaceMode>().unwrap().to_string(), word);
        }
        for bad in [
            "auto:size=0",
            "auto:size=x",
            "auto:uidmapping=1",
            "nonsense",
            "container:",
            "keep-id",
        ] {
            assert!(bad.parse::<UserNamespaceMode>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_user_namespace_rules_out_is_refused() {
        let auto = ContainerSpec {
            user_namespace: UserNamespaceMode::Auto(None),
            ..ContainerSpec::default()
        };
        let options = Options::default();
        assert_eq!(wanted(&auto, &options).unwrap(), Wanted::Lease(65_536));
        let bad = [
            ContainerSpec {
                privileged: true,
                ..auto.clone()
            },
            ContainerSpec {
                network: NetworkMode::Host,
                ..auto.clone()
            },
            ContainerSpec {
                pid_mode: NamespaceMode::Host,
                ..auto.clone()
            },
        ];
        for spec in bad {
            assert!(wanted(&spec, &options).is_err(), "{spec:?}");
        }
        let remapped = Options {
            remap_users: true,
            ..Options::default()
        };
        let plain = ContainerSpec::default();
        assert_eq!(wanted(&plain, &options).unwrap(), Wanted::Host);
        assert_eq!(wanted(&plain, &remapped).unwrap(), Wanted::Lease(65_536));
    }

    proptest! {
        #[test]
        fn leases_never_overlap(counts in prop::collection::vec(1_u32..400_000, 1..60), freed in 0_usize..60) {
            let foreign = IdRange { first: 0x7001_0005, count: 9 };
            let mut taken = vec![foreign];
            for (index, count) in counts.iter().enumerate() {
                let new = lease(*count, taken.clone()).unwrap();
                prop_assert_eq!(new.count, *count);
                for old in &taken {
                    prop_assert!(new.end() <= u64::from(old.first) || old.end() <= u64::from(new.first));
                }
                taken.push(new);
                if index == freed {
                    taken.remove(1);
                }
            }
        }
    }

    #[test]
    fn an_exhausted_pool_says_so() {
        let all = IdRange {
            first: 0,
            count: u32::MAX,
        };
        assert_eq!(
            lease(1, vec![all]).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
}

//! Writing the id maps of a new user namespace.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use gamut_spec::id_map::Extent;

use crate::account::Account;
use crate::error::{Error, Result};
use crate::subordinate::{self, Range};

/// Fewer ids than this, and ordinary images do not fit: `nobody` is 65534.
const USUAL_COUNT: u32 = 65_535;

/// The ids of a namespace to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mappings {
    /// User ids.
    pub uids: Vec<Extent>,
    /// Group ids.
    pub gids: Vec<Extent>,
    /// Why these are not all that images may want.
    pub warnings: Vec<String>,
}

impl Mappings {
    /// The ids that a user may map by `/etc/subuid` and `/etc/subgid`. Without an entry, or
    /// without newuidmap and newgidmap, only his own.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        let mut warnings = Vec::new();
        let uid_ranges = subordinate_ids("/etc/subuid", account, &mut warnings);
        let gid_ranges = subordinate_ids("/etc/subgid", account, &mut warnings);
        if !uid_ranges.is_empty() && !gid_ranges.is_empty() {
            warnings.extend(missing_tools());
        }
        if !warnings.is_empty() {
            warnings.push(
                "only user and group 0 exist in containers: files of others become root's, and programs that change their user fail"
                    .to_owned(),
            );
            return Self {
                uids: subordinate::mapping(account.uid, &[]),
                gids: subordinate::mapping(account.gid, &[]),
                warnings,
            };
        }
        let count = |ranges: &[Range]| {
            ranges
                .iter()
                .fold(0_u32, |sum, range| sum.saturating_add(range.count))
        };
        let least = count(&uid_ranges).min(count(&gid_ranges));
        if least < USUAL_COUNT {
            warnings.push(format!(
                "/etc/subuid or /etc/subgid gives {} only {least} ids: images with higher ones cannot be unpacked; usual are 65536",
                account.name
            ));
        }
        Self {
            uids: subordinate::mapping(account.uid, &uid_ranges),
            gids: subordinate::mapping(account.gid, &gid_ranges),
            warnings,
        }
    }

    /// Writes the maps of a process that has just made its user namespace.
    ///
    /// # Errors
    /// What newuidmap(1) or the kernel says.
    pub fn write(&self, pid: u32) -> Result<()> {
        // One's own ids need nobody's help, if setgroups(2) is given up.
        if let ([_], [_]) = (&self.uids[..], &self.gids[..]) {
            let write = |name: &str, text: &str| {
                let path = format!("/proc/{pid}/{name}");
                fs::write(&path, text)
                    .map_err(|source| Error::system(format!("write {path}"), source))
            };
            write("setgroups", "deny")?;
            write("uid_map", &lines(&self.uids))?;
            return write("gid_map", &lines(&self.gids));
        }
        run("newuidmap", pid, &self.uids)?;
        run("newgidmap", pid, &self.gids)
    }
}

fn subordinate_ids(path: &str, account: &Account, warnings: &mut Vec<String>) -> Vec<Range> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let ranges = subordinate::ranges(&text, &account.name, account.uid);
    if ranges.is_empty() {
        warnings.push(format!(
            "{path} has no entry for {name}; let root add one: usermod --add-sub{kind}s 100000-165535 {name} (or another free range)",
            name = account.name,
            kind = if path.ends_with("uid") { "uid" } else { "gid" },
        ));
    }
    ranges
}

fn missing_tools() -> Option<String> {
    let missing: Vec<&str> = ["newuidmap", "newgidmap"]
        .into_iter()
        .filter(|tool| crate::find_program(tool).is_none())
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} is not installed (Debian: apt install uidmap)",
            missing.join(" and ")
        )
    })
}

fn lines(extents: &[Extent]) -> String {
    extents
        .iter()
        .map(|extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count))
        .collect()
}

fn run(tool: &str, pid: u32, extents: &[Extent]) -> Result<()> {
    let program = crate::find_program(tool).ok_or_else(|| {
        Error::Setup(format!(
            "{tool} is not installed (Debian: apt install uidmap)"
        ))
    })?;
    let numbers = extents
        .iter()
        .flat_map(|extent| [extent.inside, extent.outside, extent.count]);
    let output = Command::new(&program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::system(format!("run {}", program.display()), source))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::system(
        format!(
            "map ids with {} (it has to be set-uid root or have the capability cap_setuid, and /etc/sub{{uid,gid}} have to allow it)",
            program.display()
        ),
        io::Error::other(said),
    ))
}

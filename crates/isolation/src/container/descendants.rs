//! The processes of a workload that has no control group to list them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The processes below a process, children's children included, sorted: of a supervisor, those of
/// its workload. Orphans belong to the workload's first process, or to the supervisor.
pub(super) fn of(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents = entries.filter_map(|entry| {
        let child: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((child, parent(&stat)?))
    });
    below(pid, &parents.collect())
}

/// The parent in the text of `/proc/PID/stat`: `pid (name) state parent ...`, where the name may
/// hold anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

fn below(pid: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found = BTreeSet::from([pid]);
    loop {
        let before = found.len();
        let more: Vec<u32> = parents
            .iter()
            .filter(|(_, parent)| found.contains(parent))
            .map(|(child, _)| *child)
            .collect();
        found.extend(more);
        if found.len() == before {
            break;
        }
    }
    found.remove(&pid);
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_children_are_found() {
        let parents = BTreeMap::from([(1, 0), (5, 1), (9, 5), (7, 9), (8, 1), (5000, 7)]);
        assert_eq!(below(5, &parents), [7, 9, 5000]);
        assert!(below(8, &parents).is_empty());
    }

    #[test]
    fn names_with_brackets_do_not_matter() {
        assert_eq!(parent("12 (a) b (c) S 34 12 12"), Some(34));
        assert_eq!(parent("12 (a"), None);
    }
}

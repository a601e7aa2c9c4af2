//! Memory and swap limits of cgroup v1, where swap is limited together with memory.
//!
//! The kernel demands `memory.limit_in_bytes <= memory.memsw.limit_in_bytes` after each write, so
//! the order of the two depends on the direction of the change.

use crate::apply::Apply;
use crate::apply_v1::limit;
use crate::error::Error;
use crate::hierarchy::Hierarchy;
use gamut_abi::resources::{Limit, Memory};

const LIMIT: &str = "memory.limit_in_bytes";
const MEMSW: &str = "memory.memsw.limit_in_bytes";

/// What the kernel shows for "no limit" is just below 2^63, rounded to a page.
pub(crate) const UNLIMITED_FROM: u64 = 1 << 62;

pub(crate) fn limits(
    apply: &mut Apply<'_>,
    hierarchy: &Hierarchy,
    memory: &Memory,
) -> Result<(), Error> {
    if memory.max_bytes.is_none() && memory.swap_max_bytes.is_none() {
        return Ok(());
    }
    let old_limit = current(apply, hierarchy, LIMIT)?;
    let Some(old_memsw) = current(apply, hierarchy, MEMSW)? else {
        if matches!(memory.swap_max_bytes, Some(Limit::Value(_))) {
            apply.warn(
                "the swap limit",
                "the kernel does not account swap (swapaccount=0)",
            );
        }
        return match memory.max_bytes {
            Some(max) => apply.set(hierarchy, LIMIT, &limit(max), "the memory limit"),
            None => Ok(()),
        };
    };
    let Some(old_limit) = old_limit else {
        apply.warn(
            "the memory limit",
            "the kernel has no memory.limit_in_bytes here",
        );
        return Ok(());
    };
    let new_limit = memory.max_bytes.unwrap_or(old_limit);
    let swap = memory
        .swap_max_bytes
        .unwrap_or_else(|| swap_of(old_limit, old_memsw));
    let new_memsw = memsw_of(new_limit, swap);
    if matches!((new_limit, swap), (Limit::Max, Limit::Value(_))) && memory.swap_max_bytes.is_some()
    {
        apply.warn(
            "the swap limit",
            "cgroup v1 limits swap only together with memory; set a memory limit too",
        );
    }
    let group = apply.group;
    let (first, second) = if order(new_memsw) > order(old_memsw) {
        ((MEMSW, new_memsw, old_memsw), (LIMIT, new_limit, old_limit))
    } else {
        ((LIMIT, new_limit, old_limit), (MEMSW, new_memsw, old_memsw))
    };
    let (file, new, old) = first;
    if new != old {
        group.write(hierarchy, file, &limit(new))?;
    }
    let (second_file, second_new, second_old) = second;
    if second_new == second_old {
        return Ok(());
    }
    group
        .write(hierarchy, second_file, &limit(second_new))
        .inspect_err(|_| {
            // Nothing half done. If this fails as well, the first error says enough.
            let _ = group.try_write(hierarchy, file, &limit(old));
        })
}

/// The limit in a file; `None` if the kernel lacks the file.
fn current(apply: &Apply<'_>, hierarchy: &Hierarchy, file: &str) -> Result<Option<Limit>, Error> {
    match apply.group.try_read(hierarchy, file) {
        Ok(text) => Ok(Some(parse(&text))),
        Err(error) if apply.is_lacking(hierarchy, &error) => Ok(None),
        Err(error) => Err(Error::system(
            "read",
            crate::group::format_path(
                &crate::group::absolute(hierarchy, &apply.group.relative),
                file,
            ),
            error,
        )),
    }
}

fn parse(text: &[u8]) -> Limit {
    let value = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    match value {
        Some(value) if value < UNLIMITED_FROM => Limit::Value(value),
        _ => Limit::Max,
    }
}

fn order(limit: Limit) -> u64 {
    match limit {
        Limit::Max => u64::MAX,
        Limit::Value(value) => value,
    }
}

/// The swap part of a v1 pair.
fn swap_of(memory: Limit, memsw: Limit) -> Limit {
    match (memory, memsw) {
        (Limit::Value(memory), Limit::Value(memsw)) => Limit::Value(memsw.saturating_sub(memory)),
        _ => Limit::Max,
    }
}

fn memsw_of(memory: Limit, swap: Limit) -> Limit {
    match (memory, swap) {
        (Limit::Value(memory), Limit::Value(swap)) => Limit::Value(memory.saturating_add(swap)),
        _ => Limit::Max,
    }
}

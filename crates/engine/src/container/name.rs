//! Names for containers that were not given one.

const ADJECTIVES: [&str; 32] = [
    "amber", "azure", "brisk", "bright", "calm", "clear", "crimson", "deft", "eager", "early",
    "fair", "fleet", "gentle", "golden", "green", "hardy", "indigo", "keen", "light", "lively",
    "lucid", "mellow", "nimble", "noble", "olive", "quick", "quiet", "rapid", "russet", "silver",
    "steady", "violet",
];

const NOUNS: [&str; 32] = [
    "alder", "aspen", "badger", "beacon", "birch", "brook", "cedar", "comet", "crane", "delta",
    "ember", "falcon", "fern", "finch", "harbor", "heron", "juniper", "lark", "linden", "maple",
    "meadow", "orbit", "otter", "pine", "prism", "quartz", "raven", "reef", "sparrow", "thistle",
    "willow", "wren",
];

/// A name made from an id: the same id and attempt give the same name.
#[must_use]
pub fn generate(id: &str, attempt: u32) -> String {
    let number = id
        .get(..8)
        .and_then(|digits| usize::from_str_radix(digits, 16).ok())
        .unwrap_or(0);
    let adjective = ADJECTIVES.get(number % 32).copied().unwrap_or("plain");
    let noun = NOUNS.get(number / 32 % 32).copied().unwrap_or("stone");
    if attempt == 0 {
        format!("{adjective}_{noun}")
    } else {
        let tail = id
            .get(8..8 + usize::try_from(attempt).unwrap_or(8).min(50))
            .unwrap_or("0");
        format!("{adjective}_{noun}_{tail}")
    }
}

//! Subordinate ids: which ids a user may map beside his own (subuid(5), subgid(5)).

use gamut_spec::id_map::Extent;

/// A run of ids that belongs to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The ranges of a user in the text of `/etc/subuid` or `/etc/subgid`: lines `name:first:count`,
/// where the name may be the number. Lines that are none, and ranges that reach beyond the highest
/// id, are left out, as newuidmap(1) does.
#[must_use]
pub fn ranges(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let first: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let ends = fields.next().is_none();
            let is_range = count > 0 && first.checked_add(count).is_some();
            (ends && is_range && (owner == name || owner == number))
                .then_some(Range { first, count })
        })
        .collect()
}

/// The most lines that the kernel takes (user_namespaces(7)).
const MAX_EXTENTS: usize = 340;

/// Maps 0 to the user and 1 and on to his subordinate ids, one range after the other.
#[must_use]
pub fn mapping(own: u32, ranges: &[Range]) -> Vec<Extent> {
    let mut extents = vec![Extent {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut next: u32 = 1;
    for range in ranges.iter().take(MAX_EXTENTS - 1) {
        let count = range.count.min(u32::MAX - next);
        if count == 0 {
            break;
        }
        extents.push(Extent {
            inside: next,
            outside: range.first,
            count,
        });
        next += count;
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "alice:100000:65536\ncarol:200000:1000\n4242:300000:5\n# no\ncarol:x:1\n\
                    carol:4294967295:2\ncarol:1:0\ncarol:1:2:3\n  carol:7:3  \n";
        let found = ranges(text, "carol", 4242);
        let expected = [(200_000, 1000), (300_000, 5), (7, 3)];
        assert_eq!(found, expected.map(|(first, count)| Range { first, count }));
        assert!(ranges(text, "carolin", 42).is_empty());
    }

    #[test]
    fn ranges_are_laid_end_to_end() {
        let list = [(200_000, 1000), (7, 3)].map(|(first, count)| Range { first, count });
        let extents: Vec<_> = mapping(4242, &list)
            .into_iter()
            .map(|extent| (extent.inside, extent.outside, extent.count))
            .collect();
        assert_eq!(extents, [(0, 4242, 1), (1, 200_000, 1000), (1001, 7, 3)]);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC*", numbers in "([a-c]:[0-9]{0,11}:[0-9]{0,11}\n){0,400}") {
            for text in [text, numbers] {
                let extents = mapping(1, &ranges(&text, "a", 0));
                prop_assert!(extents.len() <= MAX_EXTENTS);
                for pair in extents.windows(2) {
                    prop_assert_eq!(pair[0].inside + pair[0].count, pair[1].inside);
                }
            }
        }
    }
}

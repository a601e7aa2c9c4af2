//! The ids of a user namespace (user_namespaces(7), `/proc/PID/uid_map`).

/// One extent: `count` ids from `inside` on are those from `outside` on in the parent namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many; at least one.
    pub count: u32,
}

/// Which ids exist in a user namespace, and what they are outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    extents: Vec<Extent>,
}

impl IdMap {
    /// Reads the text of a `uid_map` or `gid_map`. Lines that are none are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let extents = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
                match (words.next(), words.next(), words.next(), words.next()) {
                    (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count @ 1..)), None) => {
                        Some(Extent {
                            inside,
                            outside,
                            count,
                        })
                    }
                    _ => None,
                }
            })
            .collect();
        Self { extents }
    }

    /// The extents, in the order of the file.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Whether it is that of the machine's first user namespace: every id is itself.
    #[must_use]
    pub fn is_initial(&self) -> bool {
        self.extents
            == [Extent {
                inside: 0,
                outside: 0,
                count: u32::MAX,
            }]
    }

    /// How many ids there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.extents
            .iter()
            .map(|extent| u64::from(extent.count))
            .sum()
    }

    /// Whether an id exists inside.
    #[must_use]
    pub fn contains(&self, inside: u32) -> bool {
        self.to_outside(inside).is_some()
    }

    /// What an id of the inside is outside.
    #[must_use]
    pub fn to_outside(&self, inside: u32) -> Option<u32> {
        self.extents.iter().find_map(|extent| {
            let offset = inside.checked_sub(extent.inside)?;
            (offset < extent.count).then(|| extent.outside.checked_add(offset))?
        })
    }

    /// The highest id of the run that begins with 0; `None` if 0 is not there.
    #[must_use]
    pub fn last_from_zero(&self) -> Option<u32> {
        let mut last = None;
        loop {
            let next = last.map_or(Some(0), |last: u32| last.checked_add(1));
            let extent = next.and_then(|next| {
                self.extents
                    .iter()
                    .find(|extent| extent.inside == next)
                    .map(|extent| next.saturating_add(extent.count - 1))
            });
            match extent {
                Some(end) => last = Some(end),
                None => return last,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_namespace_is_told_from_others() {
        assert!(IdMap::parse("         0          0 4294967295\n").is_initial());
        for other in ["0 1000 1\n", "0 0 65536\n", "", "0 0 4294967295 x\n"] {
            assert!(!IdMap::parse(other).is_initial(), "{other:?}");
        }
    }

    #[test]
    fn ids_are_found_in_their_extent() {
        let map = IdMap::parse("0 4242 1\n1 200000 65535\nnonsense\n70000 9 0\n");
        assert_eq!(map.count(), 65536);
        assert_eq!(map.to_outside(0), Some(4242));
        assert_eq!(map.to_outside(1), Some(200_000));
        assert_eq!(map.to_outside(65535), Some(265_534));
        assert_eq!(map.to_outside(65536), None);
        assert_eq!(map.last_from_zero(), Some(65535));
        assert_eq!(IdMap::parse("1 5 7").last_from_zero(), None);
        let wide = IdMap::parse("0 4294967290 100");
        assert_eq!(wide.to_outside(50), None);
        assert_eq!(
            IdMap::parse("0 0 4294967295").last_from_zero(),
            Some(u32::MAX - 1)
        );
    }
}

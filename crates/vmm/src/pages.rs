//! Sets of pages.

use std::ops::Range;

use crate::layout::PAGE_BYTES;

/// Pages of a guest's memory, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
    pages: u64,
}

impl PageSet {
    /// No page of a memory of this size.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        let pages = memory_bytes.div_ceil(PAGE_BYTES);
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(0);
        Self {
            words: vec![0; words],
            pages,
        }
    }

    /// Adds the pages that a range of addresses touches.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        for page in range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES).min(self.pages) {
            if let Some(word) = self.word(page) {
                *word |= 1 << (page % 64);
            }
        }
    }

    /// Adds the pages of a bitmap, as KVM gives it.
    pub fn insert_bitmap(&mut self, bitmap: &[u64]) {
        for (word, more) in self.words.iter_mut().zip(bitmap) {
            *word |= more;
        }
    }

    /// Whether a page is in it, by its address.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        let page = address / PAGE_BYTES;
        usize::try_from(page / 64)
            .ok()
            .and_then(|index| self.words.get(index))
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// Addresses of the pages, ascending.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        (0..self.pages)
            .map(|page| page * PAGE_BYTES)
            .filter(|address| self.contains(*address))
    }

    fn word(&mut self, page: u64) -> Option<&mut u64> {
        let index = usize::try_from(page / 64).ok()?;
        self.words.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_touched_are_in_it() {
        let mut pages = PageSet::new(100 * PAGE_BYTES);
        pages.insert(4095..4097);
        pages.insert(0x20_000..0x20_000);
        pages.insert(99 * PAGE_BYTES..u64::MAX);
        pages.insert_bitmap(&[1 << 5]);
        let found: Vec<u64> = pages
            .addresses()
            .map(|address| address / PAGE_BYTES)
            .collect();
        assert_eq!(found, [0, 1, 5, 99]);
        assert!(!pages.contains(u64::MAX));
    }
}

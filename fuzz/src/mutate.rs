//! Mutation of seeds: small, blind, repeatable.

/// No mutant is longer.
pub const MAX_INPUT_BYTES: usize = 64 << 10;

/// Values at which integer handling breaks.
const EDGES: &[u64] = &[
    0,
    1,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// The same in writing, and other texts that parsers trip over.
const WORDS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"2147483648",
    b"4294967296",
    b"9223372036854775808",
    b"18446744073709551616",
    b"1e999",
    b"0x",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"..",
    b"/",
    b"//",
    b"../../",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\r\n",
    b"\xff",
    "\u{e9}".as_bytes(),
    "\u{10ffff}".as_bytes(),
    b"%00",
    b":",
    b"=",
    b",",
    b"[[[[[[[[[[[[[[[[",
    b"((((((((((((((((",
];

/// xorshift64*: fast and repeatable, nothing more is needed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal runs.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The state must not be zero, and near seeds should part at once.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let _ = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from((self.next() >> 16) % bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Makes inputs from seeds.
#[derive(Debug)]
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    repair: Option<fn(&mut [u8])>,
}

impl Mutator {
    /// A mutator over `seeds`; `repair` is called on most of what it makes.
    #[must_use]
    pub fn new(mut seeds: Vec<Vec<u8>>, repair: Option<fn(&mut [u8])>) -> Self {
        if seeds.is_empty() {
            seeds.push(Vec::new());
        }
        let mut words: Vec<Vec<u8>> = WORDS.iter().map(|word| word.to_vec()).collect();
        for seed in &seeds {
            // The format's own words: one mutated seed then says what another would.
            let own = seed
                .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
                .filter(|word| (2..=32).contains(&word.len()));
            words.extend(own.map(<[u8]>::to_vec));
        }
        words.sort();
        words.dedup();
        Self {
            seeds,
            words,
            repair,
        }
    }

    /// The seeds themselves.
    #[must_use]
    pub fn seeds(&self) -> &[Vec<u8>] {
        &self.seeds
    }

    /// The next input.
    #[must_use]
    pub fn make(&self, random: &mut Random) -> Vec<u8> {
        let mut data = random.pick(&self.seeds).cloned().unwrap_or_default();
        for _ in 0..=random.below(8) {
            self.change(&mut data, random);
        }
        data.truncate(MAX_INPUT_BYTES);
        if let Some(repair) = self.repair
            && random.below(8) != 0
        {
            repair(&mut data);
        }
        data
    }

    fn change(&self, data: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(data.len() + 1);
        let length = random.below(1 + (data.len() - at).min(64));
        let big = random.below(1 + data.len() - at);
        match random.below(11) {
            0 => flip_bit(data, at, random),
            1 => {
                let byte = random.byte();
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
            2 => drop(data.drain(at..at + length)),
            3 => data.truncate(data.len() - big),
            4 => {
                let chunk: Vec<u8> = data.iter().skip(at).take(length).copied().collect();
                for _ in 0..=random.below(40) {
                    insert(data, at, &chunk);
                }
            }
            5 => write_edge(data, at, random),
            6 | 7 => {
                if let Some(word) = random.pick(&self.words) {
                    insert(data, at, word);
                }
            }
            8 => {
                if let Some(word) = random.pick(&self.words) {
                    data.splice(at..at + length, word.iter().copied());
                }
            }
            9 => {
                if let Some(other) = random.pick(&self.seeds) {
                    let from = random.below(other.len() + 1);
                    data.truncate(at);
                    data.extend(other.iter().skip(from));
                }
            }
            _ => {
                let noise: Vec<u8> = (0..random.below(16)).map(|_| random.byte()).collect();
                insert(data, at, &noise);
            }
        }
    }
}

fn insert(data: &mut Vec<u8>, at: usize, what: &[u8]) {
    if data.len() + what.len() <= MAX_INPUT_BYTES {
        data.splice(at..at, what.iter().copied());
    }
}

fn flip_bit(data: &mut [u8], at: usize, random: &mut Random) {
    let bit = random.below(8);
    if let Some(place) = data.get_mut(at) {
        *place ^= 1 << bit;
    }
}

fn write_edge(data: &mut [u8], at: usize, random: &mut Random) {
    let value = random.pick(EDGES).copied().unwrap_or(0);
    let width = 1 << random.below(4);
    let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
    let bytes = if random.below(2) == 0 {
        little.get(..width)
    } else {
        big.get(8 - width..)
    };
    if let (Some(place), Some(bytes)) = (data.get_mut(at..at + width), bytes) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_make_equal_inputs() {
        let mutator = Mutator::new(vec![b"some: seed".to_vec(), Vec::new()], None);
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..500)
                .map(|_| mutator.make(&mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn inputs_stay_small() {
        let mutator = Mutator::new(vec![vec![b'x'; MAX_INPUT_BYTES]], None);
        let mut random = Random::new(1);
        for _ in 0..300 {
            assert!(mutator.make(&mut random).len() <= MAX_INPUT_BYTES);
        }
    }
}

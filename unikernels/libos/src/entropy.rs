//! Random numbers for cryptography: ChaCha20 (RFC 8439) with a key from the host, and a new key
//! whenever the guest goes on in another place or time, so that clones do not share numbers.

use crate::cell::Global;
use crate::{boot, clock, platform};

const BLOCK_BYTES: usize = 64;
const KEY_BYTES: usize = 32;

struct Generator {
    key: [u8; KEY_BYTES],
    /// The part of the block behind the key that has not been given out.
    rest: [u8; BLOCK_BYTES - KEY_BYTES],
    unused: usize,
    /// Of the clock page, when the key was made; none yet without a key.
    generation: Option<u32>,
}

static GENERATOR: Global<Generator> = Global::new(Generator {
    key: [0; KEY_BYTES],
    rest: [0; BLOCK_BYTES - KEY_BYTES],
    unused: 0,
    generation: None,
});

impl Generator {
    fn seed_if_needed(&mut self) {
        let generation = clock::generation();
        match self.generation {
            None => {
                let (key, _) = boot::block().seed.split_at(KEY_BYTES);
                self.key.copy_from_slice(key);
            }
            Some(known) if known == generation => return,
            Some(_) => {
                let mut fresh = [0; KEY_BYTES];
                platform::entropy(&mut fresh);
                for (old, new) in self.key.iter_mut().zip(fresh) {
                    *old ^= new;
                }
            }
        }
        self.unused = 0;
        self.generation = Some(generation);
    }

    /// Replaces the key by the first half of a block, so that numbers that were given out cannot
    /// be found out from memory later; the second half is given out.
    fn refill(&mut self) {
        let block = block(&self.key);
        let (key, rest) = block.split_at(KEY_BYTES);
        self.key.copy_from_slice(key);
        self.rest.copy_from_slice(rest);
        self.unused = self.rest.len();
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.unused == 0 {
                self.refill();
            }
            self.unused -= 1;
            if let Some(place) = self.rest.get_mut(self.unused) {
                *byte = core::mem::take(place);
            }
        }
    }
}

/// Fills memory with random bytes.
pub fn fill(bytes: &mut [u8]) {
    GENERATOR.with(|generator| {
        generator.seed_if_needed();
        generator.fill(bytes);
    });
}

/// A random number.
#[must_use]
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn quarter_round(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    let mut step = |to: usize, from: usize, mixed: usize, bits: u32| {
        state[to] = state[to].wrapping_add(state[from]);
        state[mixed] = (state[mixed] ^ state[to]).rotate_left(bits);
    };
    step(a, b, d, 16);
    step(c, d, b, 12);
    step(a, b, d, 8);
    step(c, d, b, 7);
}

/// The first block of a key's stream, with nonce 0: every key is used for one block.
fn block(key: &[u8; KEY_BYTES]) -> [u8; BLOCK_BYTES] {
    const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
    let mut state = [0_u32; 16];
    let (constants, rest) = state.split_at_mut(4);
    constants.copy_from_slice(&CONSTANTS);
    let (words, _) = key.as_chunks::<4>();
    for (word, bytes) in rest.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    let begin = state;
    for _ in 0..10 {
        for columns in [
            [0, 4, 8, 12],
            [1, 5, 9, 13],
            [2, 6, 10, 14],
            [3, 7, 11, 15],
            [0, 5, 10, 15],
            [1, 6, 11, 12],
            [2, 7, 8, 13],
            [3, 4, 9, 14],
        ] {
            quarter_round(&mut state, columns);
        }
    }
    let mut bytes = [0; BLOCK_BYTES];
    let (places, _) = bytes.as_chunks_mut::<4>();
    for ((place, word), first) in places.iter_mut().zip(state).zip(begin) {
        *place = word.wrapping_add(first).to_le_bytes();
    }
    bytes
}

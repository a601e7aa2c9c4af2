//! Classic BPF, written from its end to its beginning.
//!
//! Jumps of cBPF go forwards only. Written backwards, every target is known when a jump to it is
//! written, and one that is out of reach of the 8-bit offsets gets a long jump in between.

use std::collections::HashMap;

// Opcodes of linux/bpf_common.h.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Comparisons of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

impl Test {
    fn code(self) -> u16 {
        match self {
            Self::Equal => 0x15,
            Self::Greater => 0x25,
            Self::GreaterOrEqual => 0x35,
        }
    }
}

/// One instruction, `struct sock_filter`.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// Place of an instruction, counted from the program's end.
pub(crate) type Label = usize;

#[derive(Default)]
pub(crate) struct Assembler {
    reversed: Vec<Instruction>,
    returns: HashMap<u32, Label>,
}

/// A return further away than this is written again: as long as the jump to it.
const NEAR: usize = 200;

impl Assembler {
    fn push(&mut self, code: u16, if_true: u8, if_false: u8, value: u32) -> Label {
        self.reversed.push(Instruction {
            code,
            if_true,
            if_false,
            value,
        });
        self.reversed.len() - 1
    }

    /// Instructions between the next one to be written and a label.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label - 1
    }

    /// A place that returns `value`.
    pub(crate) fn ret(&mut self, value: u32) -> Label {
        if let Some(label) = self.returns.get(&value)
            && self.distance(*label) <= NEAR
        {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.insert(value, label);
        label
    }

    /// Loads 32 bits of `struct seccomp_data` and goes on at `next`.
    pub(crate) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.join(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Masks the accumulator and goes on at `next`.
    pub(crate) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.join(next);
        self.push(AND, 0, 0, mask)
    }

    /// Sees to it that what is written next falls through to `next`.
    fn join(&mut self, next: Label) {
        let distance = self.distance(next);
        if distance > 0 {
            // Programs end far below 2^32 instructions.
            self.push(JUMP, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX));
        }
    }

    /// Compares the accumulator with `value` and branches.
    pub(crate) fn branch(
        &mut self,
        test: Test,
        value: u32,
        if_true: Label,
        if_false: Label,
    ) -> Label {
        if if_true == if_false {
            return if_true;
        }
        let (mut near_true, mut near_false) = (if_true, if_false);
        loop {
            let offsets = (
                u8::try_from(self.distance(near_true)),
                u8::try_from(self.distance(near_false)),
            );
            match offsets {
                (Ok(to_true), Ok(to_false)) => {
                    return self.push(test.code(), to_true, to_false, value);
                }
                (Err(_), _) => near_true = self.long_jump(near_true),
                (_, Err(_)) => near_false = self.long_jump(near_false),
            }
        }
    }

    fn long_jump(&mut self, target: Label) -> Label {
        let distance = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
        self.push(JUMP, 0, 0, distance)
    }

    /// The program that begins at `entry`: `struct sock_filter`s as native-endian integers of
    /// their eight bytes.
    pub(crate) fn finish(mut self, entry: Label) -> Vec<u64> {
        self.join(entry);
        self.reversed
            .iter()
            .rev()
            .map(|instruction| {
                let [c0, c1] = instruction.code.to_ne_bytes();
                let [v0, v1, v2, v3] = instruction.value.to_ne_bytes();
                u64::from_ne_bytes([
                    c0,
                    c1,
                    instruction.if_true,
                    instruction.if_false,
                    v0,
                    v1,
                    v2,
                    v3,
                ])
            })
            .collect()
    }
}

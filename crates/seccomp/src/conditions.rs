//! Comparisons of arguments.

use crate::assembler::{Assembler, Label, Test};

/// One comparison, the OCI operators reduced to three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Number of the argument, 0..=5.
    pub(crate) index: u32,
    /// What is compared.
    pub(crate) test: Test,
    /// With what; already masked.
    pub(crate) value: u64,
    /// Bits of the argument that count.
    pub(crate) mask: u64,
    /// The condition holds if the comparison does not.
    pub(crate) negated: bool,
}

/// Offset of the lower half of an argument in `struct seccomp_data`, and of the upper half.
fn offsets(index: u32) -> (u32, u32) {
    let first = 16 + 8 * index;
    if cfg!(target_endian = "little") {
        (first, first + 4)
    } else {
        (first + 4, first)
    }
}

fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX);
    let high = u32::try_from(value >> 32).unwrap_or(u32::MAX);
    (low, high)
}

/// Writes a condition: goes on at `holds` or at `fails`.
pub(crate) fn write(
    out: &mut Assembler,
    condition: &Condition,
    is_64_bit: bool,
    holds: Label,
    fails: Label,
) -> Label {
    let (yes, no) = if condition.negated {
        (fails, holds)
    } else {
        (holds, fails)
    };
    let (value_low, value_high) = halves(condition.value);
    let (mask_low, mask_high) = halves(condition.mask);
    let (offset_low, offset_high) = offsets(condition.index);
    let low = out.branch(condition.test, value_low, yes, no);
    let low = load(out, offset_low, mask_low, low);
    if !is_64_bit {
        return low;
    }
    let equal = out.branch(Test::Equal, value_high, low, no);
    let high = match condition.test {
        Test::Equal => equal,
        Test::Greater | Test::GreaterOrEqual => out.branch(Test::Greater, value_high, yes, equal),
    };
    load(out, offset_high, mask_high, high)
}

fn load(out: &mut Assembler, offset: u32, mask: u32, next: Label) -> Label {
    let next = if mask == u32::MAX {
        next
    } else {
        out.and(mask, next)
    };
    out.load(offset, next)
}

/// Writes "equals any of `values`" for one argument; all values have the same upper half.
pub(crate) fn write_any_of(
    out: &mut Assembler,
    index: u32,
    values: &[u64],
    is_64_bit: bool,
    holds: Label,
    fails: Label,
) -> Label {
    let (offset_low, offset_high) = offsets(index);
    let mut next = fails;
    for value in values.iter().rev() {
        next = out.branch(Test::Equal, halves(*value).0, holds, next);
    }
    let low = out.load(offset_low, next);
    match values.first() {
        Some(first) if is_64_bit => {
            let high = out.branch(Test::Equal, halves(*first).1, low, fails);
            out.load(offset_high, high)
        }
        _ => low,
    }
}

impl Condition {
    /// Whether it is a plain "equals" that [`write_any_of`] can take, and its upper half.
    pub(crate) fn plain_equal(&self) -> Option<(u32, u32)> {
        (self.test == Test::Equal && !self.negated && self.mask == u64::MAX)
            .then(|| (self.index, halves(self.value).1))
    }
}

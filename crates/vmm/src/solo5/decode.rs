//! The privileged instructions that an image of Solo5 executes (Intel SDM volume 2). No I/O; the
//! bytes are the guest's.

/// Number of a general register, as instructions encode it.
pub type Register = u8;

/// An address in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Register that it counts from.
    pub base: Option<Register>,
    /// Register that is added, shifted to the left.
    pub index: Option<(Register, u8)>,
    /// Number that is added.
    pub displacement: i32,
    /// It counts from the next instruction.
    pub from_next: bool,
}

/// What an instruction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// `lgdt`: takes a global descriptor table.
    LoadGlobalTable(Address),
    /// `lidt`: takes an interrupt descriptor table.
    LoadInterruptTable(Address),
    /// `ltr`: takes a task state segment.
    LoadTask(Register),
    /// `mov`: takes a segment; 2 is the stack segment.
    LoadSegment(u8, Register),
    /// `lretq`.
    FarReturn,
    /// `iretq`.
    InterruptReturn,
    /// `rdmsr`.
    ReadModelRegister,
    /// `wrmsr`.
    WriteModelRegister,
    /// `mov` from the control register of this number.
    ReadControl(u8, Register),
    /// `cli` or `sti`: there are no interrupts.
    SetInterrupts,
    /// `hlt`.
    Halt,
}

/// An instruction and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// What it does.
    pub instruction: Instruction,
    /// Its size.
    pub bytes: u8,
}

/// Reads bytes one by one.
struct Cursor<'bytes> {
    bytes: &'bytes [u8],
    at: u8,
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(usize::from(self.at))?;
        self.at += 1;
        // No instruction is longer.
        (self.at <= 15).then_some(byte)
    }

    fn next_i32(&mut self) -> Option<i32> {
        let bytes = [self.next()?, self.next()?, self.next()?, self.next()?];
        Some(i32::from_le_bytes(bytes))
    }
}

/// Bits of a REX prefix.
const WIDE: u8 = 8;
const MORE_REG: u8 = 4;
const MORE_INDEX: u8 = 2;
const MORE_BASE: u8 = 1;

/// Tells an instruction. `None` if it is none of those.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Decoded> {
    let mut cursor = Cursor { bytes, at: 0 };
    let mut rex = 0;
    let mut byte = cursor.next()?;
    if byte & 0xf0 == 0x40 {
        rex = byte & 0xf;
        byte = cursor.next()?;
    }
    let is_wide = rex & WIDE != 0;
    let instruction = match byte {
        0xfa | 0xfb => Instruction::SetInterrupts,
        0xf4 => Instruction::Halt,
        0xcb if is_wide => Instruction::FarReturn,
        0xcf if is_wide => Instruction::InterruptReturn,
        0x8e => {
            let (mode, segment, register) = fields(cursor.next()?);
            // 1 would be the code segment, which cannot be moved to.
            if mode != 3 || segment == 1 || segment > 5 {
                return None;
            }
            Instruction::LoadSegment(segment, more(register, rex, MORE_BASE))
        }
        0x0f => two_bytes(&mut cursor, rex)?,
        _ => return None,
    };
    Some(Decoded {
        instruction,
        bytes: cursor.at,
    })
}

fn two_bytes(cursor: &mut Cursor<'_>, rex: u8) -> Option<Instruction> {
    match cursor.next()? {
        0x30 => Some(Instruction::WriteModelRegister),
        0x32 => Some(Instruction::ReadModelRegister),
        0x00 => match fields(cursor.next()?) {
            (3, 3, register) => Some(Instruction::LoadTask(more(register, rex, MORE_BASE))),
            _ => None,
        },
        0x01 => {
            let byte = cursor.next()?;
            match fields(byte) {
                (3, _, _) => None,
                (_, 2, _) => Some(Instruction::LoadGlobalTable(address(byte, rex, cursor)?)),
                (_, 3, _) => Some(Instruction::LoadInterruptTable(address(byte, rex, cursor)?)),
                _ => None,
            }
        }
        0x20 => {
            // The mode is ignored: both are registers.
            let (_, control, register) = fields(cursor.next()?);
            let control = more(control, rex, MORE_REG);
            Some(Instruction::ReadControl(
                control,
                more(register, rex, MORE_BASE),
            ))
        }
        _ => None,
    }
}

/// Mode, register (or kind of instruction), and register or base of a ModRM byte.
fn fields(byte: u8) -> (u8, u8, u8) {
    (byte >> 6, byte >> 3 & 7, byte & 7)
}

fn more(register: u8, rex: u8, bit: u8) -> Register {
    if rex & bit == 0 {
        register
    } else {
        register | 8
    }
}

/// The address that a ModRM byte, and what follows it, stands for (volume 2, 2.1.5).
fn address(byte: u8, rex: u8, cursor: &mut Cursor<'_>) -> Option<Address> {
    let (mode, _, base) = fields(byte);
    let mut found = Address {
        base: Some(more(base, rex, MORE_BASE)),
        index: None,
        displacement: 0,
        from_next: false,
    };
    let mut has_large = mode == 2;
    if base == 4 {
        let (shift, index, base) = fields(cursor.next()?);
        let index = more(index, rex, MORE_INDEX);
        // 4 stands for none.
        found.index = (index != 4).then_some((index, shift));
        found.base = Some(more(base, rex, MORE_BASE));
        if base == 5 && mode == 0 {
            found.base = None;
            has_large = true;
        }
    } else if base == 5 && mode == 0 {
        found.base = None;
        found.from_next = true;
        has_large = true;
    }
    if mode == 1 {
        found.displacement = i32::from(i8::from_le_bytes([cursor.next()?]));
    } else if has_large {
        found.displacement = cursor.next_i32()?;
    }
    Some(found)
}

/// Entry for fuzzers: must come back, whatever the bytes.
pub fn fuzz_decode(bytes: &[u8]) {
    if let Some(decoded) = decode(bytes) {
        let size = usize::from(decoded.bytes);
        assert!((1..=15).contains(&size) && size <= bytes.len());
        // What follows an instruction does not change it.
        assert!(decode(bytes.get(..size).unwrap_or_default()) == Some(decoded));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(base: Option<Register>, displacement: i32) -> Address {
        Address {
            base,
            index: None,
            displacement,
            from_next: false,
        }
    }

    #[test]
    fn instructions_of_start_code_are_told() {
        let cases: [(&[u8], Instruction); 17] = [
            (
                &[0x0f, 0x01, 0x12],
                Instruction::LoadGlobalTable(at(Some(2), 0)),
            ),
            (
                &[0x0f, 0x01, 0x54, 0x24, 0x0e],
                Instruction::LoadGlobalTable(at(Some(4), 14)),
            ),
            (
                &[0x0f, 0x01, 0x18],
                Instruction::LoadInterruptTable(at(Some(0), 0)),
            ),
            (
                &[0x41, 0x0f, 0x01, 0x5d, 0xf8],
                Instruction::LoadInterruptTable(at(Some(13), -8)),
            ),
            (
                &[0x0f, 0x01, 0x1d, 0, 1, 0, 0],
                Instruction::LoadInterruptTable(Address {
                    from_next: true,
                    ..at(None, 256)
                }),
            ),
            (
                &[0x42, 0x0f, 0x01, 0x9c, 0xe0, 0xff, 0xff, 0xff, 0xff],
                Instruction::LoadInterruptTable(Address {
                    index: Some((12, 3)),
                    ..at(Some(0), -1)
                }),
            ),
            (
                &[0x0f, 0x01, 0x1c, 0x25, 4, 0, 0, 0],
                Instruction::LoadInterruptTable(at(None, 4)),
            ),
            (&[0x0f, 0x00, 0xd8], Instruction::LoadTask(0)),
            (&[0x8e, 0xd0], Instruction::LoadSegment(2, 0)),
            (&[0x8e, 0xd8], Instruction::LoadSegment(3, 0)),
            (&[0x48, 0xcb], Instruction::FarReturn),
            (&[0x48, 0xcf], Instruction::InterruptReturn),
            (&[0x0f, 0x30], Instruction::WriteModelRegister),
            (&[0x0f, 0x32], Instruction::ReadModelRegister),
            (&[0x0f, 0x20, 0xd7], Instruction::ReadControl(2, 7)),
            (&[0xfa], Instruction::SetInterrupts),
            (&[0xf4], Instruction::Halt),
        ];
        for (bytes, instruction) in cases {
            let bytes_count = u8::try_from(bytes.len()).unwrap();
            let expected = Decoded {
                instruction,
                bytes: bytes_count,
            };
            assert_eq!(decode(bytes), Some(expected), "{bytes:x?}");
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None, "{bytes:x?}");
        }
        // mov to cs, lgdt of a register, ltr of memory, a system call, a 32-bit far return.
        for bytes in [
            &[0x8e, 0xc8][..],
            &[0x0f, 0x01, 0xd0],
            &[0x0f, 0x00, 0x18],
            &[0x0f, 5],
            &[0xcb],
        ] {
            assert_eq!(decode(bytes), None, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..20), first: u8) {
            fuzz_decode(&bytes);
            for start in [&[0x0f, 0x01][..], &[0x48, 0x0f, 0x01], &[0x8e], &[0x0f]] {
                fuzz_decode(&[start, &[first], &bytes].concat());
            }
        }
    }
}

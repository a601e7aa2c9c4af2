//! Architectures: how the kernel tells them apart and numbers its calls.
//!
//! A further architecture is a variant here and a table beside the others.

use crate::error::Error;
use crate::syscalls_i386::I386;
use crate::syscalls_other::OTHER;
use crate::syscalls_x86_64::{NOT_X32, X32, X86_64};
use oci_spec::runtime::Arch;

/// Set in the number of every x32 call (`__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Numbers of the calls that x32 has apart from x86-64; newer calls are below it.
pub(crate) const X32_OLD_BLOCK: std::ops::Range<u32> = 512..548;

/// Newest call of the tables, the same number on every architecture since 424.
pub(crate) const NEWEST: u32 = 470;

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_I386` of linux/audit.h.
pub(crate) const AUDIT_X86_64: u32 = 0xc000_003e;
pub(crate) const AUDIT_I386: u32 = 0x4000_0003;

/// An architecture that this machine can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86_64,
    X86,
    X32,
}

impl Architecture {
    /// The machine's own.
    pub(crate) fn native() -> Result<Self, Error> {
        if cfg!(target_arch = "x86_64") {
            Ok(Self::X86_64)
        } else {
            Err(Error::Architecture)
        }
    }

    /// `None` if a machine of the native architecture cannot run it.
    pub(crate) fn from_oci(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchNative => Self::native().ok(),
            _ => None,
        }
    }

    /// Whether arguments are 64 bits wide.
    pub(crate) fn is_64_bit(self) -> bool {
        self != Self::X86
    }

    /// Added to every number.
    pub(crate) fn base(self) -> u32 {
        match self {
            Self::X32 => X32_BIT,
            Self::X86_64 | Self::X86 => 0,
        }
    }

    /// Number of a call, without [`Architecture::base`].
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => find(X86_64, name),
            Self::X86 => find(I386, name),
            Self::X32 => find(X32, name).or_else(|| {
                if NOT_X32.binary_search(&name).is_ok() {
                    return None;
                }
                find(X86_64, name)
            }),
        }
    }
}

fn find(table: &[(&str, u32)], name: &str) -> Option<u32> {
    let at = table
        .binary_search_by(|(known, _)| (*known).cmp(name))
        .ok()?;
    Some(table[at].1)
}

/// Whether any architecture of Linux has a call of this name, ours or another.
pub(crate) fn is_known(name: &str) -> bool {
    find(X86_64, name).is_some() || find(I386, name).is_some() || OTHER.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_without_doubles() {
        for table in [X86_64, I386, X32] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert!(table.iter().all(|(_, number)| *number <= 547));
        }
        assert!(NOT_X32.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(OTHER.windows(2).all(|pair| pair[0] < pair[1]));
        for table in [X86_64, I386] {
            assert_eq!(table.iter().map(|(_, number)| *number).max(), Some(NEWEST));
            let mut numbers: Vec<u32> = table.iter().map(|(_, number)| *number).collect();
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn numbers_are_those_of_libc() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("mseal", libc::SYS_mseal),
            ("execve", libc::SYS_execve),
        ] {
            let found = Architecture::X86_64.number(name).map(i64::from);
            assert_eq!(found, Some(number), "{name}");
        }
        assert_eq!(Architecture::X86.number("socketcall"), Some(102));
        assert_eq!(Architecture::X32.number("execve"), Some(520));
        assert_eq!(Architecture::X32.number("read"), Some(0));
        assert_eq!(Architecture::X32.number("uselib"), None);
        assert_eq!(Architecture::X86_64.number("no_such_call"), None);
        assert!(is_known("riscv_hwprobe") && !is_known("no_such_call"));
    }
}

//! Capability sets (capabilities(7)).

use crate::error::{Context, Error};
use crate::sys::{self, Errno, SysResult};
use gamut_abi::capability::NAMES;
use gamut_abi::plan::Capabilities;

/// Number of CAP_SYS_ADMIN.
pub(crate) const SYS_ADMIN: u32 = 21;

/// No kernel has more.
const MAX_CAPABILITIES: u32 = 64;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

/// Effective, permitted and inheritable set of a process.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// One capability as a set.
pub(crate) fn bit(capability: u32) -> u64 {
    1 << capability
}

/// Sets of this process (capget(2)).
pub(crate) fn get() -> SysResult<Sets> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut words = [Word::default(); 2];
    // SAFETY: version 3 fills two words.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) } < 0 {
        return Err(Errno::last());
    }
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(words[0].effective, words[1].effective),
        permitted: join(words[0].permitted, words[1].permitted),
        inheritable: join(words[0].inheritable, words[1].inheritable),
    })
}

/// Changes the sets of this process (capset(2)).
pub(crate) fn set(sets: Sets) -> SysResult<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let half = |set: u64, index: u32| u32::try_from(set >> (32 * index) & 0xffff_ffff).unwrap_or(0);
    let words = [0, 1].map(|index| Word {
        effective: half(sets.effective, index),
        permitted: half(sets.permitted, index),
        inheritable: half(sets.inheritable, index),
    });
    // SAFETY: version 3 reads two words.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) } < 0 {
        return Err(Errno::last());
    }
    Ok(())
}

/// What the plan asks for, cut down to what this process has to give. A warning names the rest.
pub(crate) fn limit(wanted: &Capabilities, held: Sets, warnings: &mut Vec<String>) -> Capabilities {
    let bounding = wanted.bounding & bounding_set();
    let permitted = wanted.permitted & held.permitted;
    let inheritable = wanted.inheritable & (held.permitted | held.inheritable);
    let missing = (wanted.bounding & !bounding)
        | (wanted.permitted & !permitted)
        | (wanted.inheritable & !inheritable);
    if missing != 0 {
        let names: Vec<&str> = (0..MAX_CAPABILITIES)
            .filter(|capability| missing & bit(*capability) != 0)
            .map(name)
            .collect();
        warnings.push(
            [
                "not given, because the engine does not hold it itself: ",
                &names.join(", "),
            ]
            .concat(),
        );
    }
    Capabilities {
        bounding,
        permitted,
        effective: wanted.effective & permitted,
        inheritable,
        ambient: wanted.ambient & permitted & inheritable,
    }
}

fn name(capability: u32) -> &'static str {
    usize::try_from(capability)
        .ok()
        .and_then(|index| NAMES.get(index))
        .copied()
        .unwrap_or("a capability that this kernel does not know")
}

fn bounding_set() -> u64 {
    let mut set = 0;
    for capability in 0..MAX_CAPABILITIES {
        match sys::prctl(libc::PR_CAPBSET_READ, u64::from(capability), 0) {
            Ok(1) => set |= bit(capability),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    set
}

/// Takes everything that is not wanted out of the bounding set.
pub(crate) fn drop_bounding(wanted: u64) -> Result<(), Error> {
    for capability in 0..MAX_CAPABILITIES {
        if wanted & bit(capability) != 0 {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0) {
            Ok(_) => {}
            // There are no more.
            Err(Errno(libc::EINVAL)) => break,
            Err(errno) => {
                // Without CAP_SETPCAP it is fine if there was nothing to drop.
                if sys::prctl(libc::PR_CAPBSET_READ, u64::from(capability), 0) != Ok(0) {
                    return Err(Error::system(
                        &[
                            "drop capability ",
                            name(capability),
                            " from the bounding set",
                        ]
                        .concat(),
                        errno,
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Makes exactly these capabilities ambient. Their permitted and inheritable bits must be set.
pub(crate) fn set_ambient(ambient: u64) -> Result<(), Error> {
    let clear_all = u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs());
    let raise = u64::from(libc::PR_CAP_AMBIENT_RAISE.unsigned_abs());
    sys::prctl(libc::PR_CAP_AMBIENT, clear_all, 0).doing("clear", "ambient capabilities")?;
    for capability in 0..MAX_CAPABILITIES {
        if ambient & bit(capability) != 0 {
            sys::prctl(libc::PR_CAP_AMBIENT, raise, u64::from(capability))
                .doing("make ambient the capability", name(capability))?;
        }
    }
    Ok(())
}

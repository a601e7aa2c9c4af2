//! The device filter of cgroup v2: a generator of BPF_PROG_TYPE_CGROUP_DEVICE programs and the
//! calls of bpf(2) that attach them.

use crate::devices::is_total;
use gamut_abi::resources::{DeviceKind, DeviceRule, access};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction as the eight bytes of `struct bpf_insn`, in memory order.
type Instruction = [u8; 8];

// Opcodes (Linux `Documentation/bpf/standardization/instruction-set.rst`).
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE_REGISTER: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JUMP_IF_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_IF_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// Registers.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The accesses asked for that no rule has decided yet.
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// `BPF_DEVCG_DEV_*` of linux/bpf.h. Its access bits are those of `gamut_abi::resources::access`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> Instruction {
    let [o0, o1] = offset.to_ne_bytes();
    let [v0, v1, v2, v3] = value.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") {
        destination | source << 4
    } else {
        destination << 4 | source
    };
    [code, registers, o0, o1, v0, v1, v2, v3]
}

/// Compiles rules: for each access that is asked for, the last rule that speaks of the device and
/// the access decides; what no rule speaks of is allowed. The call is allowed if all its accesses
/// are.
pub(crate) fn device_filter(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, UNDECIDED, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, UNDECIDED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        if is_total(rule) {
            // Nothing before it can matter, and the verifier refuses unreachable code.
            finish(&mut program, rule.allow);
            return program;
        }
        if rule.access & access::ALL != 0 {
            add_rule(&mut program, rule);
        }
    }
    finish(&mut program, true);
    program
}

fn finish(program: &mut Vec<Instruction>, allow: bool) {
    program.push(instruction(MOVE, RESULT, 0, 0, i32::from(allow)));
    program.push(instruction(EXIT, 0, 0, 0, 0));
}

fn add_rule(program: &mut Vec<Instruction>, rule: &DeviceRule) {
    let bits = i32::from(rule.access & access::ALL);
    let mut tests: Vec<(u8, i32)> = Vec::with_capacity(3);
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => tests.push((KIND, BLOCK)),
        DeviceKind::Character => tests.push((KIND, CHARACTER)),
    }
    // The kernel's numbers are 32 bits wide and loaded zero-extended, but the immediate of a
    // 64-bit comparison is sign-extended: numbers from 2^31 up exist on no system and match none.
    for (register, wanted) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        match wanted.map(i32::try_from) {
            None => {}
            Some(Ok(wanted)) => tests.push((register, wanted)),
            Some(Err(_)) => return,
        }
    }
    let body: Vec<Instruction> = if rule.allow {
        vec![
            instruction(AND, UNDECIDED, 0, 0, access_mask(bits)),
            instruction(JUMP_IF_NOT_EQUAL, UNDECIDED, 0, 2, 0),
            instruction(MOVE, RESULT, 0, 0, 1),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    } else {
        vec![
            instruction(MOVE_REGISTER, SCRATCH, UNDECIDED, 0, 0),
            instruction(AND, SCRATCH, 0, 0, bits),
            instruction(JUMP_IF_EQUAL, SCRATCH, 0, 2, 0),
            instruction(MOVE, RESULT, 0, 0, 0),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    };
    let count = tests.len();
    for (index, (register, wanted)) in tests.into_iter().enumerate() {
        let skip = i16::try_from(count - index - 1 + body.len()).unwrap_or(i16::MAX);
        program.push(instruction(JUMP_IF_NOT_EQUAL, register, 0, skip, wanted));
    }
    program.extend(body);
}

fn access_mask(decided: i32) -> i32 {
    i32::from(access::ALL) & !decided
}

// Commands and constants of linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced_program: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct ByIdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is one of the structures above, each a prefix of `union bpf_attr` for
    // its command; the size given is its own, and the addresses in it point to live buffers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

fn descriptor(result: libc::c_int) -> OwnedFd {
    // SAFETY: bpf(2) has just returned this descriptor, nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(result) }
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    // A descriptor is never negative.
    u32::try_from(descriptor.as_raw_fd()).unwrap_or(u32::MAX)
}

fn address<T>(pointer: *const T) -> u64 {
    // Lossless: the kernel takes every pointer as 64 bits.
    u64::try_from(pointer.addr()).unwrap_or(0)
}

/// Loads a program and attaches it to a group in place of the ones that are there. At no time is
/// the group without a filter once it has had one.
pub(crate) fn attach_device_filter(
    group: BorrowedFd<'_>,
    program: &[Instruction],
) -> io::Result<()> {
    use std::os::fd::AsFd;
    let new = load(program)?;
    let old = attached(group)?;
    let mut attributes = AttachAttributes {
        target: number(group),
        program: number(new.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replaced_program: 0,
    };
    if let [only] = old.as_slice() {
        attributes.flags |= BPF_F_REPLACE;
        attributes.replaced_program = number(only.as_fd());
        match bpf(BPF_PROG_ATTACH, &mut attributes) {
            Ok(_) => return Ok(()),
            // Kernels before 5.6 cannot replace; the old one goes after the new one has come.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                attributes.flags = BPF_F_ALLOW_MULTI;
                attributes.replaced_program = 0;
            }
            Err(error) => return Err(error),
        }
    }
    bpf(BPF_PROG_ATTACH, &mut attributes)?;
    for program in &old {
        let mut detach = AttachAttributes {
            target: number(group),
            program: number(program.as_fd()),
            attach_type: BPF_CGROUP_DEVICE,
            ..AttachAttributes::default()
        };
        bpf(BPF_PROG_DETACH, &mut detach)?;
    }
    Ok(())
}

pub(crate) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"gamut_devices");
    let mut attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: address(program.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        name,
        ..LoadAttributes::default()
    };
    bpf(BPF_PROG_LOAD, &mut attributes).map(descriptor)
}

/// The device programs attached to the group itself.
fn attached(group: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    // The kernel allows 64 programs a group.
    let mut ids = [0_u32; 64];
    let mut query = QueryAttributes {
        target: number(group),
        attach_type: BPF_CGROUP_DEVICE,
        program_ids: address(ids.as_mut_ptr().cast_const()),
        program_count: 64,
        ..QueryAttributes::default()
    };
    bpf(BPF_PROG_QUERY, &mut query)?;
    let count = usize::try_from(query.program_count)
        .unwrap_or(0)
        .min(ids.len());
    ids[..count]
        .iter()
        .map(|id| {
            let mut attributes = ByIdAttributes {
                id: *id,
                ..ByIdAttributes::default()
            };
            bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes).map(descriptor)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    /// Runs a program as the kernel would; only the opcodes of the generator.
    fn run(program: &[Instruction], kind: u8, bits: u8, major: u32, minor: u32) -> bool {
        let context = [u32::from(bits) << 16 | u32::from(kind), major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let [code, both, o0, o1, v0, v1, v2, v3] = program[at];
            let (destination, source) = (usize::from(both & 15), usize::from(both >> 4));
            let offset = usize::try_from(i16::from_ne_bytes([o0, o1])).unwrap();
            let value = i64::from(i32::from_ne_bytes([v0, v1, v2, v3])).cast_unsigned();
            at += 1;
            match code {
                LOAD_WORD => registers[destination] = u64::from(context[offset / 4]),
                MOVE_REGISTER => registers[destination] = registers[source],
                MOVE => registers[destination] = value,
                AND => registers[destination] &= value,
                SHIFT_RIGHT => registers[destination] >>= value,
                JUMP_IF_NOT_EQUAL if registers[destination] != value => at += offset,
                JUMP_IF_EQUAL if registers[destination] == value => at += offset,
                JUMP_IF_NOT_EQUAL | JUMP_IF_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    /// The definition: for each access the last rule that speaks of it.
    fn evaluate(rules: &[DeviceRule], kind: u8, bits: u8, major: u32, minor: u32) -> bool {
        [access::MKNOD, access::READ, access::WRITE]
            .into_iter()
            .filter(|bit| bits & bit != 0)
            .all(|bit| {
                rules
                    .iter()
                    .rev()
                    .find(|rule| {
                        let kinds: &[u8] = match rule.kind {
                            DeviceKind::All => &[1, 2],
                            DeviceKind::Block => &[1],
                            DeviceKind::Character => &[2],
                        };
                        kinds.contains(&kind)
                            && rule.major.is_none_or(|number| number == major)
                            && rule.minor.is_none_or(|number| number == minor)
                            && rule.access & bit != 0
                    })
                    .is_none_or(|rule| rule.allow)
            })
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let kind = prop_oneof![
            Just(DeviceKind::All),
            Just(DeviceKind::Block),
            Just(DeviceKind::Character)
        ];
        let number = || proptest::option::of(prop_oneof![0_u32..3, Just(u32::MAX)]);
        (any::<bool>(), kind, number(), number(), 0_u8..8).prop_map(
            |(allow, kind, major, minor, access)| DeviceRule {
                allow,
                kind,
                major,
                minor,
                access,
            },
        )
    }

    proptest! {
        #[test]
        fn programs_decide_as_defined(rules in proptest::collection::vec(rule(), 0..8)) {
            let program = device_filter(&rules);
            for kind in 1..=2 {
                for bits in 1..8 {
                    for major in 0..3 {
                        for minor in 0..3 {
                            prop_assert_eq!(
                                run(&program, kind, bits, major, minor),
                                evaluate(&rules, kind, bits, major, minor)
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_kernel_accepts_the_programs() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..50 {
            let rules = proptest::collection::vec(rule(), 0..30)
                .new_tree(&mut runner)
                .unwrap()
                .current();
            match load(&device_filter(&rules)) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    eprintln!("SKIPPED: loading eBPF programs is not permitted here");
                    return;
                }
                Err(error) => panic!("{error}: {rules:?}"),
            }
        }
    }
}

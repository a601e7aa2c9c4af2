//! A processor at privilege level 0, as far as an image of Solo5 uses it: privileged instructions,
//! and exceptions that go to the guest's own handlers (Intel SDM volume 3, chapters 6 and 7).

use crate::ending::{Ending, Fault};
use crate::memory::{BadAddress, GuestMemory};
use crate::report::{RFLAGS, RIP, RSP, Registers};
use crate::tables::has_error_code;
use gamut_abi::guest::bytes::{u16_at, u64_at};

use super::decode::{Address, Decoded, Instruction, Register, decode};

/// What can be changed of the real processor's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// General registers.
    pub registers: Registers,
    /// Where thread-local storage lies.
    pub fs_base: u64,
    /// The same for the other segment.
    pub gs_base: u64,
    /// Address of the last page fault.
    pub fault_address: u64,
}

/// A descriptor table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Table {
    base: u64,
    limit: u16,
}

/// The part of the guest's processor that the real one does not know of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shadow {
    global: Table,
    interrupts: Table,
    /// Where the task state segment lies; 0 without one.
    task: u64,
    code_selector: u64,
    stack_selector: u64,
    /// CR2.
    fault_address: u64,
}

const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;
/// Bits of a page fault's error code: the page is there, and it was level 3 that wanted it.
const IS_PRESENT: u64 = 1;
const BY_USER: u64 = 4;

const FS_BASE: u64 = 0xc000_0100;
const GS_BASE: u64 = 0xc000_0101;

/// Of RFLAGS: what a program may set, and what an exception clears (trap, nested task, resume).
const SETTABLE_FLAGS: u64 = 0x24_0dd5;
const CLEARED_FLAGS: u64 = 1 << 8 | 1 << 14 | 1 << 16;
const ALWAYS_SET_FLAG: u64 = 2;
/// Interrupts may be enabled for all that it matters: KVM wants the flag at level 3.
const MAX_INSTRUCTION_BYTES: u64 = 15;

/// Why an instruction is not carried out.
enum Refused {
    /// Its own exception is to be delivered.
    Fault,
    /// The guest ends.
    End(Ending),
}

impl From<BadAddress> for Refused {
    fn from(_: BadAddress) -> Self {
        Self::Fault
    }
}

impl Shadow {
    pub(super) fn exception(
        &mut self,
        vector: u8,
        error_code: u64,
        state: &mut State,
        memory: &mut GuestMemory,
    ) -> Option<Ending> {
        let ending = Ending::Fault(Fault::Exception {
            vector,
            error_code,
            address: state.fault_address,
        });
        match vector {
            GENERAL_PROTECTION => match self.carry_out(state, memory) {
                Ok(()) => return None,
                Err(Refused::End(ending)) => return Some(ending),
                Err(Refused::Fault) => {}
            },
            // On Solo5's own monitor the host's pages have these rights, and such an access ends
            // the guest without asking it.
            PAGE_FAULT if error_code & IS_PRESENT != 0 => return Some(ending),
            PAGE_FAULT => self.fault_address = state.fault_address,
            _ => {}
        }
        self.deliver(vector, error_code & !BY_USER, state, memory)
            .is_none()
            .then_some(ending)
    }

    /// Carries out the privileged instruction at which the guest stands.
    fn carry_out(&mut self, state: &mut State, memory: &GuestMemory) -> Result<(), Refused> {
        let rip = state.registers.get(RIP);
        let bytes = (1..=MAX_INSTRUCTION_BYTES)
            .rev()
            .find_map(|count| memory.read(rip, count).ok())
            .unwrap_or_default();
        let Decoded { instruction, bytes } = decode(bytes).ok_or(Refused::Fault)?;
        let next = rip.wrapping_add(u64::from(bytes));
        let rsp = state.registers.get(RSP);
        let mut to = next;
        match instruction {
            Instruction::LoadGlobalTable(at) => {
                self.global = table(effective(at, next, &state.registers), memory)?;
            }
            Instruction::LoadInterruptTable(at) => {
                self.interrupts = table(effective(at, next, &state.registers), memory)?;
            }
            Instruction::LoadTask(register) => {
                self.task = self.task_base(get(&state.registers, register), memory)?;
            }
            Instruction::LoadSegment(segment, register) => {
                if segment == 2 {
                    self.stack_selector = get(&state.registers, register) & 0xffff;
                }
            }
            Instruction::FarReturn => {
                let [rip, selector] = words(rsp, memory)?;
                to = rip;
                self.code_selector = selector & 0xffff;
                state.registers.set(RSP, rsp.wrapping_add(16));
            }
            Instruction::InterruptReturn => {
                let [rip, code, flags, stack, selector] = words(rsp, memory)?;
                to = rip;
                self.code_selector = code & 0xffff;
                self.stack_selector = selector & 0xffff;
                state.registers.set(RSP, stack);
                let flags = flags & SETTABLE_FLAGS | ALWAYS_SET_FLAG;
                state.registers.set(RFLAGS, flags);
            }
            Instruction::ReadModelRegister => read_model_register(state)?,
            Instruction::WriteModelRegister => write_model_register(state)?,
            Instruction::ReadControl(2, register) => {
                set(&mut state.registers, register, self.fault_address);
            }
            Instruction::ReadControl(..) => return Err(Refused::Fault),
            Instruction::SetInterrupts => {}
            Instruction::Halt => {
                return Err(Refused::End(Ending::Fault(Fault::Unsupported(
                    "it halts its processor, and there are no interrupts that could wake it"
                        .to_owned(),
                ))));
            }
        }
        state.registers.set(RIP, to);
        Ok(())
    }

    /// Where the task state segment of a selector lies.
    fn task_base(&self, selector: u64, memory: &GuestMemory) -> Result<u64, Refused> {
        let offset = selector & 0xfff8;
        if offset + 15 > u64::from(self.global.limit) {
            return Err(Refused::Fault);
        }
        let [low, high] = words(self.global.base.wrapping_add(offset), memory)?;
        Ok(low >> 16 & 0x00ff_ffff | low >> 32 & 0xff00_0000 | high << 32)
    }

    /// Puts the guest into its handler of an exception. `None` if it has none, or no stack for it.
    fn deliver(
        &self,
        vector: u8,
        error_code: u64,
        state: &mut State,
        memory: &mut GuestMemory,
    ) -> Option<()> {
        let offset = u64::from(vector) * 16;
        if offset + 15 > u64::from(self.interrupts.limit) {
            return None;
        }
        let gate = self.interrupts.base.checked_add(offset)?;
        let [low, high] = words(gate, memory).ok()?;
        let is_present = low >> 47 & 1 == 1;
        let kind = low >> 40 & 0x1f;
        if !is_present || !matches!(kind, 0xe | 0xf) {
            return None;
        }
        let handler = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        let old = state.registers.get(RSP);
        let stack = match low >> 32 & 7 {
            0 => old,
            number => {
                let at = self.task.checked_add(36 + 8 * (number - 1))?;
                let [stack] = (self.task != 0).then(|| words(at, memory).ok())??;
                stack
            }
        };
        let flags = state.registers.get(RFLAGS);
        let frame = [
            error_code,
            state.registers.get(RIP),
            self.code_selector,
            flags,
            old,
            self.stack_selector,
        ];
        let frame = frame.get(usize::from(!has_error_code(vector))..)?;
        let bytes: Vec<u8> = frame.iter().flat_map(|word| word.to_le_bytes()).collect();
        // The frame itself is aligned to 16 bytes, an error code comes below.
        let top = (stack & !15).checked_sub(bytes.len() as u64)?;
        let room = memory.write(top, bytes.len() as u64).ok()?;
        room.copy_from_slice(&bytes);
        state.registers.set(RSP, top);
        state.registers.set(RFLAGS, flags & !CLEARED_FLAGS);
        state.registers.set(RIP, handler);
        Some(())
    }
}

/// Places in [`Registers`] of registers as instructions number them.
const PLACES: [usize; 16] = [0, 2, 3, 1, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

fn place(register: Register) -> usize {
    PLACES.get(usize::from(register)).copied().unwrap_or(0)
}

fn get(registers: &Registers, register: Register) -> u64 {
    registers.get(place(register))
}

fn set(registers: &mut Registers, register: Register, value: u64) {
    registers.set(place(register), value);
}

fn effective(at: Address, next: u64, registers: &Registers) -> u64 {
    let base = at.base.map_or(0, |register| get(registers, register));
    let index = at
        .index
        .map_or(0, |(register, shift)| get(registers, register) << shift);
    base.wrapping_add(index)
        .wrapping_add(if at.from_next { next } else { 0 })
        .wrapping_add_signed(i64::from(at.displacement))
}

/// The operand of lgdt and lidt.
fn table(address: u64, memory: &GuestMemory) -> Result<Table, Refused> {
    let bytes = memory.read(address, 10)?;
    Ok(Table {
        limit: u16_at(bytes, 0).ok_or(Refused::Fault)?,
        base: u64_at(bytes, 2).ok_or(Refused::Fault)?,
    })
}

fn words<const COUNT: usize>(
    address: u64,
    memory: &GuestMemory,
) -> Result<[u64; COUNT], BadAddress> {
    let bytes = memory.read(address, 8 * COUNT as u64)?;
    Ok(std::array::from_fn(|index| {
        u64_at(bytes, index * 8).unwrap_or(0)
    }))
}

const RAX: Register = 0;
const RCX: Register = 1;
const RDX: Register = 2;
const LOW: u64 = 0xffff_ffff;

fn read_model_register(state: &mut State) -> Result<(), Refused> {
    let value = match get(&state.registers, RCX) & LOW {
        FS_BASE => state.fs_base,
        GS_BASE => state.gs_base,
        _ => return Err(Refused::Fault),
    };
    set(&mut state.registers, RAX, value & LOW);
    set(&mut state.registers, RDX, value >> 32);
    Ok(())
}

fn write_model_register(state: &mut State) -> Result<(), Refused> {
    let value = get(&state.registers, RDX) << 32 | get(&state.registers, RAX) & LOW;
    // The upper half of all addresses does not exist for a guest, and others are invalid.
    if value >> 47 != 0 {
        return Err(Refused::Fault);
    }
    match get(&state.registers, RCX) & LOW {
        FS_BASE => state.fs_base = value,
        GS_BASE => state.gs_base = value,
        _ => return Err(Refused::Fault),
    }
    Ok(())
}

/// Entry for fuzzers: a guest of arbitrary memory and registers meets some exceptions.
pub fn fuzz_emulate(data: &[u8]) {
    const MEMORY_BYTES: u64 = 0x4000;
    let Ok(mut memory) = GuestMemory::new(MEMORY_BYTES) else {
        return;
    };
    memory.allow(0x1000..0x2000, false);
    memory.allow(0x2000..MEMORY_BYTES, true);
    for start in [0x1000, 0x2000] {
        let bytes = data.get(..0x1000.min(data.len())).unwrap_or_default();
        if let Some(room) = memory.raw_mut(start, bytes.len() as u64) {
            room.copy_from_slice(bytes);
        }
    }
    let mut shadow = Shadow::default();
    let mut state = State::default();
    for (index, register) in state.registers.general.iter_mut().enumerate() {
        *register = u64_at(data, index * 8).unwrap_or(0x1000) % (2 * MEMORY_BYTES);
    }
    for byte in data.iter().take(64) {
        if shadow
            .exception(byte % 32, u64::from(*byte), &mut state, &mut memory)
            .is_some()
        {
            // On with the next instruction, whatever it is.
            let rip = state.registers.get(RIP);
            state.registers.set(RIP, (rip + 1) % MEMORY_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODE: u64 = 0x1000;
    const DATA: u64 = 0x2000;

    struct Rig {
        memory: GuestMemory,
        shadow: Shadow,
        state: State,
    }

    fn rig(code: &[u8]) -> Rig {
        let mut memory = GuestMemory::new(0x8000).unwrap();
        memory.allow(CODE..DATA, false);
        memory.allow(DATA..0x8000, true);
        memory
            .raw_mut(CODE, code.len() as u64)
            .unwrap()
            .copy_from_slice(code);
        let mut state = State::default();
        state.registers.set(RIP, CODE);
        state.registers.set(RSP, 0x6000);
        Rig {
            memory,
            shadow: Shadow::default(),
            state,
        }
    }

    impl Rig {
        fn put(&mut self, at: u64, words: &[u64]) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.memory
                .raw_mut(at, bytes.len() as u64)
                .unwrap()
                .copy_from_slice(&bytes);
        }

        fn step(&mut self) -> Option<Ending> {
            self.shadow
                .exception(13, 0, &mut self.state, &mut self.memory)
        }

        fn tables(&mut self) {
            self.shadow.global = Table {
                base: DATA,
                limit: 39,
            };
            // A task state segment at 0x3000, as a descriptor says it.
            self.put(DATA + 24, &[0x0000_8900_3000_0068, 0]);
            self.shadow.task = self.shadow.task_base(24, &self.memory).ok().unwrap();
            assert_eq!(self.shadow.task, 0x3000);
            // ist[1], which a gate calls 2.
            self.put(0x3000 + 44, &[0x5008]);
            self.shadow.interrupts = Table {
                base: 0x4000,
                limit: 16 * 16 - 1,
            };
            let gate = |ist: u64, handler: u64| {
                [
                    handler & 0xffff
                        | 8 << 16
                        | ist << 32
                        | 0x8e << 40
                        | (handler >> 16 & 0xffff) << 48,
                    handler >> 32,
                ]
            };
            self.put(0x4000 + 14 * 16, &gate(2, 0x1_2345_6789));
            self.put(0x4000 + 3 * 16, &gate(0, 0x1234));
            self.shadow.code_selector = 8;
            self.shadow.stack_selector = 16;
        }
    }

    #[test]
    fn returns_pop_what_they_should() {
        let mut rig = rig(&[0x48, 0xcb]);
        rig.put(0x6000, &[0x1010, 8]);
        assert_eq!(rig.step(), None);
        assert_eq!(
            (rig.state.registers.get(RIP), rig.state.registers.get(RSP)),
            (0x1010, 0x6010)
        );
        assert_eq!(rig.shadow.code_selector, 8);
        rig.state.registers.set(RIP, CODE);
        rig.memory
            .raw_mut(CODE, 2)
            .unwrap()
            .copy_from_slice(&[0x48, 0xcf]);
        rig.put(0x6010, &[0x1020, 8, u64::MAX, 0x5000, 16]);
        assert_eq!(rig.step(), None);
        let registers = rig.state.registers;
        assert_eq!((registers.get(RIP), registers.get(RSP)), (0x1020, 0x5000));
        // Neither the I/O privilege level nor the virtual modes can be had this way.
        assert_eq!(registers.get(RFLAGS), 0x24_0dd7);
    }

    #[test]
    fn thread_local_storage_can_be_set_and_nothing_else() {
        let mut rig = rig(&[0x0f, 0x30, 0x0f, 0x32, 0x0f, 0x30]);
        set(&mut rig.state.registers, RCX, FS_BASE);
        set(&mut rig.state.registers, RAX, 0xffff_ffff_1234_5678);
        set(&mut rig.state.registers, RDX, 0x7f);
        assert_eq!(rig.step(), None);
        assert_eq!(rig.state.fs_base, 0x7f_1234_5678);
        set(&mut rig.state.registers, RAX, 0);
        assert_eq!(rig.step(), None);
        assert_eq!(get(&rig.state.registers, RAX), 0x1234_5678);
        set(&mut rig.state.registers, RCX, 0xc000_0080);
        assert!(matches!(
            rig.step(),
            Some(Ending::Fault(Fault::Exception { vector: 13, .. }))
        ));
    }

    #[test]
    fn exceptions_go_to_the_guests_handlers() {
        let mut rig = rig(&[]);
        rig.tables();
        rig.state.registers.set(RFLAGS, 0x1_0302);
        rig.state.fault_address = 0x28;
        let before = rig.state;
        assert_eq!(
            rig.shadow.exception(14, 6, &mut rig.state, &mut rig.memory),
            None
        );
        assert_eq!(rig.state.registers.get(RIP), 0x1_2345_6789);
        let stack = rig.state.registers.get(RSP);
        assert_eq!(stack, 0x5000 - 48);
        let frame: [u64; 6] = words(stack, &rig.memory).unwrap();
        assert_eq!(frame, [2, CODE, 8, 0x1_0302, 0x6000, 16]);
        assert_eq!(rig.state.registers.get(RFLAGS), 0x202);
        assert_eq!(rig.shadow.fault_address, 0x28);
        // On the same stack, and without an error code.
        rig.state = before;
        rig.state.registers.set(RSP, 0x6008);
        assert_eq!(
            rig.shadow.exception(3, 0, &mut rig.state, &mut rig.memory),
            None
        );
        assert_eq!(rig.state.registers.get(RSP), 0x6000 - 40);
    }

    #[test]
    fn a_guest_without_a_handler_ends() {
        let mut rig = rig(&[0xf4]);
        rig.tables();
        let case = |rig: &mut Rig, vector, code| {
            rig.shadow
                .exception(vector, code, &mut rig.state, &mut rig.memory)
        };
        let is_fault = |ending, wanted| matches!(ending, Some(Ending::Fault(Fault::Exception { vector, .. })) if vector == wanted);
        assert!(is_fault(case(&mut rig, 6, 0), 6), "no gate");
        assert!(is_fault(case(&mut rig, 17, 0), 17), "beyond the table");
        assert!(
            is_fault(case(&mut rig, 14, 7), 14),
            "a page with other rights"
        );
        rig.put(0x3000 + 44, &[0x1010]);
        assert!(
            is_fault(case(&mut rig, 14, 6), 14),
            "a stack that cannot be written"
        );
        rig.shadow.task = 0;
        assert!(is_fault(case(&mut rig, 14, 6), 14), "no task state segment");
        assert!(
            matches!(rig.step(), Some(Ending::Fault(Fault::Unsupported(_)))),
            "halted"
        );
    }

    proptest! {
        #[test]
        fn any_guest_is_safe(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_emulate(&data);
        }
    }
}

//! What KVM's own failures mean.

use std::fmt::Write as _;
use std::io;

use kvm_bindings::{
    KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run,
};

use crate::ending::{Ending, Fault};

/// KVM_RUN itself failed.
pub(super) fn run_failed(error: &io::Error) -> Ending {
    if error.raw_os_error() == Some(libc::EFAULT) {
        return Ending::Machine(
            "the guest's memory cannot be had from the host: it is exhausted, or the file of the \
             read-only file system was shortened"
                .to_owned(),
        );
    }
    Ending::Machine(format!("run the guest's processor (KVM_RUN): {error}"))
}

/// KVM could not go on with the guest (`KVM_EXIT_INTERNAL_ERROR`, Documentation/virt/kvm/api.rst).
pub(super) fn internal(run: &kvm_run) -> Ending {
    // SAFETY: the exit reason says that this member of the union is valid.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    if internal.suberror != KVM_INTERNAL_ERROR_EMULATION {
        return Ending::Fault(Fault::Unsupported(format!(
            "the virtualization cannot go on (internal error {})",
            internal.suberror
        )));
    }
    // SAFETY: the suberror says that this member is valid.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    let mut text = "an instruction that this machine's virtualization cannot carry out".to_owned();
    // SAFETY: plain numbers, valid in any case; whether they mean something the flag tells.
    let (flags, size, bytes) = unsafe {
        let instruction = failure.__bindgen_anon_1.__bindgen_anon_1;
        (failure.flags, instruction.insn_size, instruction.insn_bytes)
    };
    let has_bytes = flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    if failure.ndata >= 1 && has_bytes {
        text.push_str(", bytes");
        for byte in bytes.iter().take(usize::from(size)) {
            let _ = write!(text, " {byte:02x}");
        }
    }
    Ending::Fault(Fault::Unsupported(text))
}

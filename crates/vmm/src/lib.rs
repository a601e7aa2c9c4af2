//! The machine monitor: one guest, its memory, processor and devices, in a jail.
//!
//! ```text
//! ELF file ─[prepare::Image]─► [layout] ─[prepare]─► memory ─[kvm]─► a processor at privilege level 3
//!                                                                │ port write
//!          [net] taps, [block] files, console ◄─[request]────────┘
//! ```
//!
//! Without KVM the same image runs in QEMU ([`tcg`]), behind the same [`machine::Guest`].
//!
//! The guest attacks: whatever it names is checked against its own memory ([`memory`]), requests
//! and the ELF file are read by code without I/O, and the process around them has nothing left
//! that would be worth taking ([`jail`]).

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the monitor knows x86-64 only");

pub mod block;
pub mod clock;
pub mod config_text;
pub mod control;
mod debug;
pub mod device;
pub mod ending;
mod entropy;
pub mod error;
pub mod fuzz;
pub mod jail;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod monitor;
pub mod net;
pub mod pages;
pub mod paging;
pub mod prepare;
pub mod report;
pub mod request;
mod signals;
pub mod snapshot;
pub mod solo5;
pub mod symbols;
pub mod tables;
pub mod tcg;
pub mod wait;

//! From the entry point to the application's `main`.

use core::fmt::Display;

use gamut_abi::guest::GUEST_ABI_VERSION;
use gamut_abi::guest::boot::{BOOT_MAGIC, BootBlock};
use gamut_abi::guest::note::{NOTE_BYTES, NOTE_NAME, NOTE_TYPE_UNIKERNEL, Note};

use crate::{boot, executor, memory, platform, println};

pub use gamut_abi::guest::note::{NEEDS_BLOCK, NEEDS_NETWORK};

/// Stack of an application that does not say, in bytes.
pub const DEFAULT_STACK_BYTES: u64 = 64 * 1024;

/// What an application's `main` returns: an exit code.
pub trait Termination {
    /// The exit code; what is to be said about an error is printed.
    fn report(self) -> u8;
}

impl Termination for () {
    fn report(self) -> u8 {
        0
    }
}

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl Termination for ExitCode {
    fn report(self) -> u8 {
        self.0
    }
}

impl<T: Termination, E: Display> Termination for Result<T, E> {
    fn report(self) -> u8 {
        match self {
            Ok(value) => value.report(),
            Err(error) => {
                println!("error: {error}");
                1
            }
        }
    }
}

/// Ends the guest at once, with an exit code.
pub fn exit(code: u8) -> ! {
    platform::exit(code)
}

/// Starts the library OS and runs an application. [`crate::app!`] calls it.
///
/// # Safety
/// `boot` is the boot block that the monitor put into `rdi`, and nothing ran before.
pub unsafe fn run<M, F>(boot: *const BootBlock, main: M) -> !
where
    M: FnOnce() -> F,
    F: Future<Output: Termination> + 'static,
{
    // SAFETY: the caller answers for it; the monitor keeps the block where it is.
    unsafe { boot::set(boot) };
    let block = boot::block();
    if block.magic != BOOT_MAGIC || block.abi_version < GUEST_ABI_VERSION {
        platform::panic(b"this image needs a monitor of Gamut's guest ABI version 1 or later");
    }
    memory::initialize(block);
    #[cfg(feature = "pvh")]
    crate::pvh::initialize_devices();
    #[cfg(feature = "net")]
    crate::net::initialize();
    let code = executor::block_on(main()).report();
    platform::exit(code)
}

/// The note by which a file says that it is a unikernel, as it lies in the file.
#[repr(C, align(4))]
pub struct FileNote {
    name_bytes: u32,
    description_bytes: u32,
    kind: u32,
    name: [u8; 8],
    description: [u8; NOTE_BYTES],
}

impl FileNote {
    /// A note with this description.
    #[must_use]
    pub const fn new(note: &Note) -> Self {
        let mut name = [0; 8];
        let (used, _) = name.split_at_mut(NOTE_NAME.len());
        used.copy_from_slice(NOTE_NAME);
        let mut description = [0; NOTE_BYTES];
        let (versions, sizes) = description.split_at_mut(8);
        let (version, needs) = versions.split_at_mut(4);
        version.copy_from_slice(&note.abi_version.to_le_bytes());
        needs.copy_from_slice(&note.needs.to_le_bytes());
        let (stack, memory) = sizes.split_at_mut(8);
        let (minimum, default) = memory.split_at_mut(8);
        stack.copy_from_slice(&note.stack_bytes.to_le_bytes());
        minimum.copy_from_slice(&note.minimum_memory_bytes.to_le_bytes());
        default.copy_from_slice(&note.default_memory_bytes.to_le_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "6 and 32")]
        Self {
            name_bytes: NOTE_NAME.len() as u32,
            description_bytes: NOTE_BYTES as u32,
            kind: NOTE_TYPE_UNIKERNEL,
            name,
            description,
        }
    }
}

/// What [`crate::app!`] takes beside `main`.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Bits of `NEEDS_*`.
    pub needs: u32,
    /// Stack in bytes.
    pub stack_bytes: u64,
    /// Least memory of the guest in bytes, 0 if it does not know.
    pub minimum_memory_bytes: u64,
    /// Memory of the guest in bytes if the user does not say, 0 leaves it to the monitor.
    pub default_memory_bytes: u64,
}

impl Needs {
    /// An application that needs no device and a small stack.
    pub const DEFAULT: Self = Self {
        needs: 0,
        stack_bytes: DEFAULT_STACK_BYTES,
        minimum_memory_bytes: 0,
        default_memory_bytes: 0,
    };

    /// The note that says so.
    #[must_use]
    pub const fn note(&self) -> Note {
        Note {
            abi_version: GUEST_ABI_VERSION,
            needs: self.needs,
            stack_bytes: self.stack_bytes,
            minimum_memory_bytes: self.minimum_memory_bytes,
            default_memory_bytes: self.default_memory_bytes,
        }
    }
}

/// Makes an `async fn` the main function of a unikernel.
///
/// What follows its name are fields of [`Needs`]: `app!(main, stack_bytes = 256 * 1024);`
#[macro_export]
macro_rules! app {
    ($main:path $(, $field:ident = $value:expr)* $(,)?) => {
        const GAMUT_NEEDS: $crate::start::Needs = $crate::start::Needs {
            $($field: $value,)*
            ..$crate::start::Needs::DEFAULT
        };

        #[used]
        #[unsafe(link_section = ".note.gamut")]
        static GAMUT_NOTE: $crate::start::FileNote =
            $crate::start::FileNote::new(&GAMUT_NEEDS.note());

        /// Where the monitor starts the guest (guest ABI version 1).
        #[unsafe(no_mangle)]
        unsafe extern "C" fn gamut_start(boot: *const $crate::abi::boot::BootBlock) -> ! {
            // SAFETY: the monitor passes its boot block, and starts here.
            unsafe { $crate::start::run(boot, $main) }
        }

        $crate::pvh_entry!(GAMUT_NEEDS.stack_bytes);
    };
}

/// No PVH entry without the feature `pvh`.
#[cfg(not(feature = "pvh"))]
#[doc(hidden)]
#[macro_export]
macro_rules! pvh_entry {
    ($stack_bytes:expr) => {};
}

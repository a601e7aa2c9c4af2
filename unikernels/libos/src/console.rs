//! The console: what the guest prints goes to its log, as a container's standard output does.

use core::fmt;

use crate::platform;

/// Most bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 512;

/// Writes bytes.
pub fn write(bytes: &[u8]) {
    for piece in bytes.chunks(crate::abi::hypercall::MAX_TRANSFER_BYTES as usize) {
        platform::console(piece);
    }
}

/// Gathers the pieces of a formatted text, so that a line is one exit to the monitor.
struct Gathered {
    bytes: [u8; BUFFER_BYTES],
    used: usize,
}

impl Gathered {
    fn flush(&mut self) {
        write(self.bytes.get(..self.used).unwrap_or_default());
        self.used = 0;
    }
}

impl fmt::Write for Gathered {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.used + text.len() > BUFFER_BYTES {
            self.flush();
        }
        match self.bytes.get_mut(self.used..self.used + text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                self.used += text.len();
            }
            None => write(text.as_bytes()),
        }
        Ok(())
    }
}

/// Writes a formatted text. [`crate::print!`] and [`crate::println!`] end here.
pub fn write_formatted(arguments: fmt::Arguments<'_>) {
    let mut gathered = Gathered {
        bytes: [0; BUFFER_BYTES],
        used: 0,
    };
    // The writer above never fails, and whose `Display` fails has printed what it could.
    let _ = fmt::write(&mut gathered, arguments);
    gathered.flush();
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => {
        $crate::console::write_formatted(::core::format_args!($($argument)*))
    };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::console::write(b"\n") };
    ($($argument:tt)*) => {
        $crate::console::write_formatted(
            ::core::format_args!("{}\n", ::core::format_args!($($argument)*))
        )
    };
}

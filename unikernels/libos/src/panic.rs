//! A panic ends the guest with its message and place.

use core::fmt::{self, Write as _};

use crate::platform;

/// Longer messages are cut.
const MESSAGE_BYTES: usize = 1024;

/// Takes a text without an allocator, which may be what failed.
struct Message {
    bytes: [u8; MESSAGE_BYTES],
    used: usize,
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = MESSAGE_BYTES - self.used;
        let text = text
            .as_bytes()
            .get(..text.len().min(free))
            .unwrap_or_default();
        if let Some(place) = self.bytes.get_mut(self.used..self.used + text.len()) {
            place.copy_from_slice(text);
            self.used += text.len();
        }
        Ok(())
    }
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut message = Message {
        bytes: [0; MESSAGE_BYTES],
        used: 0,
    };
    // Cut at most; the writer never fails.
    let _ = match info.location() {
        Some(location) => write!(message, "panicked at {location}: {}", info.message()),
        None => write!(message, "panicked: {}", info.message()),
    };
    platform::panic(message.bytes.get(..message.used).unwrap_or_default());
}

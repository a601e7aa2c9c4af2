//! Random bytes of the host.

use std::io;

/// Fills a buffer by getrandom(2).
///
/// # Errors
/// What the system answered.
pub fn fill(mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        // SAFETY: `room` is valid for writes of its length.
        let count = unsafe { libc::getrandom(room.as_mut_ptr().cast(), room.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

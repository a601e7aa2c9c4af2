//! Raw mode of the caller's terminal, and its size.

use std::io::{self, IsTerminal as _};

use crate::error::Error;

/// The terminal in raw mode; its former mode comes back when this is dropped, also while a panic
/// unwinds.
#[derive(Debug)]
pub struct RawMode {
    descriptor: i32,
    before: Mode,
}

struct Mode(libc::termios);

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("termios")
    }
}

impl RawMode {
    /// Puts standard input into raw mode. `None` if it is no terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> Result<Option<Self>, Error> {
        Self::enter_by(|mode| {
            // SAFETY: cfmakeraw changes the structure it is given.
            unsafe { libc::cfmakeraw(mode) };
        })
    }

    fn enter_by(change: impl FnOnce(&mut libc::termios)) -> Result<Option<Self>, Error> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let descriptor = libc::STDIN_FILENO;
        // SAFETY: `termios` is plain data for which all zeroes is a valid value.
        let mut mode: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: tcgetattr fills the structure it is given.
        if unsafe { libc::tcgetattr(descriptor, &raw mut mode) } != 0 {
            return Err(Error::io("read the terminal's mode")(
                io::Error::last_os_error(),
            ));
        }
        let before = Mode(mode);
        change(&mut mode);
        // SAFETY: tcsetattr reads the structure it is given.
        if unsafe { libc::tcsetattr(descriptor, libc::TCSADRAIN, &raw const mode) } != 0 {
            return Err(Error::io("set the terminal's mode")(
                io::Error::last_os_error(),
            ));
        }
        Ok(Some(Self { descriptor, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // SAFETY: tcsetattr reads the structure it is given. Should it fail, the terminal is gone.
        unsafe {
            libc::tcsetattr(self.descriptor, libc::TCSADRAIN, &raw const self.before.0);
        }
    }
}

/// The terminal without echo, for a password; echo comes back when this is dropped.
#[derive(Debug)]
pub struct SilentMode {
    _mode: RawMode,
}

impl SilentMode {
    /// Switches the echo of standard input off. `None` if it is no terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> Result<Option<Self>, Error> {
        let mode = RawMode::enter_by(|mode| mode.c_lflag &= !libc::ECHO)?;
        Ok(mode.map(|mode| Self { _mode: mode }))
    }
}

/// Rows and columns of the terminal at standard output; `None` if there is none.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    // SAFETY: `winsize` is plain data for which all zeroes is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ (ioctl_tty(2)) fills the structure it is given.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

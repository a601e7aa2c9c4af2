//! The pseudo-terminal of a process, from the container's own devpts (pty(7)).

use crate::error::{Context, Error};
use crate::path::{Missing, RootDirectory};
use crate::sys::{self, Errno, SysResult};
use gamut_abi::plan::TerminalSize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Both ends of a pseudo-terminal.
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a new terminal of the devpts that is mounted at `/dev/pts` in the container. That it is
/// a devpts, and not what somebody put there, is checked.
pub(crate) fn open(root: &RootDirectory, size: TerminalSize) -> Result<Terminal, Error> {
    let master = root
        .open_without_links("/dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY)
        .map_err(|errno| {
            Error::with_detail("open a terminal", errno, "it needs a devpts at /dev/pts")
        })?;
    let stat = sys::fstat(master.as_fd()).doing("open a terminal", "")?;
    let magic = sys::filesystem_magic(master.as_fd()).doing("open a terminal", "")?;
    if !sys::is_character_device(&stat, 5, 2) || magic != libc::DEVPTS_SUPER_MAGIC {
        return Err(Error::invalid(
            "open a terminal: /dev/pts/ptmx is not that of a devpts",
        ));
    }
    let slave = peer(&master).doing("open a terminal", "")?;
    resize(&master, size).doing("size the terminal", "")?;
    Ok(Terminal { master, slave })
}

fn peer(master: &OwnedFd) -> SysResult<OwnedFd> {
    let unlock: libc::c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCSPTLCK reads an int; TIOCGPTPEER takes flags and returns a new descriptor,
    // which is ours.
    unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) < 0 {
            return Err(Errno::last());
        }
        let slave: RawFd = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags);
        if slave < 0 {
            return Err(Errno::last());
        }
        Ok(OwnedFd::from_raw_fd(slave))
    }
}

fn resize(master: &OwnedFd, size: TerminalSize) -> SysResult<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a winsize.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } < 0 {
        return Err(Errno::last());
    }
    Ok(())
}

/// Lets line ends through as they are (`ONLCR` of termios(3)): the terminal on which the caller
/// shows the output makes of them what it needs.
pub(crate) fn leave_line_ends(slave: &OwnedFd) {
    // SAFETY: all zeros is a valid termios, which the calls fill and read while it lives.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(slave.as_raw_fd(), &raw mut settings) == 0 {
            settings.c_oflag &= !libc::ONLCR;
            libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &raw const settings);
        }
    }
}

/// Shows the terminal as `/dev/console`.
pub(crate) fn show_as_console(root: &RootDirectory, slave: &OwnedFd) -> Result<(), Error> {
    let (target, _) = root.open_or_make("/dev/console", Missing::File)?;
    sys::clone_tree(slave.as_fd(), c"", false)
        .and_then(|mount| sys::move_mount(mount.as_fd(), target.as_fd()))
        .doing("bind the terminal on", "/dev/console")
}

/// Makes the terminal on descriptor 0 the controlling one of this session.
pub(crate) fn make_controlling() -> SysResult<()> {
    // SAFETY: TIOCSCTTY takes a number.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(Errno::last());
    }
    Ok(())
}

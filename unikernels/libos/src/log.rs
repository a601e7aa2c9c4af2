//! Log lines with levels, on the console. `LOG` of the environment sets the level (`error`,
//! `warn`, `info`, `debug`); without it `info` is shown.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::{clock, env, println};

/// How urgent a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// What an operator wants to know.
    Info = 3,
    /// What a developer wants to know.
    Debug = 4,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// 0 until it has been read from the environment.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// Whether lines of a level are shown.
#[must_use]
pub fn is_enabled(level: Level) -> bool {
    let mut limit = LEVEL.load(Ordering::Relaxed);
    if limit == 0 {
        let wanted = env::var("LOG").unwrap_or_default();
        let levels = [Level::Error, Level::Warn, Level::Debug];
        let found = levels.into_iter().find(|level| level.name() == wanted);
        limit = found.unwrap_or(Level::Info) as u8;
        LEVEL.store(limit, Ordering::Relaxed);
    }
    level as u8 <= limit
}

/// Writes a line. The macros end here.
pub fn write(level: Level, arguments: fmt::Arguments<'_>) {
    if is_enabled(level) {
        let now_us = clock::monotonic_ns() / 1000;
        let (seconds, micros) = (now_us / 1_000_000, now_us % 1_000_000);
        println!("[{seconds:5}.{micros:06}] {}: {arguments}", level.name());
    }
}

/// Logs that something failed.
#[macro_export]
macro_rules! error {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Error, ::core::format_args!($($argument)*))
    };
}

/// Logs that something is odd.
#[macro_export]
macro_rules! warn {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Warn, ::core::format_args!($($argument)*))
    };
}

/// Logs what an operator wants to know.
#[macro_export]
macro_rules! info {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Info, ::core::format_args!($($argument)*))
    };
}

/// Logs what a developer wants to know.
#[macro_export]
macro_rules! debug {
    ($($argument:tt)*) => {
        $crate::log::write($crate::log::Level::Debug, ::core::format_args!($($argument)*))
    };
}

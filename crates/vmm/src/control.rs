//! How other threads reach a machine that runs: stop it, pause it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// What the threads of a monitor share.
#[derive(Debug)]
pub struct Control {
    /// Readable while the guest's wait is to end.
    wake: OwnedFd,
    stop: AtomicBool,
    pause: AtomicBool,
    running: Mutex<Running>,
}

/// The parts of a machine that other threads may touch; empty once it is gone.
#[derive(Debug, Default)]
struct Running {
    /// `stop_requested` of the guest's clock page.
    stop_word: Option<NonNull<AtomicU32>>,
    /// `immediate_exit` of the processor, and the thread that runs it.
    processor: Option<(NonNull<AtomicU8>, libc::pthread_t)>,
}

// SAFETY: both pointers are to atomics, and are taken back before what they point to goes away.
unsafe impl Send for Running {}

impl Control {
    /// For a machine to come.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn new() -> Result<Self> {
        // SAFETY: no pointers.
        let wake = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if wake < 0 {
            return Err(Error::last("make an event counter"));
        }
        Ok(Self {
            // SAFETY: just made, and nobody else's.
            wake: unsafe { OwnedFd::from_raw_fd(wake) },
            stop: AtomicBool::new(false),
            pause: AtomicBool::new(false),
            running: Mutex::default(),
        })
    }

    /// Asks the guest to shut down in order. It may be asked again.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let running = self.lock();
        if let Some(word) = running.stop_word {
            // SAFETY: alive as long as it is in `running`, whose lock is held.
            unsafe { word.as_ref() }.store(1, Ordering::SeqCst);
        }
        drop(running);
        self.wake();
    }

    /// Whether the guest has been asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Makes the machine return from running as soon as it can.
    pub fn pause(&self) {
        self.pause.store(true, Ordering::SeqCst);
        let running = self.lock();
        if let Some((flag, thread)) = running.processor {
            // SAFETY: alive as long as it is in `running`, whose lock is held.
            unsafe { flag.as_ref() }.store(1, Ordering::SeqCst);
            // SAFETY: the thread takes itself out of `running` before it ends.
            unsafe { libc::pthread_kill(thread, kick_signal()) };
        }
        drop(running);
        self.wake();
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.pause.store(false, Ordering::SeqCst);
        let running = self.lock();
        if let Some((flag, _)) = running.processor {
            // SAFETY: as in `pause`.
            unsafe { flag.as_ref() }.store(0, Ordering::SeqCst);
        }
    }

    /// Whether it is to pause.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        self.pause.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: `one` is valid for reads. A full counter is as good as a raised one.
        unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// The descriptor that becomes readable when a wait is to end.
    #[must_use]
    pub fn wake_descriptor(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    /// Takes the call that has ended a wait.
    pub fn take_call(&self) {
        let mut count = [0; 8];
        // SAFETY: `count` is valid for writes.
        unsafe {
            libc::read(
                self.wake.as_raw_fd(),
                count.as_mut_ptr().cast(),
                count.len(),
            )
        };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the guest reads that it is to stop.
    ///
    /// # Safety
    /// The word must live until [`Self::detach`].
    pub(crate) unsafe fn attach_memory(&self, stop_word: NonNull<AtomicU32>) {
        let mut running = self.lock();
        running.stop_word = Some(stop_word);
        let stop = u32::from(self.is_stopping());
        // SAFETY: the caller's promise.
        unsafe { stop_word.as_ref() }.store(stop, Ordering::SeqCst);
    }

    /// Says that this thread runs the processor.
    ///
    /// # Safety
    /// The flag must live, and this thread run, until [`Self::detach_processor`].
    pub(crate) unsafe fn attach_processor(&self, immediate_exit: NonNull<AtomicU8>) {
        let mut running = self.lock();
        // SAFETY: always possible.
        let thread = unsafe { libc::pthread_self() };
        running.processor = Some((immediate_exit, thread));
        let pause = u8::from(self.is_pausing());
        // SAFETY: the caller's promise.
        unsafe { immediate_exit.as_ref() }.store(pause, Ordering::SeqCst);
    }

    /// The processor is not run any more.
    pub(crate) fn detach_processor(&self) {
        self.lock().processor = None;
    }

    /// The machine goes away.
    pub(crate) fn detach(&self) {
        *self.lock() = Running::default();
    }
}

/// The signal that interrupts a processor.
fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn ignore(_: i32) {}

/// Prepares this process for [`Control::pause`]: its signal must interrupt, and do nothing else.
///
/// # Errors
/// What the system answered.
pub fn install_kick_handler() -> Result<()> {
    // SAFETY: an all-zero action is valid; the handler does nothing.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(i32) as libc::sighandler_t;
        libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut())
    };
    if done != 0 {
        return Err(Error::system(
            "install the handler that interrupts the processor",
            io::Error::last_os_error(),
        ));
    }
    Ok(())
}

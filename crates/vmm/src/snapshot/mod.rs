//! Saving a machine and going on elsewhere: three rungs, each on top of the one before.
//!
//! - [`Pause`]: it stands still between two instructions, and goes on.
//! - [`Snapshot`]: its state can be told while it stands still, and put into a fresh one.
//! - [`Transport`]: all of it can be written to and read from a stream.
//!
//! The rungs are for parts (processor, memory, clock) as for the whole machine.

mod format;

use std::io::{Read, Write};

use crate::clock::SavedClock;
use crate::error::Result;

pub use format::{MachineState, read_memory, read_state, write_memory, write_state};

/// Stands still and goes on.
pub trait Pause {
    /// Asks it to stand still. Returns at once.
    fn pause(&self);

    /// Lets it go on.
    fn resume(&self);
}

/// Tells its state.
pub trait Snapshot: Sized {
    /// What there is to tell.
    type State;

    /// The state. It must stand still.
    ///
    /// # Errors
    /// If the system does not tell it.
    fn save(&self) -> Result<Self::State>;

    /// Takes a state over.
    ///
    /// # Errors
    /// If the system refuses it.
    fn restore(&mut self, state: &Self::State) -> Result<()>;
}

/// A machine that can travel.
pub trait Transport: Sized {
    /// What a machine needs beside what comes in the stream.
    type Surroundings;

    /// Writes all of it. It must stand still.
    ///
    /// # Errors
    /// If the stream does not take it.
    fn send(&mut self, clock: SavedClock, to: &mut dyn Write) -> Result<()>;

    /// Reads one that was written, and makes it; and where its clock stood.
    ///
    /// # Errors
    /// If the stream holds no machine of this kind.
    fn receive(from: &mut dyn Read, with: Self::Surroundings) -> Result<(Self, SavedClock)>;
}

impl Pause for crate::control::Control {
    fn pause(&self) {
        Self::pause(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }
}

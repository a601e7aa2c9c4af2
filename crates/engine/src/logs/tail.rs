//! The last lines of a log, found from its end: what it costs depends on how many are asked for,
//! not on how long the log is.

use super::{Lines, LogLine};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// What a line is guessed to take in bytes; a wrong guess costs a second look.
const BYTES_PER_LINE: u64 = 256;
const LEAST_WINDOW_BYTES: u64 = 64 << 10;
/// How much further the next look goes back.
const WINDOW_GROWTH: u64 = 8;

/// Reads the last `count` lines of the file that `lines` has open; it is at the file's end then.
/// Fewer if the file has fewer. The parts of one line count once, and all are kept.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn last_lines(lines: &mut Lines, count: usize) -> io::Result<Tail> {
    let length = lines.reader.get_ref().metadata()?.len();
    let wanted = u64::try_from(count).unwrap_or(u64::MAX);
    let mut window = wanted
        .saturating_mul(BYTES_PER_LINE)
        .max(LEAST_WINDOW_BYTES);
    loop {
        let is_whole = window >= length;
        go_to(
            &mut lines.reader,
            if is_whole { 0 } else { length - window },
        )?;
        lines.begun.clear();
        let mut tail = Tail::new(count);
        while let Some(line) = lines.next()? {
            tail.push(line);
        }
        // Only one that was cut off at its front is sure to have begun with a whole line.
        if tail.is_cut || is_whole {
            return Ok(tail);
        }
        window = window.saturating_mul(WINDOW_GROWTH);
    }
}

/// Moves to the first beginning of a line behind `position`.
fn go_to(reader: &mut BufReader<File>, position: u64) -> io::Result<()> {
    reader.seek(SeekFrom::Start(position))?;
    let mut byte = [0];
    while position > 0 && reader.read(&mut byte)? == 1 && byte != *b"\n" {}
    Ok(())
}

/// The last so many lines of those that were pushed.
pub(super) struct Tail {
    count: usize,
    lines: VecDeque<LogLine>,
    /// Lines with their end.
    ends: usize,
    /// There were more.
    is_cut: bool,
}

impl Tail {
    fn new(count: usize) -> Self {
        Self {
            count,
            lines: VecDeque::new(),
            ends: 0,
            is_cut: false,
        }
    }

    fn push(&mut self, line: LogLine) {
        self.ends += usize::from(is_end(&line));
        self.lines.push_back(line);
        while self.ends > self.count {
            self.drop_first();
        }
    }

    /// Drops a line with all its parts.
    fn drop_first(&mut self) {
        self.is_cut = true;
        while let Some(line) = self.lines.pop_front() {
            if is_end(&line) {
                self.ends -= 1;
                return;
            }
        }
    }

    /// How many lines are missing to what was asked for.
    pub(super) fn missing(&self) -> usize {
        self.count - self.ends.min(self.count)
    }

    /// The lines, oldest first; none if none were asked for.
    pub(super) fn into_lines(self) -> VecDeque<LogLine> {
        match self.count {
            0 => VecDeque::new(),
            _ => self.lines,
        }
    }
}

fn is_end(line: &LogLine) -> bool {
    line.text.ends_with(b"\n")
}

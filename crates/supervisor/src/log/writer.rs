//! Batches, rotation, and what happens when the disk is full.

use super::Stream;
use super::file::{LogFile, rotate};
use super::lines::{LineSplitter, PREFIX_BYTES, Prefix, find_last_newline, find_newline};
use super::sink::Sink;
use super::time::TimeFormat;
use crate::sys::epoll::Epoll;
use gamut_abi::control::Log;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

/// Log lines that are collected before they are written.
const BATCH_BYTES: usize = 256 << 10;

/// Writes a log. Nothing here ever fails towards the workload: lines that cannot be written are
/// counted, and a marker line says so as soon as writing works again.
pub struct LogWriter {
    /// `None`: no file, only a sink.
    path: Option<PathBuf>,
    max_file_bytes: u64,
    max_files: u32,
    file: Option<LogFile>,
    time: TimeFormat,
    batch: Vec<u8>,
    lost: Lost,
    sink: Option<Sink>,
}

/// What could not be written.
#[derive(Default)]
struct Lost {
    lines: u64,
    bytes: u64,
    cause: String,
}

impl LogWriter {
    /// Opens a log for appending.
    ///
    /// # Errors
    /// Those of open(2), but a full or failing disk is not one: lines are then counted as lost.
    pub fn open(log: &Log) -> io::Result<Self> {
        let path = (!log.path.is_empty()).then(|| PathBuf::from(&log.path));
        let file = match path.as_deref().map(LogFile::open).transpose() {
            Ok(file) => file,
            Err(error) if is_disk_trouble(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            sink: log.sink.clone().map(Sink::new),
            path,
            max_file_bytes: if log.max_file_bytes == 0 {
                u64::MAX
            } else {
                log.max_file_bytes
            },
            max_files: log.max_files.max(1),
            file,
            time: TimeFormat::new(),
            batch: Vec::new(),
            lost: Lost::default(),
        })
    }

    /// Logs output of one stream, as it was read at `time_ns` (nanoseconds since the epoch).
    pub(crate) fn append(
        &mut self,
        stream: Stream,
        splitter: &mut LineSplitter,
        output: &[u8],
        time_ns: u64,
    ) {
        let prefix = Prefix::new(self.time.format(time_ns), stream);
        let mut rest = output;
        while !rest.is_empty() {
            let used = splitter.push(&prefix, rest, &mut self.batch, BATCH_BYTES);
            rest = rest.get(used..).unwrap_or(&[]);
            self.write_batch(time_ns);
        }
    }

    /// Logs the unterminated last line of a stream, and a pending marker of lost lines.
    pub(crate) fn finish(&mut self, stream: Stream, splitter: &mut LineSplitter, time_ns: u64) {
        let prefix = Prefix::new(self.time.format(time_ns), stream);
        splitter.finish(&prefix, &mut self.batch);
        self.write_batch(time_ns);
    }

    /// Sends what the sink takes, and awaits the right events of it.
    pub(crate) fn settle(&mut self, epoll: &Epoll, now: Instant) {
        if let Some(sink) = &mut self.sink {
            sink.settle(epoll, now);
        }
    }

    /// When [`Self::settle`] must be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.sink.as_ref().and_then(Sink::deadline)
    }

    /// The sink has got everything, or nobody is there to take it.
    pub(crate) fn is_flushed(&self) -> bool {
        self.sink.as_ref().is_none_or(Sink::is_flushed)
    }

    /// The last words: how many lines the sink has not got.
    pub(crate) fn leave(&mut self, time_ns: u64) {
        let undelivered = self.sink.as_ref().map_or(0, Sink::undelivered_lines);
        if undelivered > 0 {
            let text = format!(
                "gamut: {undelivered} lines of output were not delivered by the log driver"
            );
            Prefix::new(self.time.format(time_ns), Stream::Stderr)
                .put_full(text.as_bytes(), &mut self.batch);
            self.sink = None;
            self.write_batch(time_ns);
        }
    }

    /// Writes collected lines, after a marker if earlier ones were lost.
    fn write_batch(&mut self, time_ns: u64) {
        let mut batch = std::mem::take(&mut self.batch);
        if let Some(sink) = &mut self.sink {
            sink.push(&batch, time_ns);
        }
        if self.path.is_none() {
            batch.clear();
        }
        if self.lost.lines > 0 {
            let mut marker = Vec::new();
            let text = format!(
                "gamut: {} lines ({} bytes) of output were lost: {}",
                self.lost.lines, self.lost.bytes, self.lost.cause
            );
            Prefix::new(self.time.format(time_ns), Stream::Stderr)
                .put_full(text.as_bytes(), &mut marker);
            match self.write_lines(&marker) {
                Ok(()) => self.lost = Lost::default(),
                Err((_, error)) => {
                    self.lose(&batch, &error);
                    batch.clear();
                }
            }
        }
        if let Err((written, error)) = self.write_lines(&batch) {
            self.lose(batch.get(written..).unwrap_or(&[]), &error);
        }
        batch.clear();
        self.batch = batch;
    }

    /// Writes lines into as many files as it takes. On failure says how many bytes are written.
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let mut written = 0;
        while let Some(rest @ [_, ..]) = lines.get(written..) {
            let file = match &mut self.file {
                Some(file) => file,
                None => {
                    let file = LogFile::open(path).map_err(|error| (written, error))?;
                    self.file.insert(file)
                }
            };
            let part = fitting(rest, file.bytes, self.max_file_bytes);
            if part.is_empty() {
                rotate(path, self.max_files).map_err(|error| (written, error))?;
                self.file = None;
                continue;
            }
            file.append(part)
                .map_err(|(part_written, error)| (written + part_written, error))?;
            written += part.len();
        }
        Ok(())
    }

    fn lose(&mut self, lines: &[u8], error: &io::Error) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let text = line.len().saturating_sub(PREFIX_BYTES + 1);
            self.lost.lines += 1;
            self.lost.bytes += u64::try_from(text).unwrap_or(0);
        }
        self.lost.cause = describe(error);
    }
}

/// The lines that fit into a file that holds `bytes` already; none if it must be rotated first.
/// A line longer than a whole file goes into one of its own.
fn fitting(lines: &[u8], bytes: u64, max_bytes: u64) -> &[u8] {
    let room = usize::try_from(max_bytes.saturating_sub(bytes)).unwrap_or(usize::MAX);
    let Some(window) = lines.get(..room) else {
        return lines;
    };
    let end = match find_last_newline(window) {
        Some(end) => end + 1,
        None if bytes == 0 => find_newline(lines).map_or(lines.len(), |end| end + 1),
        None => 0,
    };
    lines.get(..end).unwrap_or(lines)
}

/// The disk is full or broken, and may recover.
fn is_disk_trouble(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EROFS)
    )
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => "no space left on device".to_owned(),
        Some(libc::EDQUOT) => "disk quota exceeded".to_owned(),
        Some(libc::EIO) => "input/output error".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn log(path: &std::path::Path, max_file_bytes: u64, max_files: u32) -> Log {
        Log {
            path: path.to_str().unwrap().to_owned(),
            max_file_bytes,
            max_files,
            sink: None,
        }
    }

    #[test]
    fn rotation_keeps_every_file_below_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::open(&log(&path, 1_000, 3)).unwrap();
        let mut splitter = LineSplitter::default();
        for number in 0..100 {
            writer.append(
                Stream::Stdout,
                &mut splitter,
                format!("line {number}\n").as_bytes(),
                5,
            );
        }
        let names = [
            path.clone(),
            directory.path().join("log.1"),
            directory.path().join("log.2"),
        ];
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        let mut all = String::new();
        for name in names.iter().rev() {
            let text = fs::read_to_string(name).unwrap();
            assert!(
                text.len() <= 1_000 && text.ends_with('\n'),
                "{} bytes",
                text.len()
            );
            all.push_str(&text);
        }
        assert!(all.ends_with("stdout F line 99\n"));
        let first: usize = all
            .lines()
            .next()
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(all.lines().count(), 100 - first);
    }

    #[test]
    fn one_batch_spans_files_and_an_overlong_line_gets_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::open(&log(&path, 100, 10)).unwrap();
        let mut splitter = LineSplitter::default();
        let text = format!("a\n{}\nb\nc\n", "x".repeat(300));
        writer.append(Stream::Stderr, &mut splitter, text.as_bytes(), 5);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(
            fs::read_to_string(directory.path().join("log.1"))
                .unwrap()
                .len(),
            341
        );
    }

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "torn").unwrap();
        let mut writer = LogWriter::open(&log(&path, 0, 1)).unwrap();
        writer.append(Stream::Stdout, &mut LineSplitter::default(), b"next\n", 0);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "torn\n1970-01-01T00:00:00.000000000Z stdout F next\n"
        );
    }
}

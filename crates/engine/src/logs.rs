//! Reading the logs that supervisors write.
//!
//! Lines of `TIME STREAM TAG TEXT`, the format of Kubernetes' CRI; older files are `log.1`,
//! `log.2`, … Parsing has no I/O in it.

mod tail;

use crate::engine::Engine;
use crate::error::{Error, Result};
use gamut_spec::time;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tail::Tail;
use tokio::sync::mpsc;

/// Lines that may wait for a slow reader.
const CHANNEL: usize = 256;
/// How often a followed log is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longest line kept in memory while reading; supervisors write partial lines of 16 KiB.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output (and everything of a terminal).
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line (or part of one) of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was written to.
    pub stream: Stream,
    /// When, in nanoseconds since the epoch.
    pub time_ns: u64,
    /// The bytes, with the newline unless it is a partial line.
    pub text: Vec<u8>,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// At or after this time, nanoseconds since the epoch.
    pub since_ns: u64,
    /// Up to this time.
    pub until_ns: Option<u64>,
    /// Of the last so many lines only, whatever their stream and time.
    pub tail: Option<usize>,
    /// Go on with what is written later, until the container ends.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
}

impl LogQuery {
    fn wants(&self, line: &LogLine) -> bool {
        let stream = match line.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        stream
            && line.time_ns >= self.since_ns
            && self.until_ns.is_none_or(|until| line.time_ns <= until)
    }
}

/// Parses one line of a log file, without its newline. `None` if it is damaged.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<LogLine> {
    let mut parts = line.splitn(4, |c| *c == b' ');
    let time_ns = time::parse_rfc3339(std::str::from_utf8(parts.next()?).ok()?)?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let full = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    let mut text = parts.next()?.to_vec();
    if full {
        text.push(b'\n');
    }
    Some(LogLine {
        stream,
        time_ns,
        text,
    })
}

/// Entry for fuzzing: any bytes are parsed or refused without panic.
pub fn fuzz_line(data: &[u8]) {
    let _ = parse_line(data);
}

impl Engine {
    /// The log of a container. Lines arrive in order; the channel closes at the end.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` if no stream is wanted, `Conflict` if it keeps no log.
    pub fn logs(
        self: &Arc<Self>,
        name_or_id: &str,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>> {
        let container = self.index.find(name_or_id)?;
        if !query.stdout && !query.stderr {
            return Err(Error::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        if container.read(|record| !record.spec.log.is_kept()) {
            return Err(Error::conflict(
                "configured logging driver does not support reading",
            ));
        }
        let path = self.container_log_path(&container.id);
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let life = container.life();
        self.runtime.spawn_blocking(move || {
            let live = || life.borrow().live;
            if let Err(error) = send(&path, &query, &sender, &live) {
                tracing::warn!(path = %path.display(), %error, "cannot read a log");
            }
        });
        Ok(receiver)
    }
}

/// The files of a log, oldest first.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    for number in 1.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        let older = PathBuf::from(name);
        if !older.exists() {
            break;
        }
        list.push(older);
    }
    list.reverse();
    list.push(path.to_owned());
    list
}

/// Reads whole lines from `reader`; a last line without newline is left for later.
struct Lines {
    reader: BufReader<File>,
    /// The beginning of a line whose end has not been written yet.
    begun: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, File::open(path)?),
            begun: Vec::new(),
        })
    }

    fn inode(&self) -> io::Result<u64> {
        Ok(self.reader.get_ref().metadata()?.ino())
    }

    /// The next whole line; `None` at the end of what is written so far.
    fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            let mut limited = io::Read::take(&mut self.reader, MAX_LINE_BYTES);
            if limited.read_until(b'\n', &mut self.begun)? == 0 {
                return Ok(None);
            }
            if self.begun.last() != Some(&b'\n') {
                if u64::try_from(self.begun.len()).is_ok_and(|length| length >= MAX_LINE_BYTES) {
                    self.begun.clear();
                }
                continue;
            }
            self.begun.pop();
            let line = parse_line(&self.begun);
            self.begun.clear();
            // A damaged line (power cut) is passed over.
            if line.is_some() {
                return Ok(line);
            }
        }
    }
}

fn send(
    path: &Path,
    query: &LogQuery,
    sender: &mpsc::Sender<LogLine>,
    live: &dyn Fn() -> bool,
) -> io::Result<()> {
    let last = match query.tail {
        Some(count) => send_tail(path, query, sender, count)?,
        None => send_all(path, query, sender)?,
    };
    match last {
        Sent::NobodyListens => Ok(()),
        Sent::UpTo(last) if query.follow => follow(path, query, sender, live, last),
        Sent::UpTo(_) => Ok(()),
    }
}

/// What came of sending what is written already.
enum Sent {
    /// All of it; the newest file, read to its end.
    UpTo(Option<Lines>),
    /// The client has hung up.
    NobodyListens,
}

fn open_if_there(file: &Path) -> io::Result<Option<Lines>> {
    match Lines::open(file) {
        Ok(lines) => Ok(Some(lines)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn send_all(path: &Path, query: &LogQuery, sender: &mpsc::Sender<LogLine>) -> io::Result<Sent> {
    let mut last = None;
    for file in files(path) {
        let Some(mut lines) = open_if_there(&file)? else {
            continue;
        };
        while let Some(line) = lines.next()? {
            if query.wants(&line) && sender.blocking_send(line).is_err() {
                return Ok(Sent::NobodyListens);
            }
        }
        last = Some(lines);
    }
    Ok(Sent::UpTo(last))
}

/// Sends the last `count` lines. As with Docker, these are the last of all lines, of which the
/// query then picks.
fn send_tail(
    path: &Path,
    query: &LogQuery,
    sender: &mpsc::Sender<LogLine>,
    count: usize,
) -> io::Result<Sent> {
    let mut newest = None;
    let mut missing = count;
    let mut tails = Vec::new();
    for file in files(path).iter().rev() {
        let Some(mut lines) = open_if_there(file)? else {
            continue;
        };
        let tail = tail::last_lines(&mut lines, missing)?;
        missing = tail.missing();
        tails.push(tail);
        newest.get_or_insert(lines);
        if missing == 0 {
            break;
        }
    }
    for line in tails.into_iter().rev().flat_map(Tail::into_lines) {
        if query.wants(&line) && sender.blocking_send(line).is_err() {
            return Ok(Sent::NobodyListens);
        }
    }
    Ok(Sent::UpTo(newest))
}

fn follow(
    path: &Path,
    query: &LogQuery,
    sender: &mpsc::Sender<LogLine>,
    live: &dyn Fn() -> bool,
    mut current: Option<Lines>,
) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        // Asked before reading, so that nothing written before the end is missed.
        let ended = !live();
        let mut progress = false;
        if current.is_none() {
            current = Lines::open(path).ok();
        }
        if let Some(lines) = &mut current {
            while let Some(line) = lines.next()? {
                progress = true;
                if query.until_ns.is_some_and(|until| line.time_ns > until) {
                    return Ok(());
                }
                if query.wants(&line) && sender.blocking_send(line).is_err() {
                    return Ok(());
                }
            }
            // Rotated: the file read so far is complete, the next has begun.
            let newest = std::fs::metadata(path).map(|metadata| metadata.ino()).ok();
            if newest.is_some() && newest != Some(lines.inode()?) {
                while let Some(line) = lines.next()? {
                    if query.wants(&line) && sender.blocking_send(line).is_err() {
                        return Ok(());
                    }
                }
                current = next_file(path, lines.inode()?);
                continue;
            }
        }
        if ended || sender.is_closed() {
            return Ok(());
        }
        if query.until_ns.is_some_and(|until| time::now_ns() > until) {
            return Ok(());
        }
        pause = if progress {
            Duration::from_millis(1)
        } else {
            (pause * 2).min(POLL_INTERVAL)
        };
        std::thread::sleep(pause);
    }
}

/// The file that was begun after the one with this inode.
fn next_file(path: &Path, inode: u64) -> Option<Lines> {
    let files = files(path);
    let position = files
        .iter()
        .position(|file| std::fs::metadata(file).is_ok_and(|m| m.ino() == inode));
    let next = match position {
        Some(position) => files.get(position + 1)?,
        // Rotated away altogether: the oldest that is left.
        None => files.first()?,
    };
    Lines::open(next).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    fn read(directory: &Path, query: &LogQuery) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(1 << 16);
        send(&directory.join("log"), query, &sender, &|| false).unwrap();
        drop(sender);
        let mut texts = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            texts.push(String::from_utf8(line.text).unwrap());
        }
        texts
    }

    fn both() -> LogQuery {
        LogQuery {
            stdout: true,
            stderr: true,
            ..LogQuery::default()
        }
    }

    #[test]
    fn lines_parts_rotation_tail_and_times() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("log.1"),
            "2024-01-01T00:00:00.000000001Z stdout F one\n2024-01-01T00:00:01Z stderr F two\n",
        )
        .unwrap();
        std::fs::write(
            directory.path().join("log"),
            "2024-01-01T00:00:02Z stdout P thr\n2024-01-01T00:00:02Z stdout F ee\ndamaged\n\
             2024-01-01T00:00:03Z stdout F  four \n2024-01-01T00:00:04Z stdout F unfinis",
        )
        .unwrap();
        let read = |query| read(directory.path(), &query);

        assert_eq!(read(both()), ["one\n", "two\n", "thr", "ee\n", " four \n"]);
        assert_eq!(
            read(LogQuery {
                stderr: false,
                ..both()
            })
            .len(),
            4
        );
        assert_eq!(
            read(LogQuery {
                tail: Some(2),
                ..both()
            }),
            ["thr", "ee\n", " four \n"]
        );
        assert_eq!(
            read(LogQuery {
                tail: Some(0),
                ..both()
            })
            .len(),
            0
        );
        let since_ns = time::parse_rfc3339("2024-01-01T00:00:01Z").unwrap();
        let until_ns = time::parse_rfc3339("2024-01-01T00:00:02Z");
        assert_eq!(
            read(LogQuery {
                since_ns,
                until_ns,
                ..both()
            }),
            ["two\n", "thr", "ee\n"]
        );
    }

    #[test]
    fn tail_of_a_long_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for number in 0..50_000 {
            writeln!(text, "2024-01-01T00:00:00Z stdout F line {number}").unwrap();
        }
        std::fs::write(directory.path().join("log"), text).unwrap();
        let query = LogQuery {
            tail: Some(3),
            ..both()
        };
        assert_eq!(
            read(directory.path(), &query),
            ["line 49997\n", "line 49998\n", "line 49999\n"]
        );
    }

    /// Whatever the lengths of lines, and over the bounds of files and windows.
    #[test]
    fn tails_of_any_length_are_the_ends_of_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        for (name, numbers) in [("log.2", 0..40), ("log.1", 40..45), ("log", 45..100)] {
            let mut text = String::new();
            for number in numbers {
                let long = "x".repeat((number * 7919) % 16_000);
                writeln!(text, "2024-01-01T00:00:00Z stdout P {long}").unwrap();
                writeln!(text, "2024-01-01T00:00:00Z stderr F {number}").unwrap();
            }
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let whole = read(directory.path(), &both());
        assert_eq!(whole.len(), 200);
        for count in 0..110 {
            let query = LogQuery {
                tail: Some(count),
                ..both()
            };
            let expected = &whole[whole.len().saturating_sub(2 * count)..];
            assert_eq!(read(directory.path(), &query), expected, "{count}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_line(&data);
        }
    }
}

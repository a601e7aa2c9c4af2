//! Running one test.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use crate::binary::Test;

/// Of a longer output only the end is shown.
const MAX_OUTPUT_BYTES: u64 = 64 << 10;

/// How a test ended.
pub enum Verdict {
    /// Well; perhaps with parts that this machine cannot run.
    Passed {
        /// Why not.
        partly_skipped: Vec<String>,
    },
    /// It says that this machine cannot run it, or it runs only on request.
    Skipped {
        /// Why.
        why: String,
    },
    /// Badly.
    Failed {
        /// How.
        why: String,
        /// All that it wrote.
        output: String,
    },
}

/// What came of a test.
pub struct Outcome {
    /// Which.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// That of a test which is run only on request.
    pub fn ignored(test: &Test) -> Self {
        Self {
            name: test.name().to_owned(),
            verdict: Verdict::Skipped {
                why: "only with --long".to_owned(),
            },
            took: Duration::ZERO,
        }
    }
}

/// Runs a test.
pub fn run(test: &Test, timeout: Duration) -> Outcome {
    let start = Instant::now();
    let verdict = execute(test, timeout).unwrap_or_else(|error| Verdict::Failed {
        why: format!("cannot be run: {error}"),
        output: String::new(),
    });
    Outcome {
        name: test.name().to_owned(),
        verdict,
        took: start.elapsed(),
    }
}

fn execute(test: &Test, timeout: Duration) -> io::Result<Verdict> {
    // A file, not a pipe: what a test leaves behind may hold a pipe open for ever.
    let mut output = tempfile::tempfile()?;
    let mut child = test
        .command()
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0)
        .spawn()?;
    let status = wait(&mut child, timeout)?;
    let text = read_end(&mut output)?;
    let why = match status {
        None => format!("still running after {} s; killed", timeout.as_secs()),
        Some(status) if status.success() => return Ok(judge(&text)),
        Some(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("killed by signal {signal}"),
            (None, code) => format!("exit code {}", code.unwrap_or(-1)),
        },
    };
    Ok(Verdict::Failed { why, output: text })
}

/// Waits for the end; a test that is late is killed with its process group.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            if let Ok(group) = i32::try_from(child.id()) {
                // SAFETY: plain system call; the group's leader is not yet waited for, so the
                // number cannot belong to anybody else.
                unsafe { libc::kill(-group, libc::SIGKILL) };
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn read_end(output: &mut File) -> io::Result<String> {
    let length = output.metadata()?.len();
    let start = length.saturating_sub(MAX_OUTPUT_BYTES);
    output.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(if start > 0 {
        format!("… {start} bytes before\n{text}")
    } else {
        text.into_owned()
    })
}

/// Whether a test that ended well did run.
fn judge(output: &str) -> Verdict {
    let says = output
        .lines()
        .filter_map(|line| line.split_once("SKIPPED: "))
        .map(|(_, why)| why.trim());
    let (partly_skipped, whole): (Vec<&str>, Vec<&str>) =
        says.partition(|why| why.starts_with("part of"));
    if !whole.is_empty() {
        return Verdict::Skipped {
            why: whole.join("; "),
        };
    }
    if output.contains("running 0 tests") {
        return Verdict::Failed {
            why: "the binary ran no test of this name".to_owned(),
            output: output.to_owned(),
        };
    }
    Verdict::Passed {
        partly_skipped: partly_skipped.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_says_decides() {
        assert!(
            matches!(judge("test x ... ok"), Verdict::Passed { partly_skipped } if partly_skipped.is_empty())
        );
        assert!(
            matches!(judge("test x ... SKIPPED: no nft\nok"), Verdict::Skipped { why } if why == "no nft")
        );
        assert!(
            matches!(judge("SKIPPED: part of x: no y"), Verdict::Passed { partly_skipped } if partly_skipped.len() == 1)
        );
        assert!(matches!(judge("running 0 tests\n"), Verdict::Failed { .. }));
    }
}

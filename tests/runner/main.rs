//! `test-runner`: runs test binaries, every test in a process of its own.
//!
//! It reads what `cargo test --no-run --message-format=json` says on its standard input. A process
//! per test keeps one test's crash, hang or leak away from the next, gives every test a time, and
//! lets a test that the machine cannot run be counted as skipped: it says `SKIPPED: why` on any of
//! its outputs (`SKIPPED: part of …` leaves it passed).

mod binary;
mod job;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use binary::Test;
use job::{Outcome, Verdict};

const USAGE: &str = "\
Usage: cargo test --no-run --message-format=json … | test-runner [OPTIONS]

  --jobs N            tests at once (default: processors)
  --timeout SECONDS   for one test (default 300)
  --long              run the ignored tests, too
  --only TEXT         only tests whose name contains TEXT
  --summary FILE      write `PASSED FAILED SKIPPED` there
";

/// Tests that measure: a name with one of these runs after the others, alone on the machine.
const ALONE: &[&str] = &["alone", "weight", "share", "half", "measured", "budget"];
/// How many of the slowest tests are shown.
const SLOWEST: usize = 15;

struct Options {
    jobs: usize,
    timeout: Duration,
    is_long: bool,
    only: String,
    summary: Option<String>,
}

fn main() -> ExitCode {
    match parse(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("test-runner: {message}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        jobs: thread::available_parallelism().map_or(1, usize::from),
        timeout: Duration::from_secs(300),
        is_long: false,
        only: String::new(),
        summary: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        let number = |text: String| {
            text.parse::<u32>()
                .map_err(|error| format!("{text:?} is not a number: {error}"))
        };
        match argument.as_str() {
            "--jobs" => options.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--timeout" => options.timeout = Duration::from_secs(number(value()?)?.into()),
            "--long" => options.is_long = true,
            "--only" => options.only = value()?,
            "--summary" => options.summary = Some(value()?),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<bool, String> {
    let mut messages = String::new();
    io::stdin()
        .read_to_string(&mut messages)
        .map_err(|error| format!("reading cargo's messages: {error}"))?;
    let binaries = binary::parse_messages(&messages);
    if binaries.is_empty() {
        return Err("cargo named no test binary".to_owned());
    }
    let mut tests = Vec::new();
    for binary in &binaries {
        tests.extend(binary.list()?);
    }
    tests.retain(|test| test.name().contains(&options.only));
    // The many quick ones last: they fill the gaps that the few long ones leave.
    tests.sort_by_key(|test| !test.is_integration());
    let (alone, together): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(|test| {
        test.is_integration() && ALONE.iter().any(|part| test.name().contains(part))
    });

    let begin = Instant::now();
    let mut outcomes = run_all(&together, options, options.jobs);
    outcomes.extend(run_all(&alone, options, 1));
    let summary = Summary::of(&outcomes);
    show(&outcomes, &summary, binaries.len(), begin.elapsed());
    if let Some(file) = &options.summary {
        let Summary {
            passed,
            failed,
            skipped,
        } = summary;
        fs::write(file, format!("{passed} {failed} {skipped}\n"))
            .map_err(|error| format!("writing {file}: {error}"))?;
    }
    Ok(summary.failed == 0)
}

/// Runs tests, `jobs` at once; tells of each that does not pass as soon as it is known.
fn run_all(tests: &[Test], options: &Options, jobs: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::with_capacity(tests.len()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = if test.is_ignored() && !options.is_long {
                        Outcome::ignored(test)
                    } else {
                        job::run(test, options.timeout)
                    };
                    tell(&outcome);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

fn tell(outcome: &Outcome) {
    let mut out = io::stdout().lock();
    // If nobody reads the output any more, the exit code still tells.
    let _ = match &outcome.verdict {
        Verdict::Passed { partly_skipped } => partly_skipped
            .iter()
            .try_for_each(|why| writeln!(out, "partly   {}: {why}", outcome.name)),
        Verdict::Skipped { why } => writeln!(out, "SKIPPED  {}: {why}", outcome.name),
        Verdict::Failed { why, output } => {
            let rule = "─".repeat(20);
            writeln!(
                out,
                "FAILED   {}: {why}\n{rule} output\n{output}\n{rule}",
                outcome.name
            )
        }
    };
}

#[derive(Default)]
struct Summary {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Summary {
    fn of(outcomes: &[Outcome]) -> Self {
        let mut summary = Self::default();
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Passed { .. } => summary.passed += 1,
                Verdict::Failed { .. } => summary.failed += 1,
                Verdict::Skipped { .. } => summary.skipped += 1,
            }
        }
        summary
    }
}

fn show(outcomes: &[Outcome], summary: &Summary, binaries: usize, took: Duration) {
    let mut slowest: Vec<&Outcome> = outcomes.iter().collect();
    slowest.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
    println!("\nslowest tests");
    for outcome in slowest.iter().take(SLOWEST) {
        println!("{:8.2} s  {}", outcome.took.as_secs_f64(), outcome.name);
    }
    let failed: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.verdict, Verdict::Failed { .. }))
        .collect();
    if !failed.is_empty() {
        println!("\nfailed tests");
        for outcome in failed {
            println!("  {}", outcome.name);
        }
    }
    println!(
        "\n{} tests of {binaries} binaries in {:.0} s: {} passed, {} failed, {} skipped",
        outcomes.len(),
        took.as_secs_f64(),
        summary.passed,
        summary.failed,
        summary.skipped
    );
}

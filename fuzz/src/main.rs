//! `fuzz-run`: mutation-based fuzzing on the stable compiler.
//!
//! Every target runs in a process of its own, which notes each input in a file before it tries
//! it: so the input survives an abort, a stack overflow or a hang, too.

use std::collections::VecDeque;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use gamut_fuzz::{Mutator, Random, TARGETS, Target, target};

const USAGE: &str = "\
Usage: fuzz-run [OPTIONS] TARGET...     (or: all)
       fuzz-run TARGET --input FILE     try one input
       fuzz-run --list                  show the targets

  --seconds N      time per target (default 10)
  --runs N         inputs per target instead of a time
  --seed N         repeat a run (default: from the clock)
  --jobs N         targets at once (default: processors)
  --corpus DIR     folder of seeds, with a folder per target (default fuzz/corpus)
  --artifacts DIR  where inputs that fail are kept (default target/fuzz)
";

/// An input that needs the processor for longer is a finding.
const SLOW_INPUT: Duration = Duration::from_secs(2);
/// The address space of a target; wanting more is a finding.
const MEMORY_BYTES: libc::rlim_t = 2 << 30;
/// How long a target's process may be late.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Options {
    targets: Vec<Target>,
    seconds: u64,
    runs: Option<u64>,
    seed: u64,
    jobs: usize,
    corpus: PathBuf,
    artifacts: PathBuf,
    input: Option<PathBuf>,
    is_child: bool,
}

fn main() -> ExitCode {
    let options = match parse(env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("fuzz-run: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = match (&options.input, options.targets.as_slice()) {
        (Some(file), [target]) => fs::read(file).map(|data| {
            (target.run)(&data);
            println!("ok      {}: {} passes", target.name, file.display());
            true
        }),
        (None, [target]) if options.is_child => fuzz(*target, &options),
        _ => supervise(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz-run: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut options = Options {
        targets: Vec::new(),
        seconds: 10,
        runs: None,
        seed: clock.map_or(1, |time| time.as_secs()),
        jobs: thread::available_parallelism().map_or(1, usize::from),
        corpus: PathBuf::from("fuzz/corpus"),
        artifacts: PathBuf::from("target/fuzz"),
        input: None,
        is_child: false,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|error| format!("{text:?} is not a number: {error}"))
        };
        match argument.as_str() {
            "--list" => {
                for target in TARGETS {
                    println!("{}", target.name);
                }
                return Ok(None);
            }
            "--help" | "-h" => {
                print!("{USAGE}");
                return Ok(None);
            }
            "--seconds" => options.seconds = number(value()?)?,
            "--runs" => options.runs = Some(number(value()?)?),
            "--seed" => options.seed = number(value()?)?,
            "--jobs" => options.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--corpus" => options.corpus = PathBuf::from(value()?),
            "--artifacts" => options.artifacts = PathBuf::from(value()?),
            "--input" => options.input = Some(PathBuf::from(value()?)),
            "--child" => options.is_child = true,
            "all" => options.targets.extend_from_slice(TARGETS),
            name => {
                let found = target(name).ok_or(format!("no target {name:?}; see --list"))?;
                options.targets.push(found);
            }
        }
    }
    if options.targets.is_empty() {
        return Err("no target given".to_owned());
    }
    if options.input.is_some() && options.targets.len() != 1 {
        return Err("--input goes with one target".to_owned());
    }
    Ok(Some(options))
}

/// A target's process.
struct Job {
    target: Target,
    child: Child,
    deadline: Option<Instant>,
    note: PathBuf,
}

/// Runs every target in a process of its own, `jobs` at once; true if all passed.
fn supervise(options: &Options) -> io::Result<bool> {
    fs::create_dir_all(&options.artifacts)?;
    let mut waiting: VecDeque<Target> = options.targets.iter().copied().collect();
    let mut running: Vec<Job> = Vec::new();
    let mut passed = true;
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < options.jobs
            && let Some(target) = waiting.pop_front()
        {
            running.push(start(target, options)?);
        }
        thread::sleep(Duration::from_millis(20));
        let mut still = Vec::new();
        for mut job in running {
            let is_late = job
                .deadline
                .is_some_and(|deadline| Instant::now() > deadline);
            match job.child.try_wait()? {
                None if is_late => {
                    job.child.kill()?;
                    job.child.wait()?;
                    report(&job, "hangs", options)?;
                    passed = false;
                }
                None => still.push(job),
                Some(status) if status.success() => fs::remove_file(&job.note)?,
                Some(status) => {
                    let how = match status.signal() {
                        Some(signal) => format!("died of signal {signal}"),
                        None => "panicked, or was too slow".to_owned(),
                    };
                    report(&job, &how, options)?;
                    passed = false;
                }
            }
        }
        running = still;
    }
    Ok(passed)
}

fn start(target: Target, options: &Options) -> io::Result<Job> {
    let mut command = Command::new(env::current_exe()?);
    command
        .args([target.name, "--child"])
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--seed", &options.seed.to_string()])
        .arg("--corpus")
        .arg(&options.corpus)
        .arg("--artifacts")
        .arg(&options.artifacts)
        .stdin(Stdio::null());
    if let Some(runs) = options.runs {
        command.args(["--runs", &runs.to_string()]);
    }
    let limit = Duration::from_secs(options.seconds) + PATIENCE;
    Ok(Job {
        target,
        child: command.spawn()?,
        deadline: options.runs.is_none().then(|| Instant::now() + limit),
        note: note_path(target, options),
    })
}

/// Keeps the input that a failed target noted last.
fn report(job: &Job, how: &str, options: &Options) -> io::Result<()> {
    let name = job.target.name;
    let data = read_note(&job.note)?;
    let kept = options
        .artifacts
        .join(format!("{name}-{:016x}", hash(&data)));
    fs::write(&kept, &data)?;
    fs::remove_file(&job.note)?;
    println!("FAILED  {name}: {how} (seed {})", options.seed);
    println!(
        "        the input is kept; try it with: fuzz-run {name} --input {}",
        kept.display()
    );
    Ok(())
}

fn note_path(target: Target, options: &Options) -> PathBuf {
    let process = if options.is_child {
        std::os::unix::process::parent_id()
    } else {
        std::process::id()
    };
    options
        .artifacts
        .join(format!(".{}.{process}", target.name))
}

/// FNV-1a: names files, nothing more.
fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Notes an input: its length, then itself. Cheap, since it stays in the page cache.
fn write_note(note: &fs::File, data: &[u8]) -> io::Result<()> {
    let length = u64::try_from(data.len()).unwrap_or(0);
    note.write_all_at(data, 8)?;
    note.write_all_at(&length.to_le_bytes(), 0)
}

fn read_note(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_err() {
        return Ok(Vec::new());
    }
    file.seek(io::SeekFrom::Start(8))?;
    let mut data = Vec::new();
    file.take(u64::from_le_bytes(length))
        .read_to_end(&mut data)?;
    Ok(data)
}

fn read_seeds(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| io::Error::other(format!("seeds in {}: {error}", folder.display())))?;
    // The folder's order differs from machine to machine; a seed must repeat everywhere.
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// Fuzzes one target in this process. It panics, or dies, where the target does.
fn fuzz(target: Target, options: &Options) -> io::Result<bool> {
    limit_memory()?;
    let mutator = Mutator::new(
        read_seeds(&options.corpus.join(target.name))?,
        target.repair,
    );
    let note = fs::File::create(note_path(target, options))?;
    let mut random = Random::new(options.seed);
    let begin = Instant::now();
    let limit = Duration::from_secs(options.seconds);
    let mut tried = 0u64;
    let mut seeds = mutator.seeds().iter().cloned();
    while options
        .runs
        .map_or_else(|| begin.elapsed() < limit, |runs| tried < runs)
    {
        let data = seeds.next().unwrap_or_else(|| mutator.make(&mut random));
        write_note(&note, &data)?;
        let before = processor_time()?;
        (target.run)(&data);
        let took = processor_time()?.saturating_sub(before);
        tried += 1;
        if took > SLOW_INPUT {
            eprintln!("{}: one input took {took:?}", target.name);
            return Ok(false);
        }
    }
    writeln!(
        io::stdout().lock(),
        "ok      {}: {tried} inputs in {:.1} s (seed {})",
        target.name,
        begin.elapsed().as_secs_f64(),
        options.seed
    )?;
    Ok(true)
}

/// What this process has had of the processors so far. Waiting for them on a busy machine does not
/// count; a target that sleeps is noticed by its parent.
fn processor_time() -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live value of the right type for the length of the call.
    match unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } {
        0 => Ok(Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )),
        _ => Err(io::Error::last_os_error()),
    }
}

fn limit_memory() -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: MEMORY_BYTES,
        rlim_max: MEMORY_BYTES,
    };
    // SAFETY: the pointer is to a live value of the right type for the length of the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

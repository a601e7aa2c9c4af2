//! `gamut-runtime`: the OCI runtime command line, for podman, containerd and dockerd.
//!
//! No daemon and no store: what is known of a container is in its state directory. The caller is
//! the supervisor. Containers, and further processes in them, are made by the sealed supervisor
//! program, by which this one replaces itself, so that nothing in a container ever runs from this
//! executable.
//!
//! Source: <https://github.com/opencontainers/runtime-spec>, runtime.md; runc(8) for the options.

mod arguments;
mod bundle;
mod error;
mod events;
mod exec;
mod features;
mod hand_over;
mod launch;
mod lifecycle;
mod limits;
mod list;
mod log;
mod process;
mod processes;
mod specification;
mod state;
mod unikernel;

use arguments::{Arguments, Log, Verb};
use error::Error;
use log::Logger;
use std::io::Write;
use std::process::ExitCode;

/// Code of a failed `exec`, which must not be taken for one of its process's own.
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(failed) => {
            report(&failed.0, &failed.1);
            return ExitCode::FAILURE;
        }
    };
    match carry_out(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, &arguments.global.log);
            match arguments.verb {
                Verb::Exec(_) => ExitCode::from(EXEC_FAILED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn report(error: &Error, log: &Log) {
    let text = gamut_spec::error::chain(error);
    // Nobody is there to hear of a failure to report.
    let _ = writeln!(std::io::stderr(), "gamut-runtime: error: {text}");
    if log.file.is_some() {
        Logger::new(log).error(&text);
    }
}

fn carry_out(arguments: &Arguments) -> Result<(), Error> {
    let root = state::Root::new(&arguments.global);
    let logger = Logger::new(&arguments.global.log);
    match &arguments.verb {
        Verb::Create(options) => launch::create(&root, (&arguments.name, options), &logger),
        Verb::Run(options) => launch::run(&root, (&arguments.name, options), &logger),
        Verb::Start(id) => lifecycle::start(&root, id, &logger),
        Verb::State(id) => list::state(&root, id),
        Verb::Kill(options) => lifecycle::kill(&root, options),
        Verb::Delete(id, force) => lifecycle::delete(&root, id, *force, &logger),
        Verb::Exec(options) => exec::exec(&root, options, &logger),
        Verb::List(options) => list::list(&root, options),
        Verb::Processes(options) => processes::list(&root, options),
        Verb::Pause(id) => lifecycle::pause(&root, id),
        Verb::Resume(id) => lifecycle::resume(&root, id),
        Verb::Update(options) => limits::update(&root, options, &logger),
        Verb::Events(options) => events::events(&root, options),
        Verb::Specification(options) => specification::write(options),
        Verb::Features => features::show(),
        Verb::Version => print(&version(&arguments.name)),
        Verb::Help(verb) => print(&arguments::help(&arguments.name, verb)),
    }
}

/// As callers read it from other OCI runtimes.
fn version(name: &str) -> String {
    format!(
        "{name} version {}\ncommit: {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("GAMUT_COMMIT").unwrap_or("unknown"),
        state::OCI_VERSION
    )
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::Output),
    }
}

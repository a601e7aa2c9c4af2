//! `gamut-runtime`: the OCI runtime command line, for podman, containerd and dockerd.
//!
//! No daemon and no store: what is known of a container is in its state directory. The caller is
//! the supervisor. Containers are made by the sealed supervisor program, by which this one
//! replaces itself, so that nothing in a container ever runs from this executable.
//!
//! Source: <https://github.com/opencontainers/runtime-spec>, runtime.md; runc(8) for the options.

mod arguments;
mod bundle;
mod error;
mod launch;
mod process;
mod state;
mod verbs;

use arguments::{Arguments, Verb};
use error::Error;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            report(&error);
            return ExitCode::FAILURE;
        }
    };
    match carry_out(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            if let Some((path, json)) = &arguments.log {
                error::log(path, *json, "error", &gamut_spec::error::chain(&error));
            }
            ExitCode::FAILURE
        }
    }
}

fn report(error: &Error) {
    // Nobody is there to hear of a failure to report.
    let text = gamut_spec::error::chain(error);
    let _ = writeln!(std::io::stderr(), "gamut-runtime: {text}");
}

fn carry_out(arguments: &Arguments) -> Result<(), Error> {
    let root = state::Root::new(&arguments.root);
    match &arguments.verb {
        Verb::Create(launch) => launch::create(&root, launch, arguments.log.as_ref()),
        Verb::Run(launch) => launch::run(&root, launch, arguments.log.as_ref()),
        Verb::Start { id } => verbs::start(&root, id),
        Verb::State { id } => verbs::state(&root, id),
        Verb::Kill { id, signal, all } => verbs::kill(&root, id, *signal, *all),
        Verb::Delete { id, force } => verbs::delete(&root, id, *force),
        Verb::List { quiet, json } => verbs::list(&root, *quiet, *json),
        Verb::Version => verbs::print(&format!(
            "gamut-runtime version {}\nspec: {}\n",
            env!("CARGO_PKG_VERSION"),
            state::OCI_VERSION
        )),
        Verb::Help => verbs::print(arguments::HELP),
    }
}

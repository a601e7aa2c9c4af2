//! Processes beside the daemon: those that keep up the namespaces of an ordinary user's engine, and
//! the resolver's helper. They are this program, started by itself with a word that is no command.

use crate::error::Error;
use std::ffi::OsString;
use std::path::Path;

/// Becomes one of them if that is what the arguments say; returns when it has ended.
pub(crate) fn dispatch(arguments: &[OsString]) -> Option<Result<u8, Error>> {
    let [_, word, run] = arguments else {
        return None;
    };
    let run = Path::new(run);
    let ended = if word == gamut_rootless::PARENT {
        log_to_standard_error();
        gamut_rootless::parent::run(run, std::io::stdout())
    } else if word == gamut_rootless::FORWARDER {
        log_to_standard_error();
        gamut_rootless::forward::run(run)
    } else if word == gamut_dns::HELPER {
        log_to_standard_error();
        let started = gamut_dns::run(run);
        return Some(
            started
                .map(|()| 0)
                .map_err(|error| Error::Message(gamut_spec::error::chain(&error))),
        );
    } else {
        return None;
    };
    Some(
        ended
            .map(|()| 0)
            .map_err(|error| Error::Message(gamut_spec::error::chain(&error))),
    )
}

fn log_to_standard_error() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

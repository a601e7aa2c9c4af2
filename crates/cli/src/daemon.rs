//! The daemon's entry point.

mod doors;
mod memory;
mod place;

use crate::commands::daemon::DaemonArguments;
use crate::error::Error;
use crate::notify;
use doors::Doors;
use gamut_engine::logging::LogDefaults;
use gamut_engine::snapshotter::Snapshotter;
use gamut_engine::{Engine, Options};
use place::Place;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Threads that wait for clients; blocking work has threads of its own, made when needed.
const WORKERS: usize = 2;
/// Threads for blocking work at most: one per client that follows a log, stops a container, ...
const BLOCKING_THREADS: usize = 8192;

/// Runs the daemon until SIGTERM or SIGINT. Workloads go on without it.
///
/// # Errors
/// If the engine cannot be opened or the socket cannot be had.
pub fn run(arguments: DaemonArguments) -> Result<u8, Error> {
    memory::bound_arenas();
    start_log(&arguments);
    // Before there is a second thread.
    let place = Place::choose(&arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Error::Message(format!("start the daemon's threads: {error}")))?;
    let doors = Doors::choose(&arguments, &place.run_root)?;
    let log = LogDefaults {
        driver: arguments.log_driver,
        options: log_options(&arguments.log_opt)?,
    };
    let run_root = place.run_root.clone();
    let rootless = place.rootless.clone();
    let options = Options {
        supervisor: program("GAMUT_SUPERVISOR", "gamut-supervisor")?,
        // An engine without it offers no unikernels.
        monitor: program("GAMUT_MONITOR", "gamut-monitor").ok(),
        data_root: place.data_root,
        run_root: place.run_root,
        bridge: arguments.bridge,
        subnet: arguments.subnet,
        cgroup_parent: place.cgroup_parent,
        storage_driver: arguments
            .storage_driver
            .as_deref()
            .and_then(Snapshotter::from_name),
        without_groups: place.without_groups,
        controllers: place.controllers,
        remap_users: arguments.userns_remap,
        rootless: place.rootless,
        registries: place.registries,
        owners_only: arguments.authorization == "owner",
        log,
        ..Options::default()
    };
    let served = serve(&runtime, options, &doors);
    // The processes that keep up the namespaces are of use to workloads only.
    if rootless.is_some_and(|rootless| match &served {
        Ok(live) => *live == 0,
        Err(_) => rootless.is_new,
    }) {
        gamut_rootless::stop(&run_root);
    }
    // Threads that wait for something endless must not hold the exit up.
    runtime.shutdown_background();
    served.map(|_| 0)
}

/// Serves until told to stop; returns how many workloads go on.
fn serve(
    runtime: &tokio::runtime::Runtime,
    options: Options,
    doors: &Doors,
) -> Result<usize, Error> {
    let engine = Engine::open(options, runtime.handle().clone())
        .map_err(|error| Error::Message(error.full_message()))?;
    runtime.block_on(async {
        let server = doors.open().await?;
        let wait = |kind| {
            signal(kind).map_err(|error| Error::Message(format!("wait for signals: {error}")))
        };
        let mut terminate = wait(SignalKind::terminate())?;
        let mut interrupt = wait(SignalKind::interrupt())?;
        tokio::spawn(memory::give_back_after_removals(
            engine.events().subscribe(),
        ));
        notify::tell("READY=1");
        tracing::info!(addresses = %doors, version = env!("CARGO_PKG_VERSION"), "listening");
        tokio::select! {
            () = server.serve(Arc::clone(&engine)) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify::tell("STOPPING=1");
        let live = engine.live_count();
        tracing::info!(live, "stopping; workloads go on");
        Ok(live)
    })
}

/// Begins to write the daemon's own log.
fn start_log(arguments: &DaemonArguments) {
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log_level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if arguments.log_format == "json" {
        log.json().flatten_event(true).init();
    } else {
        log.init();
    }
}

/// `KEY=VALUE`s of a log driver.
fn log_options(texts: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pairs = texts.iter().map(|text| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Error::Usage(format!(
            "invalid value for --log-opt: {text}: use KEY=VALUE"
        ))),
    });
    pairs.collect()
}

/// An executable of the engine: named by a variable, beside this one, or where packages put it.
fn program(variable: &str, name: &str) -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe()
        .map_err(|error| Error::Message(format!("find this executable: {error}")))?;
    let candidates = [
        own.with_file_name(name),
        own.with_file_name(format!("../libexec/gamut/{name}")),
        PathBuf::from(format!("/usr/libexec/gamut/{name}")),
    ];
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| {
            Error::Message(format!(
                "{name} is not there: expected it beside {} or at /usr/libexec/gamut",
                own.display()
            ))
        })
}

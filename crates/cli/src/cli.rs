//! The tree of nouns and verbs, and the way from the command line to a verb.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, error::ErrorKind};

use crate::client::address::{Choice, TlsOptions};
use crate::client::{Address, Client};
use crate::commands::{
    Verb, container, context, daemon, image, manual, network, network_change, registry, system,
    unikernel, volume,
};
use crate::error::{EXIT_ENGINE, EXIT_FAILURE, Error};
use crate::output::print;
use crate::rootless;

/// A verb in the tree.
struct Entry {
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    build: fn(Command) -> Command,
    run: fn(&ArgMatches, &Globals) -> Result<u8, Error>,
}

/// Flags before the verb.
struct Globals {
    choice: Choice,
}

/// Somebody wrote `--flag=true` or `--flag=false`, as Go's flags allow.
static HAS_BOOLEAN_VALUES: AtomicBool = AtomicBool::new(false);

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(run(&arguments))
}

/// Runs a command line; returns its exit code. Errors are told on standard error.
#[must_use]
pub fn run(arguments: &[OsString]) -> u8 {
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            if !matches!(error, Error::OutputClosed) {
                print::error(&error.to_string());
            }
            error.exit_code()
        }
    }
}

fn dispatch(arguments: &[OsString]) -> Result<u8, Error> {
    if let Some(ended) = rootless::dispatch(arguments) {
        return ended;
    }
    let has_values = arguments.iter().any(|argument| {
        let text = argument.to_string_lossy();
        text.starts_with('-') && (text.ends_with("=true") || text.ends_with("=false"))
    });
    HAS_BOOLEAN_VALUES.store(has_values, Ordering::Relaxed);
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return Ok(explain(&error)),
    };
    let path = |name: &str| matches.get_one::<String>(name).map(Into::into);
    let globals = Globals {
        choice: Choice {
            host: matches.get_one::<String>("host").cloned(),
            context: matches.get_one::<String>("context").cloned(),
            tls: TlsOptions {
                verify: matches.get_flag("tlsverify"),
                authority: path("tlscacert"),
                certificate: path("tlscert"),
                key: path("tlskey"),
            },
        },
    };
    let Some((name, inner)) = matches.subcommand() else {
        return Ok(EXIT_FAILURE);
    };
    let noun = nouns().into_iter().find(|noun| noun.name == name);
    let (entries, name, inner) = match (noun, inner.subcommand()) {
        (Some(noun), Some((verb, inner))) => ((noun.entries)(), verb, inner),
        _ => (top_entries(), name, inner),
    };
    match entries.iter().find(|entry| entry.name == name) {
        Some(entry) => (entry.run)(inner, &globals),
        None => Err(Error::Usage(format!("unknown command: {name}"))),
    }
}

/// Prints what clap has to say; returns the exit code, docker's for the same mistake.
fn explain(error: &clap::Error) -> u8 {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(std::io::stdout().lock(), "{text}");
            0
        }
        kind => {
            // Colours only on a terminal: `error.print()` looks, `render()` does not.
            let _ = error.print();
            match kind {
                ErrorKind::MissingRequiredArgument
                | ErrorKind::InvalidSubcommand
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => EXIT_FAILURE,
                _ => EXIT_ENGINE,
            }
        }
    }
}

/// The whole tree; verbs are built when they are asked for.
#[must_use]
pub fn command() -> Command {
    let mut root = Command::new("gamut")
        .bin_name("gamut")
        .version(env!("CARGO_PKG_VERSION"))
        .about("One engine for containers, microVMs and unikernels")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("host")
                .short('H')
                .long("host")
                .value_name("ADDRESS")
                .help("The engine: unix:///PATH, tcp://HOST[:PORT] with TLS, ssh://[USER@]HOST[:PORT] [env: GAMUT_HOST, then DOCKER_HOST]"),
        )
        .arg(
            Arg::new("context")
                .short('c')
                .long("context")
                .value_name("NAME")
                .help("Name of the context to use [env: DOCKER_CONTEXT]"),
        )
        .arg(
            Arg::new("tlsverify")
                .long("tlsverify")
                .action(ArgAction::SetTrue)
                .help("Use mutual TLS [env: DOCKER_TLS_VERIFY]"),
        )
        .args([
            ("tlscacert", "Certificate of the authority [default: ca.pem in DOCKER_CERT_PATH or ~/.docker]"),
            ("tlscert", "Certificate of this client [default: likewise, cert.pem]"),
            ("tlskey", "Its private key [default: likewise, key.pem]"),
        ].map(|(name, help)| Arg::new(name).long(name).value_name("FILE").help(help)))
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Print the version of this program"),
        );
    root = with_entries(root, top_entries());
    for noun in nouns() {
        root = root.subcommand(
            Command::new(noun.name)
                .about(noun.about)
                .subcommand_required(true)
                .arg_required_else_help(true)
                .disable_help_subcommand(true)
                .defer(noun.build),
        );
    }
    root
}

fn with_entries(mut parent: Command, entries: Vec<Entry>) -> Command {
    for entry in entries {
        parent = parent.subcommand(
            Command::new(entry.name)
                .visible_aliases(entry.aliases.iter().copied())
                .about(entry.about)
                .defer(entry.build),
        );
    }
    parent
}

/// Adds a verb's flags, with the manners of Go's flags: the last of a repeated flag counts, a
/// value may start with a dash.
fn build<V: Verb>(command: Command) -> Command {
    let about = command.get_about().cloned();
    let name = command
        .get_bin_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let has_boolean_values = HAS_BOOLEAN_VALUES.load(Ordering::Relaxed);
    let mut command = V::augment_args(command)
        .about(about.unwrap_or_default())
        .long_about(None)
        .args_override_self(true)
        .override_usage(format!("{name} {}", V::USAGE))
        .mut_args(|arg| manners(arg, has_boolean_values));
    if command
        .get_arguments()
        .any(|arg| arg.get_short() == Some('h'))
    {
        command = command.disable_help_flag(true).arg(
            Arg::new("help")
                .long("help")
                .action(ArgAction::Help)
                .help("Print help"),
        );
    }
    command
}

fn manners(arg: Arg, has_boolean_values: bool) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue if has_boolean_values => arg
            .action(ArgAction::Set)
            .value_parser(clap::value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true"),
        ArgAction::Set | ArgAction::Append
            if !arg.is_positional() && !arg.is_require_equals_set() =>
        {
            arg.allow_hyphen_values(true)
        }
        _ => arg,
    }
}

fn run_verb<V: Verb>(matches: &ArgMatches, globals: &Globals) -> Result<u8, Error> {
    let arguments = parsed::<V>(matches)?;
    let address = Address::choose(&globals.choice)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    let client = Arc::new(Client::new(&address));
    let result = runtime.block_on(arguments.run(client));
    // A thread that waits for standard input or output must not hold up the end.
    runtime.shutdown_background();
    result
}

fn parsed<A: FromArgMatches>(matches: &ArgMatches) -> Result<A, Error> {
    A::from_arg_matches(matches).map_err(|error| Error::Usage(error.to_string()))
}

fn verb<V: Verb>(name: &'static str, about: &'static str) -> Entry {
    Entry {
        name,
        aliases: &[],
        about,
        build: build::<V>,
        run: run_verb::<V>,
    }
}

impl Entry {
    fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
}

struct Noun {
    name: &'static str,
    about: &'static str,
    entries: fn() -> Vec<Entry>,
    build: fn(Command) -> Command,
}

fn nouns() -> [Noun; 7] {
    [
        Noun {
            name: "container",
            about: "Manage containers",
            entries: container_entries,
            build: |command| with_entries(command, container_entries()),
        },
        Noun {
            name: "context",
            about: "Manage ways to engines",
            entries: context_entries,
            build: |command| with_entries(command, context_entries()),
        },
        Noun {
            name: "image",
            about: "Manage images",
            entries: image_entries,
            build: |command| with_entries(command, image_entries()),
        },
        Noun {
            name: "network",
            about: "Manage networks",
            entries: network_entries,
            build: |command| with_entries(command, network_entries()),
        },
        Noun {
            name: "system",
            about: "Manage Gamut",
            entries: system_entries,
            build: |command| with_entries(command, system_entries()),
        },
        Noun {
            name: "unikernel",
            about: "Make unikernels",
            entries: unikernel_entries,
            build: |command| with_entries(command, unikernel_entries()),
        },
        Noun {
            name: "volume",
            about: "Manage volumes",
            entries: volume_entries,
            build: |command| with_entries(command, volume_entries()),
        },
    ]
}

fn container_verbs() -> Vec<Entry> {
    vec![
        verb::<container::attach::AttachArguments>(
            "attach",
            "Attach local standard input, output, and error streams to a running container",
        ),
        verb::<container::commit::CommitArguments>(
            "commit",
            "Create a new image from a container's changes",
        ),
        verb::<container::cp::CpArguments>(
            "cp",
            "Copy files/folders between a container and the local filesystem",
        ),
        verb::<container::run::CreateArguments>("create", "Create a new container"),
        verb::<container::debug::DebugArguments>("debug", "Debug a unikernel with gdb"),
        verb::<container::diff::DiffArguments>(
            "diff",
            "Inspect changes to files or directories on a container's filesystem",
        ),
        verb::<container::exec::ExecArguments>("exec", "Execute a command in a running container"),
        verb::<container::commit::ExportArguments>(
            "export",
            "Export a container's filesystem as a tar archive",
        ),
        verb::<container::signal::KillArguments>("kill", "Kill one or more running containers"),
        verb::<container::logs::LogsArguments>("logs", "Fetch the logs of a container"),
        verb::<container::simple::PauseArguments>(
            "pause",
            "Pause all processes within one or more containers",
        ),
        verb::<container::port::PortArguments>(
            "port",
            "List port mappings or a specific mapping for the container",
        ),
        verb::<container::simple::RenameArguments>("rename", "Rename a container"),
        verb::<container::signal::RestartArguments>("restart", "Restart one or more containers"),
        verb::<container::simple::RemoveArguments>("rm", "Remove one or more containers"),
        verb::<container::run::RunArguments>("run", "Create and run a new container from an image"),
        verb::<container::start::StartArguments>("start", "Start one or more stopped containers"),
        verb::<container::stats::StatsArguments>(
            "stats",
            "Display a live stream of container(s) resource usage statistics",
        ),
        verb::<container::signal::StopArguments>("stop", "Stop one or more running containers"),
        verb::<container::top::TopArguments>("top", "Display the running processes of a container"),
        verb::<container::simple::UnpauseArguments>(
            "unpause",
            "Unpause all processes within one or more containers",
        ),
        verb::<container::update::UpdateArguments>(
            "update",
            "Update configuration of one or more containers",
        ),
        verb::<container::simple::WaitArguments>(
            "wait",
            "Block until one or more containers stop, then print their exit codes",
        ),
    ]
}

fn container_entries() -> Vec<Entry> {
    let mut entries = container_verbs();
    entries
        .push(verb::<container::ps::PsArguments>("ls", "List containers").aliases(&["ps", "list"]));
    entries.push(verb::<container::inspect::InspectArguments>(
        "inspect",
        "Display detailed information on one or more containers",
    ));
    entries.push(verb::<container::simple::PruneArguments>(
        "prune",
        "Remove all stopped containers",
    ));
    entries
}

fn image_verbs() -> Vec<Entry> {
    vec![
        verb::<image::history::HistoryArguments>("history", "Show the history of an image"),
        verb::<image::archive::ImportArguments>(
            "import",
            "Import the contents from a tarball to create a filesystem image",
        ),
        verb::<image::archive::LoadArguments>("load", "Load an image from a tar archive or STDIN"),
        verb::<image::pull::PullArguments>("pull", "Download an image from a registry"),
        verb::<image::push::PushArguments>("push", "Upload an image to a registry"),
        verb::<image::archive::SaveArguments>(
            "save",
            "Save one or more images to a tar archive (streamed to STDOUT by default)",
        ),
        verb::<image::simple::TagArguments>(
            "tag",
            "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        ),
    ]
}

fn image_entries() -> Vec<Entry> {
    let mut entries = image_verbs();
    entries.push(verb::<image::ls::ImagesArguments>("ls", "List images").aliases(&["list"]));
    entries.push(
        verb::<image::simple::RemoveArguments>("rm", "Remove one or more images")
            .aliases(&["remove"]),
    );
    entries.push(verb::<image::simple::InspectArguments>(
        "inspect",
        "Display detailed information on one or more images",
    ));
    entries.push(verb::<image::simple::PruneArguments>(
        "prune",
        "Remove unused images",
    ));
    entries
}

fn network_entries() -> Vec<Entry> {
    vec![
        verb::<network_change::ConnectArguments>("connect", "Connect a container to a network"),
        verb::<network_change::CreateArguments>("create", "Create a network"),
        verb::<network_change::DisconnectArguments>(
            "disconnect",
            "Disconnect a container from a network",
        ),
        verb::<network::InspectArguments>(
            "inspect",
            "Display detailed information on one or more networks",
        ),
        verb::<network::LsArguments>("ls", "List networks").aliases(&["list"]),
        verb::<network_change::PruneArguments>("prune", "Remove all unused networks"),
        verb::<network_change::RemoveArguments>("rm", "Remove one or more networks")
            .aliases(&["remove"]),
    ]
}

fn unikernel_entries() -> Vec<Entry> {
    vec![verb::<unikernel::PackArguments>(
        "pack",
        "Make an image of a unikernel's ELF file",
    )]
}

fn volume_entries() -> Vec<Entry> {
    vec![
        verb::<volume::CreateArguments>("create", "Create a volume"),
        verb::<volume::InspectArguments>(
            "inspect",
            "Display detailed information on one or more volumes",
        ),
        verb::<volume::LsArguments>("ls", "List volumes").aliases(&["list"]),
        verb::<volume::PruneArguments>("prune", "Remove unused local volumes"),
        verb::<volume::RemoveArguments>("rm", "Remove one or more volumes").aliases(&["remove"]),
    ]
}

fn context_entries() -> Vec<Entry> {
    vec![
        Entry {
            name: "create",
            aliases: &[],
            about: "Create a context",
            build: plain::<context::CreateArguments>,
            run: |matches, _| parsed::<context::CreateArguments>(matches)?.run(),
        },
        Entry {
            name: "inspect",
            aliases: &[],
            about: "Display detailed information on one or more contexts",
            build: plain::<context::InspectArguments>,
            run: |matches, _| parsed::<context::InspectArguments>(matches)?.run(),
        },
        Entry {
            name: "ls",
            aliases: &["list"],
            about: "List contexts",
            build: plain::<context::LsArguments>,
            run: |matches, _| parsed::<context::LsArguments>(matches)?.run(),
        },
        Entry {
            name: "rm",
            aliases: &["remove"],
            about: "Remove one or more contexts",
            build: plain::<context::RemoveArguments>,
            run: |matches, _| parsed::<context::RemoveArguments>(matches)?.run(),
        },
        Entry {
            name: "show",
            aliases: &[],
            about: "Print the name of the current context",
            build: plain::<context::ShowArguments>,
            run: |matches, _| parsed::<context::ShowArguments>(matches)?.run(),
        },
        Entry {
            name: "use",
            aliases: &[],
            about: "Set the current context",
            build: plain::<context::UseArguments>,
            run: |matches, _| parsed::<context::UseArguments>(matches)?.run(),
        },
    ]
}

fn system_entries() -> Vec<Entry> {
    vec![
        verb::<system::dial::DialArguments>(
            "dial-stdio",
            "Carry the API over standard input and output",
        ),
        verb::<system::df::DfArguments>("df", "Show disk usage"),
        verb::<system::check::DumpArguments>("dump", "Print the engine's records as JSON"),
        verb::<system::events::EventsArguments>("events", "Get real time events from the server"),
        verb::<system::check::FsckArguments>(
            "fsck",
            "Check the engine's store and run directory, and repair them",
        ),
        verb::<system::info::InfoArguments>("info", "Display system-wide information"),
        verb::<system::prune::PruneArguments>("prune", "Remove unused data"),
    ]
}

fn top_entries() -> Vec<Entry> {
    let mut entries = container_verbs();
    entries.extend(image_verbs());
    entries.extend([
        verb::<container::ps::PsArguments>("ps", "List containers"),
        verb::<image::ls::ImagesArguments>("images", "List images"),
        verb::<image::simple::RemoveArguments>("rmi", "Remove one or more images"),
        verb::<system::inspect::InspectArguments>(
            "inspect",
            "Return low-level information on Gamut's objects",
        ),
        verb::<registry::LoginArguments>("login", "Authenticate to a registry"),
        verb::<registry::LogoutArguments>("logout", "Log out from a registry"),
        verb::<registry::SearchArguments>("search", "Search a registry for images"),
        verb::<system::events::EventsArguments>("events", "Get real time events from the server"),
        verb::<system::info::InfoArguments>("info", "Display system-wide information"),
        verb::<system::version::VersionArguments>("version", "Show the version information"),
        Entry {
            name: "daemon",
            aliases: &[],
            about: "Run the engine and its API server",
            build: plain::<daemon::DaemonArguments>,
            run: |matches, globals| {
                let mut arguments = parsed::<daemon::DaemonArguments>(matches)?;
                if arguments.host.is_empty() {
                    arguments.host.extend(globals.choice.host.clone());
                }
                crate::daemon::run(arguments)
            },
        },
        Entry {
            name: "completion",
            aliases: &[],
            about: "Print a completion script for a shell",
            build: plain::<manual::CompletionArguments>,
            run: |matches, _| parsed::<manual::CompletionArguments>(matches)?.run(command()),
        },
        Entry {
            name: "man",
            aliases: &[],
            about: "Write the manual pages into a directory",
            build: plain::<manual::ManArguments>,
            run: |matches, _| parsed::<manual::ManArguments>(matches)?.run(command()),
        },
    ]);
    entries.sort_by_key(|entry| entry.name);
    entries
}

/// A command that is no client of the engine.
fn plain<A: clap::Args>(command: Command) -> Command {
    let about = command.get_about().cloned().unwrap_or_default();
    A::augment_args(command).about(about).long_about(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_tree_is_sound() {
        let mut root = command();
        root.build();
        root.clone().debug_assert();
        // Every verb hangs below the root or a noun, and says what it does.
        for command in root.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for inner in command.get_subcommands() {
                assert!(inner.get_about().is_some(), "{}", inner.get_name());
            }
        }
    }

    #[test]
    fn usage_mistakes_have_dockers_codes() {
        let code = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            run(&words)
        };
        assert_eq!(code("gamut run --bogus image"), 125);
        assert_eq!(code("gamut run"), 1);
        assert_eq!(code("gamut bogus"), 1);
        assert_eq!(code("gamut ps --bogus"), 125);
        assert_eq!(code("gamut -H tcp://x ps"), 1);
        assert_eq!(code("gamut run --rm --restart always image"), 125);
        assert_eq!(code("gamut run --help"), 0);
    }
}

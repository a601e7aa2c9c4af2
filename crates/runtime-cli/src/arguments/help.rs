//! Texts of `--help`.

/// One verb: its name, its arguments, what it does, its options.
type Topic = (&'static str, &'static str, &'static str, &'static str);

const LAUNCH: &str = "\
   -b, --bundle DIR         the bundle (default: the working directory)
   --console-socket SOCKET  unix socket that gets the master of the terminal
   --pidfd-socket SOCKET    unix socket that gets a pidfd of the first process
   --pid-file FILE          file for the process id
   --preserve-fds N         pass N descriptors, from 3 (and those of LISTEN_FDS) on
   --no-pivot               accepted; pivot_root is left out only where it cannot work
   --no-new-keyring         keep the caller's session keyring
";

const TOPICS: [Topic; 17] = [
    (
        "checkpoint",
        "ID",
        "save a running container (not supported yet)",
        "",
    ),
    (
        "create",
        "ID",
        "make a container that waits for its start",
        LAUNCH,
    ),
    (
        "delete",
        "ID",
        "remove a container that has stopped",
        "   -f, --force  kill it first; no error if there is none\n",
    ),
    (
        "events",
        "ID",
        "show what a container uses, and when it runs out of memory",
        "   --interval TIME  between two (default 5s)\n   --stats          once, then end\n",
    ),
    (
        "exec",
        "ID COMMAND [ARGUMENT...] | -p FILE ID",
        "run a further process in a container",
        "\
   -p, --process FILE       its whole process object of config.json
   -t, --tty                give it a terminal
   -u, --user UID[:GID]     run as
   -g, --additional-gids N  in a further group
   --cwd DIR                working directory
   -e, --env NAME=VALUE     set a variable
   -c, --cap NAME           add a capability
   --no-new-privs           set no_new_privs
   -d, --detach             come back once it runs
   --pid-file FILE          file for the process id
   --console-socket SOCKET  unix socket that gets the master of the terminal
   --pidfd-socket SOCKET    unix socket that gets a pidfd of the process
   --preserve-fds N         pass N descriptors, from 3 on
   --process-label LABEL    SELinux label
   --apparmor PROFILE       AppArmor profile
   --cgroup [CONTROLLER:]PATH
                            run it in a group below the container's
   --ignore-paused          even if the container is paused
",
    ),
    ("features", "", "show what this program can do, as JSON", ""),
    (
        "kill",
        "ID [SIGNAL]",
        "send a signal (default SIGTERM) to the first process",
        "   -a, --all  to every process\n",
    ),
    (
        "list",
        "",
        "list the containers",
        "   -f, --format table|json\n   -q, --quiet  ids only\n",
    ),
    ("pause", "ID", "freeze the processes of a container", ""),
    (
        "ps",
        "ID [OPTION FOR PS...]",
        "list the processes of a container",
        "   -f, --format table|json\n",
    ),
    (
        "restore",
        "ID",
        "bring a saved container back (not supported yet)",
        "",
    ),
    (
        "resume",
        "ID",
        "let the processes of a container run again",
        "",
    ),
    (
        "run",
        "ID",
        "make a container, run it in the foreground and remove it",
        "\
   -d, --detach             come back once it runs
   --keep                   leave it when it has ended
   --no-subreaper           do not adopt what it leaves behind
",
    ),
    (
        "spec",
        "",
        "write a config.json to begin with",
        "   -b, --bundle DIR  where (default: the working directory)\n   --rootless        for a user who is not root\n",
    ),
    ("start", "ID", "start a created container", ""),
    ("state", "ID", "show a container as JSON", ""),
    (
        "update",
        "ID",
        "change the limits of a container",
        "\
   -r, --resources FILE     a resources object of config.json; - is standard input
   --blkio-weight N   --cpu-period US   --cpu-quota US      --cpu-burst US
   --cpu-share N      --cpu-idle 0|1    --cpu-rt-period US  --cpu-rt-runtime US
   --cpuset-cpus LIST --cpuset-mems LIST
   --memory BYTES     --memory-reservation BYTES  --memory-swap BYTES  --pids-limit N
",
    ),
];

const GLOBAL: &str = "\
GLOBAL OPTIONS:
   --root DIR                   directory of the states (default: /run/gamut-runtime, or below
                                $XDG_RUNTIME_DIR for users other than root)
   --log FILE                   append errors to a file, too
   --log-format text|json       how (default: text)
   --debug                      tell what is being done
   --systemd-cgroup             let systemd make the control group if config.json names none;
                                one named SLICE:PREFIX:NAME is systemd's anyway
   --rootless auto|true|false   accepted; what cannot be done is warned about
   -h, --help                   this text, or that of a verb
   -v, --version                the version
";

/// The help of a verb, or of everything if it is none. `name` is that of the program.
pub fn help(name: &str, verb: &str) -> String {
    if let Some((verb, arguments, what, options)) = TOPICS.iter().find(|topic| topic.0 == verb) {
        let shared = if *verb == "run" { LAUNCH } else { "" };
        let heading = if options.is_empty() {
            ""
        } else {
            "\nOPTIONS:\n"
        };
        return format!(
            "NAME:\n   {name} {verb} - {what}\n\nUSAGE:\n   {name} [GLOBAL OPTIONS] {verb} \
             [OPTIONS] {arguments}\n{heading}{options}{shared}"
        );
    }
    let mut text = format!(
        "NAME:\n   {name} - Open Container Initiative runtime\n\nUSAGE:\n   {name} [GLOBAL OPTIONS] \
         VERB [OPTIONS] ID\n\nVERBS:\n"
    );
    for (verb, arguments, what, _) in TOPICS {
        text.push_str(&format!("   {verb} {arguments}\n        {what}\n"));
    }
    text.push('\n');
    text.push_str(GLOBAL);
    text
}

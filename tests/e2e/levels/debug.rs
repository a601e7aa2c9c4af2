//! `gamut debug`: the real GDB on the machine of a unikernel.

use super::{Level, said, state};
use gamut_tests::{Daemon, Session, eventually, has};

fn daemon() -> Option<Daemon> {
    if !has("gdb") {
        return None;
    }
    Level::Unikernel.daemon()
}

#[test]
fn gdb_stops_looks_around_and_lets_go() {
    let Some(daemon) = daemon() else {
        return;
    };
    Level::Unikernel.start(&daemon, "uk", &[], &["tick", "20"]);
    said(&daemon, "uk", "tick 0");
    let mut gdb = daemon.spawn(&["debug", "uk"]);
    gdb.write(
        "set confirm off\nset pagination off\n\
         printf \"ring %d\\n\", $cs & 3\n\
         printf \"program %d\\n\", $rip >= 0x100000\n\
         info symbol $rip\n\
         set $before = $rip\nstepi\n\
         printf \"stepped %d\\n\", $rip != $before\n\
         break *$rip\ndelete\ndetach\nquit\n",
    );
    gdb.close_stdin();
    let output = gdb.wait();
    assert_eq!(output.code, 0, "{output:#?}");
    // The symbols are those of the image.
    for text in [
        "ring 3\n",
        "program 1\n",
        " in section .text",
        "stepped 1\n",
    ] {
        assert!(output.stdout.contains(text), "{text:?}: {output:#?}");
    }
    // It runs on, as if nothing had been.
    let ticks = || daemon.gamut(&["logs", "uk"]).stdout.lines().count();
    let before = ticks();
    eventually("it goes on", || ticks() > before + 1);
    daemon.ok(&["stop", "uk"]);
    assert_eq!(state(&daemon, "uk", "ExitCode"), 0);
    let error = daemon.gamut(&["debug", "uk"]).fails(1);
    assert!(error.contains("not running"), "{error}");
    daemon.finish();
}

#[test]
fn another_debugger_connects_to_an_address() {
    let Some(daemon) = daemon() else {
        return;
    };
    Level::Unikernel.start(&daemon, "uk", &[], &["tick", "20"]);
    said(&daemon, "uk", "tick 0");
    // In the daemon's namespace, where nobody else listens.
    let debug = daemon.spawn(&["debug", "--listen", "127.0.0.1:7777", "uk"]);
    debug.expect_error("waiting for a debugger (in gdb: target remote 127.0.0.1:7777)");
    let mut command = daemon.command("gdb");
    command.args([
        "-batch",
        "-nx",
        "-ex",
        "target remote 127.0.0.1:7777",
        "-ex",
        "printf \"ring %d\\n\", $cs & 3",
        "-ex",
        "detach",
    ]);
    let output = Session::start(&mut command).wait();
    assert!(output.stdout.contains("ring 3\n"), "{output:#?}");
    let _ = debug.wait().ok();
    let ticks = || daemon.gamut(&["logs", "uk"]).stdout.lines().count();
    let before = ticks();
    eventually("it goes on", || ticks() > before + 1);
    daemon.finish();
}

#[test]
fn what_has_no_machine_of_ours_is_refused() {
    let Some(daemon) = Level::Container.daemon() else {
        return;
    };
    Level::Container.start(&daemon, "box", &[], &["sleep", "1000"]);
    let error = daemon.gamut(&["debug", "box"]).fails(1);
    assert!(error.contains("isolation level container"), "{error}");
    daemon.finish();
}

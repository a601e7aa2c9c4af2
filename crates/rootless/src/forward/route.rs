//! The way back of answers to clients whose address is taken as source.
//!
//! A workload's answer goes to the client's address, by way of the bridge. Left alone it would be
//! routed out of the network namespace. Packets of the forwarder carry a mark, which their
//! connection remembers; packets of the same connection that come back get another one, by which
//! they are routed to this machine itself, with a table of their own.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// The mark of the forwarder's packets and of their connections.
pub(super) const MARK: u32 = 0x6761;
/// The mark of the packets that come back.
const RETURNING: u32 = 0x6762;
/// The routing table of packets that come back.
const TABLE: &str = "26465";
/// The rule's priority, before that of the main table.
const PRIORITY: &str = "26465";

/// Sets up rules and routes of this network namespace. Idempotent.
pub(super) fn set_up() -> Result<()> {
    let (mark, returning) = (format!("{MARK:#x}"), format!("{RETURNING:#x}"));
    // Twice the same rule would be two; a missing one is no error.
    let _ = ip(&["rule", "del", "fwmark", &returning, "table", TABLE]);
    ip(&[
        "rule", "add", "fwmark", &returning, "table", TABLE, "priority", PRIORITY,
    ])?;
    ip(&[
        "route",
        "replace",
        "local",
        "0.0.0.0/0",
        "dev",
        "lo",
        "table",
        TABLE,
    ])?;
    let script = format!(
        "add table ip gamut_forwarder\n\
         delete table ip gamut_forwarder\n\
         table ip gamut_forwarder {{\n\
           chain leaving {{ type filter hook output priority -150; meta mark {mark} ct mark set {mark}; }}\n\
           chain returning {{ type filter hook prerouting priority -150; ct direction reply ct mark {mark} meta mark set {returning}; }}\n\
         }}\n"
    );
    run("nft", &["-f", "-"], script.as_bytes())
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments, &[])
}

fn run(name: &str, arguments: &[&str], input: &[u8]) -> Result<()> {
    let operation = || format!("run {name} {}", arguments.join(" "));
    let program = crate::find_program(name).ok_or_else(|| {
        Error::Setup(format!(
            "{name} is not installed (Debian: apt install iproute2 nftables)"
        ))
    })?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::system(operation(), source))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input);
    }
    let output = child
        .wait_with_output()
        .map_err(|source| Error::system(operation(), source))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::system(operation(), io::Error::other(said)))
}

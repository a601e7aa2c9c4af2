//! `gamut-supervisor`: the parent of one sandbox. Started by the daemon with a connected unix
//! stream socket as descriptor 3; see [`gamut_supervisor::server`]. Called `gamut-runtime`, it makes
//! one OCI container instead; see [`gamut_supervisor::oci`].

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == gamut_abi::oci::PROGRAM_NAME)
    {
        return gamut_supervisor::oci::main();
    }
    gamut_supervisor::server::main()
}

//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// The directory of the build profile that this test was built with.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("this executable has a path");
    let deps = test.parent().expect("it is in deps/");
    deps.parent().expect("deps/ is in a profile").to_owned()
}

/// The `gamut` binary: `GAMUT_BIN`, or the one that was built beside this test.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn target_binary() -> PathBuf {
    let beside = || profile_directory().join("gamut");
    existing(
        &std::env::var_os("GAMUT_BIN").map_or_else(beside, PathBuf::from),
        "cargo build -p gamut-cli",
    )
}

/// The static supervisor: `GAMUT_SUPERVISOR`, or the one in the target directory of this test.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn supervisor() -> PathBuf {
    let built = || profile_directory().join("../x86_64-unknown-linux-gnu/tiny/gamut-supervisor");
    existing(
        &std::env::var_os("GAMUT_SUPERVISOR").map_or_else(built, PathBuf::from),
        "RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile tiny \
         --target x86_64-unknown-linux-gnu -p gamut-supervisor",
    )
}

/// The monitor of unikernels: `GAMUT_MONITOR`, or beside the supervisor.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn monitor() -> PathBuf {
    let beside = || supervisor().with_file_name("gamut-monitor");
    existing(
        &std::env::var_os("GAMUT_MONITOR").map_or_else(beside, PathBuf::from),
        "RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile tiny \
         --target x86_64-unknown-linux-gnu -p gamut-vmm",
    )
}

/// One of our unikernels, which `scripts/unikernel` builds. `None`, said aloud, if it was not.
#[must_use]
pub fn unikernel(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("this executable has a path");
    let program = test
        .ancestors()
        .map(|directory| directory.join("unikernels").join(name))
        .find(|program| program.is_file());
    if program.is_none() {
        crate::skipped(&format!(
            "no unikernel {name} (scripts/unikernel {name} builds it)"
        ));
    }
    program
}

/// The OCI runtime command: beside the supervisor.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn runtime() -> PathBuf {
    existing(
        &supervisor().with_file_name("gamut-runtime"),
        "RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile tiny \
         --target x86_64-unknown-linux-gnu -p gamut-runtime-cli",
    )
}

fn existing(path: &Path, how: &str) -> PathBuf {
    path.canonicalize()
        .unwrap_or_else(|error| panic!("{}: {error}; build it with: {how}", path.display()))
}

/// Path of a program, as the shell would find it.
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path).map(|directory| directory.join(program));
    let system = ["/usr/sbin", "/sbin"].map(|directory| Path::new(directory).join(program));
    own.chain(system).find(|path| path.is_file())
}

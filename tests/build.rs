//! Builds the hostile program of the escape tests (`attacker/`): static, because the images it
//! runs in have no library.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=attacker");
    let source = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("attacker/main.rs");
    let program = PathBuf::from(env::var("OUT_DIR")?).join("attacker");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .arg(source)
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name"])
        .args(["attacker", "--target", &env::var("TARGET")?])
        .args(["-C", "target-feature=+crt-static", "-C", "panic=abort"])
        .args(["-C", "opt-level=1", "-C", "strip=symbols"]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = std::ffi::OsString::from("linker=");
        argument.push(linker);
        command.arg("-C").arg(argument);
    }
    let output = command.arg("-o").arg(&program).output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("building the attacker failed:\n{message}").into());
    }
    println!("cargo:rustc-env=GAMUT_ATTACKER={}", program.display());
    Ok(())
}

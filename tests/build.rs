//! Builds the programs that tests put into images: static, because those have no library.
//! `attacker` is the hostile one of the escape tests, `reaper` stands in for testcontainers' own.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["attacker", "reaper"] {
        let program = build(name)?;
        let variable = format!("GAMUT_{}", name.to_ascii_uppercase());
        println!("cargo:rustc-env={variable}={}", program.display());
    }
    Ok(())
}

fn build(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    println!("cargo:rerun-if-changed={name}");
    let source = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join(format!("{name}/main.rs"));
    let program = PathBuf::from(env::var("OUT_DIR")?).join(name);
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .arg(source)
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name"])
        .args([name, "--target", &env::var("TARGET")?])
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
        return Err(format!("building {name} failed:\n{message}").into());
    }
    Ok(program)
}

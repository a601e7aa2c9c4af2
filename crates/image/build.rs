//! Builds the programs of the built-in images: static, without any library, a few KiB each.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 2] = ["hello-world", "hello-http"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=builtin-src");
    let source_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("builtin-src");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    for program in PROGRAMS {
        build(&source_dir, &out_dir, program)?;
    }
    Ok(())
}

fn build(source_dir: &Path, out_dir: &Path, program: &str) -> Result<(), Box<dyn Error>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .arg(source_dir.join(format!("{program}.rs")))
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name"])
        .arg(program.replace('-', "_"))
        .args(["--target", &env::var("TARGET")?])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "lto=fat",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "codegen-units=1",
            "-D",
            "warnings",
        ])
        // The same bytes wherever the sources lie.
        .arg("--remap-path-prefix")
        .arg(format!("{}=.", source_dir.display()));
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
        "-Wl,-z,norelro",
        "-Wl,-z,noseparate-code",
        "-Wl,--no-eh-frame-hdr",
        // core is precompiled with unwinding: what it would call is never reached.
        "-Wl,--defsym=rust_eh_personality=0",
        "-Wl,--defsym=_Unwind_Resume=0",
    ] {
        command.arg("-C").arg(format!("link-arg={argument}"));
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = std::ffi::OsString::from("linker=");
        argument.push(linker);
        command.arg("-C").arg(argument);
    }
    let output = command.arg("-o").arg(out_dir.join(program)).output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("building the built-in program {program} failed:\n{message}").into());
    }
    Ok(())
}

//! Builds the programs of the built-in images: static, without any library, a few KiB each; and the
//! unikernels, from their own workspace.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 2] = ["hello-world", "hello-http"];

/// Packages in `unikernels/`.
const UNIKERNELS: [&str; 2] = ["hello", "http"];

/// What cargo or its tools tell the compilers of this workspace, and not those of the other.
const OF_THIS_BUILD: [&str; 7] = [
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=builtin-src");
    let source_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("builtin-src");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    for program in PROGRAMS {
        build(&source_dir, &out_dir, program)?;
    }
    for name in UNIKERNELS {
        let program = out_dir.join(format!("unikernel-{name}"));
        if env::var("CARGO_CFG_TARGET_ARCH")? == "x86_64" {
            build_unikernel(name, &program)?;
        } else {
            // There are none for other processors; an empty file stands for that.
            std::fs::write(program, "")?;
        }
    }
    Ok(())
}

/// Builds a unikernel where `./build` has it as well, and takes it from there.
fn build_unikernel(name: &str, program: &Path) -> Result<(), Box<dyn Error>> {
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?)
        .join("../..")
        .canonicalize()?;
    for source in ["unikernels", "crates/abi", "scripts"] {
        println!(
            "cargo:rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let mut command = Command::new(workspace.join("scripts/unikernel"));
    for variable in OF_THIS_BUILD {
        command.env_remove(variable);
    }
    let output = command
        .arg(name)
        .env("CARGO_TARGET_DIR", &target)
        .output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("scripts/unikernel {name} failed:\n{message}").into());
    }
    // Relative to the workspace, as the script takes it.
    std::fs::copy(
        workspace.join(target).join("unikernels").join(name),
        program,
    )?;
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

//! Links a unikernel. The build script of an application is one line in its `main`:
//! `gamut_libos_build::unikernel();`

/// Where the sections of an image lie.
const LINKER_SCRIPT: &str = include_str!("../link.ld");

/// Tells cargo how the binaries of this package are linked: without a C library, at fixed
/// addresses, by the linker script of the library OS.
///
/// If the script cannot be written, cargo says why and the build ends.
pub fn unikernel() {
    let folder = std::env::var_os("OUT_DIR").unwrap_or_default();
    let script = std::path::Path::new(&folder).join("link.ld");
    if let Err(error) = std::fs::write(&script, LINKER_SCRIPT) {
        println!(
            "cargo::error=writing the linker script {}: {error}",
            script.display()
        );
        return;
    }
    let script = format!("-Wl,-T,{}", script.display());
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,-z,noexecstack",
        "-Wl,-z,max-page-size=4096",
        "-Wl,--no-eh-frame-hdr",
        "-Wl,--gc-sections",
        script.as_str(),
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}

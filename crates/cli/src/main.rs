//! The `gamut` program; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    gamut_cli::main()
}

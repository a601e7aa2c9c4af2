//! `gamut-monitor [CONFIG]`: runs the machine that a configuration file describes.

fn main() {
    let path = std::env::args().nth(1);
    let path = path.as_deref().unwrap_or(gamut_abi::monitor::CONFIG_PATH);
    std::process::exit(gamut_vmm::monitor::main(path));
}

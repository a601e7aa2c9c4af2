//! `gamut-monitor [CONFIG]`: runs the machine that a configuration file describes.
//!
//! `solo5-hvt …` or `gamut-monitor solo5 …`: runs an image of Solo5, with the command line of
//! Solo5's own monitor.

fn main() {
    let mut arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let name = arguments.first().map_or("", String::as_str);
    let is_solo5 = name
        .rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with("solo5-hvt"));
    if is_solo5 || arguments.get(1).is_some_and(|word| word == "solo5") {
        let own = if is_solo5 { 1 } else { 2 };
        std::process::exit(gamut_vmm::solo5::main(&arguments.split_off(own)));
    }
    let path = arguments.get(1).map(String::as_str);
    let path = path.unwrap_or(gamut_abi::monitor::CONFIG_PATH);
    std::process::exit(gamut_vmm::monitor::main(path));
}

//! What runs inside the containers of `tests/e2e/escapes`: a hostile program, one attack per word
//! on its command line. Built static by `tests/build.rs`, with nothing but the standard library.
//! Everything that it gets hold of is a line on standard output.
#![deny(warnings)]

mod calls;
mod inspect;
mod kernel;
mod races;
mod steal;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["descriptors"] => inspect::descriptors(),
        ["processes"] => inspect::processes(),
        ["sockets"] => inspect::sockets(),
        ["stop"] => races::stop_everybody(),
        ["exchange", one, other] => races::exchange(one, other),
        ["alternate", name, target] => races::alternate(name, target),
        ["type"] => inspect::type_on_terminal(),
        ["keys"] => inspect::keys(),
        ["calls"] => calls::all(),
        ["steal-executable"] => steal::executable(),
        ["keep"] => races::keep(),
        _ => {
            eprintln!("unknown attack: {words:?}");
            std::process::exit(2);
        }
    }
}

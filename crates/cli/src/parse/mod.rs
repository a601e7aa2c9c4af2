//! Parsers of flag values: pure, each tested where it is. Files they name are read by
//! [`files`] only.

pub mod device;
pub mod environment;
pub mod files;
pub mod filter;
pub mod limits;
pub mod mount;
pub mod network;
pub mod policy;
pub mod port;
pub mod timestamp;
pub mod volume;

use crate::error::Error;

/// A value that its flag does not take.
#[must_use]
pub fn invalid(flag: &str, value: &str, reason: &str) -> Error {
    Error::Usage(format!("invalid value \"{value}\" for {flag}: {reason}"))
}

/// Entry for fuzzing: no parser of this module panics on any text.
pub fn fuzz_flag_values(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = device::parse(text);
    let _ = environment::parse_file(text, "file", &|_| None);
    let _ = filter::parse(&[text.to_owned()]);
    let _ = limits::cpus_to_nano(text);
    let _ = limits::memory_swap(text);
    let _ = limits::ulimit(text);
    let _ = mount::parse(text);
    let _ = network::attachment(text);
    let _ = network::subnets(
        &[text.to_owned()],
        &[text.to_owned()],
        &[],
        &[text.to_owned()],
    );
    let _ = policy::restart(text);
    let _ = port::parse(text);
    let _ = timestamp::parse(text, 0);
    let _ = volume::parse(text, std::path::Path::new("/cwd"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            super::fuzz_flag_values(text.as_bytes());
        }

        #[test]
        fn never_panics_on_flaglike_text(text in "[a-z0-9:/,=.\\[\\]\"-]{0,30}") {
            super::fuzz_flag_values(text.as_bytes());
        }
    }
}

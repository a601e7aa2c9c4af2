//! Mapping ids that only newuidmap(1) and newgidmap(1) may map for an ordinary user.

use crate::error::Error;
use crate::sys;
use gamut_abi::plan::IdMapping;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the programs lie: the environment of the caller is not asked.
const DIRECTORIES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// Whether a process of this user may write the mapping itself: one id, his own
/// (user_namespaces(7)).
pub(crate) fn may_write(mappings: &[IdMapping], own: u32) -> bool {
    match mappings {
        [] => true,
        [one] => one.host_id == own && one.size == 1,
        _ => false,
    }
}

/// Has a program map the ids of a process.
pub(crate) fn run(program: &str, pid: u32, mappings: &[IdMapping]) -> Result<(), Error> {
    let directory = DIRECTORIES
        .into_iter()
        .find(|directory| Path::new(directory).join(program).is_file());
    let Some(directory) = directory else {
        return Err(Error::invalid(
            [
                "an ordinary user may map one id, his own; for more, ",
                program,
                " is needed (Debian: apt install uidmap)",
            ]
            .concat(),
        ));
    };
    let numbers = mappings
        .iter()
        .flat_map(|mapping| [mapping.container_id, mapping.host_id, mapping.size]);
    let output = Command::new([directory, "/", program].concat())
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::invalid(
            [
                "map ids: ",
                String::from_utf8_lossy(&output.stderr).trim(),
                " (/etc/subuid and /etc/subgid have to allow it)",
            ]
            .concat(),
        )),
        Err(error) => Err(Error::system(
            &["run ", program].concat(),
            sys::Errno(error.raw_os_error().unwrap_or(libc::EIO)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_own_id_needs_no_help() {
        let mapping = |host_id, size| IdMapping {
            container_id: 0,
            host_id,
            size,
        };
        assert!(may_write(&[mapping(1000, 1)], 1000));
        assert!(!may_write(&[mapping(1000, 2)], 1000));
        assert!(!may_write(&[mapping(1001, 1)], 1000));
        assert!(!may_write(&[mapping(1000, 1), mapping(5, 1)], 1000));
    }
}

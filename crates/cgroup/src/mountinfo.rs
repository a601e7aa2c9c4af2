//! Reads `/proc/self/mountinfo` (proc(5)) as far as control groups go. No I/O.

use crate::controller::{Controller, ControllerSet};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Where.
    pub(crate) root: String,
    /// cgroup2.
    pub(crate) v2: bool,
    /// The v1 controllers of the model; always empty for v2, which tells in a file, and for the
    /// hierarchy by which systemd follows its services on v1, which limits nothing.
    pub(crate) controllers: ControllerSet,
}

/// The option by which the hierarchy is known that systemd follows its services with on v1.
const SYSTEMD: &str = "name=systemd";

/// The hierarchies of a mountinfo text that the model can use: those with a controller of the
/// model, v2, and that of systemd, which comes last. If something is mounted twice, the mount below
/// `/sys/fs/cgroup` comes first.
pub(crate) fn parse(text: &str) -> Vec<Mounted> {
    let mut found: Vec<Mounted> = text.lines().filter_map(parse_line).collect();
    found.sort_by_key(|mounted| {
        let tracks_only = !mounted.v2 && mounted.controllers.is_empty();
        (tracks_only, !mounted.root.starts_with("/sys/fs/cgroup"))
    });
    found
}

fn parse_line(line: &str) -> Option<Mounted> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let fstype = right.next()?;
    let super_options = right.nth(1)?;
    let root = unescape(left.split(' ').nth(4)?)?;
    match fstype {
        "cgroup2" => Some(Mounted {
            root,
            v2: true,
            controllers: ControllerSet::default(),
        }),
        "cgroup" => {
            let mut controllers = ControllerSet::default();
            for option in super_options.split(',') {
                for controller in Controller::ALL {
                    if controller.name_v1() == option {
                        controllers.insert(controller);
                    }
                }
            }
            let is_systemd = super_options.split(',').any(|option| option == SYSTEMD);
            (is_systemd || !controllers.is_empty()).then_some(Mounted {
                root,
                v2: false,
                controllers,
            })
        }
        _ => None,
    }
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<3>()?;
        let mut value: u32 = 0;
        for digit in digits {
            value = value * 8 + char::from(*digit).to_digit(8)?;
        }
        bytes.push(u8::try_from(value).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Entry for a fuzzer: any bytes are read as a mountinfo without a panic.
pub fn fuzz_mountinfo(bytes: &[u8]) {
    let _ = parse(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_is_read_and_only_the_named_hierarchy_of_systemd() {
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
90 31 0:40 / /mnt/odd\\040place rw shared:7 - cgroup cgroup rw,memory
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 master:1 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
43 31 0:41 / /sys/fs/cgroup/mine rw,relatime - cgroup cgroup rw,name=mine
42 31 0:39 / /sys/fs/cgroup/perf rw,relatime - cgroup cgroup rw,perf_event
";
        let found = parse(text);
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].root, "/sys/fs/cgroup/cpu,cpuacct");
        assert!(found[0].controllers.contains(Controller::Cpuacct));
        assert!(found[1].v2);
        assert_eq!(found[2].root, "/mnt/odd place");
        assert_eq!(found[3].root, "/sys/fs/cgroup/systemd");
        assert!(!found[3].v2 && found[3].controllers.is_empty());
    }

    #[test]
    fn damaged_lines_are_left_out() {
        for text in [
            "",
            "x",
            " - cgroup2",
            "1 2 3 4 \\7 - cgroup2 a b",
            "1 2 3 4 \\777 - cgroup2 a b",
        ] {
            assert_eq!(parse(text), vec![]);
        }
        fuzz_mountinfo(&[0xff, b' ', b'-', b' ']);
    }
}

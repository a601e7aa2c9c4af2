//! Interface counters.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The counters of one interface, as the workload sees it: `rx` is what it received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatistics {
    /// Name inside the workload's namespace.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Damaged packets received.
    pub rx_errors: u64,
    /// Packets dropped on receipt.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped on sending.
    pub tx_dropped: u64,
}

/// The interfaces of the network namespace of process `pid`, without the loopback.
///
/// # Errors
/// `NotFound` if the process has ended; the kernel's otherwise.
pub fn of_process(pid: libc::pid_t) -> Result<Vec<InterfaceStatistics>> {
    let path = format!("/proc/{pid}/net/dev");
    let table = fs::read_to_string(&path).map_err(|source| match source.raw_os_error() {
        // EINVAL: a zombie has no namespace any more.
        Some(libc::ENOENT | libc::ESRCH | libc::EINVAL) => Error::NotFound(format!(
            "process {pid} has no network counters: it has ended"
        )),
        _ => Error::system(format!("read {path}"), source),
    })?;
    Ok(parse(&table)
        .into_iter()
        .filter(|interface| interface.name != "lo")
        .collect())
}

/// Parses the table of `/proc/PID/net/dev` (proc_pid_net(5)). Lines of another shape, such as its
/// two headings, are left out.
#[must_use]
pub fn parse(table: &str) -> Vec<InterfaceStatistics> {
    table.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<InterfaceStatistics> {
    // The last colon before the figures: an interface name may contain one.
    let (name, figures) = line.rsplit_once(':')?;
    let figures: Vec<u64> = figures
        .split_ascii_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let at = |index: usize| figures.get(index).copied();
    Some(InterfaceStatistics {
        name: name.trim().to_owned(),
        rx_bytes: at(0)?,
        rx_packets: at(1)?,
        rx_errors: at(2)?,
        rx_dropped: at(3)?,
        tx_bytes: at(8)?,
        tx_packets: at(9)?,
        tx_errors: at(10)?,
        tx_dropped: at(11)?,
    })
}

/// Feeds arbitrary bytes to the parser of `/proc/PID/net/dev`; a target for fuzzing.
pub fn fuzz_statistics(data: &[u8]) {
    let _ = parse(&String::from_utf8_lossy(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_the_kernels_table() {
        let table = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0:    1216      14    1    2    0     0          0         0      936      11    3    4    0     0       0          0
";
        let interfaces = parse(table);
        assert_eq!(interfaces.len(), 2);
        let eth0 = &interfaces[1];
        assert_eq!(
            (eth0.name.as_str(), eth0.rx_bytes, eth0.rx_packets),
            ("eth0", 1216, 14)
        );
        assert_eq!((eth0.rx_errors, eth0.rx_dropped), (1, 2));
        assert_eq!(
            (
                eth0.tx_bytes,
                eth0.tx_packets,
                eth0.tx_errors,
                eth0.tx_dropped
            ),
            (936, 11, 3, 4)
        );
    }

    #[test]
    fn reads_this_process() {
        let _ = of_process(1).unwrap();
        assert!(matches!(of_process(i32::MAX), Err(Error::NotFound(_))));
    }

    proptest! {
        #[test]
        fn any_table_is_safe(data: Vec<u8>, table in "[a-z0-9: \n-]{0,200}") {
            fuzz_statistics(&data);
            fuzz_statistics(table.as_bytes());
        }
    }
}

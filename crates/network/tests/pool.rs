//! The pool of prepared namespaces.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{ask_once, eventually, host_interfaces, inside, isolated, network, run, serve};
use gamut_network::{EndpointConfig, Ipam, NamespacePool, Network};
use gamut_spec::error::ErrorKind;

#[test]
fn refills_and_leaves_nothing() {
    isolated(|| {
        let network = network();
        let pool = NamespacePool::new(&network, 4).unwrap();
        eventually("full", || pool.ready() == 4);
        assert_eq!(host_interfaces().len(), 4);
        // Prepared ones are no strays.
        assert_eq!(network.check(&BTreeSet::new()).unwrap(), []);
        let taken: Vec<_> = (0..7).map(|_| pool.take().unwrap()).collect();
        eventually("full again", || pool.ready() == 4);
        assert_eq!(host_interfaces().len(), 11);
        drop(taken);
        eventually("the taken ones are gone", || host_interfaces().len() == 4);
        drop(pool);
        eventually("all are gone", || host_interfaces().is_empty());
        network.remove().unwrap();
    });
}

#[test]
fn a_workloads_namespace_ends_with_it() {
    isolated(|| {
        let network = network();
        let pool = NamespacePool::new(&network, 1).unwrap();
        eventually("full", || pool.ready() == 1);
        let inner = pool.take().unwrap();
        eventually("full again", || pool.ready() == 1);
        // The pool's thread that made it must not keep it alive.
        assert_eq!(host_interfaces().len(), 2);
        drop(inner);
        eventually("only the ready one is left", || {
            host_interfaces().len() == 1
        });
    });
}

#[test]
fn two_hundred_at_once() {
    isolated(|| {
        let network = network();
        let pool = Arc::new(NamespacePool::new(&network, 16).unwrap());
        let ipam = Arc::new(Ipam::new(network.subnet(), network.gateway()).unwrap());
        let threads: Vec<_> = (0..200)
            .map(|_| {
                let (network, pool, ipam) = (network.clone(), Arc::clone(&pool), Arc::clone(&ipam));
                std::thread::spawn(move || {
                    let address = ipam.allocate(None).unwrap();
                    let prepared = pool.take().unwrap();
                    prepared
                        .connect(&EndpointConfig::new(&network, address))
                        .unwrap()
                })
            })
            .collect();
        let connected: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        let addresses: BTreeSet<_> = connected.iter().map(|one| one.endpoint.address).collect();
        let names: BTreeSet<_> = connected
            .iter()
            .map(|one| one.endpoint.host_interface.clone())
            .collect();
        assert_eq!((addresses.len(), names.len()), (200, 200));
        serve(&connected[0].namespace, "first", 7000);
        let first = connected[0].endpoint.address;
        for one in connected.iter().skip(1).step_by(10) {
            let answer = inside(&one.namespace, move || ask_once((first, 7000)));
            assert_eq!(answer, Some(format!("first {}", one.endpoint.address)));
        }
        assert_eq!(network.check(&names).unwrap(), []);
        let served = connected[0].endpoint.host_interface.clone();
        drop(connected);
        drop(pool);
        // The server's sockets keep their namespace.
        eventually("all others are gone", || {
            host_interfaces() == [served.clone()]
        });
    });
}

#[test]
fn errors_leave_nothing() {
    isolated(|| {
        let network = network();
        let pool = NamespacePool::new(&network, 0).unwrap();
        let address = network.subnet().last_host();
        let mut config = EndpointConfig::new(&network, address);
        config.mac = "01:00:5e:00:00:01".parse().ok();
        let error = pool.take().unwrap().connect(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        config.mac = None;
        config.gateway = Some([8, 8, 8, 8].into());
        let error = pool.take().unwrap().connect(&config).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot add the default route by 8.8.8.8"),
            "{error}"
        );
        let alone = NamespacePool::loopback_only(0).unwrap().take().unwrap();
        assert_eq!(
            alone.connect(&config).unwrap_err().kind(),
            ErrorKind::Conflict
        );
        eventually("all are gone", || host_interfaces().is_empty());
        // The bridge was removed behind our back.
        run("ip link delete gamut0");
        assert!(pool.take().is_err());
        eventually("still nothing", || host_interfaces().is_empty());
    });
}

const DAEMON: &str = "GAMUT_NETWORK_TEST_DAEMON";

fn own_namespace() -> OsString {
    std::fs::read_link("/proc/thread-self/ns/net")
        .unwrap()
        .into_os_string()
}

/// Not a test by itself: the process that `a_killed_daemon_leaves_nothing` kills.
#[test]
fn daemon_to_be_killed() {
    let Some(namespace) = std::env::var_os(DAEMON) else {
        return;
    };
    assert_eq!(own_namespace(), namespace, "in the test's namespace only");
    let network = Network::ensure(&gamut_network::BridgeConfig::default()).unwrap();
    let pool = NamespacePool::new(&network, 8).unwrap();
    eventually("full", || pool.ready() == 8);
    let _taken = pool.take().unwrap();
    println!("ready");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_daemon_leaves_nothing() {
    isolated(|| {
        let namespace = own_namespace();
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon_to_be_killed", "--nocapture"])
            .env(DAEMON, namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("ready")));
        assert!(host_interfaces().len() >= 8);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        eventually("all are gone", || host_interfaces().is_empty());
        // The next daemon adopts the bridge.
        network().remove().unwrap();
    });
}

/// Figures for the record; nothing is asserted, the machine may be busy.
#[test]
fn timing() {
    isolated(|| {
        let network = network();
        let ipam = Ipam::new(network.subnet(), network.gateway()).unwrap();
        for (what, size) in [("warm pool", 32), ("drained", 0)] {
            let pool = NamespacePool::new(&network, size).unwrap();
            eventually("full", || pool.ready() == size);
            let mut takes = Vec::new();
            let mut times = Vec::new();
            for round in 0..64 {
                if size > 0 && round % 8 == 0 {
                    eventually("full", || pool.ready() == size);
                }
                let address = ipam.allocate(None).unwrap();
                let start = Instant::now();
                let prepared = pool.take().unwrap();
                takes.push(start.elapsed());
                let connected = prepared
                    .connect(&EndpointConfig::new(&network, address))
                    .unwrap();
                times.push(start.elapsed());
                drop(connected);
            }
            takes.sort();
            times.sort();
            println!(
                "{what}: take median {:?} min {:?}; take+connect median {:?} min {:?} max {:?}",
                takes[32], takes[0], times[32], times[0], times[63]
            );
        }
    });
}

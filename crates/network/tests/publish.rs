//! Publishing: conflicts, choice of ports, all or nothing, restoring, repairing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use common::{
    container, fetch, host_interfaces, isolated, mapping, mapping_at, network, run, serve,
};
use gamut_network::{BridgeConfig, Error, Finding, Network, PortMapping, Ports, Protocol};
use gamut_spec::error::ErrorKind;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 29, 0, 2);

#[test]
fn conflicts_are_refused_and_nothing_is_left_half_done() {
    isolated(|| {
        let network = network();
        let ports = Ports::new(&network).unwrap();
        let tcp = |port| mapping(port, 80, Protocol::Tcp);
        ports.publish("a", ADDRESS, &[tcp(8080)]).unwrap();
        let error = ports
            .publish("b", ADDRESS, &[tcp(8090), tcp(8080)])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        );
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            !run("nft list table ip gamut").contains("8090"),
            "all or nothing"
        );
        TcpListener::bind("0.0.0.0:8090").expect("the port was given back");
        let error = ports
            .publish("b", ADDRESS, &[mapping_at("127.0.0.1", 8080, 80)])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 127.0.0.1:8080 failed: port is already allocated"
        );
        let error = ports
            .publish("b", ADDRESS, &[tcp(7070), tcp(7070)])
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "twice in one request");
        // The other protocol is another port.
        ports
            .publish("udp", ADDRESS, &[mapping(8080, 80, Protocol::Udp)])
            .unwrap();

        // A process of the host has it; and the other way round.
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let error = ports.publish("c", ADDRESS, &[tcp(9000)]).unwrap_err();
        assert!(
            matches!(error, Error::PortTaken { port: 9000, .. }),
            "{error}"
        );
        drop(listener);
        ports.publish("c", ADDRESS, &[tcp(9000)]).unwrap();
        assert!(TcpListener::bind("127.0.0.1:9000").is_err(), "held for us");

        // Idempotent, but not for something else.
        assert_eq!(
            ports.publish("a", ADDRESS, &[tcp(8080)]).unwrap()[0].host_port,
            8080
        );
        let error = ports.publish("a", ADDRESS, &[tcp(8081)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    });
}

#[test]
fn bad_requests_are_refused() {
    isolated(|| {
        let network = network();
        let ports = Ports::new(&network).unwrap();
        for (mapping, kind) in [
            (mapping(1, 0, Protocol::Tcp), ErrorKind::InvalidArgument),
            (mapping(1, 80, Protocol::Sctp), ErrorKind::Unsupported),
            (mapping_at("::", 1, 80), ErrorKind::Unsupported),
            (
                mapping_at("198.51.100.7", 8080, 80),
                ErrorKind::InvalidArgument,
            ),
            (
                mapping_at("224.0.0.1", 8080, 80),
                ErrorKind::InvalidArgument,
            ),
        ] {
            let error = ports
                .publish("a", ADDRESS, std::slice::from_ref(&mapping))
                .unwrap_err();
            assert_eq!(error.kind(), kind, "{mapping:?}: {error}");
        }
        assert!(ports.list().is_empty());
        assert_eq!(ports.publish("none", ADDRESS, &[]).unwrap(), []);
    });
}

#[test]
fn ports_are_chosen_from_the_kernels_range() {
    isolated(|| {
        let network = network();
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003").unwrap();
        let ports = Ports::new(&network).unwrap();
        let any = mapping(0, 80, Protocol::Tcp);
        let fixed = mapping(40001, 81, Protocol::Tcp);
        let given = ports.publish("a", ADDRESS, &[any.clone(), fixed]).unwrap();
        assert_eq!((given[0].host_port, given[1].host_port), (40000, 40001));
        let given = ports
            .publish("b", ADDRESS, &[any.clone(), any.clone()])
            .unwrap();
        assert_eq!((given[0].host_port, given[1].host_port), (40002, 40003));
        let error = ports
            .publish("c", ADDRESS, std::slice::from_ref(&any))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        ports.unpublish("a").unwrap();
        assert_eq!(
            ports.publish("c", ADDRESS, &[any]).unwrap()[0].host_port,
            40000
        );
    });
}

#[test]
fn a_port_whose_server_has_just_ended_is_free() {
    isolated(|| {
        let network = network();
        let listener = TcpListener::bind("127.0.0.1:9001").unwrap();
        let client = TcpStream::connect("127.0.0.1:9001").unwrap();
        let (server, _) = listener.accept().unwrap();
        // The server closes first: its side stays in TIME_WAIT.
        drop(server);
        drop(client);
        drop(listener);
        let ports = Ports::new(&network).unwrap();
        ports
            .publish("a", ADDRESS, &[mapping(9001, 80, Protocol::Tcp)])
            .unwrap();
        assert!(TcpListener::bind("127.0.0.1:9001").is_err(), "held for us");
    });
}

#[test]
fn a_range_yields_the_first_port_that_is_free() {
    isolated(|| {
        let network = network();
        let ports = Ports::new(&network).unwrap();
        let _other = TcpListener::bind("0.0.0.0:9000").unwrap();
        let range = |last| PortMapping {
            host_port_last: last,
            ..mapping(9000, 80, Protocol::Tcp)
        };
        // The fixed one has its port, though it is named last.
        let wanted = [range(9003), mapping(9001, 81, Protocol::Tcp)];
        let given = ports.publish("a", ADDRESS, &wanted).unwrap();
        assert_eq!((given[0].host_port, given[1].host_port), (9002, 9001));
        assert_eq!(ports.publish("a", ADDRESS, &wanted).unwrap(), given);
        let given = ports.publish("b", ADDRESS, &[range(9003)]).unwrap();
        assert_eq!(given[0].host_port, 9003);
        let error = ports.publish("c", ADDRESS, &[range(9003)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let error = ports.publish("c", ADDRESS, &[range(8999)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        ports.unpublish("a").unwrap();
        let given = ports.publish("c", ADDRESS, &[range(9003)]).unwrap();
        assert_eq!(given[0].host_port, 9001);
    });
}

#[test]
fn publications_survive_the_daemon() {
    isolated(|| {
        let network = network();
        let web = container(&network, 2);
        serve(&web.namespace, "web", 80);
        let ports = Ports::new(&network).unwrap();
        let wanted = [
            mapping(8080, 80, Protocol::Tcp),
            mapping(8081, 80, Protocol::Tcp),
        ];
        ports.publish("web", web.endpoint.address, &wanted).unwrap();
        let record = ports.list();
        // The daemon ends; its rules work on, and another process takes a port.
        drop(ports);
        drop(network);
        assert!(fetch(([127, 0, 0, 1], 8080)).is_some());
        let thief = TcpListener::bind("0.0.0.0:8081").unwrap();

        let network = Network::ensure(&BridgeConfig::default()).unwrap();
        let ports = Ports::new(&network).unwrap();
        run("nft add element ip gamut published_tcp_any '{ 6666 : 172.29.0.77 . 80 }'");
        let findings = ports.restore(&record).unwrap();
        assert!(
            matches!(
                findings.as_slice(),
                [Finding::PortTakenByOther { port: 8081, .. }]
            ),
            "{findings:?}"
        );
        drop(thief);
        assert_eq!(ports.list(), record);
        assert!(
            !run("nft list table ip gamut").contains("6666"),
            "leftovers are gone"
        );
        assert!(fetch(([127, 0, 0, 1], 8081)).is_some());
        assert!(TcpListener::bind("0.0.0.0:8080").is_err());
    });
}

#[test]
fn damage_is_found_and_repaired() {
    isolated(|| {
        let network = network();
        let web = container(&network, 2);
        let stray = container(&network, 3);
        serve(&web.namespace, "web", 80);
        let ports = Ports::new(&network).unwrap();
        let address = web.endpoint.address;
        ports
            .publish("web", address, &[mapping(8080, 80, Protocol::Tcp)])
            .unwrap();
        ports
            .publish("gone", address, &[mapping(8081, 80, Protocol::Tcp)])
            .unwrap();
        let all = BTreeSet::from(
            [&web, &stray].map(|connected| connected.endpoint.host_interface.clone()),
        );
        assert_eq!(network.check(&all).unwrap(), []);
        let both = BTreeSet::from(["web", "gone"].map(str::to_owned));
        assert_eq!(ports.check(&both).unwrap(), []);

        // What other programs of the host do to a firewall, and worse.
        run("nft flush ruleset && ip link delete gamut0");
        let live = BTreeSet::from([web.endpoint.host_interface.clone()]);
        let findings = network.reconcile(&live).unwrap();
        assert_eq!(findings.len(), 4, "{findings:?}");
        for finding in [
            Finding::BridgeDamaged {
                bridge: "gamut0".to_owned(),
            },
            Finding::FirewallDamaged {
                table: "ip gamut".to_owned(),
            },
            Finding::StaleInterface {
                interface: stray.endpoint.host_interface.clone(),
            },
            Finding::InterfaceDetached {
                interface: web.endpoint.host_interface.clone(),
            },
        ] {
            assert!(findings.contains(&finding), "{finding} in {findings:?}");
        }
        let ids = BTreeSet::from(["web".to_owned()]);
        let findings = ports.reconcile(&ids).unwrap();
        assert!(findings.contains(&Finding::StalePublication {
            container_id: "gone".to_owned()
        }));
        assert!(
            findings.contains(&Finding::PublicationsDamaged { entries: 2 }),
            "{findings:?}"
        );
        assert_eq!(network.check(&live).unwrap(), []);
        assert_eq!(ports.check(&ids).unwrap(), []);
        assert_eq!(
            host_interfaces(),
            std::slice::from_ref(&web.endpoint.host_interface)
        );
        assert!(fetch(([127, 0, 0, 1], 8080)).is_some());
        assert!(fetch(([127, 0, 0, 1], 8081)).is_none());
    });
}

#[test]
fn withdrawing_works_whatever_others_did_to_the_table() {
    isolated(|| {
        let network = network();
        let ports = Ports::new(&network).unwrap();
        for (id, port) in [("a", 8080), ("b", 8081), ("c", 8082)] {
            ports
                .publish(id, ADDRESS, &[mapping(port, 80, Protocol::Tcp)])
                .unwrap();
        }
        run("nft flush map ip gamut published_tcp_any");
        assert!(ports.unpublish("a").unwrap());
        let table = run("nft list table ip gamut");
        assert!(!table.contains("8080") && table.contains("8081") && table.contains("8082"));
        run("nft flush ruleset");
        assert!(ports.unpublish("b").unwrap());
        let error = ports
            .publish("d", ADDRESS, &[mapping(8083, 80, Protocol::Tcp)])
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("nft refused to add published ports"),
            "{error}"
        );
        network.reconcile(&BTreeSet::new()).unwrap();
        ports.reconcile(&BTreeSet::from(["c".to_owned()])).unwrap();
        ports
            .publish("d", ADDRESS, &[mapping(8083, 80, Protocol::Tcp)])
            .unwrap();
        let table = run("nft list table ip gamut");
        assert!(table.contains("8082") && table.contains("8083"), "{table}");
    });
}

/// Figures for the record; nothing is asserted, the machine may be busy.
#[test]
fn timing() {
    isolated(|| {
        let network = network();
        let ports = Ports::new(&network).unwrap();
        let (mut publish, mut unpublish) = (Vec::new(), Vec::new());
        for _ in 0..32 {
            let start = Instant::now();
            ports
                .publish("a", ADDRESS, &[mapping(8080, 80, Protocol::Tcp)])
                .unwrap();
            publish.push(start.elapsed());
            let start = Instant::now();
            ports.unpublish("a").unwrap();
            unpublish.push(start.elapsed());
        }
        publish.sort();
        unpublish.sort();
        println!(
            "publish median {:?} min {:?}; unpublish median {:?} min {:?}",
            publish[16], publish[0], unpublish[16], unpublish[0]
        );
    });
}

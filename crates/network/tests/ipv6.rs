//! Networks with IPv6: addresses, the way out, published ports, what stays closed, repair.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use common::{
    ask_once, eventually, fetch, inside, isolated, mapping, mapping_at, outside_world, run, serve,
    serve_at, spawn_inside,
};
use gamut_network::{
    BridgeConfig, Connected, EndpointConfig, Finding, Ipv6Config, Ipv6Place, NamespacePool,
    Network, NetworkNamespace, Ports, Protocol, Target, free_subnet6,
};
use gamut_spec::error::ErrorKind;

const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OUTSIDER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

fn has_ipv6() -> bool {
    let present = std::path::Path::new(FORWARDING).exists();
    if !present {
        eprintln!("SKIPPED: this kernel has no IPv6");
    }
    present
}

fn config(number: u16) -> BridgeConfig {
    BridgeConfig {
        name: format!("gamut{number}"),
        ipv6: Some(Ipv6Config {
            subnet: format!("fd00:{number}::/64").parse().unwrap(),
            gateway: Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, 1),
        }),
        ..BridgeConfig::default()
    }
}

fn container(network: &Network, last: u8) -> Connected {
    let pool = NamespacePool::new(network, 0).unwrap();
    let [a, b, c, _] = network.gateway().octets();
    let ipv6 = network.ipv6().unwrap();
    let mut config = EndpointConfig::new(network, Ipv4Addr::new(a, b, c, last));
    config.ipv6 = Some(Ipv6Place {
        address: Ipv6Addr::from(u128::from(ipv6.subnet.network()) + u128::from(last)),
        prefix: ipv6.subnet.prefix(),
        gateway: Some(ipv6.gateway),
    });
    pool.take().unwrap().connect(&config).unwrap()
}

fn target(connected: &Connected) -> Target {
    Target {
        ipv4: Some(connected.endpoint.address),
        ipv6: connected.endpoint.ipv6.map(|place| place.address),
    }
}

fn address(connected: &Connected) -> Ipv6Addr {
    connected.endpoint.ipv6.unwrap().address
}

/// 2001:db8::1 here, 2001:db8::9 there, which routes everything by way of here.
fn outside() -> NetworkNamespace {
    let world = outside_world();
    run("ip addr add 2001:db8::1/64 dev out0 nodad");
    inside(&world, || {
        run("ip addr add 2001:db8::9/64 dev eth0 nodad && ip route add default via 2001:db8::1")
    });
    world
}

fn serve6(namespace: &impl std::os::fd::AsFd, name: &'static str, port: u16) {
    serve_at(namespace, name, (Ipv6Addr::UNSPECIFIED, port));
}

#[test]
fn a_bridge_and_its_workloads_have_addresses_of_both_families() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        let network = Network::ensure(&config(1)).unwrap();
        let again = Network::ensure(&config(1)).unwrap();
        let shown = run("ip addr show dev gamut1");
        assert!(
            shown.contains("inet6 fd00:1::1/64") && shown.contains("inet 172.29.0.1/16"),
            "{shown}"
        );
        assert!(!shown.contains("tentative"), "{shown}");
        let (one, two) = (container(&network, 2), container(&network, 3));
        let shown = inside(&one.namespace, || run("ip addr show dev eth0; ip -6 route"));
        assert!(shown.contains("inet6 fd00:1::2/64"), "{shown}");
        assert!(shown.contains("default via fd00:1::1"), "{shown}");
        let believed = inside(&one.namespace, || {
            std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap()
        });
        assert_eq!(believed, "0\n", "no neighbour is taken for a router");
        serve6(&two.namespace, "two", 80);
        let direct = inside(&one.namespace, || {
            fetch(("fd00:1::3".parse::<Ipv6Addr>().unwrap(), 80))
        });
        assert_eq!(direct.as_deref(), Some("two fd00:1::2"));
        assert_eq!(
            fetch((address(&two), 80)).as_deref(),
            Some("two fd00:1::1"),
            "from the host"
        );
        assert_eq!(run(&format!("cat {FORWARDING}")).trim(), "1");
        // Its server keeps the namespace, and with it the interface.
        network.detach(&two.endpoint.host_interface).unwrap();
        drop((one, two));
        again.remove().unwrap();
        assert_eq!(run("nft list tables"), "");
        assert_eq!(run(&format!("cat {FORWARDING}")).trim(), "0");
    });
}

#[test]
fn published_ports_of_both_families() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        let world = outside();
        let network = Network::ensure(&config(1)).unwrap();
        let (web, other) = (container(&network, 2), container(&network, 3));
        serve(&web.namespace, "web4", 80);
        serve6(&web.namespace, "web6", 81);
        let ports = Ports::new(&network).unwrap();
        let wanted = [
            mapping(8080, 80, Protocol::Tcp),
            mapping(8081, 81, Protocol::Tcp),
            mapping(5353, 81, Protocol::Udp),
        ];
        let published = ports.publish("web", target(&web), &wanted).unwrap();
        let told: Vec<String> = published
            .iter()
            .map(|one| SocketAddr::new(one.host_ip, one.host_port).to_string())
            .collect();
        assert_eq!(
            told,
            [
                "0.0.0.0:8080",
                "[::]:8080",
                "0.0.0.0:8081",
                "[::]:8081",
                "0.0.0.0:5353",
                "[::]:5353"
            ]
        );
        assert!(fetch(([127, 0, 0, 1], 8080)).is_some());
        let gateway = network.ipv6().unwrap().gateway;
        for host in [gateway, HOST] {
            let (tcp, udp) = (fetch((host, 8081)), ask_once((host, 5353)));
            assert!(tcp.is_some() && udp.is_some(), "{host}: {tcp:?} {udp:?}");
            let beside = inside(&other.namespace, move || fetch((host, 8081)));
            let itself = inside(&web.namespace, move || fetch((host, 8081)));
            let hairpin = Some("web6 fd00:1::1".to_owned());
            assert_eq!((beside, itself), (hairpin.clone(), hairpin), "{host}");
        }
        // From outside: the source address is kept.
        let seen = inside(&world, || (fetch((HOST, 8081)), ask_once((HOST, 5353))));
        let kept = Some("web6 2001:db8::9".to_owned());
        assert_eq!(seen, (kept.clone(), kept));
        // Nothing but ports, also for a neighbour that routes to it.
        let direct = address(&web);
        assert_eq!(inside(&world, move || fetch((direct, 81))), None);
        run("nft flush chain ip6 gamut forwarding");
        assert!(
            inside(&world, move || fetch((direct, 81))).is_some(),
            "it was our rule"
        );

        // Held by ours in both families; somebody else's in one of them is in the way.
        assert!(std::net::TcpListener::bind("[::]:8081").is_err());
        let thief = std::net::TcpListener::bind("[2001:db8::1]:8082").unwrap();
        let error = ports
            .publish("late", target(&other), &[mapping(8082, 80, Protocol::Tcp)])
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("[::]:8082 failed: port is already allocated"),
            "{error}"
        );
        drop(thief);
        ports
            .publish(
                "late",
                target(&other),
                &[mapping_at("2001:db8::1", 8082, 81)],
            )
            .unwrap();
        serve6(&other.namespace, "late", 81);
        assert!(inside(&world, || fetch((HOST, 8082))).is_some());
        assert_eq!(fetch((gateway, 8082)), None, "at one address only");
        assert!(ports.unpublish("web").unwrap() && ports.unpublish("late").unwrap());
        assert_eq!(inside(&world, || fetch((HOST, 8081))), None);
    });
}

#[test]
fn the_way_out_is_masqueraded_and_networks_are_apart() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        let world = outside();
        serve6(&world, "world", 7000);
        // The world knows no way to the workloads' subnets.
        inside(&world, || run("ip -6 route del default"));
        let first = Network::ensure(&config(1)).unwrap();
        let second = Network::ensure(&BridgeConfig {
            internal: true,
            subnet: Some("10.7.0.0/24".parse().unwrap()),
            ..config(2)
        })
        .unwrap();
        let (one, two) = (container(&first, 2), container(&second, 2));
        let out = || fetch((OUTSIDER, 7000));
        assert_eq!(
            inside(&one.namespace, out).as_deref(),
            Some("world 2001:db8::1")
        );
        assert_eq!(inside(&two.namespace, out), None, "internal");
        serve6(&one.namespace, "one", 80);
        let there = address(&one);
        assert_eq!(inside(&two.namespace, move || fetch((there, 80))), None);
        assert!(fetch((there, 80)).is_some());
    });
}

#[test]
fn the_host_keeps_its_routes_and_is_no_router_for_others() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        let east = outside();
        run(
            "ip link add west type veth peer name far && ip link set west up && ip link set far up",
        );
        let setting = |name: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}")).unwrap()
        };
        assert_eq!(setting("out0/accept_ra"), "1\n");
        let network = Network::ensure(&config(1)).unwrap();
        // A host that learns its routes goes on to learn them.
        assert_eq!(setting("out0/accept_ra"), "2\n");
        assert_eq!(setting("gamut1/accept_ra"), "0\n");
        let rules = run("nft list chain ip6 gamut others");
        assert!(rules.contains("drop"), "{rules}");
        drop(east);
        network.remove().unwrap();
        assert_eq!(setting("all/forwarding"), "0\n");
        std::fs::write(FORWARDING, "1").unwrap();
        let network = Network::ensure(&config(1)).unwrap();
        assert!(!run("nft list table ip6 gamut").contains("others"));
        network.remove().unwrap();
        assert_eq!(setting("all/forwarding"), "1\n", "a router stays one");
    });
}

#[test]
fn damage_of_the_sixth_family_is_repaired() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        let network = Network::ensure(&config(1)).unwrap();
        let web = container(&network, 2);
        serve6(&web.namespace, "web", 80);
        let ports = Ports::new(&network).unwrap();
        ports
            .publish("web", target(&web), &[mapping(8080, 80, Protocol::Tcp)])
            .unwrap();
        let record = ports.list();
        let gateway = network.ipv6().unwrap().gateway;
        let live = BTreeSet::from([web.endpoint.host_interface.clone()]);
        let ids = BTreeSet::from(["web".to_owned()]);
        assert_eq!(network.check(&live).unwrap(), []);
        assert_eq!(ports.check(&ids).unwrap(), []);
        for damage in ["nft flush ruleset", "nft delete table ip6 gamut"] {
            run(damage);
            assert_eq!(fetch((gateway, 8080)), None);
            let found = network.reconcile(&live).unwrap();
            let table = "ip6 gamut".to_owned();
            assert!(
                found.contains(&Finding::FirewallDamaged { table }),
                "{found:?}"
            );
            assert!(!ports.reconcile(&ids).unwrap().is_empty());
            assert!(fetch((gateway, 8080)).is_some(), "{damage}");
        }
        run("ip addr del fd00:1::1/64 dev gamut1");
        assert_eq!(network.reconcile(&live).unwrap().len(), 1);
        eventually("it answers again", || fetch((gateway, 8080)).is_some());
        assert_eq!(network.check(&live).unwrap(), []);

        // The next daemon takes over, and drops what is nobody's.
        drop((ports, network));
        let network = Network::ensure(&config(1)).unwrap();
        let ports = Ports::new(&network).unwrap();
        run("nft add element ip6 gamut published_tcp_any '{ 6666 : fd00:1::77 . 80 }'");
        assert_eq!(ports.restore(&record).unwrap(), []);
        assert!(!run("nft list table ip6 gamut").contains("6666"));
        assert_eq!(ports.list(), record);
        assert!(fetch((gateway, 8080)).is_some());
    });
}

#[test]
fn networks_that_go_at_once_take_the_table_with_them() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        let here = NetworkNamespace::current().unwrap();
        for _ in 0..5 {
            let networks: Vec<Network> = (1..=3)
                .map(|number| {
                    let subnet = Some(format!("10.{number}.0.0/24").parse().unwrap());
                    Network::ensure(&BridgeConfig {
                        subnet,
                        ..config(number)
                    })
                    .unwrap()
                })
                .collect();
            let going: Vec<_> = networks
                .into_iter()
                .map(|network| spawn_inside(&here, move || network.remove().unwrap()))
                .collect();
            for thread in going {
                thread.join().unwrap();
            }
            assert_eq!(run("nft list tables"), "");
            assert_eq!(run(&format!("cat {FORWARDING}")).trim(), "0");
        }
    });
}

#[test]
fn a_subnet_in_use_is_avoided() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        run("ip -6 route add fd00:1::/48 dev lo");
        let candidates = ["fd00:1:0:1::/64", "fd00:2:0:1::/64"].map(|text| text.parse().unwrap());
        assert_eq!(
            free_subnet6(candidates).unwrap().to_string(),
            "fd00:2:0:1::/64"
        );
        let error = free_subnet6(candidates.into_iter().take(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    });
}

//! Packets through published ports and between workloads, the host and the outside.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use common::{
    ask, ask_once, ask_within, container, fetch, inside, isolated, mapping, mapping_at, network,
    outside_world, run, serve, world,
};
use gamut_network::{Endpoint, MacAddress, NetworkNamespace, Ports, Protocol};

const HOST: [u8; 4] = [203, 0, 113, 1];
const OUTSIDER: [u8; 4] = [203, 0, 113, 9];
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

#[test]
fn published_ports_from_everywhere() {
    isolated(|| {
        let network = network();
        let gateway = network.gateway().octets();
        let world = outside_world();
        let web = container(&network, 2);
        let other = container(&network, 3);
        serve(&web.namespace, "web", 80);
        let ports = Ports::new(&network).unwrap();
        let wanted = [
            mapping(8080, 80, Protocol::Tcp),
            mapping(5353, 80, Protocol::Udp),
        ];
        ports.publish("web", web.endpoint.address, &wanted).unwrap();

        // From the host: by loopback, by the bridge's address, by an outer address.
        let seen_by_gateway = format!("web {}", network.gateway());
        for host in [LOOPBACK, gateway, HOST] {
            let tcp = fetch((host, 8080)).unwrap_or_else(|| panic!("tcp {host:?}"));
            let udp = ask_once((host, 5353)).unwrap_or_else(|| panic!("udp {host:?}"));
            let expected = if host == HOST {
                "web 203.0.113.1"
            } else {
                &seen_by_gateway
            };
            assert_eq!(
                (tcp.as_str(), udp.as_str()),
                (expected, expected),
                "{host:?}"
            );
        }
        // Directly.
        assert_eq!(
            fetch((web.endpoint.address, 80)).as_deref(),
            Some(seen_by_gateway.as_str())
        );
        // From outside: the source address is kept.
        let (tcp, udp) = inside(&world, || (fetch((HOST, 8080)), ask_once((HOST, 5353))));
        assert_eq!(tcp.as_deref(), Some("web 203.0.113.9"));
        assert_eq!(udp.as_deref(), Some("web 203.0.113.9"));
        // Between containers: directly, and by the host's addresses.
        let address = web.endpoint.address;
        let direct = inside(&other.namespace, move || fetch((address, 80)));
        assert_eq!(direct.unwrap(), format!("web {}", other.endpoint.address));
        for host in [gateway, HOST] {
            let tcp = inside(&other.namespace, move || fetch((host, 8080)));
            let udp = inside(&other.namespace, move || ask_once((host, 5353)));
            assert!(tcp.is_some() && udp.is_some(), "{host:?}: {tcp:?} {udp:?}");
            // Hairpin: to itself.
            let tcp = inside(&web.namespace, move || fetch((host, 8080)));
            let udp = inside(&web.namespace, move || ask_once((host, 5353)));
            assert_eq!(tcp.as_deref(), Some(seen_by_gateway.as_str()), "{host:?}");
            assert_eq!(udp.as_deref(), Some(seen_by_gateway.as_str()), "{host:?}");
        }
        // Withdrawn.
        assert!(ports.unpublish("web").unwrap());
        assert!(!ports.unpublish("web").unwrap());
        assert_eq!(fetch((LOOPBACK, 8080)), None);
        assert_eq!(inside(&world, || fetch((HOST, 8080))), None);
    });
}

#[test]
fn containers_reach_the_outside_masqueraded() {
    isolated(|| {
        let network = network();
        let world = outside_world();
        serve(&world, "world", 7000);
        // The world knows no way to the containers' subnet.
        inside(&world, || run("ip route del default"));
        let inner = container(&network, 2);
        let (tcp, udp) = inside(&inner.namespace, || {
            (fetch((OUTSIDER, 7000)), ask_once((OUTSIDER, 7000)))
        });
        assert_eq!(tcp.as_deref(), Some("world 203.0.113.1"));
        assert_eq!(udp.as_deref(), Some("world 203.0.113.1"));
        let seen = network
            .statistics(&inner.endpoint.host_interface, "eth0")
            .unwrap();
        assert!(seen.tx_packets >= 4 && seen.rx_bytes > 100, "{seen:?}");
    });
}

#[test]
fn what_is_not_published_is_closed() {
    isolated(|| {
        let network = network();
        let world = outside_world();
        let inner = container(&network, 2);
        serve(&inner.namespace, "inner", 80);
        let ports = Ports::new(&network).unwrap();
        let address = inner.endpoint.address;
        ports
            .publish("inner", address, &[mapping_at("127.0.0.1", 8081, 80)])
            .unwrap();
        assert!(fetch((LOOPBACK, 8081)).is_some());
        assert_eq!(fetch((HOST, 8081)), None, "published on loopback only");
        assert_eq!(inside(&world, || fetch((HOST, 8081))), None);
        // A neighbour that routes to the container's address by way of the host.
        assert_eq!(inside(&world, move || fetch((address, 80))), None);
        run("nft flush chain ip gamut forwarding");
        assert!(
            inside(&world, move || fetch((address, 80))).is_some(),
            "it was our rule"
        );
    });
}

#[test]
fn what_the_hosts_firewall_drops_stays_dropped() {
    isolated(|| {
        let network = network();
        let world = outside_world();
        let web = container(&network, 2);
        serve(&web.namespace, "web", 80);
        let ports = Ports::new(&network).unwrap();
        let wanted = [mapping(8080, 80, Protocol::Tcp)];
        ports.publish("web", web.endpoint.address, &wanted).unwrap();
        let fetch_outside = || inside(&world, || fetch((HOST, 8080)));
        assert!(fetch_outside().is_some());
        // Whether its rule comes before ours or after them.
        for priority in [-10, 10] {
            run(&format!(
                "nft 'table ip theirs {{ chain forward {{ type filter hook forward priority {priority}; \
                 policy drop; }}; }}'"
            ));
            assert_eq!(fetch_outside(), None, "priority {priority}");
            // What it lets pass, by the port that was asked for, passes.
            run(
                "nft add rule ip theirs forward meta l4proto tcp ct original proto-dst 8080 accept",
            );
            assert!(fetch_outside().is_some(), "priority {priority}");
            run("nft delete table ip theirs");
        }
        // A rule about the host's port, before it is led on.
        run(
            "nft 'table ip theirs { chain early { type filter hook prerouting priority raw; \
             tcp dport 8080 ip saddr 203.0.113.9 drop; }; }'",
        );
        assert_eq!(fetch_outside(), None);
    });
}

#[test]
fn containers_cannot_reach_the_hosts_loopback() {
    isolated(|| {
        let network = network();
        let here = NetworkNamespace::current().unwrap();
        serve(&here, "secret", 6000);
        let inner = container(&network, 2);
        let gateway = network.gateway();
        // A container with NET_ADMIN that sends packets for 127.0.0.1 over the wire.
        inside(&inner.namespace, move || {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            run("ip addr del 127.0.0.1/8 dev lo");
            run(&format!("ip route add 127.0.0.1/32 via {gateway}"));
        });
        assert_eq!(inside(&inner.namespace, || fetch((LOOPBACK, 6000))), None);
        run("nft flush chain ip gamut guard");
        let reached = inside(&inner.namespace, || fetch((LOOPBACK, 6000)));
        assert!(reached.is_some(), "it was our rule that kept it out");
    });
}

#[test]
fn udp_clients_follow_a_port_that_moves() {
    isolated(|| {
        let network = network();
        let world = outside_world();
        let (first, second) = (container(&network, 2), container(&network, 3));
        serve(&first.namespace, "first", 53);
        serve(&second.namespace, "second", 53);
        let ports = Ports::new(&network).unwrap();
        // One socket, whose packets are one flow for the kernel.
        let client = inside(&world, || {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4444)).unwrap()
        });
        let wanted = [mapping(5353, 53, Protocol::Udp)];
        ports
            .publish("first", first.endpoint.address, &wanted)
            .unwrap();
        assert_eq!(
            ask(&client, (HOST, 5353)).as_deref(),
            Some("first 203.0.113.9")
        );
        ports.unpublish("first").unwrap();
        assert_eq!(ask(&client, (HOST, 5353)), None);
        ports
            .publish("second", second.endpoint.address, &wanted)
            .unwrap();
        assert_eq!(
            ask(&client, (HOST, 5353)).as_deref(),
            Some("second 203.0.113.9")
        );
    });
}

#[test]
fn a_port_published_at_one_address_is_there_only() {
    isolated(|| {
        let network = network();
        let outside = outside_world();
        let web = container(&network, 2);
        serve(&web.namespace, "web", 80);
        let ports = Ports::new(&network).unwrap();
        let wanted = [mapping_at("203.0.113.1", 8080, 80)];
        ports.publish("web", web.endpoint.address, &wanted).unwrap();
        assert!(inside(&outside, || fetch((HOST, 8080))).is_some());
        assert!(fetch((HOST, 8080)).is_some());
        assert_eq!(fetch((LOOPBACK, 8080)), None);
    });
}

#[test]
fn the_host_does_not_become_a_router_for_others() {
    isolated(|| {
        let (east, west) = (world("east", "198.51.100"), world("west", "192.0.2"));
        serve(&west, "west", 7000);
        let across = |from: &NetworkNamespace| inside(from, || fetch(([192, 0, 2, 9], 7000)));
        let forwarding = "/proc/sys/net/ipv4/ip_forward";
        std::fs::write(forwarding, "0").unwrap();
        let made = network();
        // A daemon that comes later keeps to it.
        let again = network();
        assert_eq!(std::fs::read_to_string(forwarding).unwrap(), "1\n");
        assert_eq!(across(&east), None);
        let inner = container(&made, 2);
        assert!(across(&inner.namespace).is_some(), "containers get out");
        assert_eq!(
            made.check(&[inner.endpoint.host_interface.clone()].into())
                .unwrap(),
            []
        );
        drop(inner);
        again.remove().unwrap();
        assert_eq!(std::fs::read_to_string(forwarding).unwrap(), "0\n");
        // A host that is a router stays one.
        std::fs::write(forwarding, "1").unwrap();
        let routed = network();
        assert!(across(&east).is_some());
        routed.remove().unwrap();
        assert_eq!(std::fs::read_to_string(forwarding).unwrap(), "1\n");
    });
}

/// The kernel asks again for a neighbour that does not answer, which would hide a lost packet or
/// make the test one of speed. Here both sides know each other beforehand: what is lost is lost.
#[test]
fn a_workloads_first_packet_gets_through() {
    isolated(|| {
        let network = network();
        let here = NetworkNamespace::current().unwrap();
        serve(&here, "host", 6000);
        let gateway = network.gateway();
        let gateway_mac = MacAddress::from_ipv4(gateway);
        for last in 2..42 {
            let inner = container(&network, last);
            let Endpoint { address, mac, .. } = inner.endpoint;
            let bridge = network.name();
            run(&format!(
                "ip neigh replace {address} lladdr {mac} dev {bridge} nud permanent"
            ));
            let answer = inside(&inner.namespace, move || {
                run(&format!(
                    "ip neigh replace {gateway} lladdr {gateway_mac} dev eth0 nud permanent"
                ));
                let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                ask_within(Duration::from_secs(20), &client, (gateway, 6000))
            });
            assert_eq!(answer, Some(format!("host {address}")));
        }
    });
}

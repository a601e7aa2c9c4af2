//! Making, adopting and removing the bridge and its rules.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{container, eventually, host_interfaces, inside, isolated, network, run};
use gamut_network::{
    BridgeConfig, Connected, EndpointConfig, MacAddress, NamespacePool, Network, interfaces, plug,
    route_by,
};
use gamut_spec::error::ErrorKind;

#[test]
fn ensuring_is_idempotent_and_removal_complete() {
    isolated(|| {
        run("nft add table ip theirs && nft add chain ip theirs c");
        let first = network();
        let table = run("nft list table ip gamut");
        let second = network();
        assert_eq!(run("nft list table ip gamut"), table);
        assert_eq!(first.subnet(), second.subnet());
        assert_eq!(first.subnet().to_string(), "172.29.0.0/16");
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
        let shown = run("ip addr show dev gamut0");
        assert!(shown.contains("inet 172.29.0.1/16"), "{shown}");
        assert!(
            shown.contains("02:42:ac:1d:00:01") && !shown.contains("inet6"),
            "{shown}"
        );

        let inner = container(&first, 2);
        let error = first.remove().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        drop(inner);
        first.remove().unwrap();
        assert_eq!(run("ip -o link show type bridge"), "");
        assert_eq!(run("nft list tables").trim(), "table ip theirs");
        second.remove().unwrap();
    });
}

#[test]
fn a_subnet_in_use_is_avoided() {
    isolated(|| {
        run(
            "ip link add away type veth peer name home && ip link set away up && ip link set home up",
        );
        run("ip addr add 172.29.4.1/24 dev away && ip route add 172.16.0.0/12 dev away");
        let network = network();
        assert_eq!(network.subnet().to_string(), "192.168.224.0/20");
        let all = BridgeConfig {
            name: "other0".to_owned(),
            candidates: vec!["172.29.0.0/16".parse().unwrap()],
            ..BridgeConfig::default()
        };
        let error = Network::ensure(&all).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(!run("ip -o link").contains("other0"), "nothing half done");
    });
}

#[test]
fn what_is_there_is_adopted_or_refused() {
    isolated(|| {
        run("ip link add gamut0 type bridge && ip addr add 10.7.0.254/24 dev gamut0");
        let adopted = network();
        assert_eq!(adopted.subnet().to_string(), "10.7.0.0/24");
        assert_eq!(adopted.gateway().to_string(), "10.7.0.254");
        let config = BridgeConfig {
            subnet: "10.8.0.0/24".parse().ok(),
            ..BridgeConfig::default()
        };
        assert_eq!(
            Network::ensure(&config).unwrap_err().kind(),
            ErrorKind::Conflict
        );
        run("ip link add taken type veth peer name x");
        let config = BridgeConfig {
            name: "taken".to_owned(),
            ..BridgeConfig::default()
        };
        assert_eq!(
            Network::ensure(&config).unwrap_err().kind(),
            ErrorKind::Conflict
        );
    });
}

#[test]
fn two_networks_share_the_table_and_are_apart() {
    isolated(|| {
        let first = network();
        let config = BridgeConfig {
            name: "gamut1".to_owned(),
            subnet: "10.9.0.0/24".parse().ok(),
            mtu: Some(1400),
            ..BridgeConfig::default()
        };
        let second = Network::ensure(&config).unwrap();
        let (one, two) = (container(&first, 2), container(&second, 2));
        common::serve(&one.namespace, "one", 80);
        let address = one.endpoint.address;
        assert_eq!(
            inside(&two.namespace, move || common::fetch((address, 80))),
            None
        );
        let link = inside(&two.namespace, || run("ip link show dev eth0"));
        assert!(link.contains("mtu 1400"), "{link}");
        drop(two);
        second.remove().unwrap();
        let table = run("nft list table ip gamut");
        assert!(
            table.contains("gamut0") && !table.contains("gamut1"),
            "{table}"
        );
    });
}

#[test]
fn a_connected_namespace_has_what_a_container_needs() {
    isolated(|| {
        let network = network();
        let inner = container(&network, 9);
        let mac = MacAddress::from_ipv4(inner.endpoint.address);
        assert_eq!(inner.endpoint.mac, mac);
        let shown = inside(&inner.namespace, || run("ip addr; ip route"));
        assert!(
            shown.contains("inet 172.29.0.9/16 brd 172.29.255.255"),
            "{shown}"
        );
        assert!(shown.contains(&mac.to_string()), "{shown}");
        assert!(shown.contains("default via 172.29.0.1 dev eth0"), "{shown}");
        assert!(shown.contains("127.0.0.1/8"), "{shown}");
        assert!(!shown.contains("fe80"), "{shown}");
        let links = run("ip -o link");
        let line = format!(
            "{}: {}@",
            inner.endpoint.host_index, inner.endpoint.host_interface
        );
        assert!(links.contains(&line), "{line} in {links}");
        let settings = inside(&inner.namespace, || {
            run(
                "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start",
            )
        });
        assert_eq!(settings, "0\t2147483647\n0\n");
        assert!(network.detach(&inner.endpoint.host_interface).unwrap());
        assert!(!network.detach(&inner.endpoint.host_interface).unwrap());
        assert!(network.detach("lo").is_err());

        let alone = NamespacePool::loopback_only(1).unwrap().take().unwrap();
        let links = inside(&alone, || run("ip -o link"));
        assert_eq!(links.lines().count(), 1, "{links}");
        eventually("no interface is left", || host_interfaces().is_empty());
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    isolated(|| {
        let open = network();
        let config = BridgeConfig {
            name: "gamut1".to_owned(),
            subnet: "10.9.0.0/24".parse().ok(),
            internal: true,
            ..BridgeConfig::default()
        };
        let closed = Network::ensure(&config).unwrap();
        let world = common::outside_world();
        common::serve(&world, "world", 80);
        let (free, one, two) = (
            container(&open, 2),
            container(&closed, 2),
            container(&closed, 3),
        );
        for (inner, name) in [(&free, "free"), (&one, "one")] {
            common::serve(&inner.namespace, name, 80);
        }
        let (free_address, one_address) = (free.endpoint.address, one.endpoint.address);
        let fetch = |from: &Connected, to: std::net::Ipv4Addr| {
            inside(&from.namespace, move || common::fetch((to, 80)))
        };
        let out = std::net::Ipv4Addr::new(203, 0, 113, 9);
        assert!(fetch(&free, out).is_some(), "an open network has a way out");
        assert_eq!(fetch(&two, out), None);
        assert_eq!(fetch(&two, free_address), None);
        assert_eq!(fetch(&free, one_address), None);
        assert!(fetch(&two, one_address).is_some(), "its own neighbours");
        assert!(common::fetch((one_address, 80)).is_some(), "the host");
        assert!(
            closed
                .check(
                    &[
                        one.endpoint.host_interface.clone(),
                        two.endpoint.host_interface.clone(),
                        free.endpoint.host_interface.clone()
                    ]
                    .into()
                )
                .unwrap()
                .is_empty()
        );
        for inner in [one, two] {
            closed.detach(&inner.endpoint.host_interface).unwrap();
        }
        closed.remove().unwrap();
        let table = run("nft list table ip gamut");
        assert!(
            !table.contains("gamut1") && !table.contains("10.9.0.0"),
            "{table}"
        );
    });
}

#[test]
fn without_links_neighbours_are_apart_and_without_masquerade_addresses_are_kept() {
    isolated(|| {
        let config = BridgeConfig {
            linked: false,
            masquerade: false,
            ..BridgeConfig::default()
        };
        let network = Network::ensure(&config).unwrap();
        let world = common::outside_world();
        common::serve(&world, "world", 80);
        let (one, two) = (container(&network, 2), container(&network, 3));
        common::serve(&one.namespace, "one", 80);
        let address = one.endpoint.address;
        assert_eq!(
            inside(&two.namespace, move || common::fetch((address, 80))),
            None
        );
        assert!(common::fetch((address, 80)).is_some(), "the host");
        let out = std::net::Ipv4Addr::new(203, 0, 113, 9);
        let seen = inside(&two.namespace, move || common::fetch((out, 80)));
        assert_eq!(seen.as_deref(), Some("world 172.29.0.3"));
    });
}

#[test]
fn further_interfaces_come_and_go_in_a_running_namespace() {
    isolated(|| {
        let first = network();
        let config = BridgeConfig {
            name: "gamut1".to_owned(),
            subnet: "10.9.0.0/24".parse().ok(),
            ..BridgeConfig::default()
        };
        let second = Network::ensure(&config).unwrap();
        let inner = container(&first, 2);
        let address = std::net::Ipv4Addr::new(10, 9, 0, 7);
        let mut wanted = EndpointConfig::new(&second, address);
        wanted.gateway = None;
        let further = plug(&inner.namespace, &second, "eth1", &wanted).unwrap();
        assert_eq!(
            interfaces(&inner.namespace).unwrap(),
            ["lo", "eth0", "eth1"]
        );
        let shown = inside(&inner.namespace, || run("ip addr show dev eth1; ip route"));
        assert!(shown.contains("inet 10.9.0.7/24"), "{shown}");
        assert!(shown.contains("default via 172.29.0.1 dev eth0"), "{shown}");
        route_by(&inner.namespace, Some(second.gateway()), None).unwrap();
        let routes = inside(&inner.namespace, || run("ip route"));
        assert!(routes.contains("default via 10.9.0.1 dev eth1"), "{routes}");
        assert!(!routes.contains("172.29.0.1"), "{routes}");
        // Each network knows its own.
        let all = [
            inner.endpoint.host_interface.clone(),
            further.host_interface.clone(),
        ]
        .into();
        for (network, own) in [(&first, &inner.endpoint), (&second, &further)] {
            let own = [own.host_interface.clone()].into();
            assert_eq!(network.check_among(&own, &all).unwrap(), []);
        }
        // A name that is taken leaves nothing.
        let before = host_interfaces().len();
        assert!(plug(&inner.namespace, &second, "eth1", &wanted).is_err());
        assert_eq!(host_interfaces().len(), before);
        assert!(second.detach(&further.host_interface).unwrap());
        route_by(&inner.namespace, None, None).unwrap();
        let routes = inside(&inner.namespace, || run("ip route"));
        assert!(!routes.contains("default"), "{routes}");
        second.remove().unwrap();
    });
}

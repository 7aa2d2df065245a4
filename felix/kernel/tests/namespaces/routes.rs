use std::net::IpAddr;
use std::time::Instant;

use felix_calc::host::{METRIC_LEARNED, ROUTE_PROTOCOL_BGP};
use felix_kernel::netlink::{Disagreement, RouteSocket};
use felix_kernel::route::{InvalidRoute, NextHop, Route, RouteKey, RouteState, RouteTable, Tunnel};
use serde_json::Value;

use crate::namespace::{Namespace, connect};

pub(crate) struct Rig {
    pub(crate) here: Namespace,
    pub(crate) there: Namespace,
    pub(crate) socket: RouteSocket,
    /// Indexes of the links of subnets 1 and 2.
    pub(crate) links: [u32; 2],
}

pub(crate) fn rig() -> Rig {
    let (here, there) = (Namespace::new(), Namespace::new());
    let links = [connect(&here, &there, 1), connect(&here, &there, 2)];
    let socket = here.socket();
    Rig { here, there, socket, links }
}

fn gateway(text: &str) -> NextHop {
    NextHop::via(text.parse().unwrap())
}

fn unicast(destination: &str, gateways: &[&str]) -> Route {
    Route::unicast(destination.parse().unwrap(), METRIC_LEARNED, gateways.iter().map(|text| gateway(text)))
}

fn table() -> RouteTable {
    RouteTable::new(ROUTE_PROTOCOL_BGP)
}

/// Applies and requires that everything went in.
fn apply(table: &mut RouteTable, socket: &RouteSocket) {
    let applied = table.apply(socket, Instant::now()).unwrap();
    assert_eq!(applied.refused, []);
    assert_eq!(applied.pending, 0);
}

/// What `ip` lists for our protocol, v4 and v6 together, as (destination, gateways sorted, type).
fn listed(namespace: &Namespace) -> Vec<(String, Vec<String>, String)> {
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        for route in namespace.ip(&format!("{family} -details route show table all proto 77")) {
            assert_eq!(route["metric"], METRIC_LEARNED, "{route}");
            routes.push((text(&route["dst"]).unwrap(), gateways(&route), text(&route["type"]).unwrap()));
        }
    }
    routes.sort();
    routes
}

pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Of a route as `ip` lists it, sorted.
pub(crate) fn gateways(route: &Value) -> Vec<String> {
    let hop = |hop: &Value| text(&hop["gateway"]).or_else(|| text(&hop["via"]["host"]));
    let mut gateways: Vec<String> = match route["nexthops"].as_array() {
        Some(hops) => hops.iter().filter_map(hop).collect(),
        None => hop(route).into_iter().collect(),
    };
    gateways.sort();
    gateways
}

fn row(destination: &str, gateways: &[&str], kind: &str) -> (String, Vec<String>, String) {
    (destination.to_owned(), gateways.iter().map(|&text| text.to_owned()).collect(), kind.to_owned())
}

#[test]
fn routes_of_every_kind_are_as_ip_lists_them() {
    let rig = rig();
    let mut table = table();
    table.set(unicast("10.20.0.0/26", &["10.9.1.2"])).unwrap();
    table.set(unicast("10.20.0.64/26", &["10.9.1.2", "10.9.2.2"])).unwrap();
    table.set(unicast("fd20:1::/64", &["fd09:1::2"])).unwrap();
    table.set(unicast("fd20:2::/64", &["fd09:1::2", "fd09:2::2"])).unwrap();
    table.set(unicast("10.21.0.0/16", &["fd09:1::2"])).unwrap();
    table.set(unicast("0.0.0.0/0", &["10.9.2.2"])).unwrap();
    table.set(unicast("::/0", &["fd09:2::2"])).unwrap();
    table.set(Route::blackhole("10.22.0.0/16".parse().unwrap(), METRIC_LEARNED)).unwrap();
    table.set(Route::blackhole("fd22::/48".parse().unwrap(), METRIC_LEARNED)).unwrap();
    apply(&mut table, &rig.socket);
    let mut expected = vec![
        row("10.20.0.0/26", &["10.9.1.2"], "unicast"),
        row("10.20.0.64/26", &["10.9.1.2", "10.9.2.2"], "unicast"),
        row("fd20:1::/64", &["fd09:1::2"], "unicast"),
        row("fd20:2::/64", &["fd09:1::2", "fd09:2::2"], "unicast"),
        row("10.21.0.0/16", &["fd09:1::2"], "unicast"),
        row("default", &["10.9.2.2"], "unicast"),
        row("default", &["fd09:2::2"], "unicast"),
        row("10.22.0.0/16", &[], "blackhole"),
        row("fd22::/48", &[], "blackhole"),
    ];
    expected.sort();
    assert_eq!(listed(&rig.here), expected);

    // What was read back equals what was wanted, so a resync finds nothing to do.
    table.resync(&rig.socket).unwrap();
    assert_eq!(table.pending(), 0);

    for key in table.wanted().copied().collect::<Vec<_>>() {
        table.withdraw(&key);
    }
    apply(&mut table, &rig.socket);
    assert_eq!(listed(&rig.here), []);
}

#[test]
fn weights_source_mtu_and_onlink_reach_the_kernel() {
    let rig = rig();
    let mut table = table();
    let hop = |address: &str, weight, link| NextHop {
        weight,
        onlink: true,
        ..NextHop::via_on(address.parse().unwrap(), rig.links[link])
    };
    for (destination, gateways, source) in [
        ("10.30.0.0/16", ["192.0.2.1", "192.0.2.2"], "10.9.1.1"),
        ("fd30::/32", ["2001:db8::1", "2001:db8::2"], "fd09:1::1"),
    ] {
        let hops = [hop(gateways[0], 1, 0), hop(gateways[1], 5, 1)];
        let mut route = Route::unicast(destination.parse().unwrap(), METRIC_LEARNED, hops);
        route.source = Some(source.parse().unwrap());
        route.mtu = Some(1400);
        table.set(route).unwrap();
    }
    apply(&mut table, &rig.socket);
    for (family, source) in [("-4", "10.9.1.1"), ("-6", "fd09:1::1")] {
        let routes = rig.here.ip(&format!("{family} route show proto 77"));
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!(routes[0]["prefsrc"], source);
        assert_eq!(routes[0]["metrics"][0]["mtu"], 1400, "{routes:?}");
        let mut weights: Vec<u64> = routes[0]["nexthops"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hop| hop["weight"].as_u64().unwrap())
            .collect();
        weights.sort_unstable();
        assert_eq!(weights, [1, 5], "{routes:?}");
    }
    table.resync(&rig.socket).unwrap();
    assert_eq!(table.pending(), 0);
}

#[test]
fn a_route_changes_from_any_shape_to_any_other() {
    let rig = rig();
    for (destination, near, far) in
        [("10.40.0.0/24", "10.9.1.2", "10.9.2.2"), ("fd40::/64", "fd09:1::2", "fd09:2::2")]
    {
        let shapes: [(Route, &[&str], &str); 5] = [
            (unicast(destination, &[near]), &[near], "unicast"),
            (unicast(destination, &[near, far]), &[near, far], "unicast"),
            (unicast(destination, &[far]), &[far], "unicast"),
            (Route::blackhole(destination.parse().unwrap(), METRIC_LEARNED), &[], "blackhole"),
            (Route::connected(destination.parse().unwrap(), METRIC_LEARNED, rig.links[0]), &[], "unicast"),
        ];
        for (before, ..) in &shapes {
            for (after, gateways, kind) in &shapes {
                let mut table = table();
                let key = table.set(before.clone()).unwrap();
                apply(&mut table, &rig.socket);
                table.set(after.clone()).unwrap();
                apply(&mut table, &rig.socket);
                assert_eq!(listed(&rig.here), [row(destination, gateways, kind)], "{before:?} to {after:?}");
                table.withdraw(&key);
                apply(&mut table, &rig.socket);
                assert_eq!(listed(&rig.here), []);
            }
        }
    }
}

#[test]
fn a_restart_adopts_keeps_and_sweeps_only_when_told() {
    let rig = rig();
    let destinations = ["10.50.0.0/26", "10.50.0.64/26", "fd50:1::/64", "fd50:2::/64"];
    let via = |destination: &str| if destination.contains(':') { "fd09:1::2" } else { "10.9.1.2" };
    let mut before = table();
    for destination in destinations {
        before.set(unicast(destination, &[via(destination)])).unwrap();
    }
    apply(&mut before, &rig.socket);
    drop(before);

    let mut after = table();
    assert_eq!(after.adopt(&rig.socket).unwrap(), 4);
    let known = after.set(unicast("10.50.0.0/26", &["10.9.1.2"])).unwrap();
    assert_eq!(after.state(&known), RouteState::Installed, "the same route needs no write");
    apply(&mut after, &rig.socket);
    assert_eq!(listed(&rig.here).len(), 4, "nothing is removed before the sweep");

    // A route of our own number that appears later is not adopted: it is a stranger.
    rig.here.sh("ip route add 10.51.0.0/24 via 10.9.1.2 proto 77 metric 512");
    after.resync(&rig.socket).unwrap();
    apply(&mut after, &rig.socket);
    assert_eq!(listed(&rig.here).len(), 4);

    assert_eq!(after.sweep(|key| key.destination.addr().is_ipv4()), 1);
    apply(&mut after, &rig.socket);
    let left: Vec<String> = listed(&rig.here).into_iter().map(|(destination, ..)| destination).collect();
    assert_eq!(left, ["10.50.0.0/26", "fd50:1::/64", "fd50:2::/64"]);
    // Wished for and given up before anybody wrote it: it is not left to the sweep.
    let gone = *after.adopted().find(|key| key.destination == "fd50:1::/64".parse().unwrap()).unwrap();
    after.withdraw(&gone);
    assert_eq!(after.state(&gone), RouteState::Adopted, "nobody wished for it");
    after.give_up(&gone);
    assert_eq!(after.state(&gone), RouteState::Pending);
    assert_eq!(after.sweep(|_| true), 1);
    apply(&mut after, &rig.socket);
    assert_eq!(listed(&rig.here), [row("10.50.0.0/26", &["10.9.1.2"], "unicast")]);
}

#[test]
fn foreign_routes_are_never_touched() {
    let rig = rig();
    // Same prefix and metric as ours would have, another protocol.
    rig.here.sh("ip route add 10.60.0.0/24 via 10.9.2.2 proto 99 metric 512");
    rig.here.sh("ip -6 route add fd60::/64 via fd09:2::2 proto 99 metric 512");
    rig.here.sh("ip route add 10.61.0.0/24 via 10.9.2.2 proto static");
    let foreign = rig.here.ip("route show");
    let foreign_v6 = rig.here.ip("-6 route show");
    let mut table = table();
    table.adopt(&rig.socket).unwrap();
    let keys = [
        table.set(unicast("10.60.0.0/24", &["10.9.1.2"])).unwrap(),
        table.set(unicast("fd60::/64", &["fd09:1::2"])).unwrap(),
    ];
    let applied = table.apply(&rig.socket, Instant::now()).unwrap();
    let refused: Vec<_> = applied.refused.iter().map(|(key, how, _)| (*key, *how)).collect();
    assert_eq!(refused, keys.map(|key| (key, Disagreement::Wrong)));
    for key in &keys {
        assert!(matches!(table.state(key), RouteState::Wrong(_)));
    }
    table.withdraw(&keys[0]);
    table.withdraw(&keys[1]);
    table.sweep(|_| true);
    apply(&mut table, &rig.socket);
    assert_eq!(rig.here.ip("route show"), foreign);
    assert_eq!(rig.here.ip("-6 route show"), foreign_v6);
}

#[test]
fn one_refusal_in_a_batch_concerns_its_route_alone_and_is_told_apart() {
    let rig = rig();
    let mut table = table();
    for i in 0..300u32 {
        table.set(unicast(&format!("10.70.{}.{}/26", i / 4, i % 4 * 64), &["10.9.1.2"])).unwrap();
    }
    let unreachable = table.set(unicast("10.71.0.0/24", &["203.0.113.1"])).unwrap();
    let now = Instant::now();
    let applied = table.apply(&rig.socket, now).unwrap();
    assert_eq!(applied.written, 300);
    assert_eq!(applied.refused.len(), 1);
    let RouteState::NotYet(refusal) = table.state(&unreachable) else {
        panic!("{:?}", table.state(&unreachable))
    };
    assert_eq!(refusal.text.as_deref(), Some("Nexthop has invalid gateway"), "the kernel's own words");

    // Put off, not forgotten; and tried at once when something changed.
    assert_eq!(table.apply(&rig.socket, now).unwrap().refused, []);
    assert!(table.next_retry().is_some_and(|due| due > now));
    rig.here.sh("ip address add 203.0.113.7/24 dev e1");
    table.wake();
    apply(&mut table, &rig.socket);
    assert_eq!(table.state(&unreachable), RouteState::Installed);
}

#[test]
fn a_route_that_the_kernel_dropped_without_a_word_comes_back() {
    let rig = rig();
    let mut table = table();
    table.set(unicast("10.80.0.0/24", &["10.9.1.2"])).unwrap();
    apply(&mut table, &rig.socket);
    rig.here.sh("ip link set e1 down; ip link set e1 up");
    assert_eq!(listed(&rig.here), [], "link down removed it");
    table.mark_stale();
    apply(&mut table, &rig.socket);
    assert_eq!(listed(&rig.here).len(), 1);
}

#[test]
fn ten_thousand_routes_each_family() {
    let rig = rig();
    let mut table = table();
    for i in 0..10_000u32 {
        let (high, low) = (i >> 8, i & 0xff);
        table.set(unicast(&format!("11.{high}.{low}.0/26"), &["10.9.1.2", "10.9.2.2"])).unwrap();
        table.set(unicast(&format!("fd11:{high:x}:{low:x}::/64"), &["fd09:1::2", "fd09:2::2"])).unwrap();
    }
    let start = Instant::now();
    apply(&mut table, &rig.socket);
    let written = start.elapsed();
    let start = Instant::now();
    let mut again = RouteTable::new(ROUTE_PROTOCOL_BGP);
    assert_eq!(again.adopt(&rig.socket).unwrap(), 20_000);
    let adopted = start.elapsed();
    let start = Instant::now();
    again.sweep(|_| true);
    apply(&mut again, &rig.socket);
    eprintln!(
        "20,000 ECMP routes: written in {written:?}, adopted in {adopted:?}, removed in {:?}",
        start.elapsed()
    );
    assert_eq!(listed(&rig.here), []);
}

#[test]
fn routes_no_kernel_would_take_are_refused_by_name() {
    let mut table = table();
    let link_local: IpAddr = "fe80::1".parse().unwrap();
    let mut tunnelled = unicast("10.0.0.0/24", &["10.9.1.2"]);
    tunnelled.encap = Some(Tunnel::IpIp { remote: "192.0.2.1".parse().unwrap() });
    let key =
        |text: &str| RouteKey { table: 254, destination: text.parse().unwrap(), metric: METRIC_LEARNED };
    let v4 = key("10.0.0.0/24");
    let v6 = key("fd00::/64");
    assert_eq!(table.set(tunnelled), Err(InvalidRoute::Tunnel(v4)));
    assert_eq!(table.set(unicast("10.0.0.0/24", &[])), Err(InvalidRoute::NoNextHop(v4)));
    assert_eq!(
        table.set(unicast("fd00::/64", &["10.9.1.2"])),
        Err(InvalidRoute::GatewayFamily(v6, "10.9.1.2".parse().unwrap()))
    );
    assert_eq!(
        table.set(unicast("fd00::/64", &["fe80::1"])),
        Err(InvalidRoute::LinkLocalWithoutInterface(v6, link_local))
    );
    assert_eq!(table.pending(), 0);
}

//! Routes that go by next-hop objects.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use felix_calc::host::{METRIC_LEARNED, ROUTE_PROTOCOL_BGP};
use felix_kernel::link;
use felix_kernel::monitor::{KernelEvent, Monitor, OwnRoutes, Removals};
use felix_kernel::netlink::RouteSocket;
use felix_kernel::route::{self, NextHop, Route, RouteState, RouteTable};

use crate::monitor::block_on;
use crate::routes::{Rig, gateways, rig, text};

fn table() -> RouteTable {
    RouteTable::new(ROUTE_PROTOCOL_BGP).with_objects()
}

fn apply(table: &mut RouteTable, socket: &RouteSocket) -> (usize, usize) {
    let applied = table.apply(socket, Instant::now()).unwrap();
    assert_eq!((applied.refused, applied.pending), (Vec::new(), 0));
    (applied.written, applied.removed)
}

impl Rig {
    /// A route by these gateways, each on its link.
    fn unicast(&self, destination: &str, gateways: &[&str]) -> Route {
        let hop = |text: &&str| {
            let second = text.starts_with("10.9.2.") || text.starts_with("fd09:2:");
            NextHop::via_on(text.parse().unwrap(), self.links[usize::from(second)])
        };
        Route::unicast(destination.parse().unwrap(), METRIC_LEARNED, gateways.iter().map(hop))
    }

    /// What `ip` lists for our protocol, as destination, gateways and whether it goes by an object.
    fn routes(&self) -> BTreeSet<(String, Vec<String>, bool)> {
        let mut routes = BTreeSet::new();
        for family in ["-4", "-6"] {
            for route in self.here.ip(&format!("{family} route show table all proto 77")) {
                routes.insert((text(&route["dst"]).unwrap(), gateways(&route), route["nhid"].is_u64()));
            }
        }
        routes
    }

    /// The numbers of the objects that there are.
    fn objects(&self) -> Vec<u64> {
        self.here.ip("nexthop").iter().map(|object| object["id"].as_u64().unwrap()).collect()
    }
}

fn row(destination: &str, gateways: &[&str]) -> (String, Vec<String>, bool) {
    (destination.to_owned(), gateways.iter().map(|&text| text.to_owned()).collect(), true)
}

#[test]
fn many_routes_share_few_objects_and_a_restart_finds_them() {
    let rig = rig();
    let all: [(&str, &[&str]); 6] = [
        ("10.20.0.0/26", &["10.9.1.2"]),
        ("10.20.0.64/26", &["10.9.1.2", "10.9.2.2"]),
        ("10.21.0.0/16", &["fd09:1::2"]),
        ("fd20:1::/64", &["fd09:1::2"]),
        ("fd20:2::/64", &["fd09:1::2", "fd09:2::2"]),
        ("fd20:3::/64", &["fd09:1::2", "fd09:2::2"]),
    ];
    let set_all = |table: &mut RouteTable| {
        for (destination, gateways) in &all {
            table.set(rig.unicast(destination, gateways)).unwrap();
        }
    };
    let mut before = table();
    set_all(&mut before);
    assert_eq!(apply(&mut before, &rig.socket), (6, 0));
    let expected: BTreeSet<_> =
        all.iter().map(|(destination, gateways)| row(destination, gateways)).collect();
    assert_eq!(rig.routes(), expected);
    // Four next hops and two groups.
    let objects = rig.objects();
    assert_eq!(objects.len(), 6, "{objects:?}");
    assert!(objects.iter().all(|number| number / 1_000_000 == u64::from(ROUTE_PROTOCOL_BGP)), "{objects:?}");
    before.resync(&rig.socket).unwrap();
    assert!(!before.is_due(Instant::now()), "what was read back is what was wanted");

    let mut after = table();
    assert_eq!(after.adopt(&rig.socket).unwrap(), 6);
    set_all(&mut after);
    assert!(!after.is_due(Instant::now()), "the same routes need no write");
    // Without a wish for it an adopted route keeps its object until it is swept.
    let mut after = table();
    after.adopt(&rig.socket).unwrap();
    after.set(rig.unicast("10.20.0.0/26", &["10.9.1.2"])).unwrap();
    after.set(rig.unicast("10.22.0.0/26", &["10.9.1.2"])).unwrap();
    assert_eq!(apply(&mut after, &rig.socket), (1, 0));
    assert_eq!((rig.routes().len(), rig.objects().len()), (7, 6));
    assert_eq!(after.sweep(|_| true), 5);
    assert_eq!(apply(&mut after, &rig.socket), (0, 5));
    after.resync(&rig.socket).unwrap();
    apply(&mut after, &rig.socket);
    assert_eq!(rig.routes(), [row("10.20.0.0/26", &["10.9.1.2"]), row("10.22.0.0/26", &["10.9.1.2"])].into());
    assert_eq!(rig.objects().len(), 1, "the others have no route any more");

    assert_eq!(route::delete_objects(&rig.socket, ROUTE_PROTOCOL_BGP).unwrap(), 1);
    assert_eq!((rig.routes().len(), rig.objects().len()), (0, 0));
}

#[test]
fn a_route_changes_from_any_shape_to_any_other() {
    let rig = rig();
    for (destination, near, far) in
        [("10.40.0.0/24", "10.9.1.2", "10.9.2.2"), ("fd40::/64", "fd09:1::2", "fd09:2::2")]
    {
        let plain = |gateways: &[&str]| {
            let hops = gateways.iter().map(|text| NextHop::via(text.parse().unwrap()));
            Route::unicast(destination.parse().unwrap(), METRIC_LEARNED, hops)
        };
        let shapes: [(Route, &[&str], bool); 7] = [
            (rig.unicast(destination, &[near]), &[near], true),
            (rig.unicast(destination, &[near, far]), &[near, far], true),
            (rig.unicast(destination, &[far]), &[far], true),
            (plain(&[near]), &[near], false),
            (plain(&[near, far]), &[near, far], false),
            (Route::blackhole(destination.parse().unwrap(), METRIC_LEARNED), &[], false),
            (Route::connected(destination.parse().unwrap(), METRIC_LEARNED, rig.links[0]), &[], false),
        ];
        for (before, ..) in &shapes {
            for (after, gateways, by_object) in &shapes {
                let mut table = table();
                let key = table.set(before.clone()).unwrap();
                apply(&mut table, &rig.socket);
                table.set(after.clone()).unwrap();
                apply(&mut table, &rig.socket);
                let is = rig.routes();
                let gateways = gateways.iter().map(|&text| text.to_owned()).collect();
                assert_eq!(
                    is,
                    [(destination.to_owned(), gateways, *by_object)].into(),
                    "{before:?} to {after:?}"
                );
                table.withdraw(&key);
                apply(&mut table, &rig.socket);
                assert_eq!(rig.routes(), BTreeSet::new());
                route::delete_objects(&rig.socket, ROUTE_PROTOCOL_BGP).unwrap();
            }
        }
    }
}

#[test]
fn where_all_routes_of_a_router_go_its_object_takes_them_along_and_no_other() {
    let rig = rig();
    let mut table = table();
    let destination = |i: u32| format!("11.{}.{}.0/26", i >> 8, i & 0xff);
    let mut keys = Vec::new();
    for i in 0..20_000u32 {
        let gateway = if i % 2 == 0 { "10.9.1.2" } else { "10.9.2.2" };
        keys.push(table.set(rig.unicast(&destination(i), &[gateway])).unwrap());
        if i % 10 == 0 {
            table.set(rig.unicast(&format!("fd11:{i:x}::/64"), &["fd09:1::2"])).unwrap();
        }
    }
    assert_eq!(apply(&mut table, &rig.socket), (22_000, 0));
    // One that stays keeps the object, and with it nothing but itself.
    let began = Instant::now();
    keys.iter().step_by(2).skip(1).for_each(|key| table.withdraw(key));
    assert_eq!(apply(&mut table, &rig.socket), (0, 9_999));
    let one_by_one = began.elapsed();
    assert_eq!((rig.routes().len(), rig.objects().len()), (12_001, 3));

    let began = Instant::now();
    keys.iter().skip(1).step_by(2).for_each(|key| table.withdraw(key));
    assert_eq!(apply(&mut table, &rig.socket), (0, 10_000));
    eprintln!("10,000 routes removed one by one: {one_by_one:?}, with their object: {:?}", began.elapsed());
    let left = rig.routes();
    assert_eq!((left.len(), rig.objects().len()), (2_001, 2));
    assert!(left.contains(&row("11.0.0.0/26", &["10.9.1.2"])));
    table.resync(&rig.socket).unwrap();
    assert!(!table.is_due(Instant::now()), "what it believes is so");
    // The router is back.
    for i in (1..20_000u32).step_by(2) {
        table.set(rig.unicast(&destination(i), &["10.9.2.2"])).unwrap();
    }
    assert_eq!(apply(&mut table, &rig.socket), (10_000, 0));
}

/// A session ends, and its routes are given up as the RIB comes to them.
#[test]
fn what_is_given_up_in_parts_goes_by_its_object_too() {
    let rig = rig();
    let mut table = table().removing_in_parts(1_000);
    let destination = |i: u32| format!("11.{}.{}.0/26", i >> 8, i & 0xff);
    let routes = (0..10_000).map(|i| table.set(rig.unicast(&destination(i), &["10.9.1.2"])).unwrap());
    let keys: Vec<_> = routes.collect();
    assert_eq!(apply(&mut table, &rig.socket), (10_000, 0));
    let now = Instant::now();
    keys.iter().take(6_000).for_each(|key| table.withdraw(key));
    let applied = table.apply(&rig.socket, now).unwrap();
    assert_eq!((applied.removed, applied.put_off, applied.pending), (1_000, 5_000, 5_000));
    assert!(table.is_due(now), "the rest goes without being asked for again");
    assert_eq!((rig.routes().len(), rig.objects().len()), (9_000, 1));
    keys.iter().skip(6_000).for_each(|key| table.withdraw(key));
    // At once: one by one it were 1,000.
    assert_eq!(apply(&mut table, &rig.socket), (0, 9_000));
    assert_eq!((rig.routes().len(), rig.objects().len()), (0, 0));
}

#[test]
fn routes_by_two_routers_keep_both_when_all_routes_by_one_go() {
    let rig = rig();
    let mut table = table();
    let both = rig.unicast("10.20.0.0/26", &["10.9.1.2", "10.9.2.2"]);
    table.set(both.clone()).unwrap();
    let mut of = [Vec::new(), Vec::new()];
    for i in 0..2_000u32 {
        let gateway = if i % 2 == 0 { "10.9.1.2" } else { "10.9.2.2" };
        let destination = format!("11.{}.{}.0/26", i >> 8, i & 0xff);
        of[usize::from(i % 2 == 1)].push(table.set(rig.unicast(&destination, &[gateway])).unwrap());
    }
    apply(&mut table, &rig.socket);
    for routes in of {
        routes.iter().for_each(|key| table.withdraw(key));
        assert_eq!(apply(&mut table, &rig.socket), (0, 1_000));
        assert!(rig.routes().contains(&row("10.20.0.0/26", &["10.9.1.2", "10.9.2.2"])));
        table.resync(&rig.socket).unwrap();
        assert!(!table.is_due(Instant::now()), "what it believes is so");
    }
    assert_eq!((rig.routes().len(), rig.objects().len()), (1, 3));
    // Many by both: the group takes them along, and its members go with the next look.
    let keys: Vec<_> = (0..100u32)
        .map(|i| table.set(Route { destination: format!("12.0.{i}.0/26").parse().unwrap(), ..both.clone() }))
        .map(Result::unwrap)
        .collect();
    table.withdraw(&both.key());
    apply(&mut table, &rig.socket);
    keys.iter().for_each(|key| table.withdraw(key));
    assert_eq!(apply(&mut table, &rig.socket), (0, 100));
    assert_eq!((rig.routes().len(), rig.objects().len()), (0, 0));
}

#[test]
fn what_others_remove_is_heard_and_put_back() {
    let rig = rig();
    let mut table = table();
    table.set(rig.unicast("10.20.0.0/26", &["10.9.1.2", "10.9.2.2"])).unwrap();
    table.set(rig.unicast("10.20.1.0/26", &["10.9.1.2"])).unwrap();
    let port = rig.socket.port().unwrap();
    rig.here.run(|| {
        block_on(|| async {
            let own = OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::ToldUnlessBy(port));
            let mut monitor = Monitor::start(&[own]).unwrap();
            apply(&mut table, &rig.socket);
            // Our own removals are not heard.
            let gone = table.set(rig.unicast("10.20.2.0/26", &["10.9.2.2"])).unwrap();
            apply(&mut table, &rig.socket);
            table.withdraw(&gone);
            apply(&mut table, &rig.socket);
            table.set(rig.unicast("10.20.0.0/26", &["10.9.2.2"])).unwrap();
            apply(&mut table, &rig.socket);
            let before = rig.objects().len();
            table.resync(&rig.socket).unwrap();
            table.apply(&rig.socket, Instant::now()).unwrap();
            assert!(rig.objects().len() < before, "the group has no route any more");
            let heard = async {
                loop {
                    let events = monitor.changed().await.unwrap();
                    assert!(!events.contains(&KernelEvent::OwnObjectGone), "{events:?}");
                }
            };
            tokio::time::timeout(Duration::from_millis(300), heard).await.unwrap_err();
            table.set(rig.unicast("10.20.0.0/26", &["10.9.1.2", "10.9.2.2"])).unwrap();
            apply(&mut table, &rig.socket);
            rig.here.sh("ip nexthop flush proto 77");
            let heard = async {
                loop {
                    if monitor.changed().await.unwrap().contains(&KernelEvent::OwnObjectGone) {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap();
        });
    });
    assert_eq!(rig.routes(), BTreeSet::new());
    table.mark_stale();
    assert_eq!(apply(&mut table, &rig.socket), (2, 0));
    let expected = [row("10.20.0.0/26", &["10.9.1.2", "10.9.2.2"]), row("10.20.1.0/26", &["10.9.1.2"])];
    assert_eq!(rig.routes(), expected.into());
}

#[test]
fn a_link_that_was_down_takes_part_again() {
    let rig = rig();
    let mut table = table();
    let both = table.set(rig.unicast("10.20.0.0/26", &["10.9.1.2", "10.9.2.2"])).unwrap();
    let one = table.set(rig.unicast("10.20.1.0/26", &["10.9.1.2"])).unwrap();
    apply(&mut table, &rig.socket);
    let whole = rig.routes();
    // The other end goes: the carrier is lost.
    for (where_, down, up) in [
        (&rig.here, "ip link set e1 down", "ip link set e1 up"),
        (&rig.there, "ip link set e1 down", "ip link set e1 up"),
    ] {
        where_.sh(down);
        // The kernel notices a lost carrier within a second.
        let left = BTreeSet::from([row("10.20.0.0/26", &["10.9.2.2"])]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while rig.routes() != left {
            assert!(Instant::now() < deadline, "the other one goes on: {:?}", rig.routes());
            std::thread::sleep(Duration::from_millis(20));
        }
        table.mark_stale();
        let applied = table.apply(&rig.socket, Instant::now()).unwrap();
        assert_eq!(applied.refused.len(), 1, "{applied:?}");
        assert!(matches!(table.state(&one), RouteState::NotYet(_)), "{:?}", table.state(&one));
        assert_eq!(table.state(&both), RouteState::Installed);
        // Without an event it is tried again all the same.
        assert!(table.next_retry().is_some());
        where_.sh(up);
        assert!(link::settle(&rig.socket, rig.links[0]).unwrap().is_usable());
        table.wake();
        assert_eq!(apply(&mut table, &rig.socket).0, 1);
        assert_eq!(rig.routes(), whole);
    }
}

#[test]
fn a_group_that_lacks_a_next_hop_is_written_again_by_itself() {
    let rig = rig();
    let mut table = table();
    table.set(rig.unicast("10.20.0.0/26", &["10.9.1.2", "10.9.2.2"])).unwrap();
    apply(&mut table, &rig.socket);
    let whole = rig.routes();
    rig.here.sh("ip link set e1 down");
    table.mark_stale();
    apply(&mut table, &rig.socket);
    let due = table.next_retry().expect("a repair");
    rig.here.sh("ip link set e1 up");
    assert!(link::settle(&rig.socket, rig.links[0]).unwrap().is_usable());
    assert!(table.is_due(due));
    table.apply(&rig.socket, due).unwrap();
    assert_eq!((rig.routes(), table.next_retry()), (whole, None));
}

use std::net::IpAddr;
use std::time::{Duration, Instant};

use felix_calc::host::{METRIC_LEARNED, ROUTE_PROTOCOL_BGP, ROUTE_PROTOCOL_LOCAL};
use felix_kernel::facts::Facts;
use felix_kernel::monitor::{KernelEvent, Monitor, OwnRoutes, Removals};
use felix_kernel::route::{NextHop, Route, RouteTable};
use tokio::time::timeout;

use crate::namespace::{Namespace, connect};

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn block_on<F: Future>(work: impl FnOnce() -> F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
}

/// Listens until `done` holds for the facts; everything heard on the way.
async fn until(monitor: &mut Monitor, mut done: impl FnMut(&Facts) -> bool) -> Vec<KernelEvent> {
    let mut heard = Vec::new();
    while !done(monitor.facts()) {
        heard.extend(timeout(PATIENCE, monitor.changed()).await.expect("an event in time").unwrap());
    }
    heard
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_link_that_goes_down_takes_its_next_hops_along_at_once() {
    let (here, there) = (Namespace::new(), Namespace::new());
    let first = connect(&here, &there, 1);
    connect(&here, &there, 2);
    here.sh("ip route add default via 10.9.2.2; ip -6 route add default via fd09:2::2");
    here.run(|| {
        block_on(|| async {
            let mut monitor = Monitor::start(&[OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::Told)]).unwrap();
            for (peer, own) in [("10.9.1.2", "10.9.1.1"), ("fd09:1::2", "fd09:1::1")] {
                let resolved = monitor.facts().resolve(address(peer), None).unwrap();
                assert_eq!(
                    (resolved.ifindex, resolved.is_connected(), resolved.source),
                    (first, true, Some(address(own)))
                );
            }
            let beyond = monitor.facts().resolve(address("198.51.100.1"), None).unwrap();
            assert_eq!((beyond.gateway, beyond.through.prefix_len()), (Some(address("10.9.2.2")), 0));

            for (at, own, how) in [(&there, 2, "carrier lost"), (&here, 1, "set down")] {
                at.sh("ip link set e1 down");
                let start = Instant::now();
                // The kernel forgets IPv6 addresses of a link that is set down: then the default route leads there.
                let gone = |facts: &Facts| {
                    let v6 = facts.resolve(address("fd09:1::2"), None);
                    facts.resolve(address("10.9.1.2"), None).is_none()
                        && v6.is_none_or(|found| !found.is_connected())
                };
                let heard = until(&mut monitor, gone).await;
                eprintln!("{how}: unresolved {:?} after the command ended", start.elapsed());
                assert!(
                    heard.iter().any(|event| matches!(event, KernelEvent::Link(link) if link.index == first))
                );
                assert!(
                    monitor.facts().resolve(address("10.9.2.2"), None).is_some(),
                    "the other link is not touched"
                );

                at.sh(&format!("ip link set e1 up; ip -6 address replace fd09:1::{own}/64 dev e1 nodad"));
                let back = |facts: &Facts| {
                    ["10.9.1.2", "fd09:1::2"].into_iter().all(|peer| {
                        facts
                            .resolve(address(peer), None)
                            .is_some_and(|found| found.is_connected() && found.ifindex == first)
                    })
                };
                until(&mut monitor, back).await;
            }
        });
    });
}

#[test]
fn addresses_routes_and_neighbours_are_followed() {
    let (here, there) = (Namespace::new(), Namespace::new());
    connect(&here, &there, 1);
    here.run(|| {
        block_on(|| async {
            let mut monitor = Monitor::start(&[OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::Told)]).unwrap();
            let far = address("203.0.113.9");
            assert_eq!(monitor.facts().resolve(far, None), None);
            here.sh("ip route add 203.0.113.0/24 via 10.9.1.2 proto static");
            until(&mut monitor, |facts| facts.resolve(far, None).is_some_and(|found| !found.is_connected()))
                .await;
            here.sh("ip route del 203.0.113.0/24");
            until(&mut monitor, |facts| facts.resolve(far, None).is_none()).await;

            here.sh("ip address add 203.0.113.1/24 dev e1");
            until(&mut monitor, |facts| facts.resolve(far, None).is_some_and(|found| found.is_connected()))
                .await;
            assert!(monitor.facts().is_local(address("203.0.113.1")));
            assert_eq!(
                monitor.facts().resolve(address("203.0.113.1"), None),
                None,
                "own addresses are no next hops"
            );
            here.sh("ip address del 203.0.113.1/24 dev e1");
            until(&mut monitor, |facts| facts.resolve(far, None).is_none()).await;

            here.sh("ip neigh add 10.9.1.77 lladdr 02:00:00:00:00:77 dev e1 nud permanent");
            until(&mut monitor, |facts| {
                facts.neighbours().any(|n| n.address == address("10.9.1.77") && n.permanent)
            })
            .await;
            here.sh("ip neigh del 10.9.1.77 dev e1");
            until(&mut monitor, |facts| facts.neighbours().all(|n| n.address != address("10.9.1.77"))).await;

            here.sh("ip link del e1");
            let heard = until(&mut monitor, |facts| facts.link_by_name("e1").is_none()).await;
            assert!(
                heard.iter().any(|event| matches!(event, KernelEvent::LinkGone(link) if link.name == "e1"))
            );
            assert_eq!(
                monitor.facts().routes().filter(|route| route.destination.addr().is_ipv4()).count(),
                0
            );
        });
    });
}

#[test]
fn our_own_routes_resolve_nothing_and_their_loss_is_told() {
    let (here, there) = (Namespace::new(), Namespace::new());
    connect(&here, &there, 1);
    let socket = here.socket();
    here.run(|| {
        block_on(|| async {
            let mut monitor = Monitor::start(&[OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::Told)]).unwrap();
            let mut table = RouteTable::new(ROUTE_PROTOCOL_BGP);
            let hop = NextHop::via(address("10.9.1.2"));
            table.set(Route::unicast("203.0.113.0/24".parse().unwrap(), METRIC_LEARNED, [hop])).unwrap();
            table.apply(&socket, Instant::now()).unwrap();
            here.sh("ip route add 198.51.100.0/24 via 10.9.1.2");
            until(&mut monitor, |facts| facts.resolve(address("198.51.100.1"), None).is_some()).await;
            assert_eq!(monitor.facts().resolve(address("203.0.113.1"), None), None);

            here.sh("ip route del 203.0.113.0/24");
            let heard = timeout(PATIENCE, monitor.changed()).await.unwrap().unwrap();
            let KernelEvent::OwnRouteGone(gone) = &heard[0] else { panic!("{heard:?}") };
            assert_eq!(gone.destination, "203.0.113.0/24".parse().unwrap());
            assert!(!table.is_due(Instant::now()));
            table.heard_gone(gone);
            assert_eq!(table.apply(&socket, Instant::now()).unwrap().written, 1, "it is put back");

            let key = *table.wanted().next().unwrap();
            table.withdraw(&key);
            table.apply(&socket, Instant::now()).unwrap();
            let heard = timeout(PATIENCE, monitor.changed()).await.unwrap().unwrap();
            let KernelEvent::OwnRouteGone(gone) = &heard[0] else { panic!("{heard:?}") };
            table.heard_gone(gone);
            assert!(!table.is_due(Instant::now()), "our own removal is no loss");
        });
    });
}

#[test]
fn what_our_own_socket_does_is_not_heard_however_much_it_is() {
    let (here, there) = (Namespace::new(), Namespace::new());
    connect(&here, &there, 1);
    let socket = here.socket();
    here.run(|| {
        block_on(|| async {
            let own = [
                OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::ToldUnlessBy(socket.port().unwrap())),
                OwnRoutes::new(ROUTE_PROTOCOL_LOCAL, Removals::NotTold),
            ];
            let mut monitor = Monitor::start(&own).unwrap();
            let mut table = RouteTable::new(ROUTE_PROTOCOL_BGP);
            for i in 0..40_000u32 {
                let destination = format!("11.{}.{}.0/24", i >> 8, i & 0xff).parse().unwrap();
                let hop = NextHop::via(address("10.9.1.2"));
                table.set(Route::unicast(destination, METRIC_LEARNED, [hop])).unwrap();
            }
            table.apply(&socket, Instant::now()).unwrap();
            for key in table.wanted().copied().skip(1).collect::<Vec<_>>() {
                table.withdraw(&key);
            }
            table.apply(&socket, Instant::now()).unwrap();
            // Another program's of ours, and then what is heard: somebody took the one that is left.
            here.sh(&format!("ip route add 12.0.0.0/24 via 10.9.1.2 proto {ROUTE_PROTOCOL_LOCAL}"));
            here.sh("ip route del 12.0.0.0/24");
            here.sh("ip route del 11.0.0.0/24");
            // The links' own addresses may settle meanwhile.
            let mut heard = Vec::new();
            while heard.is_empty() {
                heard = timeout(PATIENCE, monitor.changed()).await.unwrap().unwrap();
                heard.retain(|event| matches!(event, KernelEvent::OwnRouteGone(_) | KernelEvent::Resync));
            }
            let [KernelEvent::OwnRouteGone(gone)] = heard.as_slice() else { panic!("{heard:?}") };
            assert_eq!(gone.destination, "11.0.0.0/24".parse().unwrap());
            here.sh("ip route add 198.51.100.0/24 via 10.9.1.2");
            until(&mut monitor, |facts| facts.resolve(address("198.51.100.1"), None).is_some()).await;
        });
    });
}

#[test]
fn a_flood_ends_in_one_resync_and_right_facts() {
    let (here, there) = (Namespace::new(), Namespace::new());
    connect(&here, &there, 1);
    let socket = here.socket();
    here.run(|| {
        block_on(|| async {
            let mut monitor = Monitor::start(&[OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::Told)]).unwrap();
            let mut others = RouteTable::new(99);
            for i in 0..40_000u32 {
                let destination = format!("11.{}.{}.0/24", i >> 8, i & 0xff).parse().unwrap();
                others.set(Route::unicast(destination, 0, [NextHop::via(address("10.9.1.2"))])).unwrap();
            }
            others.apply(&socket, Instant::now()).unwrap();
            here.sh("ip route del 11.0.0.0/24");
            let heard = timeout(PATIENCE, monitor.changed()).await.unwrap().unwrap();
            assert_eq!(heard, [KernelEvent::Resync]);
            assert_eq!(monitor.facts().resolve(address("11.0.0.1"), None), None);
            assert!(monitor.facts().resolve(address("11.100.7.1"), None).is_some());
            assert_eq!(monitor.facts().routes().filter(|route| route.protocol == 99).count(), 39_999);

            // And it goes on hearing.
            here.sh("ip route add 11.0.0.0/24 via 10.9.1.2");
            until(&mut monitor, |facts| facts.resolve(address("11.0.0.1"), None).is_some()).await;
        });
    });
}

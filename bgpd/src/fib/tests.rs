use std::time::Duration;

use felix_kernel::route::RouteKind;

use super::*;

fn fib() -> (Fib, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let (_, report) = watch::channel(Report::default());
    (Fib::with(true, Arc::clone(&inbox), report), inbox)
}

/// What waits for the thread.
fn wishes(inbox: &Inbox) -> Vec<Option<Route>> {
    let letters = inbox.take(Duration::ZERO);
    letters.map(|letters| letters.wishes.into_values().collect()).unwrap_or_default()
}

/// Whether the one wish so far is a blackhole; none: there is no wish.
fn last(inbox: &Inbox) -> Option<bool> {
    let wishes = wishes(inbox);
    assert!(wishes.len() < 2, "{wishes:?}");
    let route = wishes.into_iter().next()?.expect("a route that is wanted");
    Some(matches!(route.kind, RouteKind::Blackhole))
}

fn change(prefix: IpNet, learned: bool) -> FibChange {
    let next_hops = vec!["10.0.0.1".parse().unwrap()];
    FibChange { prefix, route: learned.then_some(FibRoute { next_hops, encap: None }) }
}

#[test]
fn a_blackhole_outlives_the_learned_route_it_replaced() {
    let (mut fib, inbox) = fib();
    let prefix: IpNet = "10.244.0.0/26".parse().unwrap();
    fib.learned(change(prefix, true));
    assert_eq!(last(&inbox), Some(false));
    fib.blackholes(&BTreeSet::from([prefix]));
    assert_eq!(last(&inbox), Some(true));
    fib.learned(change(prefix, false));
    assert_eq!(last(&inbox), None);
}

#[test]
fn what_forwards_nothing_writes_its_blackholes_alone() {
    let (mut fib, inbox) = fib();
    fib.installs = false;
    let prefix: IpNet = "10.244.0.0/26".parse().unwrap();
    fib.learned(change(prefix, true));
    assert_eq!(last(&inbox), None);
    fib.blackholes(&BTreeSet::from([prefix]));
    assert_eq!(last(&inbox), Some(true));
    fib.blackholes(&BTreeSet::new());
    assert_eq!(wishes(&inbox), [None]);
}

#[test]
fn a_learned_route_outlives_the_blackhole_it_waited_for() {
    let (mut fib, inbox) = fib();
    let prefix: IpNet = "10.244.0.0/26".parse().unwrap();
    fib.blackholes(&BTreeSet::from([prefix]));
    assert_eq!(last(&inbox), Some(true));
    fib.learned(change(prefix, true));
    assert_eq!(last(&inbox), None);
    fib.blackholes(&BTreeSet::new());
    assert_eq!(last(&inbox), Some(false));
}

#[test]
fn a_next_hop_behind_a_router_is_reached_through_it() {
    let (mut fib, inbox) = fib();
    let (next_hop, router): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.9.0.1".parse().unwrap());
    let gateways = |inbox: &Inbox| -> Vec<IpAddr> {
        let hop = |route: Option<Route>| match route?.kind {
            RouteKind::Unicast { next_hops } => next_hops[0].gateway,
            RouteKind::Blackhole | RouteKind::Connected { .. } => None,
        };
        wishes(inbox).into_iter().filter_map(hop).collect()
    };
    fib.leads(next_hop, NextHop::via_on(router, 3));
    fib.learned(change("10.244.0.0/26".parse().unwrap(), true));
    assert_eq!(gateways(&inbox), [router]);
    // The same again writes nothing; on a link of ours it is its own gateway.
    fib.leads(next_hop, NextHop::via_on(router, 3));
    assert_eq!(gateways(&inbox), Vec::<IpAddr>::new());
    fib.leads(next_hop, NextHop::via_on(next_hop, 2));
    assert_eq!(gateways(&inbox), [next_hop]);
}

#[test]
fn a_peer_that_changes_its_mind_a_thousand_times_leaves_one_wish() {
    let (mut fib, inbox) = fib();
    let prefixes: [IpNet; 2] = ["10.244.0.0/26", "10.244.0.64/26"].map(|prefix| prefix.parse().unwrap());
    for _ in 0..1000 {
        for prefix in prefixes {
            fib.learned(change(prefix, true));
            fib.learned(change(prefix, false));
        }
    }
    assert_eq!(wishes(&inbox), [None, None]);
    assert!(inbox.take(Duration::ZERO).is_none(), "taken is taken");
}

//! Few addresses, labels, ports and nets, so that everything meets everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use felix_calc::model::{
    Action, Answer, Endpoint, EndpointId, HostAction, ICMP, ICMPV6, Icmp, NamedPort, Namespaces,
    NodeSettings, NodeState, Peer, Policy, PolicyKey, PolicyKind, PortRange, Rule, SCTP, Selection, TCP,
    Tier, TierDefault, Traffic, UDP, UDP_LITE,
};
use felix_calc::nat::OutgoingNat;
use felix_calc::packet::{Connection, Packet, ports};
use felix_calc::selector::Selector;
use felix_calc::table::Family;
use ipnet::IpNet;

/// xorshift64: the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // splitmix64, so that neighbouring seeds differ
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as usize) % bound
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn some<T>(&mut self, percent: usize, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(percent).then(|| make(self))
    }
}

pub const NETS: [&str; 12] = [
    "10.0.0.0/8",
    "10.64.0.0/24",
    "10.64.0.0/30",
    "10.64.0.4/31",
    "10.64.0.6/32",
    "192.168.0.0/16",
    "192.168.1.0/24",
    "0.0.0.0/0",
    "fd00::/8",
    "fd00:64::/126",
    "fd00:64::6/128",
    "::/0",
];
const PORTS: [u16; 7] = [0, 53, 80, 443, 8080, 8081, 65535];
const KEYS: [&str; 3] = ["a", "b", "c"];
const VALUES: [&str; 2] = ["x", "xy"];
const NAMES: [&str; 2] = ["http", "dns"];
const NAMESPACES: [&str; 3] = ["blue", "green", "red"];
const PORT_CARRIERS: [u8; 4] = [TCP, UDP, SCTP, UDP_LITE];

/// What kind of state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// All that the model can say.
    General,
    /// What Kubernetes NetworkPolicy can say: Allow by one selection or one block with exceptions.
    Kubernetes,
}

pub fn state(random: &mut Random, style: Style) -> NodeState {
    let mut state = NodeState::new(settings(random));
    state.nat = nat(random);
    for namespace in NAMESPACES {
        if random.chance(80) {
            state.namespaces.insert(namespace.to_owned(), labels(random));
        }
    }
    for number in 0..8 {
        let endpoint = endpoint(random, number);
        let id = EndpointId::pod(&endpoint.namespace, &endpoint.name);
        state.endpoints.insert(id, endpoint);
    }
    if style == Style::General {
        for tier in ["first", "second"] {
            if random.chance(60) {
                state.tiers.insert(
                    tier.to_owned(),
                    Tier { order: random.pick(&[1, 2, 2_000_000]), default: tier_default(random) },
                );
            }
        }
    }
    for number in 0..1 + random.below(5) {
        let (key, policy) = policy(random, style, number);
        state.policies.insert(key, policy);
    }
    state
}

fn tier_default(random: &mut Random) -> TierDefault {
    random.pick(&[TierDefault::Deny, TierDefault::Pass])
}

fn settings(random: &mut Random) -> NodeSettings {
    let mut settings = NodeSettings {
        node_addresses: [ip("192.168.1.1"), ip("fd00:1::1")].into(),
        workload_to_host: random.pick(&[HostAction::Allow, HostAction::Deny]),
        implicit_deny: random.pick(&[Answer::Drop, Answer::Reject]),
        ..NodeSettings::default()
    };
    if random.chance(20) {
        settings.service_prefixes = ["192.168.1.0/24", "192.168.0.0/16", "fd00:64::/126"].map(net).into();
    }
    settings
}

pub fn nat(random: &mut Random) -> OutgoingNat {
    let mut some = |most: usize| (0..random.below(most)).map(|_| net(random.pick(&NETS))).collect::<Vec<_>>();
    let (pools, hidden) = (some(4), some(4));
    let excluded: Vec<_> = hidden.iter().map(|_| some(3).into_iter().collect()).collect();
    let nodes = ["192.168.1.1", "192.168.1.2", "fd00:1::1", "fd00:64::6"].map(ip);
    OutgoingNat {
        pools: pools.into_iter().collect(),
        nodes: nodes.into_iter().filter(|_| random.chance(50)).collect(),
        masquerade: hidden.into_iter().zip(excluded).collect(),
    }
}

pub fn endpoint(random: &mut Random, number: u8) -> Endpoint {
    let mut addresses = BTreeSet::new();
    if random.chance(90) {
        // Now and then an address that another has too.
        let last = if random.chance(5) { random.below(8) as u8 } else { number };
        addresses.insert(ip(&format!("10.64.0.{last}")));
    }
    if random.chance(70) {
        addresses.insert(ip(&format!("fd00:64::{number:x}")));
    }
    let port = |random: &mut Random| NamedPort {
        name: random.pick(&NAMES).to_owned(),
        protocol: random.pick(&PORT_CARRIERS),
        number: random.pick(&PORTS),
    };
    Endpoint {
        interface: (number < 5).then(|| interface(number)),
        addresses,
        sources: sources(random),
        namespace: random.pick(&NAMESPACES).to_owned(),
        name: format!("pod-{number}"),
        labels: labels(random),
        ports: (0..random.below(4)).map(|_| port(random)).collect(),
    }
}

pub fn sources(random: &mut Random) -> BTreeSet<IpNet> {
    if random.chance(25) { nets(random).into_iter().collect() } else { BTreeSet::new() }
}

pub fn interface(number: u8) -> String {
    format!("manx{number:011x}")
}

pub fn labels(random: &mut Random) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for key in KEYS {
        if random.chance(50) {
            labels.insert(key.to_owned(), random.pick(&VALUES).to_owned());
        }
    }
    labels
}

pub fn policy(random: &mut Random, style: Style, number: usize) -> (PolicyKey, Policy) {
    let namespace = random.pick(&NAMESPACES).to_owned();
    let general = style == Style::General;
    let key = PolicyKey {
        // Names against the order of creation, and twice the same in two namespaces.
        name: format!("policy-{}", 4usize.saturating_sub(number) / 2),
        namespace: namespace.clone(),
        kind: if general {
            random.pick(&[PolicyKind::KubernetesNetworkPolicy, PolicyKind::NetworkPolicy])
        } else {
            PolicyKind::KubernetesNetworkPolicy
        },
    };
    let applies_to = if general {
        selection(random)
    } else {
        Selection { namespaces: Namespaces::One(namespace.clone()), selector: kubernetes_selector(random) }
    };
    let types = random.below(10);
    let rules = |random: &mut Random| -> Vec<Rule> {
        (0..random.below(4)).map(|index| rule(random, style, index as u16, &namespace)).collect()
    };
    let policy = Policy {
        tier: if general {
            random.pick(&["default", "default", "kube-admin", "kube-baseline", "first", "second"])
        } else {
            "default"
        }
        .to_owned(),
        order: if general { random.some(70, |random| random.pick(&[1, 2, 1000])) } else { Some(1000) },
        applies_to,
        ingress: (types != 0).then(|| rules(random)),
        egress: (types == 0 || types > 4).then(|| rules(random)),
    };
    (key, policy)
}

fn rule(random: &mut Random, style: Style, index: u16, namespace: &str) -> Rule {
    match style {
        Style::Kubernetes => Rule {
            index,
            name: None,
            action: Action::Allow,
            family: None,
            peers: (0..random.below(3)).map(|_| kubernetes_peer(random, namespace)).collect(),
            traffic: (0..random.below(3)).map(|_| kubernetes_traffic(random)).collect(),
        },
        Style::General => Rule {
            index,
            name: random.some(30, |_| "named".to_owned()),
            action: random.pick(&[
                Action::Allow,
                Action::Allow,
                Action::Allow,
                Action::Deny,
                Action::Deny,
                Action::Reject,
                Action::Pass,
                Action::Log,
            ]),
            family: random.some(15, |random| random.pick(&[Family::Ipv4, Family::Ipv6])),
            peers: (0..random.below(3)).map(|_| peer(random)).collect(),
            traffic: (0..random.below(3)).map(|_| traffic(random)).collect(),
        },
    }
}

fn kubernetes_peer(random: &mut Random, namespace: &str) -> Peer {
    if random.chance(35) {
        let block = net(random.pick(&NETS));
        let inside: Vec<IpNet> =
            NETS.map(net).into_iter().filter(|n| block.contains(n) && *n != block).collect();
        let except = if inside.is_empty() {
            Vec::new()
        } else {
            (0..random.below(3)).map(|_| random.pick(&inside)).collect()
        };
        return Peer { nets: vec![block], not_nets: except, ..Peer::default() };
    }
    let namespaces = match random.below(3) {
        0 => Namespaces::One(namespace.to_owned()),
        1 => Namespaces::All,
        _ => Namespaces::Matching(kubernetes_selector(random)),
    };
    Peer {
        selection: Some(Selection { namespaces, selector: kubernetes_selector(random) }),
        ..Peer::default()
    }
}

fn kubernetes_traffic(random: &mut Random) -> Traffic {
    let mut traffic = Traffic { protocol: Some(random.pick(&[TCP, TCP, UDP, SCTP])), ..Traffic::default() };
    match random.below(4) {
        0 => {}
        1 => traffic.port_names = [random.pick(&NAMES).to_owned()].into(),
        _ => traffic.ports = ranges(random),
    }
    traffic
}

fn kubernetes_selector(random: &mut Random) -> Selector {
    let requirement = |random: &mut Random| {
        let key = random.pick(&KEYS).to_owned();
        match random.below(4) {
            0 => Selector::In(key, BTreeSet::from([random.pick(&VALUES).to_owned()])),
            1 => Selector::In(key, VALUES.map(str::to_owned).into()).negate(),
            2 => Selector::Has(key),
            _ => Selector::Has(key).negate(),
        }
    };
    match random.below(3) {
        0 => Selector::All,
        _ => Selector::And((0..1 + random.below(2)).map(|_| requirement(random)).collect()),
    }
}

fn selection(random: &mut Random) -> Selection {
    let namespaces = match random.below(4) {
        0 | 1 => Namespaces::All,
        2 => Namespaces::One(random.pick(&NAMESPACES).to_owned()),
        _ => Namespaces::Matching(selector(random, 1)),
    };
    Selection { namespaces, selector: selector(random, 2) }
}

pub fn selector(random: &mut Random, depth: usize) -> Selector {
    let key = random.pick(&KEYS).to_owned();
    let value = random.pick(&VALUES).to_owned();
    let below = |random: &mut Random| selector(random, depth.saturating_sub(1));
    match random.below(if depth == 0 { 8 } else { 12 }) {
        0 | 1 => Selector::All,
        2 => Selector::Has(key),
        3 => Selector::Equals(key, value),
        4 => Selector::In(key, [value].into()),
        5 => Selector::Contains(key, "y".to_owned()),
        6 => Selector::StartsWith(key, "x".to_owned()),
        7 => Selector::EndsWith(key, "x".to_owned()),
        8 | 9 => below(random).negate(),
        10 => Selector::And(vec![below(random), below(random)]),
        _ => Selector::Or(vec![below(random), below(random)]),
    }
}

fn peer(random: &mut Random) -> Peer {
    Peer {
        selection: random.some(50, selection),
        not_selection: random.some(20, selection),
        nets: if random.chance(30) { nets(random) } else { Vec::new() },
        not_nets: if random.chance(25) { nets(random) } else { Vec::new() },
    }
}

fn nets(random: &mut Random) -> Vec<IpNet> {
    (0..1 + random.below(3)).map(|_| net(random.pick(&NETS))).collect()
}

fn traffic(random: &mut Random) -> Traffic {
    let mut traffic = Traffic::default();
    match random.below(9) {
        0 => {}
        1 => traffic.protocol = Some(random.pick(&[TCP, UDP, SCTP, ICMP, ICMPV6, 47])),
        2 => traffic.not_protocol = Some(random.pick(&[TCP, UDP, ICMP])),
        3 | 4 => {
            traffic.protocol = random.some(70, |random| random.pick(&PORT_CARRIERS));
            traffic.ports = ranges(random);
        }
        5 => {
            traffic.protocol = random.some(50, |random| random.pick(&PORT_CARRIERS));
            traffic.port_names = (0..1 + random.below(2)).map(|_| random.pick(&NAMES).to_owned()).collect();
            if random.chance(30) {
                traffic.ports = ranges(random);
            }
        }
        6 => traffic.not_ports = ranges(random),
        7 => {
            traffic.protocol = random.some(70, |random| random.pick(&[ICMP, ICMPV6]));
            traffic.icmp = Some(icmp(random));
        }
        _ => {
            traffic.protocol = random.some(70, |random| random.pick(&[ICMP, ICMPV6]));
            traffic.not_icmp = Some(icmp(random));
            traffic.icmp = random.some(20, icmp);
        }
    }
    if random.chance(12) && traffic.icmp.is_none() && traffic.not_icmp.is_none() {
        traffic.source_ports = ranges(random);
    }
    traffic
}

fn icmp(random: &mut Random) -> Icmp {
    Icmp { kind: random.pick(&[0, 3, 8, 128]), code: random.some(50, |random| random.below(2) as u8) }
}

fn ranges(random: &mut Random) -> Vec<PortRange> {
    let range = |random: &mut Random| {
        let (a, b) = (random.pick(&PORTS), random.pick(&PORTS));
        if random.chance(50) { PortRange::single(a) } else { PortRange { first: a.min(b), last: a.max(b) } }
    };
    (0..1 + random.below(3)).map(|_| range(random)).collect()
}

pub fn packet(random: &mut Random, state: &NodeState) -> Packet {
    let v6 = random.chance(35);
    let (source, destination) = (address(random, state, v6), address(random, state, v6));
    let interface = |random: &mut Random, address: IpAddr| {
        let holder = state
            .endpoints
            .values()
            .filter(|e| e.addresses.contains(&address))
            .find_map(|e| e.interface.clone());
        match random.below(100) {
            0..2 => Some(interface(random.below(8) as u8)),
            2..4 => Some("manx-nobody".to_owned()),
            4..6 => Some("eth0".to_owned()),
            _ => Some(holder.unwrap_or_else(|| "eth0".to_owned())),
        }
    };
    let borrowed = random.some(10, |random| borrowed(random, state, v6)).flatten();
    let protocol = if v6 {
        [TCP, TCP, TCP, UDP, UDP, SCTP, UDP_LITE, ICMPV6, ICMPV6, 47]
    } else {
        [TCP, TCP, TCP, UDP, UDP, SCTP, UDP_LITE, ICMP, ICMP, 47]
    };
    let protocol = if random.chance(2) { random.pick(&[ICMP, ICMPV6]) } else { random.pick(&protocol) };
    let (input, source) = match borrowed {
        Some((input, source)) => (Some(input), source),
        None => (interface(random, source), source),
    };
    let output = interface(random, destination);
    let to_node = random.chance(20);
    Packet {
        input,
        output: output.filter(|_| !to_node),
        source,
        destination,
        protocol,
        header: (!random.chance(5)).then(|| header(random, protocol, to_node)),
        hop_limit: random.pick(&[255, 255, 64, 1]),
        connection: random.pick(&[
            Connection::New,
            Connection::New,
            Connection::New,
            Connection::New,
            Connection::New,
            Connection::New,
            Connection::New,
            Connection::Established,
            Connection::Related,
            Connection::Invalid,
            Connection::Untracked,
        ]),
        dnat: random.chance(20),
    }
}

/// From a pod that may, at or just behind an edge of what it may.
fn borrowed(random: &mut Random, state: &NodeState, v6: bool) -> Option<(String, IpAddr)> {
    let of_family = |net: &&IpNet| net.network().is_ipv6() == v6;
    let may: Vec<(String, IpNet)> = state
        .endpoints
        .values()
        .filter_map(|endpoint| Some((endpoint.interface.clone()?, endpoint)))
        .flat_map(|(name, e)| e.sources.iter().filter(of_family).map(move |net| (name.clone(), *net)))
        .collect();
    if may.is_empty() {
        return None;
    }
    let (interface, net) = random.pick(&may);
    Some((interface, edge(random, net)))
}

/// Of a pod mostly; else at an edge of a net, or from far away.
fn address(random: &mut Random, state: &NodeState, v6: bool) -> IpAddr {
    let held: Vec<IpAddr> = state
        .endpoints
        .values()
        .flat_map(|e| e.addresses.iter().copied())
        .filter(|a| a.is_ipv6() == v6)
        .collect();
    match random.below(10) {
        0..7 if !held.is_empty() => random.pick(&held),
        7 | 8 => {
            let nets: Vec<IpNet> =
                NETS.map(net).into_iter().filter(|n| n.network().is_ipv6() == v6).collect();
            let net = random.pick(&nets);
            edge(random, net)
        }
        _ => ip(if v6 {
            random.pick(&["2001:db8::1", "fe80::2"])
        } else {
            random.pick(&["203.0.113.1", "255.255.255.255"])
        }),
    }
}

fn edge(random: &mut Random, net: IpNet) -> IpAddr {
    let edge = random.pick(&[net.network(), net.broadcast()]);
    let step = random.pick(&[-1, 0, 1]);
    match edge {
        IpAddr::V4(a) => IpAddr::V4(u32::from(a).wrapping_add_signed(step).into()),
        IpAddr::V6(a) => IpAddr::V6(u128::from(a).wrapping_add_signed(i128::from(step)).into()),
    }
}

/// Ports for those that carry them; a message for ICMP; the other's bytes in it are garbage on purpose.
fn header(random: &mut Random, protocol: u8, to_node: bool) -> [u8; 4] {
    let port = |random: &mut Random| random.pick(&PORTS).wrapping_add(if random.chance(30) { 1 } else { 0 });
    let mut header = ports(port(random), port(random));
    if to_node && random.chance(30) {
        header = ports(port(random), random.pick(&[179, 3784, 4784]));
    }
    if protocol == ICMP || protocol == ICMPV6 {
        header[0] = random.pick(&[0, 3, 8, 128, 130, 132, 133, 134, 135, 136, 137, 143]);
        header[1] = random.below(3) as u8;
    }
    header
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

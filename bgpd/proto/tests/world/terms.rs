//! What a node has configured towards a neighbour, as a seed draws it and trouble changes it.

use std::collections::BTreeSet;
use std::time::Duration;

use bgp_proto::Asn;
use bgp_proto::config::{AddPath, GracefulRestart, GracefulRestartMode};
use bgp_proto::policy::{Action, Changes, Filter, Match, NextHopMode, PrefixRange, Rule};
use bgp_proto::wire::Role;
use ipnet::IpNet;

use super::{End, World, prefixes};
use crate::sim::Rng;

/// What people configure in a world beside `transit` and `within`; a seed draws each by itself, so that they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kinds {
    /// Filters, audiences of own routes, drained sessions.
    pub(crate) filters: bool,
    pub(crate) roles: bool,
    /// Several nodes in one AS, some of them reflectors.
    pub(crate) reflection: bool,
    /// Several paths per prefix, here and there, in one direction or both (RFC 7911).
    pub(crate) several: bool,
    /// Sessions over link-local and over global IPv6 addresses, IPv4 prefixes with IPv6 next hops (RFC 8950).
    pub(crate) unnumbered: bool,
    /// Whose next hop is told, how many are used, and some that lead nowhere.
    pub(crate) next_hops: bool,
    /// Who keeps what of whom, and for how long (RFC 4724, RFC 8538, RFC 9494).
    pub(crate) restarts: bool,
    /// Neighbours that are known by a range.
    pub(crate) ranges: bool,
    /// Another AS towards some (RFC 7705), our own in a path.
    pub(crate) asns: bool,
}

impl Kinds {
    pub(crate) const ALL: Kinds = Kinds {
        filters: true,
        roles: true,
        reflection: true,
        several: true,
        unnumbered: true,
        next_hops: true,
        restarts: true,
        ranges: true,
        asns: true,
    };

    /// What decides who is told which of several paths, and nothing that keeps routes from being told besides.
    const RELATIONS: Kinds = Kinds {
        filters: false,
        roles: true,
        reflection: true,
        several: true,
        unnumbered: true,
        next_hops: false,
        restarts: false,
        ranges: false,
        asns: false,
    };

    /// Of every four seeds two have most, one about half, and one the relations alone.
    pub(crate) fn of(seed: u64) -> Kinds {
        if seed % 4 == 1 {
            return Kinds::RELATIONS;
        }
        let bits = Rng(seed ^ 0x4B49_4E44).next();
        let is_rich = seed.is_multiple_of(2);
        let has = |bit: u32| bits >> bit & 1 == 1 || is_rich && bits >> (16 + 2 * bit) & 3 != 0;
        Kinds {
            filters: has(0),
            roles: has(1),
            reflection: has(2),
            several: has(3),
            unnumbered: has(4),
            next_hops: has(5),
            restarts: has(6),
            ranges: has(7),
            asns: has(8),
        }
    }

    /// What is drawn, and drawn again in trouble.
    pub(crate) fn changes(self) -> Vec<Change> {
        let some =
            |there_are: bool, changes: &[Change]| changes.iter().filter(|_| there_are).copied().collect();
        let lists: [Vec<Change>; 9] = [
            vec![Change::Transit, Change::Within],
            some(self.filters, &[Change::Withheld, Change::Refused, Change::Drained]),
            some(self.roles, &[Change::Role]),
            some(self.reflection, &[Change::Client]),
            some(self.several, &[Change::Paths, Change::Count]),
            some(self.unnumbered, &[Change::Extended, Change::Named]),
            some(self.next_hops, &[Change::NextHop]),
            some(self.restarts, &[Change::Restart]),
            some(self.asns, &[Change::LocalAsn, Change::OwnAsn]),
        ];
        let mut changes = lists.concat();
        changes.extend(self.ranges.then_some(Change::Range));
        changes
    }
}

/// What of the terms is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Transit,
    Within,
    Withheld,
    Refused,
    Drained,
    Role,
    Client,
    Paths,
    Count,
    Extended,
    Named,
    NextHop,
    Restart,
    LocalAsn,
    OwnAsn,
    Range,
}

/// What a node has configured towards a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// It tells what it learned elsewhere.
    pub(crate) transit: bool,
    /// What it takes; `None`: everything.
    pub(crate) within: Option<IpNet>,
    /// What a filter withholds from the neighbour.
    pub(crate) withheld: BTreeSet<IpNet>,
    /// What a filter refuses of it.
    pub(crate) refused: BTreeSet<IpNet>,
    /// All is told with GRACEFUL_SHUTDOWN.
    pub(crate) drained: bool,
    /// What it is to the neighbour (RFC 9234).
    pub(crate) role: Option<Role>,
    /// The neighbour is reflected to and from (RFC 4456).
    pub(crate) client: bool,
    pub(crate) add_path: AddPath,
    pub(crate) extended_next_hop: bool,
    /// It has an IPv4 address to name where the session is over IPv6.
    pub(crate) names_ipv4: bool,
    /// It has a global IPv6 address to name where the session is over an interface.
    pub(crate) names_ipv6: bool,
    pub(crate) next_hop: NextHopMode,
    pub(crate) graceful_restart: GracefulRestart,
    pub(crate) local_asn: Option<Asn>,
    pub(crate) allow_own_asn: u8,
    /// It knows the neighbour by a range, and waits for it.
    pub(crate) by_range: bool,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            transit: true,
            within: None,
            withheld: BTreeSet::new(),
            refused: BTreeSet::new(),
            drained: false,
            role: None,
            client: false,
            add_path: AddPath::default(),
            extended_next_hop: false,
            names_ipv4: false,
            names_ipv6: false,
            next_hop: NextHopMode::Auto,
            graceful_restart: GracefulRestart::default(),
            local_asn: None,
            allow_own_asn: 0,
            by_range: false,
        }
    }
}

impl World {
    /// Draws one of the terms anew.
    pub(crate) fn draw(&mut self, (node, peer): End, change: Change, rng: &mut Rng) {
        match change {
            Change::Role => return self.relate(node, peer, rng),
            // Numbers that nobody has: a session within an AS becomes one between two.
            Change::LocalAsn => {
                let asn = rng.once_in(6).then(|| self.fresh_asn());
                return self.end_mut((node, peer)).local_asn = asn;
            }
            Change::Range => {
                let may = !self.cabling.is_unnumbered(node, peer) && !self.ends[&(peer, node)].by_range;
                return self.end_mut((node, peer)).by_range = may && rng.once_in(3);
            }
            _ => {}
        }
        self.end_mut((node, peer)).draw(change, rng);
    }

    pub(super) fn end_mut(&mut self, end: End) -> &mut Terms {
        self.ends.get_mut(&end).unwrap()
    }
}

impl Terms {
    fn draw(&mut self, change: Change, rng: &mut Rng) {
        match change {
            Change::Transit => self.transit = !rng.once_in(4),
            Change::Within => {
                let within = ["10.244.0.0/22", "fd00:244::/46", "10.0.0.0/8"][rng.pick(3)].parse().unwrap();
                self.within = rng.once_in(6).then_some(within);
            }
            Change::Withheld => self.withheld = some_prefixes(rng),
            Change::Refused => self.refused = some_prefixes(rng),
            Change::Drained => self.drained = rng.once_in(8),
            Change::Client => self.client = rng.once_in(3),
            Change::Paths => {
                let (receive, sends) = (!rng.once_in(4), !rng.once_in(4));
                self.add_path = AddPath { receive, send: if sends { [1, 2, 3, 4][rng.pick(4)] } else { 0 } };
            }
            // How many is no part of an OPEN, so it changes under a session.
            Change::Count if self.add_path.send > 0 => self.add_path.send = [1, 2, 3, 4][rng.pick(4)],
            Change::Extended => self.extended_next_hop = !rng.once_in(4),
            Change::Named => (self.names_ipv4, self.names_ipv6) = (rng.once_in(4), rng.once_in(2)),
            Change::NextHop => {
                self.next_hop =
                    [NextHopMode::Auto, NextHopMode::Auto, NextHopMode::Own, NextHopMode::Keep][rng.pick(4)];
            }
            Change::Restart => self.graceful_restart = restart(rng),
            Change::OwnAsn => self.allow_own_asn = [0, 0, 0, 1, 2][rng.pick(5)],
            Change::Count | Change::Role | Change::LocalAsn | Change::Range => {}
        }
    }
}

fn some_prefixes(rng: &mut Rng) -> BTreeSet<IpNet> {
    prefixes().into_iter().filter(|_| rng.once_in(8)).collect()
}

/// Times that [`super::Since`] tells apart: what is kept goes or becomes long-lived stale within 120 s; that goes after 300 s more, or 400.
fn restart(rng: &mut Rng) -> GracefulRestart {
    let modes = [GracefulRestartMode::Full, GracefulRestartMode::Helper, GracefulRestartMode::Disabled];
    GracefulRestart {
        mode: if rng.once_in(2) { GracefulRestartMode::Full } else { modes[rng.pick(3)] },
        restart_time: Duration::from_secs([60, 120][rng.pick(2)]),
        long_lived_stale_time: Duration::from_secs([0, 300, 400, 400][rng.pick(4)]),
        notification: !rng.once_in(4),
        ..GracefulRestart::default()
    }
}

/// One rule for each prefix that is refused.
pub(super) fn refusing(prefixes: &BTreeSet<IpNet>) -> Filter {
    let rule = |prefix: &IpNet| {
        let length = prefix.prefix_len();
        let range = PrefixRange { net: *prefix, min_length: length, max_length: length };
        Rule {
            name: prefix.to_string().into(),
            matches: Match { prefixes: vec![range], ..Match::default() },
            action: Action::Reject,
            changes: Changes::default(),
        }
    };
    prefixes.iter().map(rule).collect()
}

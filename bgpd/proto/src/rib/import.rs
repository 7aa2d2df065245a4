//! Import: from a set as received to a path with the set that counts, or with why it is no candidate.
//!
//! What is said of a set is asked once an UPDATE, what is said of a prefix once a prefix. What filters make of a set is made once
//! for each change, until the drain that frees sets.

use ipnet::IpNet;

use super::attrs::{AttrId, LONGEST};
use super::core::{Core, Family, Peer};
use super::long_lived::LLGR_STALE;
use super::next_hop::is_martian;
use super::table::{LOCAL, Path};
use crate::policy::{Changes, GRACEFUL_SHUTDOWN, ImportRejection, ImportVerdict, Route, Source, carries};
use crate::types::{Asn, PeerId};
use crate::wire::Role;
use crate::wire::as_path;
use crate::wire::attr::{self, Key, code};

/// How often a path may have a number that other peers know us by: more than anybody prepends.
const MOST_ALIASES: usize = 16;

/// A received set with what import says of it, whatever the prefix.
#[derive(Clone, Copy)]
pub(super) struct Set {
    pub id: AttrId,
    pub rejected: Option<ImportRejection>,
    /// An external peer asks for the last choice (RFC 8326).
    is_leaving: bool,
}

/// What changes made of sets: looked up, never walked. Emptied whenever sets are freed, since their ids are used again.
#[derive(Debug, Default)]
pub(super) struct Changed {
    changes: Vec<Changes>,
    /// Set and place in `changes`, and the set that came of it.
    made: hashbrown::HashTable<((AttrId, u32), Option<AttrId>)>,
}

fn spread((set, change): (AttrId, u32)) -> u64 {
    super::hash::fold(u64::from(set) << 32 | u64::from(change), 0xA076_1D64_78BD_642F)
}

impl Changed {
    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.made.clear();
        self.made.shrink_to(4096, |(key, _)| spread(*key));
    }

    fn place(&mut self, changes: Changes) -> u32 {
        let known = self.changes.iter().position(|known| *known == changes);
        let place = known.unwrap_or_else(|| {
            self.changes.push(changes);
            self.changes.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

impl Core {
    pub(super) fn judged(&self, from: PeerId, id: AttrId) -> Set {
        let external = self.peer(from).is_some_and(|peer| peer.facts.is_external());
        let is_leaving = external && carries(self.attrs.bytes(id), GRACEFUL_SHUTDOWN, None);
        Set { id, rejected: self.refuses_set(from, id), is_leaving }
    }

    /// What import says of a set, whatever the prefix and the filters.
    fn refuses_set(&self, from: PeerId, id: AttrId) -> Option<ImportRejection> {
        let (key, peer) = (self.attrs.key(id), self.peer(from)?);
        let import = &peer.facts.import;
        if self.is_loop(id, &key, peer) {
            return Some(ImportRejection::AsPathLoop);
        }
        if key.has(Key::REFLECTION_LOOP) {
            let originator = attr::find(self.attrs.bytes(id), code::ORIGINATOR_ID).map(attr::be32);
            return Some(match originator == Some(u32::from(self.config.router_id.0)) {
                true => ImportRejection::OriginatorLoop,
                false => ImportRejection::ClusterLoop,
            });
        }
        if peer.facts.role.is_some_and(|role| is_leak(self.attrs.bytes(id), role, peer.facts.remote_asn)) {
            return Some(ImportRejection::RouteLeak);
        }
        let next_hop = self.next_hops.address(key.next_hop);
        if is_martian(next_hop) {
            return Some(ImportRejection::NextHopMartian);
        }
        if peer.takes_all { None } else { import.refuses_next_hop(next_hop) }
    }

    /// RFC 4271 §9.1.2: we are in the path. Under a number that other peers know us by it may be somebody else, a router that keeps the
    /// number through a migration (RFC 7705); but where it is us, nothing else ends the circle, since our own number is not said.
    fn is_loop(&self, id: AttrId, key: &Key, peer: &Peer) -> bool {
        if !key.has(Key::OWN_AS) && self.aliases.is_empty() {
            return false;
        }
        let path = attr::find(self.attrs.bytes(id), code::AS_PATH).unwrap_or_default();
        let (mut own, mut alias) = (0, 0);
        for segment in as_path::segments(path, 4) {
            for asn in segment.asns() {
                own += usize::from(asn == self.config.asn || asn == peer.facts.local_asn);
                alias += usize::from(self.aliases.contains(&asn));
            }
        }
        let allowed = usize::from(peer.facts.import.allow_own_asn);
        own > allowed || alias > MOST_ALIASES.max(allowed)
    }

    /// The word of the peer's policy on a path.
    pub(super) fn import_verdict(&self, from: PeerId, set: &Set, prefix: &IpNet) -> ImportVerdict {
        let Some(peer) = self.peer(from).filter(|_| set.rejected.is_none()) else {
            return ImportVerdict { rejected: set.rejected, ..ImportVerdict::default() };
        };
        let external = peer.facts.is_external();
        let route = Route {
            prefix,
            sources: if external { Source::External } else { Source::Internal }.into(),
            next_hop: Some(self.next_hop_of(set.id)),
            attributes: self.attrs.bytes(set.id),
        };
        peer.facts.import.judge(&route, external)
    }

    /// The path that import makes of a set and a prefix.
    pub(super) fn imported(&mut self, from: PeerId, set: &Set, prefix: impl FnOnce() -> IpNet) -> Path {
        let raw = set.id;
        let asks_nobody =
            set.rejected.is_some() || !set.is_leaving && self.peer(from).is_none_or(|peer| peer.takes_all);
        if asks_nobody {
            let rejected = rejection_code(set.rejected);
            return Path { attrs: raw, raw, path_id: 0, peer: from, flags: 0, rejected };
        }
        let verdict = self.import_verdict(from, set, &prefix());
        let made = verdict.changes.map_or(Some(raw), |changes| self.changed(raw, *changes));
        let rejected = verdict.rejected.or(made.is_none().then_some(ImportRejection::AttributesTooLong));
        let rejected = rejection_code(rejected);
        Path { attrs: made.unwrap_or(raw), raw, path_id: 0, peer: from, flags: 0, rejected }
    }

    /// A set with changes; `None`: it is longer than any message may be.
    pub(super) fn changed(&mut self, raw: AttrId, changes: Changes) -> Option<AttrId> {
        let key = (raw, self.changed.place(changes));
        if let Some((_, made)) = self.changed.made.find(spread(key), |(known, _)| *known == key) {
            return *made;
        }
        let made = self.make(raw, key.1);
        self.changed.made.insert_unique(spread(key), (key, made), |(key, _)| spread(*key));
        made
    }

    fn make(&mut self, raw: AttrId, change: u32) -> Option<AttrId> {
        let changes = self.changed.changes.get(change as usize)?;
        let (before, mut bytes) = (self.attrs.bytes(raw), Vec::new());
        changes.apply(before, &mut bytes);
        if bytes == before {
            return Some(raw);
        }
        if bytes.len() > LONGEST {
            return None;
        }
        let key = changed_key(self.attrs.key(raw), changes, &bytes, self.config.asn.0);
        Some(self.attrs.intern(&bytes, key, &mut self.next_hops))
    }

    /// Runs import again over everything that some peers sent in one family.
    pub(super) fn import_again<A: Family>(&mut self, sent_it: impl Fn(PeerId) -> bool) {
        for slot in 0..A::plane(self).table.slots() {
            let Some((addr, len)) = A::plane(self).table.prefix(slot) else { continue };
            let learned = A::plane(self).table.paths(slot).map(|(path, _)| path);
            let concerned = learned.filter(|path| path.peer != LOCAL && sent_it(path.peer));
            for path in concerned.collect::<Vec<_>>() {
                let set = self.judged(path.peer, path.raw);
                let Path { mut attrs, rejected, .. } = self.imported(path.peer, &set, || addr.prefix(len));
                if path.has(Path::LONG_LIVED_STALE) {
                    attrs = self.long_lived_set(attrs);
                }
                if (attrs, rejected) != (path.attrs, path.rejected) {
                    self.put_path::<A>(slot, Path { attrs, rejected, ..path });
                }
            }
        }
    }
}

/// RFC 9234 §5, ingress: an ONLY_TO_CUSTOMER that has come up from a customer or a client, or sideways from another AS than the
/// peer's own.
fn is_leak(set: &[u8], role: Role, peer: Asn) -> bool {
    let Some(marked) = attr::find(set, code::ONLY_TO_CUSTOMER) else { return false };
    match role {
        Role::Provider | Role::RouteServer => true,
        Role::Peer => attr::be32(marked) != peer.0,
        Role::Customer | Role::RouteServerClient => false,
    }
}

/// What the decision reads from a changed set: as all of a key, a function of its bytes and its identity.
fn changed_key(raw: Key, changes: &Changes, bytes: &[u8], own_as: u32) -> Key {
    let mut key = Key { flags: raw.flags | Key::CHANGED, ..raw };
    key.local_pref = changes.local_pref.unwrap_or(raw.local_pref);
    key.med = changes.med.unwrap_or(raw.med);
    if let Some(first) = changes.prepend.first() {
        key.neighbor_as = first.0;
        key.tail += u32::try_from(changes.prepend.len()).unwrap_or(u32::MAX >> 8) << 8;
        key.flags |= if changes.prepend.iter().any(|asn| asn.0 == own_as) { Key::OWN_AS } else { 0 };
    }
    let communities = attr::find(bytes, code::COMMUNITIES).unwrap_or_default();
    key.flags = key.flags & !(Key::NO_EXPORT | Key::NO_ADVERTISE) | attr::community_flags(communities);
    let long_lived = communities.chunks_exact(4).any(|one| attr::be32(one) == LLGR_STALE);
    key.tail = key.tail & !Key::LONG_LIVED_STALE | if long_lived { Key::LONG_LIVED_STALE } else { 0 };
    key
}

fn rejection_code(rejection: Option<ImportRejection>) -> u8 {
    let place = rejection.and_then(|r| ImportRejection::ALL.iter().position(|known| *known == r));
    place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0)
}

/// What [`Path::rejected`] stands for.
pub(super) fn rejection(code: u8) -> Option<ImportRejection> {
    ImportRejection::ALL.get(usize::from(code.checked_sub(1)?)).copied()
}

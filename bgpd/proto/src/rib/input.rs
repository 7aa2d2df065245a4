//! UPDATEs, originations and policies on their way into the table.

use ipnet::IpNet;

use super::attrs::LONGEST;
use super::core::{Core, Family};
use super::import::Set;
use super::next_hop::SELF;
use super::table::{LOCAL, Path, Slot};
use super::values::{OriginAttributes, Origination, Tag, UpdateOutcome};
use crate::link_local;
use crate::types::{AfiSafi, PeerId};
use crate::wire::as_path;
use crate::wire::attr::{self, Key, code, flag};
use crate::wire::canonical::{self, Parsed, Reach, Receiver, Scratch};
use crate::wire::next_hop;
use crate::wire::nlri::{self, Address, V6};
use crate::wire::update::{self, Fields};
use crate::wire::verdict::{ErrorAction, Fault, subcode};

/// The path id of an originated route that no tag lets out.
const UNTOLD: u32 = u32::MAX;
/// Paths of one prefix that are taken from one peer; as many again may be left from before its restart.
const MOST_PATHS: usize = 256;

impl Core {
    fn receiver(&self, peer: PeerId) -> Option<Receiver> {
        let facts = &self.peer(peer)?.facts;
        Some(Receiver {
            external: facts.is_external(),
            four_octet_as: facts.four_octet_as,
            own_as: self.config.asn.0,
            peer_as: facts.remote_asn.0,
            router_id: u32::from(self.config.router_id.0),
            ipv4: facts.families.contains(&AfiSafi::Ipv4Unicast),
            ipv6: facts.families.contains(&AfiSafi::Ipv6Unicast),
            ipv4_paths: facts.add_path_receive.contains(&AfiSafi::Ipv4Unicast),
            ipv6_paths: facts.add_path_receive.contains(&AfiSafi::Ipv6Unicast),
            extended_next_hop: facts.extended_next_hop,
            interface: link_local::parts(facts.address).map_or(0, |(_, interface)| interface),
            role: facts.role,
        })
    }

    /// See [`super::Rib::update`]. All of the UPDATE is checked before any of it is applied.
    pub(super) fn update(&mut self, from: PeerId, body: &[u8], scratch: &mut Scratch) -> UpdateOutcome {
        let mut outcome = UpdateOutcome::default();
        let Some(receiver) = self.receiver(from) else { return outcome };
        let fields = match check_fields(body, receiver.ipv4_paths) {
            Ok(fields) => fields,
            Err(fault) => {
                outcome.faults.push(fault);
                return outcome;
            }
        };
        if let Some(family) = update::end_of_rib(&fields) {
            outcome.end_of_rib = Some(family).filter(|family| receiver.carries(*family));
            return outcome;
        }
        if let Some(set) = self.known_set(from, &fields, &receiver) {
            self.withdraw_all::<u32>(from, fields.withdrawn, &mut outcome);
            self.announce_all::<u32>(from, fields.nlri, set, &mut outcome);
            return outcome;
        }
        let nlri = !fields.nlri.is_empty();
        let parsed = canonical::parse(fields.attributes, nlri, &receiver, scratch, &mut outcome.faults);
        let Some(parsed) = parsed else { return outcome };
        self.apply(from, &fields, &parsed, &receiver, scratch, &mut outcome);
        outcome
    }

    /// The set of an UPDATE whose attributes are canonical as received and known already: the common case.
    fn known_set(&self, from: PeerId, fields: &Fields<'_>, receiver: &Receiver) -> Option<Set> {
        // A role may add an attribute to what is received.
        if fields.nlri.is_empty() || !receiver.four_octet_as || !receiver.ipv4 || receiver.role.is_some() {
            return None;
        }
        let identity = if receiver.external { Key::EBGP } else { 0 };
        let id = self.attrs.find(fields.attributes, identity)?;
        let key = self.attrs.key(id);
        // What is checked per peer was checked for another one; and our own routes' sets are no peer's.
        let fits = !receiver.external || key.neighbor_as == receiver.peer_as;
        (fits && key.next_hop != SELF).then(|| self.judged(from, id))
    }

    fn apply(
        &mut self,
        from: PeerId,
        fields: &Fields<'_>,
        parsed: &Parsed<'_>,
        receiver: &Receiver,
        scratch: &mut Scratch,
        outcome: &mut UpdateOutcome,
    ) {
        for fault in &outcome.faults {
            if let ErrorAction::AfiSafiDisable(family) = fault.action {
                self.disable(from, family);
            }
        }
        if receiver.ipv4 {
            self.withdraw_all::<u32>(from, fields.withdrawn, outcome);
            if !fields.nlri.is_empty() {
                self.apply_reach::<u32>(from, None, fields.nlri, parsed, scratch, outcome);
            }
        } else if !fields.withdrawn.is_empty() || !fields.nlri.is_empty() {
            let (attribute, reason, rfc) = (0, "IPv4 prefixes, which were not negotiated", "RFC 4760 §6");
            let action = ErrorAction::AttributeDiscard;
            canonical::note(&mut outcome.faults, Fault { action, attribute, reason, rfc, data: vec![] });
        }
        if let Some(unreach) = parsed.unreach {
            match unreach.family {
                AfiSafi::Ipv4Unicast => self.withdraw_all::<u32>(from, unreach.nlri, outcome),
                AfiSafi::Ipv6Unicast => self.withdraw_all::<V6>(from, unreach.nlri, outcome),
            }
        }
        if let Some(reach) = parsed.reach.filter(|reach| !reach.nlri.is_empty()) {
            match reach.family {
                AfiSafi::Ipv4Unicast => {
                    self.apply_reach::<u32>(from, Some(&reach), reach.nlri, parsed, scratch, outcome);
                }
                AfiSafi::Ipv6Unicast => {
                    self.apply_reach::<V6>(from, Some(&reach), reach.nlri, parsed, scratch, outcome);
                }
            }
        }
    }

    /// RFC 7606 §2, RFC 4760 §7: the peer's routes of the family are deleted, and its further ones ignored while the session lasts.
    fn disable(&mut self, from: PeerId, family: AfiSafi) {
        if let Some(peer) = self.peer_mut(from) {
            *peer.disabled.of_mut(family) = true;
        }
        match family {
            AfiSafi::Ipv4Unicast => self.drop_all::<u32>(&[from].into()),
            AfiSafi::Ipv6Unicast => self.drop_all::<V6>(&[from].into()),
        }
    }

    fn apply_reach<A: Family>(
        &mut self,
        from: PeerId,
        reach: Option<&Reach<'_>>,
        nlri: &[u8],
        parsed: &Parsed<'_>,
        scratch: &mut Scratch,
        outcome: &mut UpdateOutcome,
    ) {
        if parsed.withdraw {
            return self.withdraw_all::<A>(from, nlri, outcome);
        }
        let (key, next_hop) = parsed.compose(reach, scratch);
        if scratch.out.len() > LONGEST {
            let (action, attribute) = (ErrorAction::TreatAsWithdraw, 0);
            let (reason, rfc) = ("attributes longer than any message may be", "RFC 7606 §2");
            canonical::note(&mut outcome.faults, Fault { action, attribute, reason, rfc, data: vec![] });
            return self.withdraw_all::<A>(from, nlri, outcome);
        }
        let next_hop = self.next_hops.intern(next_hop::address(next_hop.octets()));
        let id = self.attrs.intern(&scratch.out, Key { next_hop, ..key }, &mut self.next_hops);
        let set = self.judged(from, id);
        self.announce_all::<A>(from, nlri, set, outcome);
    }

    fn withdraw_all<A: Family>(&mut self, from: PeerId, nlri: &[u8], outcome: &mut UpdateOutcome) {
        if self.peer(from).is_none_or(|peer| *peer.disabled.of(A::FAMILY)) {
            return;
        }
        let ids = self.takes_paths(from, A::FAMILY);
        nlri::each_path::<A>(nlri, ids, |addr, len, path_id| {
            outcome.withdrawn += 1;
            // RFC 7911 §5: an identifier not seen before is ignored.
            self.withdraw::<A>(addr, len, from, path_id);
        });
    }

    fn announce_all<A: Family>(&mut self, from: PeerId, nlri: &[u8], set: Set, outcome: &mut UpdateOutcome) {
        if self.peer(from).is_none_or(|peer| *peer.disabled.of(A::FAMILY)) {
            return;
        }
        let ids = self.takes_paths(from, A::FAMILY);
        let mut too_many = false;
        nlri::each_path::<A>(nlri, ids, |addr, len, path_id| {
            if ids && self.has_its_paths::<A>(addr, len, from, path_id) {
                too_many = true;
                outcome.withdrawn += 1;
                return;
            }
            outcome.announced += 1;
            let path = self.imported(from, &set, || addr.prefix(len));
            self.announce::<A>(addr, len, Path { path_id, ..path });
        });
        if too_many {
            let (action, reason) = (ErrorAction::TreatAsWithdraw, "more than 256 paths of one prefix");
            let fault = Fault { action, attribute: 0, reason, rfc: "RFC 7911 §8", data: vec![] };
            canonical::note(&mut outcome.faults, fault);
        }
    }

    /// Whether path identifiers stand before the peer's prefixes of this family.
    pub(super) fn takes_paths(&self, from: PeerId, family: AfiSafi) -> bool {
        self.peer(from).is_some_and(|peer| peer.facts.add_path_receive.contains(&family))
    }

    /// Whether the peer has told as many paths of a prefix as are kept, and not this one: what is done for a prefix is in
    /// proportion to its paths, and no limit on prefixes bounds that.
    fn has_its_paths<A: Family>(&self, addr: A, len: u8, from: PeerId, path_id: u32) -> bool {
        let table = &A::plane(self).table;
        let Some(slot) = table.find(addr, len) else { return false };
        let (mut told, mut all) = (0, 0);
        for (path, _) in table.paths(slot).filter(|(path, _)| path.peer == from) {
            if path.path_id == path_id {
                return false;
            }
            told += usize::from(!path.has(Path::STALE));
            all += 1;
        }
        told >= MOST_PATHS || all >= 2 * MOST_PATHS
    }

    /// Puts the paths of an origination into the table, in place of those of the last one. One path per tag.
    pub(super) fn originate<A: Family>(&mut self, prefix: &IpNet, origination: Option<&Origination>) {
        let Some((addr, len)) = A::of(prefix) else { return };
        let none = OriginAttributes::default();
        let told = origination
            .into_iter()
            .flat_map(|o| o.exports.iter().map(|(Tag(tag), attributes)| (*tag, attributes)));
        let untold = origination.filter(|o| o.exports.is_empty()).map(|_| (UNTOLD, &none));
        let wanted: Vec<(u32, &OriginAttributes)> = told.chain(untold).collect();
        let slot = match A::plane(self).table.find(addr, len) {
            Some(slot) => slot,
            None if wanted.is_empty() => return,
            None => match A::plane_mut(self).table.find_or_insert(addr, len) {
                Some(slot) => slot,
                None => return,
            },
        };
        self.touch_forced::<A>(slot);
        for (path_id, attributes) in &wanted {
            let (bytes, key) = own_set::<A>(attributes, self.config.asn.0);
            let id = self.attrs.intern(&bytes, key, &mut self.next_hops);
            let path = Path { attrs: id, raw: id, path_id: *path_id, peer: LOCAL, flags: 0, rejected: 0 };
            self.put_path::<A>(slot, path);
        }
        self.drop_local::<A>(slot, &wanted);
    }

    fn drop_local<A: Family>(&mut self, slot: Slot, wanted: &[(u32, &OriginAttributes)]) {
        let table = &A::plane(self).table;
        let old = table.paths(slot).filter(|(path, _)| path.peer == LOCAL).map(|(path, _)| path.path_id);
        for path_id in old.collect::<Vec<_>>() {
            if !wanted.iter().any(|(tag, _)| *tag == path_id)
                && let Some(at) = A::plane(self).table.locate(slot, LOCAL, path_id)
            {
                self.drop_path::<A>(slot, at);
            }
        }
    }
}

/// The frame and the IPv4 prefixes: RFC 4271 §6.3, RFC 7606 §5.3. What is wrong here resets the session.
fn check_fields(body: &[u8], ids: bool) -> Result<Fields<'_>, Fault> {
    let fault = |subcode, reason, rfc| {
        let action = ErrorAction::SessionReset { subcode };
        Fault { action, attribute: 0, reason, rfc, data: vec![] }
    };
    let Some(fields) = update::split(body) else {
        let reason = "the lengths of its fields do not add up";
        return Err(fault(subcode::MALFORMED_ATTRIBUTE_LIST, reason, "RFC 7606 §4"));
    };
    for field in [fields.withdrawn, fields.nlri] {
        if nlri::check_paths::<u32>(field, ids).is_err() {
            return Err(fault(subcode::INVALID_NETWORK_FIELD, "a malformed prefix", "RFC 7606 §5.3"));
        }
    }
    Ok(fields)
}

/// The canonical set of an originated route. Its next hop is the octet of its sources, so that no set of a peer is equal to it. What its communities
/// ask for is asked of the receivers, not of us.
fn own_set<A: Address>(attributes: &OriginAttributes, own_as: u32) -> (Vec<u8>, Key) {
    let mut out = Vec::new();
    let mut path = Vec::new();
    as_path::prepend(&[], crate::types::Asn(own_as), attributes.prepend, &mut path);
    attr::put(&mut out, flag::WELL_KNOWN, code::ORIGIN, &[0]);
    attr::put(&mut out, flag::WELL_KNOWN, code::AS_PATH, &path);
    attr::put(&mut out, flag::WELL_KNOWN, code::NEXT_HOP, &[attributes.sources.bits()]);
    if let Some(med) = attributes.med {
        attr::put(&mut out, flag::OPTIONAL_NON_TRANSITIVE, code::MULTI_EXIT_DISC, &med.to_be_bytes());
    }
    if let Some(local_pref) = attributes.local_pref {
        attr::put(&mut out, flag::WELL_KNOWN, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    let communities: Vec<u8> = attributes.communities.iter().flat_map(|c| c.to_be_bytes()).collect();
    if !communities.is_empty() {
        attr::put(&mut out, flag::OPTIONAL_TRANSITIVE, code::COMMUNITIES, &communities);
    }
    let large: Vec<u8> =
        attributes.large_communities.iter().flatten().flat_map(|c| c.to_be_bytes()).collect();
    if !large.is_empty() {
        attr::put(&mut out, flag::OPTIONAL_TRANSITIVE, code::LARGE_COMMUNITIES, &large);
    }
    let key = Key {
        local_pref: attributes.local_pref.unwrap_or(100),
        tail: u32::from(attributes.prepend) << 8,
        med: attributes.med.unwrap_or(0),
        next_hop: SELF,
        flags: if A::BITS == 32 { 0 } else { Key::IPV6 },
        ..Key::default()
    };
    (out, key)
}

//! Received attributes: RFC 7606's verdict over each, and the canonical form of those that stay. The only place that decides
//! what a malformed attribute leads to.

use std::collections::BTreeSet;

use crate::rib::LLGR_STALE;
use crate::types::AfiSafi;
use crate::wire::Role;
use crate::wire::as_path;
use crate::wire::attr::{self, Attribute, Key, code, flag};
use crate::wire::next_hop::NextHop;
use crate::wire::nlri::{self, V6};
use crate::wire::verdict::{ErrorAction, Fault, subcode};

/// Faults kept of one UPDATE; stronger ones than those kept are added all the same.
const MAX_FAULTS: usize = 16;
/// Stands for an AS number that needs four octets (RFC 6793 §9).
const AS_TRANS: u16 = 23456;
/// Segments of a confederation (RFC 5065), which stop at its border.
const AS_CONFED_SEQUENCE: u8 = 3;
const AS_CONFED_SET: u8 = 4;

/// What is wrong with a set of AS numbers: nobody may announce one any more.
const AS_SET: &str = "a set of AS numbers, which nobody may send any more";
/// Octets of an attribute that a NOTIFICATION carries back.
const MAX_DATA: usize = 64;

/// What decides how a list of attributes is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver {
    /// The peer is in another AS.
    pub external: bool,
    /// AS numbers have four octets on this session (RFC 6793).
    pub four_octet_as: bool,
    /// Our AS.
    pub own_as: u32,
    /// The peer's AS.
    pub peer_as: u32,
    /// Our BGP Identifier, which is our cluster id as well.
    pub router_id: u32,
    /// Families negotiated.
    pub ipv4: bool,
    /// Families negotiated.
    pub ipv6: bool,
    /// Path identifiers stand before IPv4 prefixes (RFC 7911).
    pub ipv4_paths: bool,
    /// Path identifiers stand before IPv6 prefixes.
    pub ipv6_paths: bool,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The index of the interface on which the peer is spoken to by its link-local address; 0: it has another one.
    pub interface: u32,
    /// Our role towards the peer (RFC 9234).
    pub role: Option<Role>,
}

impl Receiver {
    /// Whether the family was negotiated.
    #[must_use]
    pub fn carries(&self, family: AfiSafi) -> bool {
        match family {
            AfiSafi::Ipv4Unicast => self.ipv4,
            AfiSafi::Ipv6Unicast => self.ipv6,
        }
    }
}

/// Reused from UPDATE to UPDATE.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Attributes that stay, as canonical as one by one can be, in the order received.
    body: Vec<u8>,
    /// Where in `body` each of them stands.
    items: Vec<Item>,
    path: Vec<u8>,
    /// AS4_PATH without its confederation segments.
    as4_path: Vec<u8>,
    /// The canonical bytes: the result of [`Parsed::compose`].
    pub out: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    code: u8,
    start: usize,
    end: usize,
}

/// MP_REACH_NLRI of a family negotiated, its prefixes checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach<'a> {
    /// The family.
    pub family: AfiSafi,
    /// 4 octets (IPv4), 16 or 32 (IPv6, and IPv4 with RFC 8950).
    pub next_hop: NextHop,
    /// The prefixes.
    pub nlri: &'a [u8],
}

/// MP_UNREACH_NLRI of a family negotiated, its prefixes checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreach<'a> {
    /// The family.
    pub family: AfiSafi,
    /// The prefixes.
    pub nlri: &'a [u8],
}

/// A list of attributes, read.
#[derive(Debug, Default)]
pub struct Parsed<'a> {
    key: Key,
    next_hop: Option<&'a [u8]>,
    /// Routes announced in MP_REACH_NLRI.
    pub reach: Option<Reach<'a>>,
    /// Routes withdrawn in MP_UNREACH_NLRI.
    pub unreach: Option<Unreach<'a>>,
    /// RFC 7606 §2: treat the announced routes as withdrawn.
    pub withdraw: bool,
    /// The list holds MP_UNREACH_NLRI and nothing else.
    pub only_unreach: bool,
    /// Bit per type seen, below 64.
    seen: u64,
    /// MP_REACH_NLRI announces something, as far as it can be read.
    may_reach: bool,
}

/// One attribute's verdict beside "fine".
struct Bad(ErrorAction, &'static str, &'static str);

fn withdraw(reason: &'static str, rfc: &'static str) -> Result<(), Bad> {
    Err(Bad(ErrorAction::TreatAsWithdraw, reason, rfc))
}

fn discard(reason: &'static str, rfc: &'static str) -> Result<(), Bad> {
    Err(Bad(ErrorAction::AttributeDiscard, reason, rfc))
}

fn reset(subcode: u8, reason: &'static str, rfc: &'static str) -> Bad {
    Bad(ErrorAction::SessionReset { subcode }, reason, rfc)
}

/// Records a fault.
pub fn note(faults: &mut Vec<Fault>, fault: Fault) {
    if faults.len() < MAX_FAULTS || faults.iter().all(|known| known.action < fault.action) {
        faults.push(fault);
    }
}

/// Reads a list of attributes. `nlri`: prefixes stand behind it. `None`: the session is to be reset, the last fault says why.
pub fn parse<'a>(
    list: &'a [u8],
    nlri: bool,
    receiver: &Receiver,
    scratch: &mut Scratch,
    faults: &mut Vec<Fault>,
) -> Option<Parsed<'a>> {
    scratch.body.clear();
    scratch.items.clear();
    let mut parsed = Parsed {
        key: Key { local_pref: 100, flags: if receiver.external { Key::EBGP } else { 0 }, ..Key::default() },
        only_unreach: true,
        ..Parsed::default()
    };
    let mut unknown_seen = [0u64; 4];
    let mut as4_path = std::mem::take(&mut scratch.as4_path);
    let as4 = if receiver.four_octet_as { As4::default() } else { As4::find(list, &mut as4_path) };
    let mut strongest = ErrorAction::AttributeDiscard;
    let mut walk = attr::attributes(list);
    for attribute in walk.by_ref() {
        parsed.only_unreach &= attribute.code == code::MP_UNREACH_NLRI;
        let verdict = match repeated(&attribute, &mut unknown_seen) {
            Ok(()) => parsed.take(&attribute, as4, receiver, scratch),
            Err(bad) => Err(bad),
        };
        let Err(Bad(action, reason, rfc)) = verdict else { continue };
        parsed.withdraw |= action == ErrorAction::TreatAsWithdraw;
        strongest = strongest.max(action);
        let resets = matches!(action, ErrorAction::SessionReset { .. });
        let data =
            if resets { attribute.whole.get(..MAX_DATA).unwrap_or(attribute.whole).to_vec() } else { vec![] };
        note(faults, Fault { action, attribute: attribute.code, reason, rfc, data });
        if resets {
            return None;
        }
    }
    scratch.as4_path = as4_path;
    if !walk.rest.is_empty() {
        parsed.only_unreach = false;
        parsed.blame(faults, 0, "an attribute runs over the end of the list", "RFC 7606 §4");
    }
    parsed.mark_only_to_customer(receiver, scratch);
    parsed.check_mandatory(nlri, receiver, faults);
    let harmful = parsed.withdraw || strongest > ErrorAction::AttributeDiscard;
    if harmful && !nlri && !parsed.may_reach && !parsed.only_unreach {
        // RFC 7606 §5.2: where no reachable prefix is found beside a malformed attribute, it may have been lost with it.
        let action = ErrorAction::SessionReset { subcode: subcode::MALFORMED_ATTRIBUTE_LIST };
        let reason = "malformed attributes without any prefix announced";
        note(faults, Fault { action, attribute: 0, reason, rfc: "RFC 7606 §5.2", data: vec![] });
        return None;
    }
    Some(parsed)
}

/// RFC 7606 §3 (g): the first of several counts; of MP_REACH_NLRI and MP_UNREACH_NLRI there may be one only.
fn repeated(attribute: &Attribute<'_>, seen: &mut [u64; 4]) -> Result<(), Bad> {
    let Some(word) = seen.get_mut(usize::from(attribute.code >> 6)) else { return Ok(()) };
    let bit = 1u64 << (attribute.code & 63);
    if *word & bit == 0 {
        *word |= bit;
        return Ok(());
    }
    match attribute.code {
        code::MP_REACH_NLRI | code::MP_UNREACH_NLRI => {
            Err(reset(subcode::MALFORMED_ATTRIBUTE_LIST, "it is there twice", "RFC 7606 §3 (g)"))
        }
        _ => discard("it is there twice, the first counts", "RFC 7606 §3 (g)"),
    }
}

impl<'a> Parsed<'a> {
    fn take(
        &mut self,
        attribute: &Attribute<'a>,
        as4: As4<'_>,
        receiver: &Receiver,
        scratch: &mut Scratch,
    ) -> Result<(), Bad> {
        let Attribute { flags, code, value, .. } = *attribute;
        let Some(defined) = attr::defined_flags(code) else { return keep_unknown(attribute, scratch) };
        if receiver.external {
            match code {
                code::LOCAL_PREF => return discard("from an external peer", "RFC 7606 §7.5"),
                code::ORIGINATOR_ID => return discard("from an external peer", "RFC 7606 §7.9"),
                code::CLUSTER_LIST => return discard("from an external peer", "RFC 7606 §7.10"),
                _ => {}
            }
        }
        if matches!(code, code::AS4_PATH | code::AS4_AGGREGATOR) {
            // Read beside AS_PATH and AGGREGATOR on a two-octet session; void on any other (RFC 6793 §4.1, §6).
            return as4.verdict(code, receiver);
        }
        // The reach of a route must be read even where its flags are wrong: treat-as-withdraw needs its prefixes (§3 j).
        if code == code::MP_REACH_NLRI {
            self.may_reach = true;
            self.reach = read_reach(value, receiver)?;
            self.may_reach = self.reach.is_some_and(|reach| !reach.nlri.is_empty());
        } else if code == code::MP_UNREACH_NLRI {
            self.unreach = read_unreach(value, receiver)?;
        }
        if flags & flag::OPTIONAL_TRANSITIVE != defined {
            self.seen |= 1 << (code & 63);
            return withdraw("its flags are not those of its type", "RFC 7606 §3 (c)");
        }
        check_length(code, value, receiver)?;
        self.seen |= 1 << (code & 63);
        let partial = if defined == flag::OPTIONAL_TRANSITIVE { flags & flag::PARTIAL } else { 0 };
        match code {
            code::MP_REACH_NLRI | code::MP_UNREACH_NLRI => return Ok(()),
            code::NEXT_HOP => {
                self.next_hop = Some(value);
                return Ok(());
            }
            code::AS_PATH => return self.take_as_path(value, as4, receiver, scratch),
            code::AGGREGATOR if !receiver.four_octet_as => {
                let mut wide = vec![0, 0];
                wide.extend_from_slice(value);
                scratch.add(defined | partial, code, as4.aggregator.unwrap_or(&wide));
                return Ok(());
            }
            // "A receiving speaker MUST silently remove redundant BGP Large Community values" (RFC 8092 §5).
            code::LARGE_COMMUNITIES => {
                scratch.add_without_repeats::<12>(defined | partial, code, value);
                return Ok(());
            }
            _ => self.read(code, value, receiver)?,
        }
        scratch.add(defined | partial, code, value);
        Ok(())
    }

    fn take_as_path(
        &mut self,
        value: &[u8],
        as4: As4<'_>,
        receiver: &Receiver,
        scratch: &mut Scratch,
    ) -> Result<(), Bad> {
        let mut walk = as_path::segments(value, if receiver.four_octet_as { 4 } else { 2 });
        let mut has_set = false;
        walk.by_ref().for_each(|segment| has_set |= segment.kind == as_path::AS_SET);
        match walk.rest {
            [] if has_set => return withdraw(AS_SET, "RFC 9774 §3"),
            [] => {}
            [AS_CONFED_SET, ..] => return withdraw(AS_SET, "RFC 9774 §3"),
            _ => return withdraw("a malformed segment", "RFC 7606 §7.2"),
        }
        let mut path = std::mem::take(&mut scratch.path);
        path.clear();
        match as4.path {
            _ if receiver.four_octet_as => path.extend_from_slice(value),
            Some(as4) => as_path::merge(value, as4, &mut path),
            None => as_path::widen(value, &mut path),
        }
        let (mut length, mut nobody) = (0, false);
        for (at, segment) in as_path::segments(&path, 4).enumerate() {
            length += segment.length();
            if at == 0 && segment.kind == as_path::AS_SEQUENCE {
                self.key.neighbor_as = attr::be32(segment.numbers);
            }
            for asn in segment.asns() {
                nobody |= asn.0 == 0;
                self.key.flags |= if asn.0 == receiver.own_as { Key::OWN_AS } else { 0 };
            }
        }
        self.key.tail |= length << 8;
        scratch.add(flag::WELL_KNOWN, code::AS_PATH, &path);
        scratch.path = path;
        if nobody {
            return withdraw("AS 0 is in it", "RFC 7607 §2");
        }
        if receiver.external && self.key.neighbor_as != receiver.peer_as {
            return withdraw("it does not begin with the peer's AS", "RFC 4271 §6.3");
        }
        Ok(())
    }

    /// What decision and policy want to know of an attribute of the right length.
    fn read(&mut self, code: u8, value: &[u8], receiver: &Receiver) -> Result<(), Bad> {
        match code {
            code::ORIGIN => match value {
                [origin @ 0..=2] => self.key.tail |= u32::from(*origin),
                _ => return withdraw("an origin that is not defined", "RFC 7606 §7.1"),
            },
            code::MULTI_EXIT_DISC => self.key.med = attr::be32(value),
            code::LOCAL_PREF => self.key.local_pref = attr::be32(value),
            code::ORIGINATOR_ID => {
                let own = attr::be32(value) == receiver.router_id;
                self.key.flags |= Key::ORIGINATOR | if own { Key::REFLECTION_LOOP } else { 0 };
            }
            code::CLUSTER_LIST => {
                self.key.cluster_len = u8::try_from(value.len() / 4).unwrap_or(u8::MAX);
                let own = value.chunks_exact(4).any(|cluster| attr::be32(cluster) == receiver.router_id);
                self.key.flags |= if own { Key::REFLECTION_LOOP } else { 0 };
            }
            code::COMMUNITIES => {
                self.key.flags |= attr::community_flags(value);
                if value.chunks_exact(4).any(|community| attr::be32(community) == LLGR_STALE) {
                    self.key.tail |= Key::LONG_LIVED_STALE;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9234 §5, ingress: what comes from a provider, a lateral peer or a route server is marked here where it is not yet.
    fn mark_only_to_customer(&mut self, receiver: &Receiver, scratch: &mut Scratch) {
        let marks = match receiver.role {
            Some(Role::Customer | Role::Peer | Role::RouteServerClient) => true,
            Some(Role::Provider | Role::RouteServer) | None => false,
        };
        if marks && self.seen & 1 << code::ONLY_TO_CUSTOMER == 0 {
            scratch.add(flag::OPTIONAL_TRANSITIVE, code::ONLY_TO_CUSTOMER, &receiver.peer_as.to_be_bytes());
        }
    }

    /// RFC 7606 §3 (d).
    fn check_mandatory(&mut self, nlri: bool, receiver: &Receiver, faults: &mut Vec<Fault>) {
        if !nlri && self.reach.is_none_or(|reach| reach.nlri.is_empty()) {
            return;
        }
        let mandatory = [
            (code::ORIGIN, true),
            (code::AS_PATH, true),
            (code::NEXT_HOP, nlri),
            (code::LOCAL_PREF, !receiver.external),
        ];
        for (code, wanted) in mandatory {
            if wanted && self.seen & 1 << code == 0 {
                self.blame(faults, code, "it is mandatory and missing or malformed", "RFC 7606 §3 (d)");
            }
        }
    }

    fn blame(&mut self, faults: &mut Vec<Fault>, attribute: u8, reason: &'static str, rfc: &'static str) {
        self.withdraw = true;
        note(faults, Fault { action: ErrorAction::TreatAsWithdraw, attribute, reason, rfc, data: vec![] });
    }

    /// Writes the canonical bytes of the set that goes with the prefixes behind the list (`None`) or in MP_REACH_NLRI to
    /// `scratch.out`. Returns its key, without next hop and length, and the next hop. Only where nothing is treated as withdrawn.
    pub fn compose(&self, reach: Option<&Reach<'a>>, scratch: &mut Scratch) -> (Key, NextHop) {
        let own = || self.next_hop.map(NextHop::of);
        let next_hop = reach.map(|reach| reach.next_hop).or_else(own).unwrap_or_default();
        let Scratch { body, items, out, .. } = scratch;
        items.sort_by_key(|item| item.code);
        out.clear();
        let before = items.partition_point(|item| item.code < code::NEXT_HOP);
        for (at, item) in items.iter().enumerate() {
            if at == before {
                attr::put(out, flag::WELL_KNOWN, code::NEXT_HOP, next_hop.octets());
            }
            out.extend_from_slice(body.get(item.start..item.end).unwrap_or_default());
        }
        if before == items.len() {
            attr::put(out, flag::WELL_KNOWN, code::NEXT_HOP, next_hop.octets());
        }
        let ipv6 = next_hop.octets().len() > 4;
        (Key { flags: self.key.flags | if ipv6 { Key::IPV6 } else { 0 }, ..self.key }, next_hop)
    }
}

impl Scratch {
    /// Adds a list of values of `N` octets, of equal ones the first.
    fn add_without_repeats<const N: usize>(&mut self, flags: u8, code: u8, value: &[u8]) {
        let (values, _) = value.as_chunks::<N>();
        let mut seen = BTreeSet::new();
        if values.iter().all(|value| seen.insert(value)) {
            return self.add(flags, code, value);
        }
        seen.clear();
        let kept: Vec<u8> = values.iter().filter(|value| seen.insert(*value)).flatten().copied().collect();
        self.add(flags, code, &kept);
    }

    fn add(&mut self, flags: u8, code: u8, value: &[u8]) {
        let start = self.body.len();
        attr::put(&mut self.body, flags, code, value);
        self.items.push(Item { code, start, end: self.body.len() });
    }
}

/// RFC 4271 §5: an unknown transitive attribute is passed on with the Partial bit, a non-transitive one is ignored.
fn keep_unknown(attribute: &Attribute<'_>, scratch: &mut Scratch) -> Result<(), Bad> {
    if attribute.flags & flag::OPTIONAL == 0 {
        let subcode = subcode::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE;
        return Err(reset(subcode, "a well-known attribute that nobody knows", "RFC 4271 §6.3"));
    }
    if attribute.flags & flag::TRANSITIVE != 0 {
        scratch.add(flag::OPTIONAL_TRANSITIVE | flag::PARTIAL, attribute.code, attribute.value);
    }
    Ok(())
}

/// The lengths of RFC 7606 §7 and of the attributes' own RFCs.
fn check_length(code: u8, value: &[u8], receiver: &Receiver) -> Result<(), Bad> {
    let length = value.len();
    let lists = |of: usize| length > 0 && length.is_multiple_of(of);
    match code {
        code::ORIGIN if length != 1 => withdraw("its length is not 1", "RFC 7606 §7.1"),
        code::NEXT_HOP if length != 4 => withdraw("its length is not 4", "RFC 7606 §7.3"),
        code::MULTI_EXIT_DISC if length != 4 => withdraw("its length is not 4", "RFC 7606 §7.4"),
        code::LOCAL_PREF if length != 4 => withdraw("its length is not 4", "RFC 7606 §7.5"),
        code::ATOMIC_AGGREGATE if length != 0 => discard("its length is not 0", "RFC 7606 §7.6"),
        code::AGGREGATOR if length != if receiver.four_octet_as { 8 } else { 6 } => {
            discard("its length is not that of an aggregator", "RFC 7606 §7.7")
        }
        code::AGGREGATOR if names_nobody(value, length - 4) => discard("its AS is 0", "RFC 7607 §2"),
        code::COMMUNITIES if !lists(4) => withdraw("its length is not a multiple of 4", "RFC 7606 §7.8"),
        code::ORIGINATOR_ID if length != 4 => withdraw("its length is not 4", "RFC 7606 §7.9"),
        code::CLUSTER_LIST if !lists(4) => withdraw("its length is not a multiple of 4", "RFC 7606 §7.10"),
        code::EXTENDED_COMMUNITIES if !lists(8) => {
            withdraw("its length is not a multiple of 8", "RFC 7606 §7.14")
        }
        code::IPV6_EXTENDED_COMMUNITIES if !lists(20) => {
            withdraw("its length is not a multiple of 20", "RFC 7606 §7.15")
        }
        code::LARGE_COMMUNITIES if !lists(12) => {
            withdraw("its length is not a multiple of 12", "RFC 8092 §6")
        }
        code::ONLY_TO_CUSTOMER if length != 4 => withdraw("its length is not 4", "RFC 9234 §5"),
        _ => Ok(()),
    }
}

/// Whether the AS number of these many octets at the start is 0, which is nobody's.
fn names_nobody(value: &[u8], octets: usize) -> bool {
    value.iter().take(octets).all(|octet| *octet == 0)
}

/// What a two-octet session carries beside AS_PATH and AGGREGATOR, as far as it may be used (RFC 6793 §4.2.3, §6).
#[derive(Debug, Clone, Copy, Default)]
struct As4<'a> {
    path: Option<&'a [u8]>,
    aggregator: Option<&'a [u8]>,
    malformed_path: bool,
    /// AS4_PATH counts, and has an AS_SET or AS_CONFED_SET.
    has_set: bool,
    malformed_aggregator: bool,
}

impl<'a> As4<'a> {
    /// `room` takes AS4_PATH where it does not stay as it came.
    fn find(list: &'a [u8], room: &'a mut Vec<u8>) -> As4<'a> {
        let first = |code| attr::attributes(list).find(|attribute| attribute.code == code);
        let usable =
            |found: &Attribute<'a>| found.flags & flag::OPTIONAL_TRANSITIVE == flag::OPTIONAL_TRANSITIVE;
        let (as4_path, as4_aggregator) = (first(code::AS4_PATH), first(code::AS4_AGGREGATOR));
        let aggregator = as4_aggregator
            .filter(usable)
            .map(|found| found.value)
            .filter(|value| value.len() == 8 && !names_nobody(value, 4));
        let readable = as4_path.filter(usable).is_some_and(|found| without_confederations(found.value, room));
        let malformed_aggregator = as4_aggregator.is_some() && aggregator.is_none();
        // One that is longer than AS_PATH is ignored (RFC 6793 §4.2.3).
        let counts = readable
            && first(code::AS_PATH)
                .is_some_and(|found| as_path::length(found.value, 2) >= as_path::length(room, 4));
        let found = As4 {
            path: readable.then_some(&room[..]).filter(|path| !path.is_empty()),
            aggregator,
            malformed_path: as4_path.is_some() && !readable,
            has_set: counts && as4_path.is_some_and(|found| has_set(found.value)),
            malformed_aggregator,
        };
        match first(code::AGGREGATOR).map(|attribute| attribute.value) {
            // Somebody aggregated who knew nothing of either (RFC 6793 §4.2.3).
            Some([high, low, ..])
                if aggregator.is_some() && u16::from_be_bytes([*high, *low]) != AS_TRANS =>
            {
                As4 { path: None, aggregator: None, has_set: false, ..found }
            }
            _ => found,
        }
    }

    /// Read beside AS_PATH and AGGREGATOR on a two-octet session; void on any other.
    fn verdict(&self, code: u8, receiver: &Receiver) -> Result<(), Bad> {
        match code {
            _ if receiver.four_octet_as => discard("on a four-octet session", "RFC 6793 §4.1"),
            code::AS4_PATH if self.malformed_path => discard("a malformed path", "RFC 6793 §6"),
            code::AS4_PATH if self.has_set => withdraw(AS_SET, "RFC 9774 §3"),
            code::AS4_AGGREGATOR if self.malformed_aggregator => {
                discard("it is not an AS and an address", "RFC 6793 §6")
            }
            _ => Ok(()),
        }
    }
}

/// Copies an AS4_PATH to `out`, without segments of a confederation: "the NEW BGP speaker MUST discard these path segments,
/// adjust the relevant attribute fields accordingly, and continue" (RFC 6793 §6). `false`: it is malformed, or names AS 0
/// (RFC 7607 §2).
fn without_confederations(path: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut rest = path;
    while let [kind, count @ 1..=255, numbers @ ..] = rest {
        let Some((numbers, behind)) = numbers.split_at_checked(usize::from(*count) * 4) else { return false };
        match *kind {
            as_path::AS_SET | as_path::AS_SEQUENCE => {
                if numbers.chunks_exact(4).any(|asn| attr::be32(asn) == 0) {
                    return false;
                }
                out.extend_from_slice(&[*kind, *count]);
                out.extend_from_slice(numbers);
            }
            AS_CONFED_SEQUENCE | AS_CONFED_SET => {}
            _ => return false,
        }
        rest = behind;
    }
    rest.is_empty() && !path.is_empty()
}

/// Whether a well-formed AS4_PATH has a segment that RFC 9774 §3 does away with.
fn has_set(mut path: &[u8]) -> bool {
    while let [kind, count, numbers @ ..] = path {
        if matches!(*kind, as_path::AS_SET | AS_CONFED_SET) {
            return true;
        }
        path = numbers.get(usize::from(*count) * 4..).unwrap_or_default();
    }
    false
}

/// RFC 4760 §3 and RFC 7606 §7.11. A family that was not negotiated is ignored.
fn read_reach<'a>(value: &'a [u8], receiver: &Receiver) -> Result<Option<Reach<'a>>, Bad> {
    let short = || reset(subcode::OPTIONAL_ATTRIBUTE_ERROR, "it is too short", "RFC 7606 §7.11");
    let [high, low, safi, length, rest @ ..] = value else { return Err(short()) };
    let (next_hop, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(short)?;
    let [_reserved, nlri @ ..] = rest else { return Err(short()) };
    let family = AfiSafi::from_numbers(u16::from_be_bytes([*high, *low]), *safi);
    let Some(family) = family.filter(|family| receiver.carries(*family)) else {
        return Err(Bad(ErrorAction::AttributeDiscard, "of a family not negotiated", "RFC 4760 §6"));
    };
    let Some(next_hop) = NextHop::received(family, next_hop, receiver.extended_next_hop, receiver.interface)
    else {
        return Err(unusable(family, receiver, "a next hop of an impossible length", "RFC 7606 §7.11"));
    };
    check_nlri(family, nlri, receiver)?;
    Ok(Some(Reach { family, next_hop, nlri }))
}

fn read_unreach<'a>(value: &'a [u8], receiver: &Receiver) -> Result<Option<Unreach<'a>>, Bad> {
    let [high, low, safi, nlri @ ..] = value else {
        return Err(reset(subcode::OPTIONAL_ATTRIBUTE_ERROR, "it is too short", "RFC 7606 §7.12"));
    };
    let family = AfiSafi::from_numbers(u16::from_be_bytes([*high, *low]), *safi);
    let Some(family) = family.filter(|family| receiver.carries(*family)) else {
        return Err(Bad(ErrorAction::AttributeDiscard, "of a family not negotiated", "RFC 4760 §6"));
    };
    check_nlri(family, nlri, receiver)?;
    Ok(Some(Unreach { family, nlri }))
}

fn check_nlri(family: AfiSafi, nlri: &[u8], receiver: &Receiver) -> Result<(), Bad> {
    let checked = match family {
        AfiSafi::Ipv4Unicast => nlri::check_paths::<u32>(nlri, receiver.ipv4_paths),
        AfiSafi::Ipv6Unicast => nlri::check_paths::<V6>(nlri, receiver.ipv6_paths),
    };
    checked
        .map(drop)
        .map_err(|nlri::Malformed| unusable(family, receiver, "a malformed prefix", "RFC 7606 §5.3"))
}

/// The prefixes of a family cannot be read. Another family of the session need not suffer; the only one takes it along.
fn unusable(family: AfiSafi, receiver: &Receiver, reason: &'static str, rfc: &'static str) -> Bad {
    if receiver.ipv4 && receiver.ipv6 {
        Bad(ErrorAction::AfiSafiDisable(family), reason, rfc)
    } else {
        reset(subcode::OPTIONAL_ATTRIBUTE_ERROR, reason, rfc)
    }
}

#[cfg(test)]
mod tests;

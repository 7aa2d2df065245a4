//! The attributes as one update group sends them: a pure function of the canonical bytes, the group and the source.

use crate::policy::{Changes, NextHopMode};
use crate::types::{AfiSafi, Asn};
use crate::wire::Role;
use crate::wire::as_path;
use crate::wire::attr::{self, Key, code, flag};
use crate::wire::next_hop::{self, NextHop};

/// What shapes the outgoing attributes of a group. (A field that shapes them belongs here, or adj-RIB-out is not a pure function.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Style {
    /// The peers are in another AS.
    pub external: bool,
    /// The AS we put in front towards external peers.
    pub local_asn: Asn,
    /// AS numbers have four octets.
    pub four_octet_as: bool,
    /// Our IPv4 address there, as 4 octets.
    pub next_hop_ipv4: Option<[u8; 4]>,
    /// Our IPv6 address there.
    pub next_hop_ipv6: Option<[u8; 16]>,
    /// Our link-local address there, sent behind it (RFC 2545 §3), or alone where there is no other.
    pub link_local: Option<[u8; 16]>,
    /// IPv4 prefixes go with our IPv6 addresses (RFC 8950).
    pub extended_next_hop: bool,
    /// Our cluster, which reflected routes carry (RFC 4456 §8).
    pub cluster_id: u32,
    /// Our role towards them (RFC 9234).
    pub role: Option<Role>,
    /// Whose address goes with a route.
    pub next_hop: NextHopMode,
}

/// Where a set comes from, as far as it shapes what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This node originates it.
    Own,
    /// An external peer.
    External,
    /// An internal peer, with its BGP Identifier.
    Internal(u32),
}

/// Outgoing attributes, apart from the prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// For MP_REACH_NLRI; empty where it is IPv4's own, among the attributes.
    pub next_hop: &'a [u8],
    /// The list, without MP_REACH_NLRI.
    pub attributes: &'a [u8],
}

/// Splits what [`rewrite`] wrote.
#[must_use]
pub fn outgoing(bytes: &[u8]) -> Outgoing<'_> {
    let Some((length, rest)) = bytes.split_first() else {
        return Outgoing { next_hop: &[], attributes: &[] };
    };
    let (next_hop, attributes) = rest.split_at_checked(usize::from(*length)).unwrap_or((&[], rest));
    Outgoing { next_hop, attributes }
}

impl Style {
    /// Whether a route of the family can be told at all: where our own address is to be the next hop, there must be one.
    /// `canonical` is the route's set, with this key.
    #[must_use]
    pub fn has_next_hop(&self, family: AfiSafi, origin: Origin, key: &Key, canonical: &[u8]) -> bool {
        if !self.sends_self(origin) {
            // Most routes are IPv4 with an IPv4 next hop: those need no look at the bytes.
            let received = || attr::find(canonical, code::NEXT_HOP).unwrap_or_default();
            if !key.has(Key::IPV6) || self.can_name(family, received()) {
                return true;
            }
        }
        match family {
            AfiSafi::Ipv4Unicast if !self.extended_next_hop => self.next_hop_ipv4.is_some(),
            AfiSafi::Ipv4Unicast | AfiSafi::Ipv6Unicast => {
                self.next_hop_ipv6.is_some() || self.link_local.is_some()
            }
        }
    }

    /// RFC 4271 §5.1.3: ourselves for what we originate; of learned routes the mode says it.
    fn sends_self(&self, origin: Origin) -> bool {
        origin == Origin::Own
            || match self.next_hop {
                NextHopMode::Auto => self.external,
                NextHopMode::Own => true,
                NextHopMode::Keep => false,
            }
    }

    /// Whether the peers understand a next hop that somebody else told us: an IPv6 one of an IPv4 prefix only with RFC 8950, and a
    /// link-local one never, since it means something on one link alone (RFC 2545 §3).
    fn can_name(&self, family: AfiSafi, received: &[u8]) -> bool {
        match (family, next_hop::global(received).len()) {
            (AfiSafi::Ipv4Unicast, 4) | (AfiSafi::Ipv6Unicast, 16) => true,
            (AfiSafi::Ipv4Unicast, 16) => self.extended_next_hop,
            (AfiSafi::Ipv4Unicast | AfiSafi::Ipv6Unicast, _) => false,
        }
    }

    /// RFC 9234 §5, egress: what goes to a customer, a lateral peer or a client of ours may go down from there only.
    fn marks_only_to_customer(&self) -> bool {
        match self.role {
            Some(Role::Provider | Role::Peer | Role::RouteServer) => true,
            Some(Role::Customer | Role::RouteServerClient) | None => false,
        }
    }

    /// RFC 9234 §5, egress: what came from above goes neither up nor sideways.
    #[must_use]
    pub fn leaks(&self, canonical: &[u8]) -> bool {
        let guarded = match self.role {
            Some(Role::Customer | Role::Peer | Role::RouteServerClient) => true,
            Some(Role::Provider | Role::RouteServer) | None => false,
        };
        guarded && attr::find(canonical, code::ONLY_TO_CUSTOMER).is_some()
    }

    fn next_hop_sent(&self, family: AfiSafi, origin: Origin, received: &[u8]) -> NextHop {
        if !self.sends_self(origin) && self.can_name(family, received) {
            return NextHop::of(next_hop::global(received));
        }
        let mut own = NextHop::default();
        match family {
            AfiSafi::Ipv4Unicast if !self.extended_next_hop => {
                own.push(self.next_hop_ipv4.as_ref().map_or(&[], |octets| octets));
            }
            AfiSafi::Ipv4Unicast | AfiSafi::Ipv6Unicast => {
                own.push(self.next_hop_ipv6.as_ref().map_or(&[], |octets| octets));
                own.push(self.link_local.as_ref().map_or(&[], |octets| octets));
            }
        }
        own
    }
}

/// Like [`rewrite`], with what filters change before. A MULTI_EXIT_DISC that they set is theirs, so it is sent (RFC 4271 §5.1.4);
/// what they prepend goes to internal peers too.
pub fn rewrite_changed(
    canonical: &[u8],
    key: &Key,
    family: AfiSafi,
    style: &Style,
    origin: Origin,
    changes: &Changes,
    out: &mut Vec<u8>,
) {
    let mut changed = Vec::with_capacity(canonical.len() + changes.growth());
    changes.apply(canonical, &mut changed);
    let key = Key { local_pref: changes.local_pref.unwrap_or(key.local_pref), ..*key };
    let set = ChangedSet { keeps_med: changes.med.is_some(), prepended: &changes.prepend };
    write(&changed, &key, family, style, origin, &set, out);
}

/// What the writer has to know of changes that are in the set already.
#[derive(Default)]
struct ChangedSet<'a> {
    keeps_med: bool,
    prepended: &'a [Asn],
}

/// Writes the attributes as sent to `out`: one octet of next-hop length, the next hop for MP_REACH_NLRI, the list in ascending
/// order. `canonical` is a canonical set with this key.
pub fn rewrite(
    canonical: &[u8],
    key: &Key,
    family: AfiSafi,
    style: &Style,
    origin: Origin,
    out: &mut Vec<u8>,
) {
    write(canonical, key, family, style, origin, &ChangedSet::default(), out);
}

fn write(
    canonical: &[u8],
    key: &Key,
    family: AfiSafi,
    style: &Style,
    origin: Origin,
    set: &ChangedSet<'_>,
    out: &mut Vec<u8>,
) {
    out.clear();
    let next_hop =
        style.next_hop_sent(family, origin, attr::find(canonical, code::NEXT_HOP).unwrap_or_default());
    // An IPv6 next hop has no other place, whatever the prefixes are (RFC 8950 §3).
    let in_reach = family == AfiSafi::Ipv6Unicast || next_hop.octets().len() > 4;
    if in_reach {
        out.push(u8::try_from(next_hop.octets().len()).unwrap_or_default());
        out.extend_from_slice(next_hop.octets());
    } else {
        out.push(0);
    }
    let local_pref = !style.external;
    let mut local_pref_due = local_pref;
    let mut as4 = As4::default();
    let mut reflected = Reflected::of(style, origin);
    let mut only_to_customer = style.marks_only_to_customer();
    for attribute in attr::attributes(canonical) {
        if local_pref_due && attribute.code >= code::LOCAL_PREF {
            local_pref_due = false;
            attr::put(out, flag::WELL_KNOWN, code::LOCAL_PREF, &key.local_pref.to_be_bytes());
        }
        reflected.flush(attribute.code, out);
        as4.flush(attribute.code, out);
        if only_to_customer && attribute.code >= code::ONLY_TO_CUSTOMER {
            only_to_customer = false;
            if attribute.code != code::ONLY_TO_CUSTOMER {
                put_only_to_customer(style, out);
            }
        }
        match attribute.code {
            code::AS_PATH if !style.external && origin == Origin::Own => {
                // RFC 4271 §5.1.2 b: what we originate goes to internal peers with an empty path; our prepending is for others.
                let mut path = Vec::new();
                for asn in set.prepended.iter().rev() {
                    let behind = std::mem::take(&mut path);
                    as_path::prepend(&behind, *asn, 1, &mut path);
                }
                put_as_path(&path, style, &mut as4, out);
            }
            code::AS_PATH => put_as_path(attribute.value, style, &mut as4, out),
            code::NEXT_HOP => {
                if !in_reach {
                    attr::put(out, flag::WELL_KNOWN, code::NEXT_HOP, next_hop.octets());
                }
            }
            // RFC 4271 §5.1.4: not received from one AS and passed to another.
            code::MULTI_EXIT_DISC if style.external && origin != Origin::Own && !set.keeps_med => {}
            code::LOCAL_PREF => {}
            code::ORIGINATOR_ID | code::CLUSTER_LIST if style.external => {}
            code::ORIGINATOR_ID => {
                reflected.originator = None;
                out.extend_from_slice(attribute.whole);
            }
            code::CLUSTER_LIST => reflected.put_cluster_list(attribute.value, out),
            code::AGGREGATOR if !style.four_octet_as => {
                put_aggregator(attribute.flags, attribute.value, &mut as4, out)
            }
            _ => out.extend_from_slice(attribute.whole),
        }
    }
    if local_pref_due {
        attr::put(out, flag::WELL_KNOWN, code::LOCAL_PREF, &key.local_pref.to_be_bytes());
    }
    reflected.flush(u8::MAX, out);
    as4.flush(u8::MAX, out);
    if only_to_customer {
        put_only_to_customer(style, out);
    }
}

fn put_only_to_customer(style: &Style, out: &mut Vec<u8>) {
    attr::put(out, flag::OPTIONAL_TRANSITIVE, code::ONLY_TO_CUSTOMER, &style.local_asn.0.to_be_bytes());
}

/// What a route reflector adds (RFC 4456 §8): who brought the route into the AS, and its own cluster in front of the list.
struct Reflected {
    originator: Option<u32>,
    cluster: Option<u32>,
}

impl Reflected {
    fn of(style: &Style, origin: Origin) -> Reflected {
        let originator = match origin {
            Origin::Internal(router_id) if !style.external => Some(router_id),
            Origin::Internal(_) | Origin::External | Origin::Own => None,
        };
        Reflected { originator, cluster: originator.map(|_| style.cluster_id) }
    }

    /// Puts what comes before an attribute of this code and is not in the set.
    fn flush(&mut self, before: u8, out: &mut Vec<u8>) {
        if before > code::ORIGINATOR_ID
            && let Some(originator) = self.originator.take()
        {
            let value = originator.to_be_bytes();
            attr::put(out, flag::OPTIONAL_NON_TRANSITIVE, code::ORIGINATOR_ID, &value);
        }
        if before > code::CLUSTER_LIST && self.cluster.is_some() {
            self.put_cluster_list(&[], out);
        }
    }

    fn put_cluster_list(&mut self, received: &[u8], out: &mut Vec<u8>) {
        let own = self.cluster.take().map(u32::to_be_bytes);
        let own: &[u8] = own.as_ref().map_or(&[], |own| own);
        attr::put_header(out, flag::OPTIONAL_NON_TRANSITIVE, code::CLUSTER_LIST, own.len() + received.len());
        out.extend_from_slice(own);
        out.extend_from_slice(received);
    }
}

/// What goes beside AS_PATH and AGGREGATOR towards a two-octet peer where a number did not fit (RFC 6793 §4.2.2).
#[derive(Default)]
struct As4 {
    path: Option<Vec<u8>>,
    aggregator: Option<Vec<u8>>,
}

impl As4 {
    /// Puts what comes before an attribute of this code.
    fn flush(&mut self, before: u8, out: &mut Vec<u8>) {
        if before > code::AS4_PATH
            && let Some(path) = self.path.take()
        {
            attr::put(out, flag::OPTIONAL_TRANSITIVE, code::AS4_PATH, &path);
        }
        if before > code::AS4_AGGREGATOR
            && let Some(aggregator) = self.aggregator.take()
        {
            attr::put(out, flag::OPTIONAL_TRANSITIVE, code::AS4_AGGREGATOR, &aggregator);
        }
    }
}

fn put_as_path(path: &[u8], style: &Style, as4: &mut As4, out: &mut Vec<u8>) {
    if style.four_octet_as {
        return match style.external {
            true => put_prepended(path, style.local_asn, out),
            false => attr::put(out, flag::WELL_KNOWN, code::AS_PATH, path),
        };
    }
    let mut whole = Vec::with_capacity(path.len() + 6);
    as_path::prepend(path, style.local_asn, u8::from(style.external), &mut whole);
    let path = whole;
    let mut narrow = Vec::with_capacity(path.len());
    let lost = as_path::narrow(&path, &mut narrow);
    attr::put(out, flag::WELL_KNOWN, code::AS_PATH, &narrow);
    if lost {
        as4.path = Some(path);
    }
}

/// The common case without a copy: our AS once in front of a four-octet path.
fn put_prepended(received: &[u8], asn: Asn, out: &mut Vec<u8>) {
    let joins = matches!(*received, [as_path::AS_SEQUENCE, 0..=254, ..]);
    let length = received.len() + if joins { 4 } else { 6 };
    attr::put_header(out, flag::WELL_KNOWN, code::AS_PATH, length);
    as_path::prepend(received, asn, 1, out);
}

fn put_aggregator(flags: u8, value: &[u8], as4: &mut As4, out: &mut Vec<u8>) {
    let asn = Asn(attr::be32(value));
    let mut narrow = asn.two_octets().to_be_bytes().to_vec();
    narrow.extend_from_slice(value.get(4..).unwrap_or_default());
    attr::put(out, flags, code::AGGREGATOR, &narrow);
    if asn.0 > u32::from(u16::MAX) {
        as4.aggregator = Some(value.to_vec());
    }
}

#[cfg(test)]
mod tests;

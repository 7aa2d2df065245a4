//! What this version accepts of an object that the schema let through: the verdict behind condition `Accepted`.
//!
//! A field that this version does not honour yet, or a value that a newer schema knows, is never ignored: a
//! silently ignored filter would tell routes that it withholds. The object is not used, and says why. Whoever acts on an
//! object and whoever writes its condition ask the same function.

use kube::ResourceExt as _;

use crate::v1alpha1::{
    AdminState, Assignment, BGPAdvertisement, BGPFilter, BGPPeer, BGPPeerSpec, Community, Encapsulation,
    FabricConfiguration, FilterAction, FixedTier, IPPool, LoadBalancerPool, NatOutgoing, Neighbor, NextHop,
    Role, RouteSource, ServiceAddressType, ServiceAdvertisement, ServiceAnnounce, TOPOLOGY_PEER, Tier,
    TopologyMode, WhenNoEndpoints, settings,
};

/// Why an object is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// CamelCase, as api.md lists it with the kind.
    pub reason: &'static str,
    /// Names the field and what to do.
    pub message: String,
}

impl Refusal {
    /// An object that a later version will act on: it is stored and changes nothing.
    fn later_object(what: &str) -> Self {
        Self {
            reason: "UnknownValue",
            message: format!(
                "{what} is not supported by this version and changes nothing: remove it, or upgrade the agents first"
            ),
        }
    }

    /// A field that a later version will honour.
    fn later(field: &str) -> Self {
        Self {
            reason: "UnknownValue",
            message: format!(
                "{field} is not supported by this version: remove it, or upgrade the agents first"
            ),
        }
    }

    /// A value that a newer schema knows.
    fn unknown(field: &str, value: &str) -> Self {
        Self {
            reason: "UnknownValue",
            message: format!("{field} {value:?} is not known to this version: upgrade the agents first"),
        }
    }
}

/// Whether a BGPPeer may have sessions.
///
/// # Errors
/// `UnknownValue` with the first field, in schema order, that this version does not honour; `OverlapsPeer` for a name
/// that node-to-node sessions have.
pub fn bgp_peer(peer: &BGPPeer) -> Result<(), Refusal> {
    let spec = &peer.spec;
    let neighbor = match spec.neighbor() {
        Some(Neighbor::Address(_) | Neighbor::Interface(_) | Neighbor::ListenRange(_)) => None,
        Some(Neighbor::Nodes(_)) => of_both_ends(spec)?,
        None => Some("spec.peerNodeSelector"),
    };
    if let Some(field) = neighbor {
        return Err(Refusal::later(field));
    }
    if let Some(Role::Unknown(role)) = &spec.role {
        return Err(Refusal::unknown("spec.role", role));
    }
    if let NextHop::Unknown(value) = &spec.next_hop {
        return Err(Refusal::unknown("spec.nextHop", value));
    }
    if let AdminState::Unknown(value) = &spec.admin_state {
        return Err(Refusal::unknown("spec.adminState", value));
    }
    let name = peer.name_any();
    // The session of BGPPeer `topology.10.0.0.1` would have the name of a node-to-node session.
    match name.strip_prefix(TOPOLOGY_PEER).is_some_and(|rest| rest.starts_with('.')) {
        true => Err(Refusal {
            reason: "OverlapsPeer",
            message: format!(
                "metadata.name {name}: names that begin with {TOPOLOGY_PEER}. are those of node-to-node sessions: \
                 choose another"
            ),
        }),
        false => Ok(()),
    }
}

/// Both ends of a session between our nodes are made, so that what one end alone would say has no meaning.
fn of_both_ends(spec: &BGPPeerSpec) -> Result<Option<&'static str>, Refusal> {
    let one_sided = [
        ("spec.localASN", spec.local_asn.is_some()),
        ("spec.port", spec.port.is_some()),
        ("spec.passive", spec.passive),
        ("spec.sourceInterface", spec.source_interface.is_some()),
        ("spec.reflectorClient", spec.reflector_client),
    ];
    match one_sided.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(Refusal {
            reason: "UnknownValue",
            message: format!(
                "{field} does not apply to peerNodeSelector: both ends are made, from each node's settings"
            ),
        }),
        None => Ok(None),
    }
}

/// Whether node-to-node sessions may be opened as `topology` asks for.
///
/// # Errors
/// `UnknownValue` for a mode or a session setting that this version does not honour.
pub fn topology(configuration: Option<&FabricConfiguration>) -> Result<(), Refusal> {
    match settings::topology_mode(configuration) {
        TopologyMode::None => return Ok(()),
        TopologyMode::FullMesh | TopologyMode::RouteReflector => {}
        TopologyMode::Unknown(mode) => return Err(Refusal::unknown("spec.topology.mode", &mode)),
    }
    Ok(())
}

/// Whether a BGPAdvertisement is originated.
///
/// # Errors
/// `UnknownValue` for what this version does not originate, `UnknownCommunity` for a name that nobody defined.
pub fn bgp_advertisement(
    advertisement: &BGPAdvertisement,
    configuration: Option<&FabricConfiguration>,
) -> Result<(), Refusal> {
    let spec = &advertisement.spec;
    if let Some(services) = &spec.services {
        known_service_values(services)?;
    }
    let gates = spec.prefixes.iter().enumerate().filter_map(|(i, prefix)| Some((i, prefix.gate.as_ref()?)));
    for (index, gate) in gates {
        // A gate of a newer schema: what it asks for cannot be seen, so the prefix must not be announced.
        if gate.interface.is_some() == gate.service.is_some() {
            return Err(Refusal {
                reason: "UnknownValue",
                message: format!(
                    "spec.prefixes[{index}].gate: exactly one of interface, service must be set, and this version knows \
                     no other gate"
                ),
            });
        }
    }
    let communities = spec.attributes.iter().flat_map(|a| &a.communities);
    known_communities("spec.attributes.communities", communities, configuration)
}

fn known_communities<'a>(
    field: &str,
    communities: impl IntoIterator<Item = &'a Community>,
    configuration: Option<&FabricConfiguration>,
) -> Result<(), Refusal> {
    let unknown = communities.into_iter().find(|one| crate::community::resolve(one, configuration).is_none());
    unknown.map_or(Ok(()), |community| {
        Err(Refusal {
            reason: "UnknownCommunity",
            message: format!(
                "{field}: {community} is neither well-known nor in spec.communities of FabricConfiguration default: \
                 add it there"
            ),
        })
    })
}

/// Whether a BGPFilter may be used.
///
/// # Errors
/// `UnknownValue` for an action or a source of a newer schema, `UnknownCommunity` for a name that nobody defined: a rule that is
/// not understood could let through what it withholds.
pub fn bgp_filter(filter: &BGPFilter, configuration: Option<&FabricConfiguration>) -> Result<(), Refusal> {
    for (direction, rules) in [("import", &filter.spec.import), ("export", &filter.spec.export)] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            let field = format!("spec.{direction}[{index}]");
            if let FilterAction::Unknown(action) = &rule.action {
                return Err(Refusal::unknown(&format!("{field}.action"), action));
            }
            let matching = rule.matching.iter();
            for source in matching.clone().flat_map(|matching| &matching.sources) {
                if let RouteSource::Unknown(source) = source {
                    return Err(Refusal::unknown(&format!("{field}.match.sources"), source));
                }
            }
            let set =
                rule.set.iter().flat_map(|set| set.add_communities.iter().chain(&set.remove_communities));
            let communities = matching.flat_map(|matching| &matching.communities).chain(set);
            known_communities(&field, communities, configuration)?;
        }
    }
    Ok(())
}

/// Why a BGPPeer that names a BGPFilter which is not there starts no session.
pub fn filter_not_found(name: &str) -> Refusal {
    Refusal {
        reason: "BGPFilterNotFound",
        message: format!(
            "spec.filters: there is no BGPFilter {name}: create it, or take the name out of the list; a session that runs keeps \
             its last filters, and none is started"
        ),
    }
}

/// A value that a newer schema knows must not be taken for one of ours: what is announced attracts traffic.
fn known_service_values(services: &ServiceAdvertisement) -> Result<(), Refusal> {
    let addresses = services.address_types.iter().find_map(|kind| match kind {
        ServiceAddressType::Unknown(text) => Some(("spec.services.addressTypes", text)),
        ServiceAddressType::ClusterIP
        | ServiceAddressType::ExternalIP
        | ServiceAddressType::LoadBalancerIP => None,
    });
    let announce = match &services.announce {
        ServiceAnnounce::Unknown(text) => Some(("spec.services.announce", text)),
        ServiceAnnounce::Hosts | ServiceAnnounce::CIDRs => None,
    };
    let when = match &services.when_no_endpoints {
        WhenNoEndpoints::Unknown(text) => Some(("spec.services.whenNoEndpoints", text)),
        WhenNoEndpoints::Withdraw | WhenNoEndpoints::Announce => None,
    };
    match addresses.or(announce).or(when) {
        Some((field, value)) => Err(Refusal::unknown(field, value)),
        None => Ok(()),
    }
}

/// Whether addresses of an IPPool may be given to pods, as far as the pool alone tells.
///
/// # Errors
/// `UnknownValue` for an encapsulation that this version does not build, or a translation that it does not know.
pub fn ip_pool(pool: &IPPool) -> Result<(), Refusal> {
    if pool.spec.encapsulation != Encapsulation::None {
        return Err(Refusal::later("spec.encapsulation"));
    }
    match pool.spec.nat_outgoing {
        NatOutgoing::None | NatOutgoing::Masquerade => Ok(()),
        NatOutgoing::Unknown(_) => Err(Refusal::later("spec.natOutgoing")),
    }
}

/// Whether addresses of a LoadBalancerPool may be given to Services, as far as the pool alone tells.
///
/// # Errors
/// `InvalidRange` with the first range that holds no address, `UnknownValue` for an assignment of a newer schema.
pub fn load_balancer_pool(pool: &LoadBalancerPool) -> Result<(), Refusal> {
    let spec = &pool.spec;
    for (field, ranges) in [("addresses", &spec.addresses), ("excluded", &spec.excluded)] {
        if let Some((index, _)) = ranges.iter().enumerate().find(|(_, range)| !range.is_ordered()) {
            return Err(Refusal {
                reason: "InvalidRange",
                message: format!("{field}[{index}]: the first address is above the last"),
            });
        }
    }
    match spec.assignment {
        Assignment::Automatic | Assignment::Manual | Assignment::None => Ok(()),
        Assignment::Unknown(_) => Err(Refusal::later("spec.assignment")),
    }
}

/// Kinds with a status that a later version will act on.
const LATER_KINDS: [&str; 3] = ["GlobalNetworkPolicy", "HostEndpoint", "NetworkPolicy"];

/// Whether this version acts on objects of a kind of ours at all.
///
/// # Errors
/// `UnknownValue` for a kind whose objects change nothing yet.
pub fn kind(kind: &str) -> Result<(), Refusal> {
    if LATER_KINDS.contains(&kind) { Err(Refusal::later_object(kind)) } else { Ok(()) }
}

/// Whether a Tier orders policies. The three fixed ones are there whatever an object says.
///
/// # Errors
/// `UnknownValue` for every other: policies of people's tiers are not evaluated yet.
pub fn tier(tier: &Tier) -> Result<(), Refusal> {
    let name = tier.metadata.name.as_deref().unwrap_or_default();
    if FixedTier::ALL.iter().any(|fixed| fixed.name == name) {
        return Ok(());
    }
    Err(Refusal::later_object("a Tier other than kube-admin, default and kube-baseline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(extra: &str) -> BGPPeer {
        serde_saphyr::from_str(&format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: BGPPeer, metadata: {{name: a}}, spec: {{asn: 65001, {extra}}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn a_field_of_a_later_version_is_named_and_never_ignored() {
        assert_eq!(bgp_peer(&peer("address: 10.0.0.1")), Ok(()));
        for honoured in [
            "address: 10.0.0.1, session: {ttlSecurity: true}",
            "address: 10.0.0.1, sourceInterface: lo, maxHops: 2",
            "listenRange: 10.0.0.0/24",
        ] {
            assert_eq!(bgp_peer(&peer(honoured)), Ok(()), "{honoured}");
        }
        // The session itself says what of `auth` is missing or not supported.
        let signed = "address: 10.0.0.1, session: {auth: {md5: {secretRef: {name: a, key: b}}}}";
        assert_eq!(bgp_peer(&peer(signed)), Ok(()));
        let honoured =
            "address: 10.0.0.1, role: Customer, session: {gracefulRestart: {longLivedStaleTime: 1h}}";
        assert_eq!(bgp_peer(&peer(honoured)), Ok(()));
        let newer = bgp_peer(&peer("address: 10.0.0.1, role: Sibling")).unwrap_err();
        assert!(newer.message.starts_with("spec.role \"Sibling\" is not known"), "{newer:?}");
        let policy = "address: 10.0.0.1, filters: [a], nextHop: Keep, adminState: Drained";
        assert_eq!(bgp_peer(&peer(policy)), Ok(()));
        for (extra, text) in [
            ("address: 10.0.0.1, nextHop: Other", "spec.nextHop \"Other\" is not known"),
            ("address: 10.0.0.1, adminState: Asleep", "spec.adminState \"Asleep\" is not known"),
        ] {
            let refusal = bgp_peer(&peer(extra)).unwrap_err();
            assert!(refusal.message.starts_with(text), "{extra}: {refusal:?}");
        }
        assert_eq!(bgp_peer(&peer("interface: eth0, session: {bfdProfile: fast}")), Ok(()));
        // So it is with a profile that is not there.
        assert_eq!(bgp_peer(&peer("address: 10.0.0.1, session: {bfdProfile: fast}")), Ok(()));
        assert_eq!(
            bgp_peer(&peer("address: 10.0.0.1, session: {addPath: {receive: true, send: 4}}")),
            Ok(())
        );
        assert_eq!(bgp_peer(&peer("listenRange: 10.0.0.0/24, session: {bfdProfile: fast}")), Ok(()));
    }

    #[test]
    fn what_one_end_alone_would_say_is_refused_where_both_are_made() {
        let of = |rest: &str| {
            let mut peer = peer(&format!("peerNodeSelector: {{matchLabels: {{rr: a}}}}{rest}"));
            peer.spec.asn = None;
            bgp_peer(&peer)
        };
        assert_eq!(of(""), Ok(()));
        assert_eq!(of(", transit: true, maxHops: 3, session: {ttlSecurity: true}"), Ok(()));
        for (rest, field) in [
            (", localASN: 65009", "spec.localASN"),
            (", port: 1179", "spec.port"),
            (", passive: true", "spec.passive"),
            (", sourceInterface: lo", "spec.sourceInterface"),
        ] {
            let refusal = of(rest).unwrap_err();
            assert!(
                refusal.message.starts_with(&format!("{field} does not apply to peerNodeSelector")),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn node_to_node_sessions_are_opened_as_configured_or_not_at_all() {
        let configuration = |spec: &str| -> FabricConfiguration {
            serde_saphyr::from_str(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, spec: {{{spec}}}}}"
            ))
            .unwrap()
        };
        assert_eq!(topology(None), Ok(()));
        for spec in [
            "topology: {mode: FullMesh, session: {timers: {hold: 9s}}}",
            "topology: {mode: RouteReflector, routeReflectors: {count: 2}}",
            "topology: {mode: None}, session: {bfdProfile: fast}",
            "topology: {session: {ttlSecurity: true, bfdProfile: fast}}",
            "session: {bfdProfile: fast}",
            "topology: {session: {auth: {md5: {secretRef: {name: a, key: b}}}}}",
            "topology: {session: {addPath: {send: 2}}}",
        ] {
            assert_eq!(topology(Some(&configuration(spec))), Ok(()), "{spec}");
        }
        let refusal = topology(Some(&configuration("topology: {mode: Star}"))).unwrap_err();
        assert!(refusal.message.starts_with("spec.topology.mode \"Star\" is not known"), "{refusal:?}");
    }

    #[test]
    fn a_peer_has_no_name_of_a_node_to_node_session() {
        let mut named = peer("address: 10.0.0.1");
        named.metadata.name = Some("topology.10.0.0.2".to_owned());
        assert_eq!(bgp_peer(&named).unwrap_err().reason, "OverlapsPeer");
        named.metadata.name = Some("topology-a".to_owned());
        assert_eq!(bgp_peer(&named), Ok(()));
    }

    #[test]
    fn a_pool_may_masquerade_and_may_not_encapsulate_yet() {
        let pool = |rest: &str| -> IPPool {
            serde_saphyr::from_str(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {{name: a}},
                  spec: {{cidr: 10.244.0.0/16{rest}}}}}"
            ))
            .unwrap()
        };
        assert_eq!(ip_pool(&pool("")), Ok(()));
        assert_eq!(ip_pool(&pool(", natOutgoing: Masquerade")), Ok(()));
        let field = |rest| ip_pool(&pool(rest)).unwrap_err().message;
        assert!(field(", natOutgoing: Perhaps").starts_with("spec.natOutgoing"));
        assert!(field(", encapsulation: VXLAN").starts_with("spec.encapsulation"));
    }

    #[test]
    fn advertisements_are_of_pools_and_of_known_communities() {
        let advertisement = |spec: &str| -> BGPAdvertisement {
            serde_saphyr::from_str(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: BGPAdvertisement, metadata: {{name: a}}, spec: {{{spec}}}}}"
            ))
            .unwrap()
        };
        assert_eq!(bgp_advertisement(&advertisement("pools: {}"), None), Ok(()));
        let known = "pools: {}, attributes: {communities: [no-export, '64512:100']}";
        assert_eq!(bgp_advertisement(&advertisement(known), None), Ok(()));
        for spec in [
            "nodeAddresses: {}",
            "prefixes: [{cidr: 198.51.100.0/24}]",
            "prefixes: [{cidr: 198.51.100.0/24, gate: {interface: eth0}}]",
            "prefixes: [{cidr: 198.51.100.53/32, gate: {service: {namespace: kube-system, name: dns}}}]",
            "services: {addressTypes: [ClusterIP, ExternalIP, LoadBalancerIP], cidrs: [192.0.2.0/24], announce: CIDRs}",
        ] {
            assert_eq!(bgp_advertisement(&advertisement(spec), None), Ok(()), "{spec}");
        }
        for (spec, field) in [
            (
                "prefixes: [{cidr: 198.51.100.0/24}, {cidr: 203.0.113.0/24, gate: {}}]",
                "spec.prefixes[1].gate: exactly one of interface, service",
            ),
            (
                "services: {addressTypes: [NodePortIP]}",
                "spec.services.addressTypes \"NodePortIP\" is not known",
            ),
            (
                "services: {addressTypes: [ClusterIP], announce: Some}",
                "spec.services.announce \"Some\" is not known",
            ),
            (
                "services: {addressTypes: [ClusterIP], whenNoEndpoints: Wait}",
                "spec.services.whenNoEndpoints \"Wait\" is not known",
            ),
        ] {
            let refusal = bgp_advertisement(&advertisement(spec), None).unwrap_err();
            assert_eq!(refusal.reason, "UnknownValue");
            assert!(refusal.message.starts_with(field), "{spec}: {refusal:?}");
        }
        let unknown = advertisement("pools: {}, attributes: {communities: [from-k8s]}");
        assert_eq!(bgp_advertisement(&unknown, None).unwrap_err().reason, "UnknownCommunity");
    }

    #[test]
    fn ranges_that_hold_nothing_are_named() {
        let pool = |spec: &str| -> LoadBalancerPool {
            serde_saphyr::from_str(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: LoadBalancerPool, metadata: {{name: a}}, spec: {{{spec}}}}}"
            ))
            .unwrap()
        };
        assert_eq!(load_balancer_pool(&pool("addresses: [192.0.2.0/24, 192.0.2.9-192.0.2.9]")), Ok(()));
        let refusal =
            load_balancer_pool(&pool("addresses: [192.0.2.0/25, 192.0.2.20-192.0.2.10]")).unwrap_err();
        assert_eq!(refusal.reason, "InvalidRange");
        assert_eq!(refusal.message, "addresses[1]: the first address is above the last");
        let newer = pool("addresses: [192.0.2.0/24], assignment: Weekly");
        assert_eq!(load_balancer_pool(&newer).unwrap_err().reason, "UnknownValue");
    }

    #[test]
    fn a_kind_of_a_later_version_says_so() {
        let refusal = kind("HostEndpoint").unwrap_err();
        assert_eq!(refusal.reason, "UnknownValue");
        assert!(refusal.message.starts_with("HostEndpoint is not supported by this version"), "{refusal:?}");
        assert_eq!(kind("IPPool"), Ok(()));
        let of = |name: &str| -> Tier {
            serde_saphyr::from_str(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: Tier, metadata: {{name: {name}}}, spec: {{order: 1000000}}}}"
            ))
            .unwrap()
        };
        assert_eq!(tier(&of("default")), Ok(()));
        assert_eq!(tier(&of("security")).unwrap_err().reason, "UnknownValue");
    }
}

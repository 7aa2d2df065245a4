use std::net::Ipv4Addr;

use super::*;
use crate::policy::{ExportPolicy, ImportPolicy};

fn config() -> PeerConfig {
    let mut config = PeerConfig::new(
        "10.0.0.2".parse().unwrap(),
        RemoteAsn::Exactly(Asn(65002)),
        ImportPolicy::accept_all(),
        ExportPolicy::default(),
    );
    config.next_hop.ipv6 = Some("fd00::1".parse().unwrap());
    config
}

fn offer(config: &PeerConfig) -> Offer<'_> {
    Offer {
        asn: Asn(4_200_000_001),
        router_id: RouterId(Ipv4Addr::new(10, 0, 0, 1)),
        local: "10.0.0.1".parse().unwrap(),
        config,
    }
}

fn theirs() -> Open {
    Open {
        my_as: 65002,
        hold_time: 9,
        router_id: RouterId(Ipv4Addr::new(10, 0, 0, 2)),
        capabilities: vec![
            Capability::multiprotocol(AfiSafi::Ipv4Unicast),
            Capability::multiprotocol(AfiSafi::Ipv6Unicast),
            Capability::RouteRefresh,
            Capability::FourOctetAsn(Asn(65002)),
        ],
    }
}

fn fresh() -> OwnRestart {
    OwnRestart { restarting: true, forwarding: [AfiSafi::Ipv4Unicast].into() }
}

#[test]
fn our_open_says_what_we_can() {
    let config = config();
    let open = offer(&config).open(&fresh());
    assert_eq!((open.my_as, open.hold_time, open.asn()), (23456, 30, Asn(4_200_000_001)));
    let expected = GracefulRestartCapability {
        restarting: true,
        notification: false,
        restart_time: 120,
        families: vec![
            RestartFamily { afi: 1, safi: 1, forwarding: true },
            RestartFamily { afi: 2, safi: 1, forwarding: false },
        ],
    };
    assert_eq!(
        open.capabilities,
        [
            Capability::multiprotocol(AfiSafi::Ipv4Unicast),
            Capability::multiprotocol(AfiSafi::Ipv6Unicast),
            Capability::RouteRefresh,
            Capability::ExtendedMessage,
            Capability::FourOctetAsn(Asn(4_200_000_001)),
            Capability::EnhancedRouteRefresh,
            Capability::GracefulRestart(expected),
        ]
    );
}

#[test]
fn what_is_asked_for_is_offered_beside_it() {
    let mut config = config();
    config.role = Some(Role::Customer);
    config.add_path = AddPath { receive: true, send: 4 };
    config.graceful_restart.long_lived_stale_time = Duration::from_secs(1 << 30);
    let capabilities = offer(&config).open(&fresh()).capabilities;
    let entry = |afi| AddPathFamily { afi, safi: 1, receive: true, send: true };
    let stale = |afi, forwarding| LongLivedFamily { afi, safi: 1, forwarding, stale_time: 0xff_ffff };
    for wanted in [
        Capability::Role(Role::Customer),
        Capability::AddPath(vec![entry(1), entry(2)]),
        Capability::LongLivedGracefulRestart(vec![stale(1, true), stale(2, false)]),
    ] {
        assert!(capabilities.contains(&wanted), "{wanted:?} in {capabilities:?}");
    }
    // RFC 9494 §4.1: not without graceful restart; RFC 9234 §4.1: not within an AS.
    config.graceful_restart.mode = GracefulRestartMode::Disabled;
    config.remote_asn = RemoteAsn::Internal;
    let codes: Vec<u8> = offer(&config).open(&fresh()).capabilities.iter().map(Capability::code).collect();
    assert_eq!(codes, [1, 1, 2, 6, 65, 69, 70]);
}

#[test]
fn rfc7911_a_direction_takes_one_who_sends_and_one_who_receives() {
    let mut config = config();
    let mut open = theirs();
    open.capabilities.push(Capability::AddPath(vec![
        AddPathFamily { afi: 1, safi: 1, receive: true, send: false },
        AddPathFamily { afi: 2, safi: 1, receive: true, send: true },
        AddPathFamily { afi: 1, safi: 2, receive: true, send: true },
    ]));
    let agreed = |config: &PeerConfig| {
        let agreed = offer(config).accept(&open).unwrap();
        (agreed.add_path_receive, agreed.add_path_send)
    };
    let (v4, v6) = (AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast);
    assert_eq!(agreed(&config), ([].into(), [].into()));
    config.add_path = AddPath { receive: true, send: 0 };
    assert_eq!(agreed(&config), ([v6].into(), [].into()));
    config.add_path = AddPath { receive: false, send: 2 };
    assert_eq!(agreed(&config), ([].into(), [v4, v6].into()));
}

#[test]
fn rfc9234_4_2_roles_go_together_or_the_session_does_not_come_up() {
    let mut config = config();
    let verdict = |config: &PeerConfig, said: &[Capability]| {
        let mut open = theirs();
        open.capabilities.extend_from_slice(said);
        offer(config)
            .accept(&open)
            .map(|agreed| agreed.role_agreed)
            .map_err(|(n, text)| (n.code, n.subcode, text))
    };
    let role = Capability::Role;
    assert_eq!(verdict(&config, &[role(Role::Customer)]), Ok(false), "we say none");
    for ours in Role::ALL {
        config.role = Some(ours);
        for theirs in Role::ALL {
            let verdict = verdict(&config, &[role(theirs)]);
            match theirs == ours.opposite() {
                true => assert_eq!(verdict, Ok(true)),
                false => assert!(matches!(verdict, Err((2, 11, _))), "{ours:?} {theirs:?}: {verdict:?}"),
            }
        }
    }
    config.role = Some(Role::Customer);
    assert_eq!(verdict(&config, &[]), Ok(false));
    assert_eq!(verdict(&config, &[role(Role::Provider), role(Role::Provider)]), Ok(true));
    for (said, text) in [
        (vec![role(Role::Customer)], "the peer says role Customer; to our Customer belongs Provider"),
        (vec![role(Role::Provider), role(Role::Peer)], "the peer says several roles"),
        (vec![Capability::decode(9, &[5])], "the peer says a role that nobody defined: [5]"),
    ] {
        assert_eq!(verdict(&config, &said), Err((2, 11, text.to_owned())));
    }
    config.role_strict = true;
    let strict = "the peer says no role; roleStrict asks for Provider";
    assert_eq!(verdict(&config, &[]), Err((2, 11, strict.to_owned())));
}

#[test]
fn a_family_without_next_hop_is_not_offered() {
    let mut config = config();
    config.next_hop.ipv6 = None;
    assert_eq!(offer(&config).families(), [AfiSafi::Ipv4Unicast].into());
    config.next_hop.ipv4 = Some(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(offer(&config).next_hop(AfiSafi::Ipv4Unicast), Some("192.0.2.1".parse().unwrap()));
}

#[test]
fn rfc4724_a_helper_names_no_family_and_disabled_sends_nothing() {
    let mut config = config();
    config.graceful_restart.mode = GracefulRestartMode::Helper;
    let open = offer(&config).open(&fresh());
    assert!(graceful_restart_of(&open).unwrap().families.is_empty());
    config.graceful_restart.mode = GracefulRestartMode::Disabled;
    let open = offer(&config).open(&fresh());
    assert_eq!(graceful_restart_of(&open), None);
}

#[test]
fn rfc4271_4_2_the_smaller_hold_time_counts() {
    for (ours, their, expected) in [(30, 9, 9), (9, 30, 9), (0, 30, 0), (30, 0, 0), (2, 30, 3)] {
        let mut config = config();
        config.hold_time = Duration::from_secs(ours);
        let mut open = theirs();
        open.hold_time = their;
        let negotiated = offer(&config).accept(&open).unwrap();
        assert_eq!(negotiated.hold_time, Duration::from_secs(expected), "{ours} and {their}");
        assert_eq!(negotiated.keepalive, Duration::from_secs(expected) / 3);
    }
}

#[test]
fn a_configured_keepalive_never_passes_a_third_of_the_hold_time() {
    let seconds = Duration::from_secs;
    assert_eq!(keepalive_interval(Some(seconds(20)), seconds(30)), seconds(10));
    assert_eq!(keepalive_interval(Some(seconds(4)), seconds(30)), seconds(4));
    assert_eq!(keepalive_interval(Some(seconds(0)), seconds(30)), seconds(1));
    assert_eq!(keepalive_interval(None, seconds(0)), seconds(0));
}

#[test]
fn rfc4271_6_2_the_peers_as_must_be_the_configured_one() {
    for (expected, their, acceptable) in [
        (RemoteAsn::Exactly(Asn(65002)), 65002, true),
        (RemoteAsn::Exactly(Asn(65002)), 65003, false),
        (RemoteAsn::External, 65003, true),
        (RemoteAsn::External, 4_200_000_001, false),
        (RemoteAsn::Internal, 4_200_000_001, true),
        (RemoteAsn::Internal, 65002, false),
        (RemoteAsn::External, 0, false),
    ] {
        let mut config = config();
        config.remote_asn = expected;
        let mut open = theirs();
        open.capabilities.pop();
        open.capabilities.push(Capability::FourOctetAsn(Asn(their)));
        match offer(&config).accept(&open) {
            Ok(_) => assert!(acceptable, "{expected:?} {their}"),
            Err((notification, text)) => {
                assert!(!acceptable, "{expected:?} {their}");
                assert_eq!((notification.code, notification.subcode), (2, 2));
                assert!(text.contains(&format!("AS {their}")), "{text}");
            }
        }
    }
}

#[test]
fn rfc6286_equal_identifiers_are_refused_within_an_as_only() {
    let mut open = theirs();
    open.router_id = RouterId(Ipv4Addr::new(10, 0, 0, 1));
    let mut config = config();
    assert!(offer(&config).accept(&open).is_ok(), "another AS");
    config.remote_asn = RemoteAsn::Internal;
    config.local_asn = None;
    let mut offer = offer(&config);
    offer.asn = Asn(65002);
    assert_eq!(offer.accept(&open).unwrap_err().0, Notification::with_data(2, 3, [10, 0, 0, 1]));
}

#[test]
fn rfc4760_without_the_capability_a_peer_speaks_ipv4_unicast() {
    let mut open = theirs();
    open.capabilities.clear();
    let config = config();
    let negotiated = offer(&config).accept(&open).unwrap();
    assert_eq!(negotiated.families, [AfiSafi::Ipv4Unicast].into());
    assert!(!negotiated.four_octet_as && !negotiated.route_refresh);
    assert_eq!(negotiated.remote_asn, Asn(65002));
}

#[test]
fn rfc5492_no_common_family_is_an_unsupported_capability() {
    let mut open = theirs();
    open.capabilities = vec![Capability::Multiprotocol { afi: 25, safi: 70 }];
    let config = config();
    let (notification, text) = offer(&config).accept(&open).unwrap_err();
    assert_eq!(notification, Notification::with_data(2, 7, [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1]));
    assert_eq!(text, "no family in common: we offer IPv4Unicast, IPv6Unicast, the peer none");
}

#[test]
fn unknown_and_malformed_capabilities_change_nothing() {
    let config = config();
    let plain = offer(&config).accept(&theirs()).unwrap();
    let mut open = theirs();
    open.capabilities.push(Capability::Other { code: 73, value: b"\x02vm\x0bexample.org".to_vec() });
    open.capabilities.push(Capability::Other { code: 64, value: vec![1] });
    assert_eq!(offer(&config).accept(&open).unwrap(), plain);
}

#[test]
fn rfc4724_the_last_restart_capability_counts() {
    let restart = |time| {
        Capability::GracefulRestart(GracefulRestartCapability {
            restart_time: time,
            ..GracefulRestartCapability::default()
        })
    };
    let mut open = theirs();
    open.capabilities.extend([restart(1), restart(2)]);
    let config = config();
    assert_eq!(offer(&config).accept(&open).unwrap().graceful_restart.unwrap().restart_time, 2);
}

#[test]
fn rfc4724_only_families_the_peer_named_are_retained() {
    let mut open = theirs();
    open.capabilities.push(Capability::GracefulRestart(GracefulRestartCapability {
        families: vec![RestartFamily { afi: 2, safi: 1, forwarding: false }],
        ..GracefulRestartCapability::default()
    }));
    let mut config = config();
    assert_eq!(offer(&config).accept(&open).unwrap().retained_families(), [AfiSafi::Ipv6Unicast].into());
    config.graceful_restart.mode = GracefulRestartMode::Disabled;
    assert!(offer(&config).accept(&open).unwrap().retained_families().is_empty());
}

#[test]
fn status_names_what_both_sides_sent() {
    let config = config();
    let status = offer(&config).accept(&theirs()).unwrap().status();
    assert_eq!(status.capabilities, ["FourOctetASN", "RouteRefresh"]);
    assert_eq!((status.hold_time, status.keepalive, status.restart_time), (9, 3, None));
}

#[test]
fn ipv4_without_an_ipv4_next_hop_needs_the_peers_word() {
    let config = PeerConfig { extended_next_hop: true, ..config() };
    let over_ipv6 = || Offer { local: "fd00::1".parse().unwrap(), ..offer(&config) };
    assert_eq!(over_ipv6().families().len(), 2, "with RFC 8950 there is one");
    let without = over_ipv6().accept(&theirs()).unwrap();
    assert_eq!(without.families, [AfiSafi::Ipv6Unicast].into());
    let mut agreed = theirs();
    agreed.capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop::IPV4_VIA_IPV6]));
    let with = over_ipv6().accept(&agreed).unwrap();
    assert!(with.extended_next_hop && with.families.len() == 2);
    // Who speaks IPv4 alone, and not so, has no family in common with us.
    let mut alone = theirs();
    alone.capabilities.remove(1);
    let (notification, text) = over_ipv6().accept(&alone).unwrap_err();
    assert_eq!((notification.code, notification.subcode), (2, 7), "{text}");
    assert_eq!(
        text,
        "no family in common: we offer IPv4Unicast, IPv6Unicast, the peer IPv4Unicast; IPv4Unicast needs the peer's extended \
         next hop capability (RFC 8950), for we have no IPv4 address on this session"
    );
    // Nobody asked: it is neither offered nor taken.
    let plain = PeerConfig { extended_next_hop: false, ..config.clone() };
    assert!(!offer(&plain).accept(&agreed).unwrap().extended_next_hop);
}

/// The simulation's: the session was reset over and over for prefixes that were read without their identifiers.
#[test]
fn rfc7911_identifiers_are_known_in_a_family_that_is_left_out_for_want_of_a_next_hop() {
    let mut config = PeerConfig { extended_next_hop: true, ..config() };
    config.add_path = AddPath { receive: true, send: 2 };
    let offer = Offer { local: "fd00::1".parse().unwrap(), ..offer(&config) };
    let mut open = theirs();
    let entry =
        |family: AfiSafi| AddPathFamily { afi: family.afi(), safi: family.safi(), receive: true, send: true };
    open.capabilities.push(Capability::AddPath(AfiSafi::ALL.map(entry).into()));
    let agreed = offer.accept(&open).unwrap();
    assert_eq!(agreed.families, [AfiSafi::Ipv6Unicast].into());
    assert_eq!(agreed.add_path_receive, AfiSafi::ALL.into());
    assert_eq!(agreed.add_path_send, [AfiSafi::Ipv6Unicast].into());
}

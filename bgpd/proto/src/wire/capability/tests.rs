use super::*;

/// Bytes and value, both directions.
fn both_ways(bytes: &[u8], capability: &Capability) {
    assert_eq!(&Capability::decode(bytes[0], &bytes[2..]), capability);
    let mut out = Vec::new();
    capability.encode(&mut out);
    assert_eq!(out, bytes);
}

#[test]
fn vectors() {
    both_ways(&[1, 4, 0, 1, 0, 1], &Capability::multiprotocol(AfiSafi::Ipv4Unicast));
    both_ways(&[1, 4, 0, 2, 0, 1], &Capability::multiprotocol(AfiSafi::Ipv6Unicast));
    both_ways(&[1, 4, 0x40, 4, 0, 71], &Capability::Multiprotocol { afi: 0x4004, safi: 71 });
    both_ways(&[2, 0], &Capability::RouteRefresh);
    both_ways(&[65, 4, 0xfa, 0x56, 0xea, 0], &Capability::FourOctetAsn(Asn(4_200_000_000)));
    both_ways(&[70, 0], &Capability::EnhancedRouteRefresh);
    both_ways(&[6, 0], &Capability::ExtendedMessage);
    both_ways(&[9, 1, 3], &Capability::Role(Role::Customer));
    both_ways(&[5, 6, 0, 1, 0, 1, 0, 2], &Capability::ExtendedNextHop(vec![ExtendedNextHop::IPV4_VIA_IPV6]));
    both_ways(
        &[69, 8, 0, 1, 1, 3, 0, 2, 1, 1],
        &Capability::AddPath(vec![
            AddPathFamily { afi: 1, safi: 1, receive: true, send: true },
            AddPathFamily { afi: 2, safi: 1, receive: true, send: false },
        ]),
    );
    both_ways(
        &[71, 7, 0, 2, 1, 0x80, 1, 0, 0],
        &Capability::LongLivedGracefulRestart(vec![LongLivedFamily {
            afi: 2,
            safi: 1,
            forwarding: true,
            stale_time: 65536,
        }]),
    );
    both_ways(&[73, 3, 2, b'v', b'm'], &Capability::Other { code: 73, value: vec![2, b'v', b'm'] });
    // RFC 7911 §4: another Send/Receive value is ignored, the other entries count.
    let Capability::AddPath(list) = Capability::decode(69, &[0, 1, 1, 0, 0, 1, 1, 4, 0, 2, 1, 2]) else {
        panic!()
    };
    assert_eq!(list, [AddPathFamily { afi: 2, safi: 1, receive: false, send: true }]);
}

#[test]
fn rfc4724_graceful_restart_vectors() {
    both_ways(
        &[64, 2, 0, 120],
        &Capability::GracefulRestart(GracefulRestartCapability {
            restart_time: 120,
            ..GracefulRestartCapability::default()
        }),
    );
    both_ways(
        &[64, 10, 0x80 | 0x0f, 0xff, 0, 1, 1, 0x80, 0, 2, 1, 0],
        &Capability::GracefulRestart(GracefulRestartCapability {
            restarting: true,
            notification: false,
            restart_time: 4095,
            families: vec![
                RestartFamily { afi: 1, safi: 1, forwarding: true },
                RestartFamily { afi: 2, safi: 1, forwarding: false },
            ],
        }),
    );
}

#[test]
fn rfc8538_n_bit_is_read() {
    let Capability::GracefulRestart(restart) = Capability::decode(64, &[0x40, 5]) else { panic!() };
    assert!(restart.notification && !restart.restarting);
}

#[test]
fn a_malformed_known_capability_is_kept_without_effect() {
    for (code, value) in [
        (1, vec![0, 1, 0]),
        (2, vec![1]),
        (64, vec![0]),
        (64, vec![0, 1, 0, 1, 1]),
        (65, vec![1, 2, 3]),
        (5, vec![0]),
        (6, vec![0]),
        (9, vec![]),
        (9, vec![5]),
        (69, vec![0, 1, 1]),
        (70, vec![0]),
        (71, vec![0; 6]),
    ] {
        let capability = Capability::decode(code, &value);
        assert_eq!(capability, Capability::Other { code, value });
        assert!(capability.is_malformed());
    }
    assert!(!Capability::decode(73, b"\x02vm\x0bexample.org").is_malformed(), "FQDN is not ours to judge");
}

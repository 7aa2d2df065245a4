//! Socket options, over a real link between two namespaces.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use felix_kernel::socket::{DialOptions, dial, listen, set_md5_key, set_ttl, set_ttl_security};
use tokio::net::TcpStream;

use crate::namespace::{Namespace, connect};

/// How a connection attempt ended within two seconds.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Connected,
    Silence,
    Refused(io::ErrorKind),
}

fn attempt(from: &Namespace, to: SocketAddr, options: &DialOptions) -> Ended {
    from.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let connecting = dial(to.ip(), options).unwrap().connect(to);
            match tokio::time::timeout(Duration::from_secs(2), connecting).await {
                Ok(Ok(stream)) => {
                    check_stream(&stream, options);
                    Ended::Connected
                }
                Ok(Err(err)) => Ended::Refused(err.kind()),
                Err(_) => Ended::Silence,
            }
        })
    })
}

fn check_stream(stream: &TcpStream, options: &DialOptions) {
    if let Some(source) = options.source {
        assert_eq!(stream.local_addr().unwrap().ip(), source);
    }
}

struct Rig {
    here: Namespace,
    there: Namespace,
}

fn rig() -> Rig {
    let (here, there) = (Namespace::new(), Namespace::new());
    connect(&here, &there, 1);
    Rig { here, there }
}

fn listener(at: &Namespace, address: &str) -> (TcpListener, SocketAddr) {
    let listener = at.run(|| listen(address.parse().unwrap()).unwrap());
    let port = listener.local_addr().unwrap().port();
    let address: SocketAddr = address.parse().unwrap();
    (listener, SocketAddr::new(address.ip(), port))
}

const FAMILIES: [(&str, &str); 2] = [("10.9.1.2:0", "10.9.1.1"), ("[fd09:1::2]:0", "fd09:1::1")];

#[test]
fn both_families_listen_on_one_port_and_are_dialled_from_a_source() {
    let rig = rig();
    let (_v4, address) = listener(&rig.there, "0.0.0.0:0");
    let v6: SocketAddr = format!("[::]:{}", address.port()).parse().unwrap();
    let _v6 = rig.there.run(|| listen(v6).unwrap());
    let taken = rig.there.run(|| listen(v6).unwrap_err());
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    for (to, source) in FAMILIES {
        let to = SocketAddr::new(to.parse::<SocketAddr>().unwrap().ip(), address.port());
        let options = DialOptions {
            source: Some(source.parse().unwrap()),
            device: Some("e1".to_owned()),
            user_timeout: Some(Duration::from_secs(9)),
            ..DialOptions::default()
        };
        assert_eq!(attempt(&rig.here, to, &options), Ended::Connected);
    }
}

#[test]
fn only_the_right_md5_key_connects() {
    let rig = rig();
    for (at, source) in FAMILIES {
        let source: IpAddr = source.parse().unwrap();
        let (listening, to) = listener(&rig.there, at);
        set_md5_key(&listening, source, None, b"secret").unwrap();
        let with =
            |key: Option<&[u8]>| DialOptions { md5_key: key.map(<[u8]>::to_vec), ..DialOptions::default() };
        assert_eq!(attempt(&rig.here, to, &with(Some(b"secret"))), Ended::Connected);
        assert_eq!(attempt(&rig.here, to, &with(Some(b"wrong"))), Ended::Silence);
        assert_eq!(attempt(&rig.here, to, &with(None)), Ended::Silence);
        set_md5_key(&listening, source, None, b"").unwrap();
        assert_eq!(attempt(&rig.here, to, &with(None)), Ended::Connected, "an empty key removes it");

        // For all of a prefix, as dynamic neighbours need it.
        set_md5_key(&listening, source, Some(if source.is_ipv4() { 24 } else { 64 }), b"secret").unwrap();
        assert_eq!(attempt(&rig.here, to, &with(Some(b"secret"))), Ended::Connected);
        assert_eq!(attempt(&rig.here, to, &with(Some(b"wrong"))), Ended::Silence);
        let long = set_md5_key(&listening, source, None, &[7; 81]).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn ttl_security_hears_only_neighbours() {
    let rig = rig();
    for (at, source) in FAMILIES {
        let source: IpAddr = source.parse().unwrap();
        let (listening, to) = listener(&rig.there, at);
        set_ttl_security(&listening, source, 255).unwrap();
        let near = DialOptions { min_ttl: Some(255), ..DialOptions::default() };
        let spoofed = DialOptions { ttl: Some(64), ..DialOptions::default() };
        assert_eq!(attempt(&rig.here, to, &near), Ended::Connected);
        assert_eq!(attempt(&rig.here, to, &spoofed), Ended::Silence);
    }
}

#[test]
fn a_ttl_of_one_does_not_pass_a_router() {
    let (here, router, there) = (Namespace::new(), Namespace::new(), Namespace::new());
    connect(&here, &router, 1);
    connect(&router, &there, 2);
    router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    here.sh("ip route add 10.9.2.0/24 via 10.9.1.2");
    there.sh("ip route add 10.9.1.0/24 via 10.9.2.1");
    let (listening, to) = listener(&there, "10.9.2.2:0");
    let with = |ttl| DialOptions { ttl: Some(ttl), ..DialOptions::default() };
    assert_eq!(attempt(&here, to, &with(2)), Ended::Connected);
    assert_ne!(attempt(&here, to, &with(1)), Ended::Connected);
    set_ttl(&listening, to.ip(), 64).unwrap();
}

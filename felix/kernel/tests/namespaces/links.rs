use felix_calc::host::INTERFACE_PREFIX;
use felix_kernel::link::{self, MacAddress, Veth};

use crate::namespace::Namespace;

fn veth<'a>(pod: &'a Namespace, host_name: &'a str) -> Veth<'a> {
    Veth {
        host_name,
        host_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        pod_name: "eth0",
        pod_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        mtu: 1440,
        namespace: pod.fd(),
    }
}

#[test]
fn a_veth_is_made_straight_into_the_pod_with_names_addresses_and_mtu() {
    let (host, pod) = (Namespace::new(), Namespace::new());
    let socket = host.socket();
    let index = link::create_veth(&socket, &veth(&pod, "manx0123456789a")).unwrap();
    let near = &host.ip("link show manx0123456789a")[0];
    let far = &pod.ip("link show eth0")[0];
    assert_eq!(
        (&near["ifindex"], &near["mtu"], &near["address"]),
        (&index.into(), &1440.into(), &"02:00:00:00:00:01".into())
    );
    assert_eq!((&far["mtu"], &far["address"]), (&1440.into(), &"02:00:00:00:00:02".into()));
    assert_eq!(near["operstate"], "DOWN");

    let taken = link::create_veth(&socket, &veth(&pod, "manx0123456789b")).unwrap_err();
    assert!(taken.is_exists(), "eth0 is taken in the pod: {taken}");
    assert_eq!(link::by_name(&socket, "manx0123456789b").unwrap(), None, "nothing is left of the attempt");

    link::set_mtu(&socket, index, 1400).unwrap();
    link::set_up(&socket, index).unwrap();
    let read = link::by_name(&socket, "manx0123456789a").unwrap().unwrap();
    assert_eq!((read.mtu, read.up, read.carrier, read.kind.as_deref()), (1400, true, false, Some("veth")));
    let far_socket = pod.socket();
    let far_index = link::by_name(&far_socket, "eth0").unwrap().unwrap().index;
    link::set_up(&far_socket, far_index).unwrap();
    assert!(link::settle(&socket, index).unwrap().is_usable());
    link::set_down(&far_socket, far_index).unwrap();
    assert!(!link::settle(&socket, index).unwrap().is_usable());
}

#[test]
fn the_host_end_is_secured_before_it_is_up() {
    let (host, pod) = (Namespace::new(), Namespace::new());
    let socket = host.socket();
    let index = link::create_veth(&socket, &veth(&pod, "manxaaaaaaaaaaa")).unwrap();
    link::secure_host_end(&socket, index).unwrap();
    let conf = |family: &str, key: &str| {
        host.sh(&format!("cat /proc/sys/net/{family}/conf/manxaaaaaaaaaaa/{key}")).trim().to_owned()
    };
    for (key, value) in [
        ("forwarding", "1"),
        ("proxy_arp", "0"),
        ("accept_redirects", "0"),
        ("send_redirects", "0"),
        ("rp_filter", "1"),
    ] {
        assert_eq!(conf("ipv4", key), value, "{key}");
    }
    link::set_up(&socket, index).unwrap();
    pod.sh("ip link set eth0 up");
    assert_eq!(
        host.ip("-6 address show dev manxaaaaaaaaaaa"),
        Vec::<serde_json::Value>::new(),
        "no address of its own"
    );
}

#[test]
fn links_are_listed_by_prefix_and_deleted_once_or_twice() {
    let (host, pods) = (Namespace::new(), [Namespace::new(), Namespace::new(), Namespace::new()]);
    let socket = host.socket();
    let names = ["manx00000000001", "manx00000000002", "other0"];
    let indexes: Vec<u32> = pods
        .iter()
        .zip(names)
        .map(|(pod, name)| link::create_veth(&socket, &veth(pod, name)).unwrap())
        .collect();
    let listed = link::list_pod_links(&socket).unwrap();
    assert!(listed.iter().all(|link| link.name.starts_with(INTERFACE_PREFIX)));
    assert_eq!(listed.iter().map(|link| link.index).collect::<Vec<_>>(), indexes[..2]);

    link::delete_by_name(&socket, names[0]).unwrap();
    link::delete_by_name(&socket, names[0]).unwrap();
    link::delete(&socket, indexes[0]).unwrap();
    assert_eq!(link::delete_all(&socket, &indexes).unwrap(), []);
    let left: Vec<String> =
        host.ip("link").iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left, ["lo"]);
    assert_eq!(pods[1].ip("link").len(), 1, "the other end went too");
}

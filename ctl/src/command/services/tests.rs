use serde_json::{Value, json};

use super::*;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, spec: &Value, ingress: &Value) -> Service {
    object(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")}, "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}}
    }))
}

fn slice(service: &str, endpoints: &[(&str, bool, bool)]) -> EndpointSlice {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, ready, ends)| json!({"addresses": [ip], "conditions": {"ready": ready, "terminating": ends}}))
        .collect();
    object(json!({
        "metadata": {"name": format!("{service}-1"), "namespace": "shop", "labels": {SERVICE_NAME_LABEL: service}},
        "addressType": "IPv4", "endpoints": endpoints
    }))
}

fn event(uid: &str, name: &str, second: u8, note: &str) -> Event {
    object(json!({
        "metadata": {"name": note, "namespace": "shop"}, "reason": FAILED, "note": note,
        "eventTime": format!("2026-11-21T10:00:{second:02}.000000Z"),
        "regarding": {"kind": "Service", "namespace": "shop", "name": name, "uid": uid}
    }))
}

fn facts() -> Facts {
    let balanced =
        json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"], "externalTrafficPolicy": "Local"});
    Facts {
        services: vec![
            service("web", &balanced, &json!([{"ip": "192.0.2.10"}, {"ip": "2001:db8::10"}])),
            service("pay", &balanced, &json!([{"ip": "192.0.2.11"}])),
            service("lost", &balanced, &json!([{"ip": "192.0.2.12"}])),
            service("old", &balanced, &json!([])),
            service("young", &balanced, &json!([])),
            service("inside", &json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.9"]}), &json!([])),
            service("by-hand", &json!({"type": "ClusterIP", "externalIPs": ["203.0.113.5"]}), &json!([])),
        ],
        slices: vec![
            slice(
                "web",
                &[("10.244.0.1", true, false), ("10.244.0.2", true, false), ("10.244.0.3", false, false)],
            ),
            slice("pay", &[("10.244.0.4", true, true), ("10.244.0.5", false, false)]),
            slice("lost", &[("10.244.0.6", true, false)]),
            slice("by-hand", &[("10.244.0.7", true, false)]),
            slice("inside", &[("10.244.0.8", true, false)]),
            slice("old", &[("10.244.0.9", true, false)]),
        ],
        pools: vec![object(json!({
            "apiVersion": "manx.dev/v1alpha1", "kind": "LoadBalancerPool", "metadata": {"name": "public"},
            "spec": {"addresses": ["192.0.2.0/24"]}
        }))],
        events: vec![
            event("uid-old", "old", 1, "before"),
            event("uid-old", "old", 2, "192.0.9.9 is in no LoadBalancerPool"),
            event("uid-of-another", "young", 3, "of a Service that was deleted"),
        ],
        peers: true,
        asked_for: vec![ServiceAddressType::LoadBalancerIP, ServiceAddressType::ExternalIP],
        all_nodes: true,
        originated: ["192.0.2.10/32 203.0.113.0/24", "192.0.2.10/32", "10.244.0.0/26"]
            .map(|node| {
                node.split(' ').map(|prefix| prefix.parse().unwrap()).collect::<BTreeSet<IpNet>>().into()
            })
            .into(),
    }
}

fn shown(rows: &[ServiceRow]) -> Vec<String> {
    let text = |row: &ServiceRow| {
        let address = row.address.map(|address| address.to_string()).unwrap_or_default();
        let pool = row.pool.clone().unwrap_or_default();
        format!("{} {address} {pool} {} {} {} {}", row.name, row.policy, row.ready, row.nodes, row.state)
    };
    rows.iter().map(text).collect()
}

#[test]
fn each_address_says_where_it_is_from_and_who_tells_it() {
    let rows = rows(&facts(), false);
    assert_eq!(
        shown(&rows),
        [
            "lost 192.0.2.12 public Local 1 0 not announced",
            "old   Local 1 0 AddressRequestFailed",
            "pay 192.0.2.11 public Local 0 0 withdrawn: none ready",
            "web 2001:db8::10  Local 0 0 withdrawn: none ready",
            "young   Local 0 0 waits for an address",
            "by-hand 203.0.113.5  Cluster 1 1 announced",
            "web 192.0.2.10 public Local 2 2 announced",
        ]
    );
    assert_eq!(rows[1].message.as_deref(), Some("192.0.9.9 is in no LoadBalancerPool"));
}

#[test]
fn where_nobody_listens_nothing_is_wrong() {
    let rows = rows(&Facts { peers: false, originated: Vec::new(), ..facts() }, false);
    assert!(
        shown(&rows).contains(&"lost 192.0.2.12 public Local 1 0 no BGPPeer to tell".to_owned()),
        "{rows:?}"
    );
}

#[test]
fn of_nodes_that_nobody_asked_nothing_is_said() {
    let rows = rows(&Facts { all_nodes: false, ..facts() }, false);
    let lost = "lost 192.0.2.12 public Local 1 0 not by the nodes that answered";
    assert!(shown(&rows).contains(&lost.to_owned()), "{rows:?}");
}

#[test]
fn an_external_ip_hides_no_missing_address() {
    let spec = json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.5"]});
    let rows = rows(&Facts { services: vec![service("both", &spec, &json!([]))], ..facts() }, false);
    assert_eq!(
        shown(&rows),
        ["both   Cluster 0 0 waits for an address", "both 203.0.113.5  Cluster 0 1 announced"]
    );
}

#[test]
fn cluster_ips_are_shown_to_whoever_wants_all() {
    let rows = rows(&facts(), true);
    assert!(
        shown(&rows).contains(&"inside 10.96.0.9  Cluster 1 0 no BGPAdvertisement asks for it".to_owned()),
        "{rows:?}"
    );
}

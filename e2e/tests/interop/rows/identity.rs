//! Who the node is to a peer, and from and to which address and port they speak.

use super::checks::{both_ways, peer_says};
use super::{Row, row, with_spec};
use crate::rig::Rig;
use crate::setup::{Feature, IDENTITY, OWN, Setup};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = numbers();
    rows.extend(places());
    rows
}

fn numbers() -> Vec<Row> {
    vec![
        row(
            "asnType: External",
            |_| Setup { asn_type: Some("External"), ..Setup::default() },
            |_, setup| setup.asn_type = Some("Internal"),
            |rig| both_ways(rig, &[0]),
        ),
        row(
            "ASN by the node's rack label",
            |_| Setup { expects_manx: 4_200_000_012, objects: in_rack("12"), ..Setup::default() },
            |_, setup| setup.objects = in_rack("13"),
            |rig| both_ways(rig, &[0]),
        ),
        row(
            "routerID of the FabricNode",
            |_| {
                let addresses = "addresses: {ipv4: 10.9.0.2, ipv6: \"fd09::2\"}";
                let spec = format!("{{asn: 4200000001, routerID: {ROUTER_ID}, {addresses}}}");
                Setup { objects: vec![fabric_node(&spec)], ..Setup::default() }
            },
            |_, setup| setup.objects.clear(),
            |rig| {
                both_ways(rig, &[0])?;
                peer_says(rig, &[ROUTER_ID])
            },
        ),
    ]
}

const ROUTER_ID: &str = "10.66.66.66";

/// The settings of every check, and `node` in them as a flow mapping.
fn configuration(node: &str) -> (String, String) {
    let text = format!(
        "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {{name: default}}\nspec:\n  \
         node: {node}\n  topology: {{mode: None}}\n  session: {{timers: {{hold: 9s, connectRetry: 1s}}}}\n"
    );
    ("fabricconfigurations.manx.dev/default".to_owned(), text)
}

fn fabric_node(spec: &str) -> (String, String) {
    let text =
        format!("apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: n1}}\nspec: {spec}\n");
    ("fabricnodes.manx.dev/n1".to_owned(), text)
}

/// Nobody gives the node an AS: it has that of its rack.
fn in_rack(number: &str) -> Vec<(String, String)> {
    let node = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n1, labels: {{example.com/rack: \"{number}\"}}}}\nstatus:\n  \
         addresses:\n  - {{type: InternalIP, address: 10.9.0.2}}\n  - {{type: InternalIP, address: \"fd09::2\"}}\n"
    );
    vec![
        configuration("{asnFromLabel: {key: example.com/rack, base: 4200000000}}"),
        ("nodes/n1".to_owned(), node),
        fabric_node("{addresses: {ipv4: 10.9.0.2, ipv6: \"fd09::2\"}}"),
    ]
}

/// The peer dials where bgpd listens.
const DIALS: [&str; 4] =
    [" neighbor 10.9.0.2 port 1179\n", "neighbor port 1179;", "    remote-port = 1179\n", " port 1179\n"];

fn places() -> Vec<Row> {
    vec![
        row(
            "bgpPort: bgpd listens elsewhere",
            |kind| {
                let setup = with_spec("  passive: true\n").saying(kind, |says| &mut says.neighbor, DIALS);
                Setup { objects: vec![configuration("{bgpPort: 1179}")], ..setup }
            },
            // It listens at port 179.
            |_, setup| setup.objects.clear(),
            |rig| both_ways(rig, &[0]),
        ),
        row(
            "port: the peer listens elsewhere",
            |_| with_spec("  port: 1790\n").with(&[Feature::OtherPort, Feature::Passive]),
            |_, setup| setup.spec = String::new(),
            |rig| both_ways(rig, &[0]),
        ),
        row(
            "sourceInterface: an identity on lo",
            |_| {
                let setup = with_spec("  maxHops: 2\n  sourceInterface: lo\n");
                Setup { remote: "10.99.0.1", ..setup }.with(&[Feature::Multihop, Feature::Identity])
            },
            // From the node's address, where the peer knows nobody.
            |_, setup| setup.spec = "  maxHops: 2\n".to_owned(),
            from_the_identity,
        ),
    ]
}

/// It does not go with a link: the session runs from it, and what is told leads to it.
fn from_the_identity(rig: &mut Rig) -> Result<(), String> {
    rig.wait("the session is up at both ends", Rig::is_up)?;
    let local = rig.session()["localAddress"].clone();
    if local != IDENTITY {
        return Err(format!("the session runs from {local}, not from {IDENTITY}"));
    }
    rig.wait("our prefix at the peer, by way of the identity", |rig| {
        rig.peer().route(OWN[0]).contains(IDENTITY)
    })
}

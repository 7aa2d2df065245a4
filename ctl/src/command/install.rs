//! `manxctl install`: the CRDs of this version, and the objects that a cluster begins with.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use manx_crds::defaults::DEFAULTS;
use manx_crds::store::kube::{Created, KubeStore};
use manx_crds::store::{Selection, Store as _};
use serde_json::Value;

use crate::error::Failure;

/// Applies what is asked for and says each object's name.
pub(crate) async fn run(crds: bool, defaults: bool) -> Result<(), Failure> {
    if !crds && !defaults {
        return Err(Failure::new(
            "nothing to install",
            "manxctl install",
            "--crds, --defaults or both",
            "manxctl install --crds --defaults",
        ));
    }
    let store = KubeStore::from_environment().await?;
    if crds {
        for crd in manx_crds::v1alpha1::crds()? {
            store.install_crd(&crd).await?;
            println!("customresourcedefinition {} applied", name(&crd));
        }
    }
    if defaults {
        let nodes = store.list::<Node>(&Selection::default()).await?.items;
        for object in DEFAULTS {
            let value: Value = serde_saphyr::from_str(object.yaml)
                .map_err(|error| Failure::plain(&format!("default of {}: {error}", object.plural)))?;
            if let Some(family) = missing_family(&value, &nodes) {
                println!("{} {} left out: no Node has an {family} InternalIP", object.plural, name(&value));
                continue;
            }
            let what = match store.create_if_absent(object.plural, &value).await? {
                Created::Now => "created",
                Created::Before => "is there: left as it is",
            };
            println!("{} {} {what}", object.plural, name(&value));
        }
    }
    Ok(())
}

/// The family of a pool that no node could route: on a cluster of one family, pods get no addresses of the other. Where
/// there is no Node yet, nothing is known.
fn missing_family(object: &Value, nodes: &[Node]) -> Option<&'static str> {
    let cidr = object.pointer("/spec/cidr")?.as_str()?;
    let wanted_v6 = cidr.contains(':');
    let has = |node: &Node| {
        let addresses =
            node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        addresses
            .iter()
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse::<IpAddr>().ok())
            .any(|address| address.is_ipv6() == wanted_v6)
    };
    let missing = !nodes.is_empty() && !nodes.iter().any(has);
    missing.then_some(if wanted_v6 { "IPv6" } else { "IPv4" })
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"addresses": addresses}}))
            .unwrap_or_default()
    }

    #[test]
    fn a_pool_of_a_family_that_no_node_has_is_left_out() {
        let v4 = json!({"kind": "IPPool", "spec": {"cidr": "10.244.0.0/16"}});
        let v6 = json!({"kind": "IPPool", "spec": {"cidr": "fd00:10:244::/64"}});
        let only4 = node(&[("InternalIP", "192.0.2.1"), ("ExternalIP", "2001:db8::1"), ("Hostname", "n")]);
        let only6 = node(&[("InternalIP", "2001:db8::1")]);
        let cases: [(&[Node], Option<&str>, Option<&str>); 5] = [
            (&[], None, None),
            (std::slice::from_ref(&only4), None, Some("IPv6")),
            (std::slice::from_ref(&only6), Some("IPv4"), None),
            (&[only4.clone(), only6.clone()], None, None),
            (&[node(&[])], Some("IPv4"), Some("IPv6")),
        ];
        for (nodes, without4, without6) in cases {
            assert_eq!(
                (missing_family(&v4, nodes), missing_family(&v6, nodes)),
                (without4, without6),
                "{nodes:?}"
            );
        }
        let tier = json!({"kind": "Tier", "spec": {"order": 1}});
        assert_eq!(missing_family(&tier, &[only4]), None);
    }
}

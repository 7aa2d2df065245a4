//! What an ADD answers, in the format of the version that was asked for.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::version::CniVersion;

/// What felix gave the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// Host end of the veth.
    pub host_interface: String,
    pub host_mac: String,
    /// Pod end.
    pub ifname: String,
    pub mac: String,
    pub mtu: u32,
    /// One per family, as /32 and /128.
    pub addresses: Vec<IpNet>,
    /// One per family, the pod's default next hop.
    pub gateways: Vec<IpAddr>,
}

impl PodNetwork {
    /// The CNI result (spec §"Success"): interfaces, addresses, routes.
    pub fn to_json(&self, version: CniVersion, sandbox: &str) -> Value {
        let ips: Vec<Value> = self
            .addresses
            .iter()
            .map(|address| {
                let gateway = self.gateways.iter().find(|g| g.is_ipv4() == address.addr().is_ipv4());
                let mut ip = json!({"address": address, "interface": 1});
                if let (Some(gateway), Value::Object(map)) = (gateway, &mut ip) {
                    map.insert("gateway".to_owned(), json!(gateway));
                    // 0.4.0 names the family; 1.0.0 removed the field.
                    if version == CniVersion::V0_4 {
                        map.insert("version".to_owned(), json!(if gateway.is_ipv4() { "4" } else { "6" }));
                    }
                }
                ip
            })
            .collect();
        let routes: Vec<Value> = self
            .gateways
            .iter()
            .map(
                |gateway| json!({"dst": if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway}),
            )
            .collect();
        let mut inside = json!({"name": self.ifname, "mac": self.mac, "sandbox": sandbox});
        if let (CniVersion::V1_1, Value::Object(map)) = (version, &mut inside) {
            map.insert("mtu".to_owned(), json!(self.mtu));
        }
        json!({
            "cniVersion": version.as_str(),
            "interfaces": [{"name": self.host_interface, "mac": self.host_mac}, inside],
            "ips": ips,
            "routes": routes,
            "dns": {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> PodNetwork {
        PodNetwork {
            host_interface: "manx0123456789a".into(),
            host_mac: "ee:ee:ee:ee:ee:ee".into(),
            ifname: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            addresses: vec!["10.244.0.1/32".parse().unwrap(), "fd00:10::1/128".parse().unwrap()],
            gateways: vec!["169.254.1.1".parse().unwrap(), "fe80::1".parse().unwrap()],
        }
    }

    #[test]
    fn the_family_is_named_in_0_4_0_only() {
        let old = network().to_json(CniVersion::V0_4, "/run/netns/a");
        assert_eq!(
            old["ips"][1],
            json!({"address": "fd00:10::1/128", "interface": 1, "gateway": "fe80::1", "version": "6"})
        );
        let new = network().to_json(CniVersion::V1_0, "/run/netns/a");
        assert_eq!(
            new["ips"][0],
            json!({"address": "10.244.0.1/32", "interface": 1, "gateway": "169.254.1.1"})
        );
        assert_eq!(new["interfaces"][1]["sandbox"], "/run/netns/a");
        assert_eq!(new["interfaces"][1].get("mtu"), None);
        let newest = network().to_json(CniVersion::V1_1, "/run/netns/a");
        assert_eq!(newest["interfaces"][1]["mtu"], 1500);
        assert_eq!(newest["ips"], new["ips"]);
        assert_eq!(new["routes"][1], json!({"dst": "::/0", "gw": "fe80::1"}));
    }
}

//! What a pod's annotations ask for (api.md §8). A value that does not parse is refused, never ignored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Family, Pools};

/// IPPool names, comma-separated; on Pod and Namespace.
pub const IP_POOLS: &str = "manx.dev/ip-pools";
/// `IPv4`, `IPv6` or both, comma-separated; on Pod and Namespace.
pub const IP_FAMILIES: &str = "manx.dev/ip-families";
/// At most one address a family; on Pod.
pub const IP_ADDRESSES: &str = "manx.dev/ip-addresses";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only these, in this order.
    pub pools: Option<Vec<String>>,
    /// Absent: every family in which a pool serves the pod.
    pub families: Option<Vec<Family>>,
    /// Exactly these.
    pub addresses: BTreeMap<Family, IpAddr>,
}

/// A value that does not parse, quoted with its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}: invalid value {value:?}: {problem}")]
pub struct BadAnnotation {
    pub key: &'static str,
    pub value: String,
    pub problem: String,
}

impl Wanted {
    /// The pod's value replaces the namespace's, key by key.
    pub fn parse(
        pod: &BTreeMap<String, String>,
        namespace: &BTreeMap<String, String>,
    ) -> Result<Wanted, BadAnnotation> {
        let value = |key: &str| pod.get(key).or_else(|| namespace.get(key));
        let pools = value(IP_POOLS).map(|text| pools(text)).transpose()?;
        let families = value(IP_FAMILIES).map(|text| families(text)).transpose()?;
        // an address is one pod's: on a namespace it would be every pod's
        let addresses = pod.get(IP_ADDRESSES).map(|text| addresses(text)).transpose()?.unwrap_or_default();
        if let (Some(families), Some(text)) = (&families, pod.get(IP_ADDRESSES))
            && let Some((family, ip)) = addresses.iter().find(|(family, _)| !families.contains(family))
        {
            let problem = format!("{ip} is {family}, which {IP_FAMILIES} leaves out");
            return Err(BadAnnotation { key: IP_ADDRESSES, value: text.clone(), problem });
        }
        Ok(Wanted { pools, families, addresses })
    }

    /// A pool that does not exist is refused like a value that does not parse: the pod would wait for ever.
    pub fn check(&self, pools: &Pools) -> Result<(), BadAnnotation> {
        let Some(names) = &self.pools else { return Ok(()) };
        match names.iter().find(|name| pools.get(name).is_none()) {
            Some(name) => {
                let problem = format!("there is no IPPool {name}");
                Err(BadAnnotation { key: IP_POOLS, value: names.join(","), problem })
            }
            None => Ok(()),
        }
    }
}

fn pools(text: &str) -> Result<Vec<String>, BadAnnotation> {
    let refuse = |problem: String| BadAnnotation { key: IP_POOLS, value: text.to_owned(), problem };
    let mut names: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim) {
        let legal =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if name.is_empty() || !name.bytes().all(legal) {
            return Err(refuse("must be names of IPPools, comma-separated".into()));
        }
        if names.iter().any(|known| known == name) {
            return Err(refuse(format!("{name} is named twice")));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn families(text: &str) -> Result<Vec<Family>, BadAnnotation> {
    let refuse = || BadAnnotation {
        key: IP_FAMILIES,
        value: text.to_owned(),
        problem: "must be IPv4, IPv6 or IPv4,IPv6".into(),
    };
    let mut families = Vec::new();
    for word in text.split(',').map(str::trim) {
        let family = match word {
            "IPv4" => Family::Ipv4,
            "IPv6" => Family::Ipv6,
            _ => return Err(refuse()),
        };
        if families.contains(&family) {
            return Err(refuse());
        }
        families.push(family);
    }
    families.sort();
    Ok(families)
}

fn addresses(text: &str) -> Result<BTreeMap<Family, IpAddr>, BadAnnotation> {
    let refuse = |problem: String| BadAnnotation { key: IP_ADDRESSES, value: text.to_owned(), problem };
    let mut addresses = BTreeMap::new();
    for word in text.split(',').map(str::trim) {
        let ip: IpAddr = word.parse().map_err(|_| {
            refuse(format!("{word:?} is no address; must be at most one IPv4 and one IPv6 address"))
        })?;
        if addresses.insert(Family::of(ip), ip).is_some() {
            return Err(refuse(format!("two {} addresses; must be at most one a family", Family::of(ip))));
        }
    }
    Ok(addresses)
}

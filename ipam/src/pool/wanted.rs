//! What a pod's annotations ask for (api.md §8). A value that does not parse is refused, never ignored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_crds::annotations::{BadAnnotation, IP_ADDRESSES, IP_FAMILIES, IP_POOLS, IpFamily};

use super::{Family, Pools};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only these, in this order.
    pub pools: Option<Vec<String>>,
    /// Absent: every family in which a pool serves the pod.
    pub families: Option<Vec<Family>>,
    /// Exactly these.
    pub addresses: BTreeMap<Family, IpAddr>,
}

impl Wanted {
    /// The pod's value replaces the namespace's, key by key.
    ///
    /// # Errors
    /// A value that means nothing, or an address of a family that is left out.
    pub fn parse(
        pod: &BTreeMap<String, String>,
        namespace: &BTreeMap<String, String>,
    ) -> Result<Wanted, BadAnnotation> {
        let (of_pod, of_namespace) = (Some(pod), Some(namespace));
        let pools = IP_POOLS.read_pod(of_pod, of_namespace)?;
        let families = IP_FAMILIES.read_pod(of_pod, of_namespace)?;
        let families: Option<Vec<Family>> =
            families.map(|families| families.into_iter().map(Family::from).collect());
        // An address is one pod's: on a namespace it would be every pod's.
        let addresses = IP_ADDRESSES.read(of_pod)?.unwrap_or_default();
        let addresses: BTreeMap<Family, IpAddr> =
            addresses.iter().map(|address| (Family::of(address), address)).collect();
        if let (Some(families), Some(text)) = (&families, pod.get(IP_ADDRESSES.key))
            && let Some((family, ip)) = addresses.iter().find(|(family, _)| !families.contains(family))
        {
            let problem = format!("{ip} is {family}, which {} leaves out", IP_FAMILIES.key);
            return Err(IP_ADDRESSES.refuse(text, problem));
        }
        Ok(Wanted { pools, families, addresses })
    }

    /// A pool that does not exist is refused like a value that does not parse: the pod would wait for ever.
    ///
    /// # Errors
    /// The name of no pool.
    pub fn check(&self, pools: &Pools) -> Result<(), BadAnnotation> {
        let Some(names) = &self.pools else { return Ok(()) };
        match names.iter().find(|name| pools.get(name).is_none()) {
            Some(name) => Err(IP_POOLS.refuse(&names.join(","), format!("there is no IPPool {name}"))),
            None => Ok(()),
        }
    }
}

impl From<IpFamily> for Family {
    fn from(family: IpFamily) -> Self {
        match family {
            IpFamily::IPv4 => Self::Ipv4,
            IpFamily::IPv6 => Self::Ipv6,
        }
    }
}

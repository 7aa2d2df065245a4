//! Which pools serve a pod, and in which order this node tries their blocks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::owner::spread;
use manx_crds::v1alpha1::selector::selects_opt as selects;

mod object;
mod refusal;
#[cfg(test)]
mod tests;
mod wanted;

pub use object::PoolError;
pub use refusal::{NoAddress, Refusal};
pub use wanted::Wanted;

/// How many blocks of one pool a node tries before it calls the pool full. A pool of fewer blocks is tried whole.
const MAX_CANDIDATES: u128 = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    pub fn of(ip: IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// Who may take addresses from a pool (api.md §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    Automatic,
    /// Only pods that name the pool.
    Manual,
    /// Nobody: the pool is being drained.
    None,
}

/// An IPPool, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: String,
    pub cidr: IpNet,
    /// Prefix length of a block: 24–32, 120–128, never shorter than `cidr`.
    pub block_size: u8,
    pub assignment: Assignment,
    pub node_selector: Option<LabelSelector>,
    pub namespace_selector: Option<LabelSelector>,
    /// Never given unless named.
    pub excluded: Vec<IpNet>,
    /// Deletion has begun: it serves nothing new.
    pub terminating: bool,
    pub created: Option<Timestamp>,
}

impl Pool {
    pub fn family(&self) -> Family {
        Family::of(self.cidr.addr())
    }

    /// How many blocks the pool has, the excluded ones included.
    pub fn block_count(&self) -> u128 {
        1_u128.checked_shl(u32::from(self.block_bits())).unwrap_or(u128::MAX)
    }

    /// The block that holds this address of the pool.
    pub fn block_of(&self, ip: IpAddr) -> Option<IpNet> {
        let block = IpNet::new(ip, self.block_size).ok()?.trunc();
        self.cidr.contains(&block).then_some(block)
    }

    /// The blocks that this node tries, in its own order: two nodes start at different places and walk with
    /// different strides, so that they rarely meet. The same on every run.
    pub fn candidates(&self, node: &str) -> impl Iterator<Item = IpNet> + '_ {
        let mask = self.block_count().wrapping_sub(1);
        // The seed holds the pool, too: two pools of one shape spread differently.
        let start = u128::from(spread(&format!("{node}/{}", self.name)));
        // The count is a power of two, so every odd stride visits every block once.
        let stride = u128::from(spread(&format!("{}/{node}", self.name))) | 1;
        let tries = self.block_count().min(MAX_CANDIDATES);
        (0..tries)
            .map(move |step| start.wrapping_add(stride.wrapping_mul(step)) & mask)
            .filter_map(|index| self.block_at(index))
            .filter(|block| !self.excluded.iter().any(|net| net.contains(block)))
    }

    /// What is said when every candidate is taken.
    pub(crate) fn exhausted(&self) -> Refusal {
        let blocks = self.block_count();
        if blocks <= MAX_CANDIDATES {
            Refusal::AllClaimed { blocks }
        } else {
            Refusal::NoneFound { tried: MAX_CANDIDATES }
        }
    }

    /// Serves new addresses at all, whoever asks?
    fn open(&self) -> Result<(), Refusal> {
        if self.terminating {
            return Err(Refusal::Terminating);
        }
        match self.assignment {
            Assignment::Automatic | Assignment::Manual => Ok(()),
            Assignment::None => Err(Refusal::AssignmentNone),
        }
    }

    fn block_bits(&self) -> u8 {
        self.block_size.saturating_sub(self.cidr.prefix_len())
    }

    fn block_at(&self, index: u128) -> Option<IpNet> {
        match self.cidr {
            IpNet::V4(net) => {
                let offset = index.checked_shl(u32::from(32 - self.block_size))?;
                let address = u32::from(net.network()) | u32::try_from(offset).ok()?;
                Some(IpNet::V4(Ipv4Net::new(address.into(), self.block_size).ok()?))
            }
            IpNet::V6(net) => {
                let offset = index.checked_shl(u32::from(128 - self.block_size))?;
                let address = u128::from(net.network()) | offset;
                Some(IpNet::V6(Ipv6Net::new(address.into(), self.block_size).ok()?))
            }
        }
    }
}

/// What a choice between pools depends on, beside the pools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asking<'a> {
    pub node_labels: Option<&'a BTreeMap<String, String>>,
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    pub wanted: Option<&'a Wanted>,
}

/// All pools of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pools {
    pools: BTreeMap<String, Pool>,
    /// A younger pool over the addresses of an older one, and that one's name: the older is used.
    overlapping: BTreeMap<String, String>,
}

impl Pools {
    pub fn new(pools: impl IntoIterator<Item = Pool>) -> Pools {
        let mut by_age: Vec<Pool> = pools.into_iter().collect();
        by_age.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut overlapping = BTreeMap::new();
        let mut accepted: Vec<&Pool> = Vec::new();
        for pool in &by_age {
            match accepted.iter().find(|older| overlap(older.cidr, pool.cidr)) {
                Some(older) => {
                    overlapping.insert(pool.name.clone(), older.name.clone());
                }
                None => accepted.push(pool),
            }
        }
        Pools { pools: by_age.into_iter().map(|pool| (pool.name.clone(), pool)).collect(), overlapping }
    }

    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// The pool that uses these addresses.
    pub fn holding(&self, net: IpNet) -> Option<&Pool> {
        self.iter().find(|pool| !self.overlapping.contains_key(&pool.name) && pool.cidr.contains(&net))
    }

    /// The pools of one family that serve this pod, in the order in which they are used: as named by the pod,
    /// else by name. And why the others do not.
    pub fn serving(&self, family: Family, asking: &Asking<'_>) -> (Vec<&Pool>, Vec<(String, Refusal)>) {
        let named = asking.wanted.and_then(|wanted| wanted.pools.as_ref());
        let mut serving: Vec<&Pool> = Vec::new();
        let mut refused = Vec::new();
        for pool in self.iter().filter(|pool| pool.family() == family) {
            match self.serves(pool, asking) {
                Ok(()) => serving.push(pool),
                Err(refusal) => refused.push((pool.name.clone(), refusal)),
            }
        }
        if let Some(named) = named {
            serving.sort_by_key(|pool| named.iter().position(|name| *name == pool.name));
        }
        (serving, refused)
    }

    /// Does this node keep blocks of the pool before a pod asks? A pool with a namespaceSelector is often as
    /// small as the namespaces it serves, so its blocks wait until one of them uses the node.
    pub fn prepares(&self, pool: &Pool, node_labels: &BTreeMap<String, String>, in_use: bool) -> bool {
        pool.open().is_ok()
            && !self.overlapping.contains_key(&pool.name)
            && selects(pool.node_selector.as_ref(), node_labels)
            && (in_use || (pool.assignment == Assignment::Automatic && pool.namespace_selector.is_none()))
    }

    /// May a person's fixed address come from this pool? Selectors are for choosing; here nothing is chosen.
    pub fn open(&self, pool: &Pool) -> Result<(), Refusal> {
        pool.open()?;
        match self.overlapping.get(&pool.name) {
            Some(older) => Err(Refusal::Overlaps { older: older.clone() }),
            None => Ok(()),
        }
    }

    /// The older pool over the same addresses, which is used instead.
    pub fn overlaps(&self, pool: &Pool) -> Option<&Pool> {
        self.pools.get(self.overlapping.get(&pool.name)?)
    }

    fn serves(&self, pool: &Pool, asking: &Asking<'_>) -> Result<(), Refusal> {
        self.open(pool)?;
        // "only these pools, selectors ignored" (api.md §8)
        if let Some(named) = asking.wanted.and_then(|wanted| wanted.pools.as_ref()) {
            return if named.contains(&pool.name) { Ok(()) } else { Err(Refusal::NotNamed) };
        }
        match pool.assignment {
            Assignment::Automatic => {}
            Assignment::Manual => return Err(Refusal::AssignmentManual),
            Assignment::None => return Err(Refusal::AssignmentNone),
        }
        let none = BTreeMap::new();
        if !selects(pool.node_selector.as_ref(), asking.node_labels.unwrap_or(&none)) {
            return Err(Refusal::NodeSelector);
        }
        if !selects(pool.namespace_selector.as_ref(), asking.namespace_labels.unwrap_or(&none)) {
            return Err(Refusal::NamespaceSelector);
        }
        Ok(())
    }
}

fn overlap(one: IpNet, two: IpNet) -> bool {
    one.contains(&two) || two.contains(&one)
}

//! Why there is no address: which pool, why not, what would help (api.md §10, AddressAssignmentFailed).

use std::fmt;

use ipnet::IpNet;

use super::Family;

/// Why one pool gives this pod no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the pool is being deleted")]
    Terminating,
    #[error("assignment None")]
    AssignmentNone,
    #[error("assignment Manual: only pods that name it")]
    AssignmentManual,
    #[error("overlaps the older IPPool {older}, which is used")]
    Overlaps { older: String },
    #[error("nodeSelector does not match")]
    NodeSelector,
    #[error("namespaceSelector does not match")]
    NamespaceSelector,
    #[error("not named by {}", manx_crds::annotations::IP_POOLS.key)]
    NotNamed,
    #[error("all {blocks} blocks claimed, borrowing Never")]
    AllClaimed { blocks: u128 },
    /// The pool has more blocks than a node tries.
    #[error("none of {tried} blocks tried is free, borrowing Never")]
    NoneFound { tried: u128 },
    #[error("the block {cidr} of the address asked for is held by {node}, borrowing Never")]
    HeldByOther { cidr: IpNet, node: String },
    #[error("the address asked for {taken}")]
    Taken { taken: String },
    #[error("claiming a block: {text}")]
    Store { text: String },
}

/// No address for a pod, with every pool of the family and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAddress {
    pub family: Family,
    pub namespace: String,
    pub pod: String,
    pub node: String,
    /// In the order in which they would be used; the ones that do not serve the pod behind.
    pub pools: Vec<(String, Refusal)>,
}

impl NoAddress {
    /// What would help, by the worst reason found.
    fn hint(&self) -> &'static str {
        let any = |test: fn(&Refusal) -> bool| self.pools.iter().any(|(_, refusal)| test(refusal));
        if any(|r| matches!(r, Refusal::Store { .. })) {
            return "Wait for the datastore; the runtime tries again";
        }
        if any(|r| matches!(r, Refusal::Taken { .. } | Refusal::HeldByOther { .. })) {
            return "Choose another address in manx.dev/ip-addresses, or free this one";
        }
        if any(|r| matches!(r, Refusal::AllClaimed { .. } | Refusal::NoneFound { .. })) {
            return "Add an IPPool, or allow borrowing";
        }
        if any(|r| {
            matches!(r, Refusal::NodeSelector | Refusal::NamespaceSelector | Refusal::AssignmentManual)
        }) {
            return "Add an IPPool, or change the selectors or the assignment of one";
        }
        "Add an IPPool"
    }
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} address for {}/{} on {}: ", self.family, self.namespace, self.pod, self.node)?;
        if self.pools.is_empty() {
            write!(f, "no IPPool has the family {}", self.family)?;
        }
        for (index, (pool, refusal)) in self.pools.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{pool}: {refusal}")?;
        }
        write!(f, ". {}", self.hint())
    }
}

impl std::error::Error for NoAddress {}

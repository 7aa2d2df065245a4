//! A block and its IPBlock object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use manx_crds::v1alpha1::{self as api, IPBlock, IPBlockSpec, OwnerKind};

use super::{Allocation, Block, Ordinal, Slot, TooLarge};
use crate::allocator::Identity;
use crate::owner::{DEFAULT_INTERFACE, Owner, PodOwner, Sandbox};

/// Which start of the process wrote the object last. It makes every first write of a process a change, which the
/// API server needs to raise the revision, and so the fence against requests of the process before it.
pub const INCARNATION: &str = "manx.dev/incarnation";

/// An IPBlock that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("IPBlock {name}")]
    TooLarge {
        name: String,
        #[source]
        source: TooLarge,
    },
    #[error("IPBlock {name}: {ip} lies outside {cidr}")]
    Outside { name: String, ip: std::net::IpAddr, cidr: ipnet::IpNet },
}

impl Block {
    /// Reads an object. Who holds the block is not part of the value.
    pub fn read(object: &IPBlock) -> Result<Block, ObjectError> {
        let name = || object.metadata.name.clone().unwrap_or_default();
        let IPBlockSpec { cidr, pool, node_name: _, cursor, allocations, released } = &object.spec;
        let mut block =
            Block::new(cidr.net(), pool).map_err(|source| ObjectError::TooLarge { name: name(), source })?;
        let outside = |ip| ObjectError::Outside { name: name(), ip, cidr: cidr.net() };
        for one in released {
            if !block.set(one.ip, Slot::Cooling { until: one.until.0 }) {
                return Err(outside(one.ip));
            }
        }
        for one in allocations {
            let allocation = Allocation { owner: owner(&one.owner), borrowed_by: one.borrowed_by.clone() };
            if !block.set(one.ip, Slot::Owned(allocation)) {
                return Err(outside(one.ip));
            }
        }
        block.cursor = block.ring(u16::from(cursor.unwrap_or(0)));
        Ok(block)
    }

    /// The object as `me` writes it: new, or over the one that was read, whose metadata it keeps.
    pub(crate) fn object(&self, me: &Identity, base: Option<&IPBlock>) -> IPBlock {
        let cidr = api::Cidr::masked(self.cidr);
        let spec = IPBlockSpec {
            cidr,
            pool: self.pool.clone(),
            node_name: Some(me.node.clone()),
            cursor: Some(self.cursor).filter(|cursor| *cursor != Ordinal(0)).map(|cursor| cursor.0),
            allocations: self
                .owned()
                .map(|(ip, Allocation { owner, borrowed_by })| api::Allocation {
                    ip,
                    owner: record(owner),
                    borrowed_by: borrowed_by.clone(),
                })
                .collect(),
            released: self.cooling().map(|(ip, until)| api::Released { ip, until: Time(until) }).collect(),
        };
        let mut metadata = match base {
            Some(base) => base.metadata.clone(),
            None => ObjectMeta { name: Some(cidr.block_name()), ..ObjectMeta::default() },
        };
        let annotations = metadata.annotations.get_or_insert_with(BTreeMap::new);
        annotations.insert(INCARNATION.to_owned(), me.incarnation.clone());
        IPBlock { metadata, spec }
    }
}

/// The node that holds the block.
pub(crate) fn holder_of(object: &IPBlock) -> Option<&str> {
    object.spec.node_name.as_deref()
}

/// Uid and revision.
pub(crate) fn identity_of(object: &IPBlock) -> (String, String) {
    let ObjectMeta { uid, resource_version, .. } = &object.metadata;
    (uid.clone().unwrap_or_default(), resource_version.clone().unwrap_or_default())
}

fn owner(owner: &api::AllocationOwner) -> Owner {
    let api::AllocationOwner { kind, namespace, name, uid, sandbox, interface } = owner;
    match kind {
        OwnerKind::Tunnel => Owner::Tunnel,
        OwnerKind::Unknown(_) => Owner::Other(Box::new(owner.clone())),
        OwnerKind::Pod => Owner::Pod(PodOwner {
            namespace: namespace.clone().unwrap_or_default(),
            name: name.clone().unwrap_or_default(),
            uid: uid.clone().unwrap_or_default(),
            sandbox: Sandbox::of(sandbox.as_deref().unwrap_or_default()),
            interface: interface.clone().unwrap_or_else(|| DEFAULT_INTERFACE.to_owned()),
        }),
    }
}

fn record(owner: &Owner) -> api::AllocationOwner {
    let nobody = api::AllocationOwner {
        kind: OwnerKind::Tunnel,
        namespace: None,
        name: None,
        uid: None,
        sandbox: None,
        interface: None,
    };
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    match owner {
        Owner::Tunnel => nobody,
        Owner::Other(owner) => api::AllocationOwner::clone(owner),
        Owner::Pod(PodOwner { namespace, name, uid, sandbox, interface }) => api::AllocationOwner {
            kind: OwnerKind::Pod,
            namespace: some(namespace),
            name: some(name),
            uid: some(uid),
            sandbox: some(sandbox.as_str()),
            interface: some(interface).filter(|interface| interface != DEFAULT_INTERFACE),
        },
    }
}

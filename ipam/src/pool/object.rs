//! An IPPool object, parsed.

use manx_crds::v1alpha1::{self as api, IPPool};

use super::{Assignment, Pool};

/// An IPPool that validation should have refused, or of a newer version: it is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("IPPool {pool}: spec.blockSize {size}: must be 24-32 for IPv4 and 120-128 for IPv6")]
    BlockSize { pool: String, size: u8 },
    #[error("IPPool {pool}: spec.cidr {cidr}: must be at least one block of /{size}")]
    TooSmall { pool: String, cidr: ipnet::IpNet, size: u8 },
    #[error("IPPool {pool}: spec.assignment {value:?} is not known to this version")]
    UnknownAssignment { pool: String, value: String },
}

impl TryFrom<&IPPool> for Pool {
    type Error = PoolError;

    fn try_from(object: &IPPool) -> Result<Pool, PoolError> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let cidr = object.spec.cidr.net();
        let size = object.spec.block_length();
        if size > cidr.max_prefix_len() || cidr.max_prefix_len() - size > 8 {
            return Err(PoolError::BlockSize { pool: name, size });
        }
        if cidr.prefix_len() > size {
            return Err(PoolError::TooSmall { pool: name, cidr, size });
        }
        let assignment = match &object.spec.assignment {
            api::Assignment::Automatic => Assignment::Automatic,
            api::Assignment::Manual => Assignment::Manual,
            api::Assignment::None => Assignment::None,
            api::Assignment::Unknown(value) => {
                return Err(PoolError::UnknownAssignment { pool: name, value: value.clone() });
            }
        };
        Ok(Pool {
            name,
            cidr,
            block_size: size,
            assignment,
            node_selector: object.spec.node_selector.clone(),
            namespace_selector: object.spec.namespace_selector.clone(),
            excluded: object.spec.excluded.iter().map(api::Cidr::net).collect(),
            terminating: object.metadata.deletion_timestamp.is_some(),
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
        })
    }
}

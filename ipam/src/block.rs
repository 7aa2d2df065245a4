//! One block of addresses, as a value.
//!
//! ```text
//!            assign                       release (uid and sandbox match)
//!   free ─────────────▶ owned ──────────────────────────────▶ cooling until T
//!    ▲                                                             │ now >= T
//!    └─────────────────────────────────────────────────────────────┘
//! ```
//! Next fit: the cursor stands behind the address given last, so the address that has been free for longest is
//! given first. Every address of the block can be given; the first and the last are addresses like any other,
//! because a pod's route is a host route and nothing broadcasts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::owner::{Owner, PodOwner};

mod object;
#[cfg(test)]
mod tests;

pub use object::{INCARNATION, ObjectError};
pub(crate) use object::{holder_of, identity_of};

/// The largest block: one object holds at most 256 allocations (api.md §6.2).
pub const MAX_CAPACITY: u16 = 256;

/// Place of an address in its block, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ordinal(pub u8);

/// An address that is owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub owner: Owner,
    /// The node that uses the address out of another node's block.
    pub borrowed_by: Option<String>,
}

/// The state of one address that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    Owned(Allocation),
    /// Released, not to be given again before this moment (whole seconds, as the object stores it).
    Cooling {
        until: Timestamp,
    },
}

/// Why exactly this address cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    #[error("{0} is not in the block")]
    Outside(IpAddr),
    #[error("{ip} belongs to {}", describe(owner))]
    Owned { ip: IpAddr, owner: Box<Owner> },
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The address cools down.
    Now,
    /// Somebody else's, free, or not of this block: nothing was done.
    NotYours,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cidr: IpNet,
    pool: String,
    cursor: Ordinal,
    slots: BTreeMap<Ordinal, Slot>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cidr} has more than 256 addresses: blockSize is 24-32 for IPv4 and 120-128 for IPv6")]
pub struct TooLarge {
    pub cidr: IpNet,
}

impl Block {
    /// An empty block. `cidr` has no host bits; the pool's `blockSize` bounds it.
    pub fn new(cidr: IpNet, pool: &str) -> Result<Block, TooLarge> {
        let cidr = cidr.trunc();
        if cidr.max_prefix_len() - cidr.prefix_len() > 8 {
            return Err(TooLarge { cidr });
        }
        Ok(Block { cidr, pool: pool.to_owned(), cursor: Ordinal(0), slots: BTreeMap::new() })
    }

    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// How many addresses the block has.
    pub fn capacity(&self) -> u16 {
        1 << (self.cidr.max_prefix_len() - self.cidr.prefix_len()).min(8)
    }

    /// Neither owned nor cooling addresses: the block may be given back.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn owned(&self) -> impl Iterator<Item = (IpAddr, &Allocation)> {
        self.slots.iter().filter_map(|(ordinal, slot)| match slot {
            Slot::Owned(allocation) => Some((self.address(*ordinal), allocation)),
            Slot::Cooling { .. } => None,
        })
    }

    pub fn cooling(&self) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        self.slots.iter().filter_map(|(ordinal, slot)| match slot {
            Slot::Cooling { until } => Some((self.address(*ordinal), *until)),
            Slot::Owned(_) => None,
        })
    }

    pub fn slot(&self, ip: IpAddr) -> Option<&Slot> {
        self.slots.get(&self.ordinal(ip)?)
    }

    /// Is there an address that [`Block::assign`] would give?
    pub fn has_free(&self, excluded: &[IpNet]) -> bool {
        self.next_free(excluded).is_some()
    }

    /// Gives the address that has been free for longest, or none. `excluded` are the pool's.
    pub fn assign(&mut self, owner: Owner, excluded: &[IpNet]) -> Option<IpAddr> {
        let ordinal = self.next_free(excluded)?;
        self.slots.insert(ordinal, Slot::Owned(own(owner)));
        self.cursor = self.after(ordinal);
        Some(self.address(ordinal))
    }

    /// Gives exactly this address: a person named it, so neither the cooldown nor `excluded` stands in the way.
    pub fn assign_exactly(&mut self, ip: IpAddr, owner: Owner) -> Result<(), Taken> {
        let ordinal = self.ordinal(ip).ok_or(Taken::Outside(ip))?;
        match self.slots.get(&ordinal) {
            Some(Slot::Owned(held)) if held.owner != owner => {
                return Err(Taken::Owned { ip, owner: Box::new(held.owner.clone()) });
            }
            Some(Slot::Owned(_)) => return Ok(()),
            Some(Slot::Cooling { .. }) | None => {}
        }
        self.slots.insert(ordinal, Slot::Owned(own(owner)));
        Ok(())
    }

    /// Takes the address back from exactly this owner; it cools down until `until` (rounded up to whole seconds).
    pub fn release(&mut self, ip: IpAddr, owner: &Owner, until: Timestamp) -> Released {
        let Some(ordinal) = self.ordinal(ip) else { return Released::NotYours };
        match self.slots.get(&ordinal) {
            Some(Slot::Owned(held)) if held.owner == *owner => {
                self.slots.insert(ordinal, Slot::Cooling { until: whole_seconds(until) });
                Released::Now
            }
            Some(Slot::Owned(_) | Slot::Cooling { .. }) | None => Released::NotYours,
        }
    }

    /// Sets one address as a record says it. For reading back, not for giving. False: not of this block.
    pub fn set(&mut self, ip: IpAddr, slot: Slot) -> bool {
        let Some(ordinal) = self.ordinal(ip) else { return false };
        let slot = match slot {
            Slot::Cooling { until } => Slot::Cooling { until: whole_seconds(until) },
            Slot::Owned(allocation) => Slot::Owned(allocation),
        };
        self.slots.insert(ordinal, slot);
        true
    }

    /// Frees what has cooled down. `cooldown` is the longest that anything may still cool: a clock that was set
    /// back, or a shorter cooldown, must not hold addresses for hours. True: something became free.
    pub fn expire(&mut self, now: Timestamp, cooldown: SignedDuration) -> bool {
        let latest = whole_seconds(now.saturating_add(cooldown).unwrap_or(Timestamp::MAX));
        let before = self.slots.len();
        self.slots.retain(|_, slot| match slot {
            Slot::Owned(_) => true,
            Slot::Cooling { until } => {
                *until = (*until).min(latest);
                *until > now
            }
        });
        self.slots.len() != before
    }

    /// Goes on where another record of the same block stood.
    pub fn resume(&mut self, other: &Block) {
        self.cursor = self.ring(u16::from(other.cursor.0));
    }

    /// The object says which pool a block belongs to, and never says otherwise later.
    pub fn set_pool(&mut self, pool: &str) {
        pool.clone_into(&mut self.pool);
    }

    /// When [`Block::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.cooling().map(|(_, until)| until).min()
    }

    fn next_free(&self, excluded: &[IpNet]) -> Option<Ordinal> {
        let capacity = self.capacity();
        (0..capacity).map(|step| self.ring(u16::from(self.cursor.0) + step)).find(|ordinal| {
            !self.slots.contains_key(ordinal)
                && !excluded.iter().any(|net| net.contains(&self.address(*ordinal)))
        })
    }

    fn after(&self, ordinal: Ordinal) -> Ordinal {
        self.ring(u16::from(ordinal.0) + 1)
    }

    /// The ordinal at this step of the ring.
    fn ring(&self, step: u16) -> Ordinal {
        // capacity is at most 256, so the remainder fits
        Ordinal(u8::try_from(step % self.capacity()).unwrap_or(0))
    }

    fn address(&self, ordinal: Ordinal) -> IpAddr {
        match self.cidr {
            IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) | u32::from(ordinal.0)).into()),
            IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) | u128::from(ordinal.0)).into()),
        }
    }

    fn ordinal(&self, ip: IpAddr) -> Option<Ordinal> {
        let offset = match (self.cidr, ip) {
            (IpNet::V4(net), IpAddr::V4(ip)) if net.contains(&ip) => {
                u8::try_from(u32::from(ip) - u32::from(net.network())).ok()?
            }
            (IpNet::V6(net), IpAddr::V6(ip)) if net.contains(&ip) => {
                u8::try_from(u128::from(ip) - u128::from(net.network())).ok()?
            }
            (IpNet::V4(_) | IpNet::V6(_), _) => return None,
        };
        Some(Ordinal(offset))
    }
}

/// The object stores whole seconds; what is kept here must compare equal to what comes back.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    let up = i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(time.as_second().saturating_add(up)).unwrap_or(time)
}

/// An allocation of the block's own node.
pub(crate) fn own(owner: Owner) -> Allocation {
    Allocation { owner, borrowed_by: None }
}

fn describe(owner: &Owner) -> String {
    match owner {
        Owner::Pod(PodOwner { namespace, name, uid: _, sandbox, interface: _ }) => {
            format!("{namespace}/{name} (sandbox {})", sandbox.as_str())
        }
        Owner::Tunnel => "a tunnel".to_owned(),
        Owner::Other(owner) => format!("a {}", owner.kind),
    }
}

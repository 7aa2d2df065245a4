//! What every object's status should say, as a function of the objects: one file a kind.

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use manx_crds::acceptance::Refusal;
use manx_crds::conditions::{Accepted, ConditionReason as _};
use manx_crds::store::Object;
use manx_crds::store::follow::key_of;
use serde::Serialize;
use serde_json::Value;

use crate::wish::{Kind, Part, Saying, Slot, Wish};

pub mod advertisement;
pub mod configuration;
pub mod later;
pub mod load_balancer_pool;
pub mod node;
pub mod peer;
pub mod policy;
pub mod pool;
#[cfg(test)]
mod tests;

/// The finalizer of pools: they stay until nobody has an address of them.
pub const FINALIZER: &str = "manx.dev/ipam";

/// One part of one object, as it is and as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub slot: Slot,
    pub uid: String,
    /// As last heard.
    pub current: Value,
    pub wish: Wish,
}

/// Something that people are told by an Event, once for each text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub about: About,
    pub reason: &'static str,
    pub note: String,
    /// The status says so already: an earlier leader told it.
    pub told: bool,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    Object(Kind, manx_crds::store::Key),
    NetworkPolicy(manx_crds::store::Key),
}

/// The status of an object, and what it should say.
pub(crate) fn status<K: Object>(
    kind: Kind,
    object: &K,
    status: Option<&impl Serialize>,
    wish: Wish,
) -> Offer {
    let generation = object.meta().generation;
    Offer {
        slot: Slot { kind, part: Part::Status, key: key_of(object) },
        uid: object.uid().unwrap_or_default(),
        current: status.and_then(|status| serde_json::to_value(status).ok()).unwrap_or_default(),
        wish: Wish { generation, ..wish },
    }
}

/// The finalizer of a pool. On an object that is being deleted none may be added.
pub(crate) fn finalizer<K: Object>(kind: Kind, object: &K, in_use: bool) -> Option<Offer> {
    let present = object.finalizers().iter().any(|name| name == FINALIZER);
    let leaving = object.meta().deletion_timestamp.is_some();
    if leaving && !present {
        return None;
    }
    let own = |present: bool| if present { serde_json::json!([FINALIZER]) } else { serde_json::json!([]) };
    let mut wish = Wish::default();
    if !leaving || in_use {
        wish.fields.insert("finalizers".to_owned(), own(true));
    }
    Some(Offer {
        slot: Slot { kind, part: Part::Finalizers, key: key_of(object) },
        uid: object.uid().unwrap_or_default(),
        current: serde_json::json!({"finalizers": own(present)}),
        wish,
    })
}

/// Condition Accepted out of a verdict.
pub(crate) fn accepted(verdict: &Result<(), Refusal>) -> Saying {
    match verdict {
        Ok(()) => Saying::new(Accepted::Accepted, ""),
        Err(refusal) => Saying {
            type_: Accepted::TYPE,
            status: "False",
            reason: refusal.reason,
            message: refusal.message.clone(),
        },
    }
}

/// Whether an object's status says exactly this already.
pub(crate) fn says(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    saying: &Saying,
) -> bool {
    manx_crds::conditions::find(conditions, saying.type_).is_some_and(|condition| {
        condition.status == saying.status
            && condition.reason == saying.reason
            && condition.message == saying.message
    })
}

/// Oldest first; equal ages go by name. Of two objects that want the same the first has it.
pub(crate) fn age<K: Resource>(object: &K) -> (Option<Timestamp>, String) {
    (object.meta().creation_timestamp.as_ref().map(|time| time.0), object.name_any())
}

/// Bands of fullness at which a pool's status is written without waiting (api.md §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Band {
    Below80,
    From80,
    From95,
    Full,
}

impl Band {
    pub(crate) fn of(assigned: u128, addresses: u128) -> Band {
        let reaches = |percent: u128| {
            // Without overflow for the largest pools: both sides divided by 100, rounded against the pool.
            match (assigned.checked_mul(100), addresses.checked_mul(percent)) {
                (Some(assigned), Some(limit)) => assigned >= limit,
                (Some(_) | None, Some(_) | None) => assigned / percent >= addresses / 100,
            }
        };
        match () {
            () if assigned >= addresses => Band::Full,
            () if reaches(95) => Band::From95,
            () if reaches(80) => Band::From80,
            () => Band::Below80,
        }
    }
}

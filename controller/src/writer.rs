//! Carries out one write.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use manx_crds::store::{Key, NewEvent, Object, Part as StorePart, Revision, Store, StoreError};
use manx_crds::v1alpha1::{
    self as api, BGPAdvertisement, BGPFilter, BGPPeer, FabricConfiguration, FabricConfigurationSpec,
    FabricNode, FabricNodeSpec, GlobalNetworkPolicy, HostEndpoint, IPBlock, IPPool, LoadBalancerPool, Tier,
};
use serde_json::Value;

use crate::MANAGER;
use crate::core::Write;
use crate::garbage::Cut;
use crate::judge::About;
use crate::leadership::request;
use crate::wish::{Kind, Outcome, Part, Slot};

pub(crate) async fn write<S: Store>(store: &S, write: &Write, instance: &str) -> Outcome {
    let outcome = request(async {
        match write {
            Write::Apply { slot, uid, body } => apply(store, slot, uid, body).await,
            Write::Block(Cut::Clear(block)) => store.replace::<IPBlock>(block).await.map(drop),
            Write::Block(Cut::Delete(block)) => {
                let revision = block.resource_version().map(Revision);
                let key = Key::cluster(block.name_any());
                store.delete::<IPBlock>(&key, block.uid().as_deref(), revision.as_ref()).await
            }
            Write::Event { about, warning, reason, note } => {
                let event = NewEvent {
                    warning: *warning,
                    reason: (*reason).to_owned(),
                    action: "Reconcile".to_owned(),
                    note: note.clone(),
                    controller: MANAGER.to_owned(),
                    instance: instance.to_owned(),
                };
                record(store, about, event).await
            }
        }
    });
    match outcome.await {
        Ok(()) => Outcome::Done,
        Err(StoreError::NotFound { .. }) => Outcome::Gone,
        Err(error @ StoreError::Unavailable(_)) => Outcome::Unknown(error.to_string()),
        Err(
            error @ (StoreError::AlreadyExists { .. }
            | StoreError::Conflict { .. }
            | StoreError::Expired { .. }
            | StoreError::Invalid(_)
            | StoreError::Forbidden(_)),
        ) => Outcome::Refused(error.to_string()),
    }
}

async fn apply<S: Store>(store: &S, slot: &Slot, uid: &str, body: &Value) -> Result<(), StoreError> {
    match slot.kind {
        Kind::FabricConfiguration => apply_to::<S, FabricConfiguration>(store, slot, uid, body).await,
        Kind::FabricNode => apply_to::<S, FabricNode>(store, slot, uid, body).await,
        Kind::BGPPeer => apply_to::<S, BGPPeer>(store, slot, uid, body).await,
        Kind::BGPAdvertisement => apply_to::<S, BGPAdvertisement>(store, slot, uid, body).await,
        Kind::IPPool => apply_to::<S, IPPool>(store, slot, uid, body).await,
        Kind::LoadBalancerPool => apply_to::<S, LoadBalancerPool>(store, slot, uid, body).await,
        Kind::Service => apply_to::<S, Service>(store, slot, uid, body).await,
        Kind::BGPFilter => apply_to::<S, BGPFilter>(store, slot, uid, body).await,
        Kind::Tier => apply_to::<S, Tier>(store, slot, uid, body).await,
        Kind::NetworkPolicy => apply_to::<S, api::NetworkPolicy>(store, slot, uid, body).await,
        Kind::GlobalNetworkPolicy => apply_to::<S, GlobalNetworkPolicy>(store, slot, uid, body).await,
        Kind::HostEndpoint => apply_to::<S, HostEndpoint>(store, slot, uid, body).await,
    }
}

/// An object deleted and made anew under the same name must not get what was decided for the one before.
async fn apply_to<S: Store, K: Object>(
    store: &S,
    slot: &Slot,
    uid: &str,
    body: &Value,
) -> Result<(), StoreError> {
    let (part, body) = match slot.part {
        Part::Status => (StorePart::Status, body.clone()),
        Part::Finalizers => {
            let finalizers = body.get("finalizers").cloned().unwrap_or_else(|| serde_json::json!([]));
            (StorePart::Finalizers, finalizers)
        }
    };
    store.apply::<K>(&slot.key, Some(uid), MANAGER, part, body).await.map(drop)
}

async fn record<S: Store>(store: &S, about: &About, event: NewEvent) -> Result<(), StoreError> {
    match about {
        About::NetworkPolicy(key) => record_about::<S, NetworkPolicy>(store, key, event, None).await,
        About::Object(kind, key) => match kind {
            // These may be told of when they do not exist: a node that is gone, defaults that nobody wrote.
            Kind::FabricConfiguration => {
                let absent = FabricConfiguration::new(&key.name, FabricConfigurationSpec::default());
                record_about(store, key, event, Some(absent)).await
            }
            Kind::FabricNode => {
                let absent = FabricNode::new(&key.name, FabricNodeSpec::default());
                record_about(store, key, event, Some(absent)).await
            }
            Kind::BGPPeer => record_about::<S, BGPPeer>(store, key, event, None).await,
            Kind::BGPAdvertisement => record_about::<S, BGPAdvertisement>(store, key, event, None).await,
            Kind::IPPool => record_about::<S, IPPool>(store, key, event, None).await,
            Kind::LoadBalancerPool => record_about::<S, LoadBalancerPool>(store, key, event, None).await,
            Kind::Service => record_about::<S, Service>(store, key, event, None).await,
            Kind::BGPFilter => record_about::<S, BGPFilter>(store, key, event, None).await,
            Kind::Tier => record_about::<S, Tier>(store, key, event, None).await,
            Kind::NetworkPolicy => record_about::<S, api::NetworkPolicy>(store, key, event, None).await,
            Kind::GlobalNetworkPolicy => {
                record_about::<S, GlobalNetworkPolicy>(store, key, event, None).await
            }
            Kind::HostEndpoint => record_about::<S, HostEndpoint>(store, key, event, None).await,
        },
    }
}

async fn record_about<S: Store, K: Object>(
    store: &S,
    key: &Key,
    event: NewEvent,
    absent: Option<K>,
) -> Result<(), StoreError> {
    let object = match (store.get::<K>(key).await, absent) {
        (Err(StoreError::NotFound { .. }), Some(absent)) => absent,
        (found, _) => found?,
    };
    store.record_event(&object, event).await
}

//! felix may not do its work: a capability is missing, or something between it and the kernel (seccomp, AppArmor, SELinux,
//! a user namespace) says no. It says so where people look and ends; what the kernel holds stays as it is, and the next
//! felix that may goes on from there.

use std::time::Duration;

use felix_kernel::capability::MissingCapability;
use felix_kernel::denial;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use manx_crds::conditions::{
    AddressesReady, ConditionReason as _, DataplaneReady, PolicyProgrammed, set_condition,
};
use manx_crds::store::any::AnyStore;
use manx_crds::store::{Key, Store, StoreError};
use manx_crds::v1alpha1::{FabricNode, FabricNodeSpec};
use manx_daemon::options::Options;

use crate::writer::{self, NodeWish};

const EFFECT: &str = "pods, routes and rules stay as they are in the kernel; no ADD is answered";
/// The process ends, whether or not the store hears of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The log's word, then the FabricNode's.
pub(crate) async fn without_capability(options: &Options, node: &str, missing: &MissingCapability) {
    tracing::error!(
        error = %missing,
        r#where = format!("felix on {node}, {}", missing.place()),
        expected = missing.expected(),
        effect = EFFECT,
        r#do = missing.remedy("felix"),
        "a capability is missing"
    );
    let text = format!("felix does not run: {missing}: {}", missing.remedy("felix"));
    match AnyStore::open(&options.store).await {
        Ok(store) => say(&store, node, &text).await,
        Err(error) => tracing::warn!(%error, "the FabricNode does not say so"),
    }
}

/// The kernel's tables could not be opened. Of other errors than a denial nothing is known that a person could do.
pub(crate) async fn by_kernel<S: Store>(store: &S, node: &str, error: &anyhow::Error) {
    if !denial::is_denial(error.as_ref()) {
        say(store, node, &format!("felix does not run: {error:#}")).await;
        return;
    }
    tracing::error!(
        error = format!("{error:#}"),
        r#where = format!("felix on {node}, {}", denial::place()),
        expected = denial::EXPECTED,
        effect = EFFECT,
        r#do = denial::REMEDY,
        "the kernel denies felix its work"
    );
    say(store, node, &format!("felix does not run: {error:#}: {}", denial::REMEDY)).await;
}

async fn say<S: Store>(store: &S, node: &str, text: &str) {
    let outcome = match tokio::time::timeout(PATIENCE, write(store, node, text)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {}s", PATIENCE.as_secs()),
    };
    tracing::warn!(error = outcome, "the FabricNode does not say so");
}

/// Two conditions; everything else that felix owns there stays what it was, as the pods that rely on it do.
async fn write<S: Store>(store: &S, node: &str, text: &str) -> Result<(), StoreError> {
    let held = match store.get::<FabricNode>(&Key::cluster(node)).await {
        Ok(held) => held,
        Err(StoreError::NotFound { .. }) => FabricNode::new(node, FabricNodeSpec::default()),
        Err(error) => return Err(error),
    };
    let status = held.status.clone().unwrap_or_default();
    let own = [AddressesReady::TYPE, DataplaneReady::TYPE, PolicyProgrammed::TYPE];
    let mut conditions = status.conditions;
    conditions.retain(|condition| own.contains(&condition.type_.as_str()));
    let (generation, now) = (held.metadata.generation, Time(Timestamp::now()));
    set_condition(&mut conditions, DataplaneReady::KernelRejected, text, generation, now.clone());
    set_condition(&mut conditions, PolicyProgrammed::PartlyFailed, text, generation, now);
    let wish = NodeWish {
        labels: held.labels().clone(),
        addresses: status.addresses.unwrap_or_default(),
        address_source: status.address_source.unwrap_or_default(),
        pod_mtu: status.pod_mtu,
        blocks: status.blocks.iter().map(ToString::to_string).collect(),
        conditions,
        owner: None,
    };
    writer::fabric_node(store, node, &wish).await
}

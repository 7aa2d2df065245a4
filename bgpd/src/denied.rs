//! bgpd may not do its work: a capability is missing, or something between it and the kernel says no to its sockets. It
//! says so where people look and ends; the routes that the kernel holds stay.

use std::time::Duration;

use felix_kernel::capability::MissingCapability;
use felix_kernel::denial;
use jiff::Timestamp;
use manx_crds::store::any::AnyStore;
use manx_crds::store::{Key, Store, StoreError};
use manx_crds::v1alpha1::FabricNode;
use manx_daemon::options::Options;

use crate::status::condition;
use crate::writer::{self, NodeWish};

const EFFECT: &str = "no session; routes stay as they are in the kernel, and peers lose this node's";
/// The process ends, whether or not the store hears of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The log's word, then the FabricNode's.
pub(crate) async fn without_capability(options: &Options, node: &str, missing: &MissingCapability) {
    tracing::error!(
        error = %missing,
        r#where = format!("bgpd on {node}, {}", missing.place()),
        expected = missing.expected(),
        effect = EFFECT,
        r#do = missing.remedy("bgpd"),
        "a capability is missing"
    );
    let text = format!("bgpd does not run: {missing}: {}", missing.remedy("bgpd"));
    match AnyStore::open(&options.store).await {
        Ok(store) => say(&store, node, text).await,
        Err(error) => tracing::warn!(%error, "the FabricNode does not say so"),
    }
}

/// The kernel's routes could not be read. Of other errors than a denial nothing is known that a person could do.
pub(crate) async fn by_kernel<S: Store>(store: &S, node: &str, error: &anyhow::Error) {
    if !denial::is_denial(error.as_ref()) {
        say(store, node, format!("bgpd does not run: {error:#}")).await;
        return;
    }
    tracing::error!(
        error = format!("{error:#}"),
        r#where = format!("bgpd on {node}, {}", denial::place()),
        expected = denial::EXPECTED,
        effect = EFFECT,
        r#do = denial::REMEDY,
        "the kernel denies bgpd its work"
    );
    say(store, node, format!("bgpd does not run: {error:#}: {}", denial::REMEDY)).await;
}

async fn say<S: Store>(store: &S, node: &str, text: String) {
    let outcome = match tokio::time::timeout(PATIENCE, write(store, node, text)).await {
        Ok(Ok(()) | Err(StoreError::NotFound { .. })) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {}s", PATIENCE.as_secs()),
    };
    tracing::warn!(error = outcome, "the FabricNode does not say so");
}

/// One condition; what else bgpd owns there stays what it was.
async fn write<S: Store>(store: &S, node: &str, text: String) -> Result<(), StoreError> {
    let held = store.get::<FabricNode>(&Key::cluster(node)).await?;
    let status = held.status.unwrap_or_default();
    let before = status.conditions.iter().find(|condition| condition.type_ == "BGPReady");
    let ready = condition("BGPReady", false, "NoneEstablished", text, before, Timestamp::now());
    writer::fabric_node(store, node, &NodeWish { bgp: status.bgp.unwrap_or_default(), ready }).await
}

//! The one task that writes to the store, apart from the allocator's blocks. The newest wish of each object wins; what
//! cannot be written is tried again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time};
use manx_crds::store::{Key, NewEvent, Object, Part, Store, StoreError};
use manx_crds::v1alpha1::{AgentStatus, FabricNode, FabricNodeSpec, NodeAddressesStatus, SCHEMA_REVISION};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::network::{CONDITION, Network, TAINT, is_tainted};

pub(crate) const FELIX: &str = "manx-felix";
const AGAIN: Duration = Duration::from_secs(5);

/// What felix says on the FabricNode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeWish {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: NodeAddressesStatus,
    pub(crate) address_source: String,
    pub(crate) pod_mtu: Option<u16>,
    pub(crate) blocks: Vec<String>,
    pub(crate) conditions: Vec<Condition>,
    /// The Node's uid: the FabricNode goes with it.
    pub(crate) owner: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Write {
    Node(Box<NodeWish>),
    PodAddresses {
        pod: Key,
        addresses: Vec<IpAddr>,
    },
    PodEvent {
        pod: Key,
        reason: &'static str,
        note: String,
    },
    NodeEvent {
        warning: bool,
        reason: &'static str,
        note: String,
    },
    /// Taint and NetworkUnavailable of the Node.
    Network(Network),
}

#[derive(Default)]
struct Open {
    node: Option<Box<NodeWish>>,
    network: Option<Network>,
    pods: BTreeMap<Key, Vec<IpAddr>>,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.node.is_none() && self.network.is_none() && self.pods.is_empty()
    }
}

pub(crate) async fn run<S: Store>(store: S, node: String, mut writes: mpsc::Receiver<Write>) {
    let mut open = Open::default();
    let mut said: Option<String> = None;
    loop {
        let write = tokio::select! {
            write = writes.recv() => match write {
                Some(write) => Some(write),
                None => return,
            },
            () = tokio::time::sleep(AGAIN), if !open.is_empty() => None,
        };
        let mut next = write;
        while let Some(write) = next {
            take(&store, &node, &mut open, write).await;
            next = writes.try_recv().ok();
        }
        match flush(&store, &node, &mut open).await {
            Ok(()) => said = None,
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(error = text, effect = "status is late, pods are not", "store");
                    said = Some(text);
                }
            }
        }
    }
}

async fn take<S: Store>(store: &S, node: &str, open: &mut Open, write: Write) {
    match write {
        Write::Node(wish) => open.node = Some(wish),
        Write::Network(wish) => open.network = Some(wish),
        Write::PodAddresses { pod, addresses } => drop(open.pods.insert(pod, addresses)),
        Write::PodEvent { pod, reason, note } => {
            event::<S, Pod>(store, &pod, node, true, reason, note).await;
        }
        Write::NodeEvent { warning, reason, note } => {
            event::<S, FabricNode>(store, &Key::cluster(node), node, warning, reason, note).await;
        }
    }
}

async fn flush<S: Store>(store: &S, node: &str, open: &mut Open) -> Result<(), StoreError> {
    if let Some(wish) = &open.node {
        fabric_node(store, node, wish).await?;
        open.node = None;
    }
    if let Some(wish) = &open.network {
        // The kubelet writes the Node as well: of two at once one reads again.
        let mut outcome = network(store, node, wish).await;
        for _ in 0..3 {
            if let Err(StoreError::Conflict { .. }) = outcome {
                outcome = network(store, node, wish).await;
            }
        }
        gone(outcome.map(|_| ()))?;
        open.network = None;
    }
    while let Some((pod, addresses)) = open.pods.first_key_value() {
        gone(pod_status(store, node, pod, addresses).await)?;
        open.pods.pop_first();
    }
    Ok(())
}

/// The FabricNode: made empty where it is not there, labels copied from the Node, status by field manager.
pub(crate) async fn fabric_node<S: Store>(store: &S, node: &str, wish: &NodeWish) -> Result<(), StoreError> {
    let key = Key::cluster(node);
    let owner = wish.owner.as_ref().map(|uid| owned_by(node, uid));
    match store.get::<FabricNode>(&key).await {
        Err(StoreError::NotFound { .. }) => {
            let mut object = FabricNode::new(node, FabricNodeSpec::default());
            object.metadata =
                ObjectMeta { owner_references: owner.map(|owner| vec![owner]), ..object.metadata };
            match store.create(&object).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // A person made it before us, or the Node is another of the same name: it goes with the Node all the same.
        Ok(mut object) => {
            let owners = object.metadata.owner_references.get_or_insert_default();
            if let Some(owner) = owner.filter(|owner| !owners.contains(owner)) {
                owners.retain(|other| other.kind != "Node");
                owners.push(owner);
                store.replace(&object).await?;
            }
        }
        Err(error) => return Err(error),
    }
    store.apply::<FabricNode>(&key, None, FELIX, Part::Labels, json(&wish.labels)).await?;
    let agent = AgentStatus {
        name: "felix".to_owned(),
        version: manx_daemon::VERSION.to_owned(),
        schema_revision: SCHEMA_REVISION,
    };
    let mut body = json!({
        "addresses": json(&wish.addresses),
        "addressSource": wish.address_source,
        "podMTU": wish.pod_mtu,
        "blocks": wish.blocks,
        "agents": [json(&agent)],
        "conditions": json(&wish.conditions),
    });
    if let Value::Object(map) = &mut body {
        map.retain(|_, value| !value.is_null());
    }
    store.apply::<FabricNode>(&key, None, FELIX, Part::Status, body).await?;
    Ok(())
}

fn owned_by(node: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

/// Taint and condition of the Node: the taint by compare-and-swap, the condition by field manager.
/// Whether anything was to be written.
pub(crate) async fn network<S: Store>(store: &S, node: &str, wish: &Network) -> Result<bool, StoreError> {
    let key = Key::cluster(node);
    let mut object = store.get::<Node>(&key).await?;
    let changed = !wish.is_said(&object);
    // The condition first: a node whose taint goes is ready in every respect.
    if !wish.is_condition_said(&object) {
        let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
        let before = conditions.into_iter().flatten().find(|condition| condition.type_ == CONDITION);
        let status = if wish.available { "False" } else { "True" };
        let now = Time(Timestamp::now());
        let since = before
            .filter(|before| before.status == status)
            .and_then(|before| before.last_transition_time.clone())
            .unwrap_or_else(|| now.clone());
        let condition = json!({
            "type": CONDITION, "status": status, "reason": wish.reason, "message": wish.message,
            "lastHeartbeatTime": json(&now), "lastTransitionTime": json(&since),
        });
        object =
            store.apply::<Node>(&key, None, FELIX, Part::Status, json!({"conditions": [condition]})).await?;
        tracing::info!(
            available = wish.available,
            reason = wish.reason,
            "the Node says whether pods may come"
        );
    }
    if wish.available && is_tainted(&object) {
        if let Some(taints) = object.spec.as_mut().and_then(|spec| spec.taints.as_mut()) {
            taints.retain(|taint| taint.key != TAINT);
        }
        store.replace(&object).await?;
        tracing::info!(taint = TAINT, "taint removed: pods may come");
    }
    Ok(changed)
}

/// Where there is no kubelet, felix says which addresses a pod has: all other nodes learn it from here.
async fn pod_status<S: Store>(
    store: &S,
    node: &str,
    pod: &Key,
    addresses: &[IpAddr],
) -> Result<(), StoreError> {
    let body = if addresses.is_empty() {
        json!({"phase": "Pending"})
    } else {
        let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let host = store.get::<Node>(&Key::cluster(node)).await.ok().and_then(|node| {
            let listed = node.status?.addresses?;
            Some(listed.into_iter().find(|address| address.type_ == "InternalIP")?.address)
        });
        let mut body = json!({"phase": "Running", "podIP": addresses.first(), "podIPs": ips});
        if let (Some(host), Value::Object(map)) = (host, &mut body) {
            map.insert("hostIP".to_owned(), json!(host));
        }
        body
    };
    store.apply::<Pod>(pod, None, FELIX, Part::Status, body).await?;
    Ok(())
}

async fn event<S: Store, K: Object>(
    store: &S,
    about: &Key,
    node: &str,
    warning: bool,
    reason: &str,
    note: String,
) {
    let event = NewEvent {
        warning,
        reason: reason.to_owned(),
        action: "Reconcile".to_owned(),
        note,
        controller: FELIX.to_owned(),
        instance: node.to_owned(),
    };
    let outcome = match store.get::<K>(about).await {
        Ok(object) => store.record_event(&object, event).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, reason, object = about.name, "an Event was not recorded");
    }
}

/// An object that is gone needs no status.
fn gone(outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        // The same write would be refused again: say it and go on with the others.
        Err(error @ (StoreError::Invalid(_) | StoreError::Forbidden(_))) => {
            tracing::error!(%error, "a status was refused");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

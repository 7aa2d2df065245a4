//! The one task that writes to the store. It knows nothing of BGP; what it cannot write now it tries again, newest
//! wish first, so a store that is away costs one wish per object and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{Resource as _, ResourceExt as _};
use manx_crds::store::{Key, NewEvent, Part, Selection, Store, StoreError};
use manx_crds::v1alpha1::{
    AgentStatus, BGPSession, BGPSessionSpec, BGPSessionStatus, FabricNode, NodeBgpStatus, SCHEMA_REVISION,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::status::json as value;

/// bgpd as a field manager.
const MANAGER: &str = "manx-bgpd";
/// After a failure everything that is open is tried again.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) enum Write {
    Session {
        name: String,
        spec: BGPSessionSpec,
        status: Box<BGPSessionStatus>,
    },
    Forget {
        session: String,
    },
    /// Of the sessions that an earlier life wrote, these alone are still wanted.
    Keep(BTreeSet<String>),
    Node(Box<NodeWish>),
    Event {
        /// About a BGPSession; none: about the FabricNode.
        session: Option<String>,
        reason: &'static str,
        warning: bool,
        note: String,
    },
}

/// What bgpd says on the FabricNode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeWish {
    pub(crate) bgp: NodeBgpStatus,
    pub(crate) ready: Condition,
}

/// Open wishes, the newest of each object.
#[derive(Default)]
struct Open {
    sessions: BTreeMap<String, Option<(BGPSessionSpec, Box<BGPSessionStatus>)>>,
    node: Option<Box<NodeWish>>,
}

/// Writes until the sender is gone. `node` is this node's name.
pub(crate) async fn run<S: Store>(store: S, node: String, mut writes: mpsc::Receiver<Write>) {
    let mut open = Open::default();
    let mut said: Option<String> = None;
    loop {
        let idle = open.sessions.is_empty() && open.node.is_none();
        let write = tokio::select! {
            write = writes.recv() => match write {
                Some(write) => Some(write),
                None => return,
            },
            () = tokio::time::sleep(AGAIN), if !idle => None,
        };
        match write {
            Some(Write::Session { name, spec, status }) => {
                drop(open.sessions.insert(name, Some((spec, status))))
            }
            Some(Write::Forget { session }) => drop(open.sessions.insert(session, None)),
            Some(Write::Node(wish)) => open.node = Some(wish),
            Some(Write::Keep(wanted)) => forget_others(&store, &node, &wanted, &mut open).await,
            Some(Write::Event { session, reason, warning, note }) => {
                event(&store, &node, session, reason, warning, note).await;
            }
            None => {}
        }
        match flush(&store, &node, &mut open).await {
            Ok(()) => said = None,
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(error = text, effect = "status is late, sessions are not", "store");
                    said = Some(text);
                }
            }
        }
    }
}

/// Tries every object, so that one that is refused holds up no other; the first error.
async fn flush<S: Store>(store: &S, node: &str, open: &mut Open) -> Result<(), StoreError> {
    let names: Vec<String> = open.sessions.keys().cloned().collect();
    let mut outcome = Ok(());
    for name in names {
        let done = match open.sessions.get(&name) {
            Some(Some((spec, status))) => session(store, &name, spec, status).await,
            Some(None) => gone(store.delete::<BGPSession>(&Key::cluster(&name), None, None).await),
            None => Ok(()),
        };
        match done {
            Ok(()) => drop(open.sessions.remove(&name)),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    if let Some(wish) = &open.node {
        match fabric_node(store, node, wish).await {
            Ok(()) => open.node = None,
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome
}

pub(crate) async fn fabric_node<S: Store>(store: &S, node: &str, wish: &NodeWish) -> Result<(), StoreError> {
    let agent = AgentStatus {
        name: "bgpd".to_owned(),
        version: manx_daemon::VERSION.to_owned(),
        schema_revision: SCHEMA_REVISION,
    };
    let body =
        json!({"bgp": value(&wish.bgp), "agents": [value(&agent)], "conditions": [value(&wish.ready)]});
    store.apply::<FabricNode>(&Key::cluster(node), None, MANAGER, Part::Status, body).await?;
    Ok(())
}

async fn session<S: Store>(
    store: &S,
    name: &str,
    spec: &BGPSessionSpec,
    status: &BGPSessionStatus,
) -> Result<(), StoreError> {
    let applied =
        store.apply::<BGPSession>(&Key::cluster(name), None, MANAGER, Part::Status, value(status)).await;
    match applied {
        Ok(held) if held.spec == *spec => Ok(()),
        // The remote changed, which is identity: another session.
        Ok(_) => {
            gone(store.delete::<BGPSession>(&Key::cluster(name), None, None).await)?;
            create(store, name, spec, status).await
        }
        Err(StoreError::NotFound { .. }) => create(store, name, spec, status).await,
        Err(error) => Err(error),
    }
}

/// Owned by the FabricNode, so that it goes with the node.
async fn create<S: Store>(
    store: &S,
    name: &str,
    spec: &BGPSessionSpec,
    status: &BGPSessionStatus,
) -> Result<(), StoreError> {
    let owner = match store.get::<FabricNode>(&Key::cluster(&spec.node_name)).await {
        Ok(node) => node.owner_ref(&()),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let object = BGPSession { metadata, spec: spec.clone(), status: None };
    match store.create(&object).await {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    store.apply::<BGPSession>(&Key::cluster(name), None, MANAGER, Part::Status, value(status)).await?;
    Ok(())
}

/// Sessions of this node that an earlier life wrote and whose peers are gone since.
async fn forget_others<S: Store>(store: &S, node: &str, wanted: &BTreeSet<String>, open: &mut Open) {
    let selection = Selection {
        fields: BTreeMap::from([("spec.nodeName".to_owned(), node.to_owned())]),
        ..Selection::default()
    };
    match store.list::<BGPSession>(&selection).await {
        Ok(list) => {
            let names = list.items.iter().map(BGPSession::name_any).filter(|name| !wanted.contains(name));
            open.sessions.extend(names.map(|name| (name, None)));
        }
        Err(error) => tracing::warn!(%error, "old BGPSessions could not be listed"),
    }
}

async fn event<S: Store>(
    store: &S,
    node: &str,
    session: Option<String>,
    reason: &str,
    warning: bool,
    note: String,
) {
    let event = NewEvent {
        warning,
        reason: reason.to_owned(),
        action: if session.is_some() { "Session" } else { "Drain" }.to_owned(),
        note,
        controller: MANAGER.to_owned(),
        instance: node.to_owned(),
    };
    let recorded = match session {
        Some(session) => {
            let about = match store.get::<BGPSession>(&Key::cluster(&session)).await {
                Ok(session) => session,
                // Its object is not written yet: the Event names it all the same.
                Err(_) => BGPSession::new(&session, BGPSessionSpec::default()),
            };
            store.record_event(&about, event).await
        }
        None => match store.get::<FabricNode>(&Key::cluster(node)).await {
            Ok(about) => store.record_event(&about, event).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = recorded {
        tracing::debug!(%error, reason, "an Event was not recorded");
    }
}

/// What is gone already is what we wanted.
fn gone(outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

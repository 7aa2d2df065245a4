//! `manxctl uninstall`: the steps of the chart's pre-delete hook that need the API server. What is taken off a node is
//! `felix uninstall`, run on each by DaemonSet manx-cleanup.
//!
//! ```text
//!   agents ── DaemonSets manx-bgpd and manx-felix deleted, their pods gone
//!   hold   ── the pod of manx-cleanup, whose node is clean, waits to be deleted
//!   nodes  ── a ready pod of manx-cleanup on every node whose kubelet answers; the other nodes are named;
//!             then what agents said of themselves is taken back: nobody is there to do it
//! ```
//! A node is asked whether its kubelet answers, not whether it is ready: without our configuration it is not, and has
//! just been cleaned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use manx_crds::store::kube::KubeStore;
use manx_crds::store::{Key, Part, Selection, Store, StoreError};
use manx_crds::v1alpha1::{BGPSession, FabricNode};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Failure;

#[cfg(test)]
mod tests;

const AGENTS: [&str; 2] = ["bgpd", "felix"];
const CLEANUP: &str = "cleanup";
const PAUSE: Duration = Duration::from_secs(1);

/// What is still to be waited for, and what is not worth it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remaining {
    /// `manx-felix-abc12 on n1`, on nodes that answer.
    waiting: BTreeSet<String>,
    /// Nodes whose kubelet does not answer: nothing ends or starts there.
    silent: BTreeSet<String>,
}

/// Deletes the agents' DaemonSets and waits until no pod of theirs is left on a node that answers.
pub(crate) async fn agents(namespace: &str, patience: Duration) -> Result<(), Failure> {
    let store = KubeStore::from_environment().await?;
    let deadline = Instant::now() + patience;
    for agent in AGENTS {
        let key = key(namespace, agent);
        let gone = |error: &StoreError| matches!(error, StoreError::NotFound { .. });
        loop {
            match store.delete::<DaemonSet>(&key, None, None).await {
                Ok(()) => println!("daemonset manx-{agent} deleted"),
                Err(error) if gone(&error) => println!("daemonset manx-{agent} is not there"),
                Err(error @ StoreError::Unavailable(_)) if Instant::now() < deadline => {
                    eprintln!("asked again: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            break;
        }
    }
    let remaining = wait(deadline, || async {
        let (pods, nodes) = look(&store, namespace, &AGENTS).await?;
        Ok(agents_left(&pods, &nodes))
    })
    .await?;
    finish(
        &remaining,
        "the agents of these nodes did not end",
        "kubectl -n NAMESPACE get pod -o wide",
        namespace,
    )
}

/// Waits until DaemonSet manx-cleanup has cleaned every node that answers.
pub(crate) async fn nodes(namespace: &str, patience: Duration) -> Result<(), Failure> {
    let store = KubeStore::from_environment().await?;
    let remaining = wait(Instant::now() + patience, || async {
        let set: DaemonSet = store.get(&key(namespace, CLEANUP)).await?;
        let (pods, nodes) = look(&store, namespace, &[CLEANUP]).await?;
        Ok(nodes_left(&set, &pods, &nodes))
    })
    .await?;
    for node in &remaining.silent {
        println!("not cleaned, its kubelet does not answer: {node}; there, later: felix uninstall --pods");
    }
    let forgotten = forget(&store).await?;
    println!("{forgotten} BGPSessions deleted; FabricNodes say nothing of agents any more");
    let todo = "kubectl -n NAMESPACE logs POD -c felix, then helm uninstall again; --no-hooks leaves the nodes as they are";
    finish(&remaining, "these nodes are not clean", todo, namespace)
}

/// Deletes the sessions and takes back the agents' status of every node. How many sessions there were.
async fn forget(store: &KubeStore) -> Result<usize, StoreError> {
    let is_there = |outcome: Result<(), StoreError>| match outcome {
        Ok(()) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    };
    let mut sessions = 0;
    for session in store.list::<BGPSession>(&Selection::default()).await?.items {
        let key = Key::cluster(session.name_any());
        sessions += usize::from(is_there(store.delete::<BGPSession>(&key, None, None).await)?);
    }
    for node in store.list::<FabricNode>(&Selection::default()).await?.items {
        let key = Key::cluster(node.name_any());
        for agent in AGENTS {
            let manager = format!("manx-{agent}");
            let empty = serde_json::json!({});
            let said = store.apply::<FabricNode>(&key, None, &manager, Part::Status, empty).await;
            is_there(said.map(drop))?;
        }
    }
    Ok(sessions)
}

/// Does nothing until it is told to end: its pod is ready, and ready means clean.
pub(crate) async fn hold() -> Result<(), Failure> {
    let mut term = signal(SignalKind::terminate())?;
    println!("this node is clean");
    term.recv().await;
    Ok(())
}

fn key(namespace: &str, component: &str) -> Key {
    Key { namespace: Some(namespace.to_owned()), name: format!("manx-{component}") }
}

/// Looks until nothing is waited for, or the time is over; each change is printed.
async fn wait<F>(deadline: Instant, look: impl Fn() -> F) -> Result<Remaining, Failure>
where
    F: Future<Output = Result<Remaining, StoreError>>,
{
    let mut said = BTreeSet::new();
    loop {
        let remaining = match look().await {
            Ok(remaining) if remaining.waiting.is_empty() => return Ok(remaining),
            Ok(remaining) => remaining,
            Err(error @ StoreError::Unavailable(_)) if Instant::now() < deadline => {
                eprintln!("asked again: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if Instant::now() >= deadline {
            return Ok(remaining);
        }
        if said != remaining.waiting {
            said.clone_from(&remaining.waiting);
            println!("waiting for {}", list(&said));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(
    store: &KubeStore,
    namespace: &str,
    components: &[&str],
) -> Result<(Vec<Pod>, BTreeMap<String, bool>), StoreError> {
    let mut pods = Vec::new();
    for component in components {
        let labels = [("app.kubernetes.io/name", "manx"), ("app.kubernetes.io/component", component)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = LabelSelector { match_labels: Some(labels.into()), match_expressions: None };
        let selection =
            Selection { namespace: Some(namespace.to_owned()), labels: Some(labels), ..Selection::default() };
        pods.extend(store.list::<Pod>(&selection).await?.items);
    }
    let nodes = store.list::<Node>(&Selection::default()).await?.items;
    let nodes = nodes.iter().map(|node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let answers = |type_: &str, status: &str| type_ == "Ready" && status != "Unknown";
        (node.name_any(), conditions.into_iter().flatten().any(|one| answers(&one.type_, &one.status)))
    });
    Ok((pods, nodes.collect()))
}

/// Pods that still run, by whether their node can end them. A pod without a node runs nowhere.
fn agents_left(pods: &[Pod], nodes: &BTreeMap<String, bool>) -> Remaining {
    let mut remaining = Remaining::default();
    for pod in pods {
        remaining.add(pod, nodes);
    }
    remaining
}

/// Nodes without a ready pod of the cleaning DaemonSet.
fn nodes_left(set: &DaemonSet, pods: &[Pod], nodes: &BTreeMap<String, bool>) -> Remaining {
    let mut remaining = Remaining::default();
    for pod in pods.iter().filter(|pod| !is_ready(pod)) {
        remaining.add(pod, nodes);
    }
    let status = set.status.as_ref();
    let desired = status
        .filter(|status| status.observed_generation >= set.metadata.generation)
        .and_then(|status| usize::try_from(status.desired_number_scheduled).ok());
    let placed = pods.iter().filter(|pod| node_of(pod).is_some()).count();
    // Pods of a DaemonSet are made one after the other: no pod is not a clean node.
    match desired {
        None => {
            _ = remaining
                .waiting
                .insert("DaemonSet manx-cleanup to be looked at by its controller".to_owned())
        }
        Some(desired) if placed < desired => {
            _ = remaining.waiting.insert(format!("{} more pods of DaemonSet manx-cleanup", desired - placed));
        }
        Some(_) => {}
    }
    remaining
}

impl Remaining {
    fn add(&mut self, pod: &Pod, nodes: &BTreeMap<String, bool>) {
        let Some(node) = node_of(pod) else { return };
        match nodes.get(node) {
            Some(true) => _ = self.waiting.insert(format!("{} on {node}", pod.name_any())),
            Some(false) => _ = self.silent.insert(node.to_owned()),
            // A node that is gone has nothing left to clean.
            None => {}
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

fn finish(remaining: &Remaining, what: &str, todo: &str, namespace: &str) -> Result<(), Failure> {
    if remaining.waiting.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        &format!("{what} in time"),
        &list(&remaining.waiting),
        "none, or only on nodes whose kubelet does not answer",
        &todo.replace("NAMESPACE", namespace),
    ))
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

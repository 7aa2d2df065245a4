//! Where facts come from: objects of the datastore first, then the daemons for what is live: by their sockets where
//! these are on this machine, else by exec into their pods, where `manxctl ask` asks the socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use manx_crds::host::{BGPD_SOCKET, FELIX_SOCKET};
use manx_crds::report::{Answer, Header, Source};
use manx_crds::store::any::{AnyStore, Place};
use manx_crds::store::kube::KubeStore;
use manx_crds::store::{Key, Object, Selection, Store as _, StoreError};
use manx_crds::v1alpha1::FabricNode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Global;
use crate::error::Failure;
use crate::words::natural;

/// Where the agents' pods are told apart, as the chart labels them.
const COMPONENT: &str = "app.kubernetes.io/component";

pub(crate) struct Fabric {
    store: Option<AnyStore>,
    /// The agents' pods on Kubernetes, once somebody asked for them.
    pods: tokio::sync::OnceCell<Result<Vec<Pod>, String>>,
    run_dir: PathBuf,
    timeout: Duration,
    /// Names of the nodes that are asked, in natural order.
    pub(crate) nodes: Vec<String>,
    /// What the fabric is called: its store's directory, or the node.
    pub(crate) name: String,
}

/// Which daemon of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Daemon {
    Bgpd,
    Felix,
}

impl Daemon {
    fn socket(self) -> &'static str {
        match self {
            Self::Bgpd => BGPD_SOCKET,
            Self::Felix => FELIX_SOCKET,
        }
    }

    /// Its component in the chart, which is its container too.
    fn component(self) -> &'static str {
        match self {
            Self::Bgpd => "bgpd",
            Self::Felix => "felix",
        }
    }
}

impl Fabric {
    pub(crate) async fn open(global: &Global) -> Result<Self, Failure> {
        let store = match &global.store {
            Some(place) => Some(AnyStore::open(place).await?),
            None => None,
        };
        let name = match &global.store {
            Some(Place::Kubernetes) => "kubernetes".to_owned(),
            Some(Place::Directory(directory)) => {
                directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
            None => String::new(),
        };
        let mut fabric = Self {
            store,
            pods: tokio::sync::OnceCell::new(),
            run_dir: global.run_dir.clone(),
            timeout: global.node_timeout(),
            nodes: Vec::new(),
            name,
        };
        fabric.nodes = match &global.node {
            Some(node) => vec![node.clone()],
            None => fabric.node_names().await?,
        };
        if fabric.store.is_none() && fabric.nodes.is_empty() {
            return Err(Failure::new(
                "no fabric found",
                &format!("no --store, no MANX_STORE, no socket under {}", global.run_dir.display()),
                "one of them",
                "manxctl --store /etc/manx/objects status",
            ));
        }
        Ok(fabric)
    }

    /// Nodes of the store; without one, whoever answers on this machine.
    async fn node_names(&self) -> Result<Vec<String>, Failure> {
        let mut names: Vec<String> = Vec::new();
        if self.store.is_some() {
            names.extend(self.list::<Node>().await?.iter().map(Node::name_any));
            names.extend(self.list::<FabricNode>().await?.iter().map(FabricNode::name_any));
        } else {
            for daemon in [BGPD_SOCKET, FELIX_SOCKET] {
                let path = self.run_dir.join(daemon);
                let answer = manx_daemon::control::ask(&path, &json!({"verb": "status"}), self.timeout).await;
                names.extend(answer.ok().and_then(|value| Some(value.get("node")?.as_str()?.to_owned())));
            }
        }
        names.sort_by(|a, b| natural(a, b));
        names.dedup();
        Ok(names)
    }

    pub(crate) fn header(&self, kind: &str) -> Header {
        let source = match &self.store {
            Some(AnyStore::Kubernetes(_)) => Source::Kubernetes,
            Some(AnyStore::Directory(_)) => Source::Directory,
            None => Source::Node,
        };
        Header::new(
            kind,
            source,
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()),
        )
    }

    /// All objects of a kind; none without a store.
    pub(crate) async fn list<K: Object>(&self) -> Result<Vec<K>, Failure> {
        match &self.store {
            Some(store) => Ok(store.list::<K>(&Selection::default()).await?.items),
            None => Ok(Vec::new()),
        }
    }

    /// Changes an object, where `change` says that there is something to change; again where somebody else was faster.
    pub(crate) async fn change<K: Object>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut K) -> bool,
    ) -> Result<K, Failure> {
        let Some(store) = &self.store else {
            return Err(Failure::new(
                "there is no datastore to write to",
                "no --store, no MANX_STORE",
                "one of them",
                "manxctl --store /etc/manx/objects node drain NODE",
            ));
        };
        let key = Key::cluster(name);
        loop {
            let mut object = store.get::<K>(&key).await?;
            if !change(&mut object) {
                return Ok(object);
            }
            match store.replace(&object).await {
                Ok(object) => return Ok(object),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks one daemon; why there is no answer, in a word or two.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        node: &str,
        daemon: Daemon,
        request: &Value,
    ) -> Result<T, String> {
        let own = self.run_dir.join(node).join(daemon.socket());
        let answer = match &self.store {
            Some(AnyStore::Kubernetes(store)) if !own.exists() => {
                self.ask_pod(store, node, daemon, request).await?
            }
            Some(AnyStore::Kubernetes(_) | AnyStore::Directory(_)) | None => {
                let path = if own.exists() { own } else { self.run_dir.join(daemon.socket()) };
                ask_socket(&path, request, self.timeout).await?
            }
        };
        match serde_json::from_value(answer) {
            Ok(Answer::Ok(answer)) => Ok(answer),
            Ok(Answer::Error(error)) => Err(error.error),
            Err(error) => Err(format!("the answer of {node} is not understood: {error}")),
        }
    }

    /// By exec into the daemon's pod on that node.
    async fn ask_pod(
        &self,
        store: &KubeStore,
        node: &str,
        daemon: Daemon,
        request: &Value,
    ) -> Result<Value, String> {
        let pods = self.pods.get_or_init(|| async { agents(store).await.map_err(|error| error.to_string()) });
        let pods = pods.await.as_ref().map_err(Clone::clone)?;
        let component = daemon.component();
        let runs_there = |pod: &&Pod| {
            pod.labels().get(COMPONENT).is_some_and(|label| label == component)
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
                && pod.metadata.deletion_timestamp.is_none()
        };
        let pod = pods.iter().find(runs_there).ok_or_else(|| format!("no pod of {component} on {node}"))?;
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let request = request.to_string();
        let command = ["/opt/manx/bin/manxctl", "ask", component, &request];
        let printed = store
            .exec((&namespace, &name, component), &command, self.timeout)
            .await
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&printed).map_err(|error| format!("the answer of {node} is no JSON: {error}"))
    }

    /// Asks that daemon of every node, all at once.
    pub(crate) async fn ask_all<T: DeserializeOwned + Send + 'static>(
        &self,
        daemon: Daemon,
        request: &Value,
    ) -> BTreeMap<String, Result<T, String>> {
        let answers = self
            .nodes
            .iter()
            .map(|node| async move { (node.clone(), self.ask::<T>(node, daemon, request).await) });
        futures::future::join_all(answers).await.into_iter().collect()
    }
}

/// The pods of both agents, in whatever namespace they are.
async fn agents(store: &KubeStore) -> Result<Vec<Pod>, StoreError> {
    let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "manx".to_owned())]);
    let labels = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
    let selection = Selection { labels: Some(labels), ..Selection::default() };
    Ok(store.list::<Pod>(&selection).await?.items)
}

async fn ask_socket(path: &Path, request: &Value, timeout: Duration) -> Result<Value, String> {
    manx_daemon::control::ask(path, request, timeout).await.map_err(|error| {
        let late = error.kind() == std::io::ErrorKind::TimedOut;
        if late { "Timeout".to_owned() } else { format!("{}: {error}", path.display()) }
    })
}

/// `manxctl ask`: puts a question to a daemon of this machine as it stands, and prints its answer so.
pub(crate) async fn ask(global: &Global, daemon: Daemon, request: &str) -> Result<(), Failure> {
    let request: Value = serde_json::from_str(request)?;
    let path = global.run_dir.join(daemon.socket());
    let answer =
        ask_socket(&path, &request, global.node_timeout()).await.map_err(|text| Failure::plain(&text))?;
    println!("{answer}");
    Ok(())
}

/// Notes who did not answer and returns the others, in natural order.
pub(crate) fn answered<T>(
    answers: BTreeMap<String, Result<T, String>>,
    header: &mut Header,
) -> Vec<(String, T)> {
    let mut found = Vec::new();
    for (node, answer) in answers {
        match answer {
            Ok(answer) => found.push((node, answer)),
            Err(reason) => header.miss(node, reason),
        }
    }
    found.sort_by(|a, b| natural(&a.0, &b.0));
    found
}

/// The last line of a table: who was not looked at.
pub(crate) fn missing_line(header: &Header, of: usize) -> Option<String> {
    let names: Vec<String> = header.missing.iter().map(|missing| missing.node.clone()).collect();
    if names.is_empty() {
        return None;
    }
    let why = header.missing.first().map(|missing| missing.reason.clone()).unwrap_or_default();
    Some(format!(
        "{} of {of} nodes answered; {} did not: {why}",
        of - names.len().min(of),
        crate::words::names(&names)
    ))
}

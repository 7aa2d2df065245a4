//! Where facts come from: objects of the datastore first, then the daemons' sockets for what is live.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use manx_crds::host::{BGPD_SOCKET, FELIX_SOCKET};
use manx_crds::report::{Answer, Header, Source};
use manx_crds::store::any::{AnyStore, Place};
use manx_crds::store::{Object, Selection, Store as _};
use manx_crds::v1alpha1::FabricNode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Global;
use crate::error::Failure;
use crate::words::natural;

pub(crate) struct Fabric {
    store: Option<AnyStore>,
    run_dir: PathBuf,
    timeout: std::time::Duration,
    /// Names of the nodes that are asked, in natural order.
    pub(crate) nodes: Vec<String>,
    /// What the fabric is called: its store's directory, or the node.
    pub(crate) name: String,
}

/// Which daemon of a node.
#[derive(Clone, Copy)]
pub(crate) enum Daemon {
    Bgpd,
    Felix,
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

    /// Asks one daemon; why there is no answer, in a word or two.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        node: &str,
        daemon: Daemon,
        request: &Value,
    ) -> Result<T, String> {
        let name = match daemon {
            Daemon::Bgpd => BGPD_SOCKET,
            Daemon::Felix => FELIX_SOCKET,
        };
        let own = self.run_dir.join(node).join(name);
        let path = if own.exists() { own } else { self.run_dir.join(name) };
        let answer = manx_daemon::control::ask(&path, request, self.timeout).await.map_err(|error| {
            let late = error.kind() == std::io::ErrorKind::TimedOut;
            if late { "Timeout".to_owned() } else { format!("{}: {error}", path.display()) }
        })?;
        match serde_json::from_value(answer) {
            Ok(Answer::Ok(answer)) => Ok(answer),
            Ok(Answer::Error(error)) => Err(error.error),
            Err(error) => Err(format!("the answer of {node} is not understood: {error}")),
        }
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

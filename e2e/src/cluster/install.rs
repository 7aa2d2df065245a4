//! Manx on the cluster: the chart of this checkout, and what an operator writes to peer with routers.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::netns::stdout_of;
use crate::process::wait_for;
use crate::store;
use crate::topology::{NODES, TORS};

use super::{Cluster, PATIENCE};

/// The release's namespace.
pub const NAMESPACE: &str = "manx-system";
/// Sessions with the routers only, quick to notice what a test does; ClusterIPs are announced too.
const FABRIC: &str = "{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {name: default}, \
                      spec: {topology: {mode: None}, session: {timers: {hold: 9s, connectRetry: 1s}}}}\n---\n\
                      {apiVersion: manx.dev/v1alpha1, kind: BGPAdvertisement, metadata: {name: cluster-ips}, \
                      spec: {services: {addressTypes: [ClusterIP]}}}\n";

impl Cluster {
    /// helm for the release, beside the API server; its standard error is the error's text.
    pub fn helm(&self, helm: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(&helm.to_string_lossy());
        command.args(["-n", NAMESPACE]).args(arguments);
        stdout_of(command).with_context(|| format!("helm {}", arguments.join(" ")))
    }

    /// `helm install manx charts/manx` with these further arguments; on somebody else's cluster also with what `VALUES`
    /// says, such as `--set image.repository=…`, because its nodes find the image elsewhere.
    pub fn install(&self, helm: &Path, values: &[&str]) -> Result<String> {
        let chart = chart();
        let mut arguments = vec!["install", "manx", &chart, "--create-namespace", "--timeout", "4m"];
        arguments.extend(values);
        let theirs =
            if self.theirs.is_some() { std::env::var("VALUES").unwrap_or_default() } else { String::new() };
        arguments.extend(theirs.split_whitespace());
        self.helm(helm, &arguments)
    }

    /// Gives every node its AS, and peers all with both ToRs.
    pub fn peer_with_tors(&self) -> Result<()> {
        for node in NODES {
            wait_for(PATIENCE, || self.kubectl(&["get", "fabricnode", node.name]).ok())
                .with_context(|| format!("no FabricNode {}: does felix run there?", node.name))?;
            let patch = format!("{{\"spec\":{{\"asn\":{}}}}}", node.asn);
            self.kubectl(&["patch", "fabricnode", node.name, "--type=merge", "-p", &patch])?;
        }
        let mut objects = FABRIC.to_owned();
        for tor in TORS {
            objects.push_str("---\n");
            objects.push_str(&store::peer(tor.name, &tor.v4().to_string(), tor.asn, ""));
        }
        self.apply(&objects).map(drop)
    }

    /// What `make cluster` does once the cluster is there.
    pub(super) fn install_and_peer(&self, helm: &Path) -> Result<()> {
        self.install(helm, &[])?;
        if self.options.tors {
            self.peer_with_tors()?;
        }
        self.await_ready(PATIENCE)?;
        if self.options.dns {
            self.kubectl(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s"])?;
        }
        Ok(())
    }
}

/// The chart of this checkout.
#[must_use]
pub fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/manx").to_string_lossy().into_owned()
}

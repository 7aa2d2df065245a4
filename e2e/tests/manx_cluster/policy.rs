//! NetworkPolicy on a cluster: what it closes, and that the kubelet is never closed out.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::asks::{at, condition, connects, pods, text};
use crate::lab::Lab;

const DENY_ALL: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny-all}, \
                        spec: {podSelector: {}, policyTypes: [Ingress]}}";
/// More than three periods of the probes of web.yaml.
const PROBES: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace that nobody may enter: connections are refused on every node, probes pass, and it opens again.
pub(crate) fn deny_all(lab: &mut Lab) -> Result<String> {
    let pods = pods(lab, "web")?;
    let [asker, .., other] = pods.as_slice() else { bail!("two pods are needed") };
    let targets: Vec<String> = other.addresses.iter().map(|address| at(*address, 8080)).collect();
    connects(lab, asker, &targets).context("before the policy")?;
    lab.cluster.apply(DENY_ALL)?;
    for target in &targets {
        lab.until(PATIENCE, |lab| {
            let open = connects(lab, asker, std::slice::from_ref(target)).is_ok();
            ensure!(!open, "{target} still answers {}", asker.name);
            Ok(())
        })?;
    }
    std::thread::sleep(PROBES);
    for pod in lab.items(&["get", "pods", "-l", "app=web"])? {
        let ready = condition(&pod, "Ready")?;
        ensure!(text(ready, "/status") == "True", "{}: {ready}", text(&pod, "/metadata/name"));
        let restarts =
            pod.pointer("/status/containerStatuses/0/restartCount").and_then(serde_json::Value::as_u64);
        ensure!(restarts == Some(0), "{} was restarted: {restarts:?}", text(&pod, "/metadata/name"));
    }
    lab.kubectl(&["delete", "networkpolicy", "deny-all"])?;
    lab.until(PATIENCE, |lab| connects(lab, asker, &targets).context("after the policy is gone"))?;
    Ok(format!("{} refused, {} pods stayed Ready", targets.join(" "), pods.len()))
}

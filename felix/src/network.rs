//! What the scheduler is told of this node: the taint that keeps pods away until felix is ready, and the condition
//! NetworkUnavailable.
//!
//! ```text
//!   not ready ── AddressesReady and DataplaneReady ──► taint removed, NetworkUnavailable=False
//!       ▲                                                   │
//!       └────────────── not ready for a minute ─────────────┘  NetworkUnavailable=True, with DataplaneReady's reason
//! ```
//! Level-triggered on the Node object: what is so already is not written, whoever wrote it.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use manx_crds::store::Store;

use crate::driver::Driver;
use crate::writer::Write;

/// Set by the kubelet's `--register-with-taints`.
pub(crate) const TAINT: &str = "manx.dev/agent-not-ready";
pub(crate) const CONDITION: &str = "NetworkUnavailable";
/// A dataplane that is not ready for less than this is on its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the Node is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) available: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Network {
    pub(crate) fn available() -> Self {
        let message = "felix has programmed this node".to_owned();
        Self { available: true, reason: "ManxReady".to_owned(), message }
    }

    /// Whether the Node says so already. The reason of a condition that is False is whoever's wrote it first.
    pub(crate) fn is_said(&self, node: &Node) -> bool {
        self.is_condition_said(node) && !(self.available && is_tainted(node))
    }

    pub(crate) fn is_condition_said(&self, node: &Node) -> bool {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let condition = conditions.into_iter().flatten().find(|condition| condition.type_ == CONDITION);
        condition.is_some_and(|condition| {
            let reason = condition.reason.as_deref() == Some(self.reason.as_str());
            if self.available { condition.status == "False" } else { condition.status == "True" && reason }
        })
    }
}

pub(crate) fn is_tainted(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().any(|taint| taint.key == TAINT)
}

/// How far the Node has been told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    unready_since: Option<Instant>,
    /// The wish that was handed to the writer, and the Node's revision then.
    sent: Option<(Option<String>, Network)>,
}

impl Told {
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.unready_since.and_then(|since| since.checked_add(PATIENCE))
    }
}

impl<S: Store> Driver<S> {
    pub(crate) fn tick_network(&mut self, now: Instant) {
        let Some(problem) = self.status.problem() else { return };
        let wish = match problem {
            Ok(()) => {
                self.told.unready_since = None;
                Network::available()
            }
            Err((reason, message)) => {
                let (reason, message) = (reason.clone(), message.clone());
                let since = *self.told.unready_since.get_or_insert(now);
                if now.duration_since(since) < PATIENCE {
                    return;
                }
                // Said once; the next change of the condition says more.
                self.told.unready_since = Some(now);
                Network { available: false, reason, message }
            }
        };
        let Some(node) = self.objects.nodes.named(&self.node) else { return };
        if wish.is_said(node) {
            return;
        }
        let sent = Some((node.metadata.resource_version.clone(), wish.clone()));
        if self.told.sent == sent {
            return;
        }
        self.told.sent = sent;
        self.status.send(Write::Network(wish));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(rest: &str) -> Node {
        serde_saphyr::from_str(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: n}}, {rest}}}"))
            .unwrap()
    }

    #[test]
    fn what_is_said_is_not_said_again() {
        let (ready, down) = (
            Network::available(),
            Network { available: false, reason: "KernelRejected".into(), message: String::new() },
        );
        let condition = |status: &str, reason: &str| {
            node(&format!(
                "status: {{conditions: [{{type: NetworkUnavailable, status: '{status}', reason: {reason}}}]}}"
            ))
        };
        assert!(!ready.is_said(&node("spec: {}")));
        assert!(ready.is_said(&condition("False", "CalicoIsUp")));
        assert!(!ready.is_said(&condition("True", "NodeInitialization")));
        assert!(!down.is_said(&condition("False", "ManxReady")));
        assert!(!down.is_said(&condition("True", "Other")));
        assert!(down.is_said(&condition("True", "KernelRejected")));
        let tainted = node(
            "spec: {taints: [{key: manx.dev/agent-not-ready, effect: NoSchedule}]},
             status: {conditions: [{type: NetworkUnavailable, status: 'False'}]}",
        );
        assert!(is_tainted(&tainted) && !ready.is_said(&tainted));
    }
}

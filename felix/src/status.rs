//! What the API is told of this node and its pods: worked out here, written by [`crate::writer`], and only when it
//! differs. Nothing ticks while nothing changes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use felix_calc::{Change, Flush};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use manx_crds::conditions::{
    AddressesReady, ConditionReason, DataplaneReady, PolicyProgrammed, set_condition,
};
use manx_crds::store::{Key, Store};
use manx_crds::v1alpha1::{Ip, NodeAddressesStatus};
use tokio::sync::mpsc;

use crate::driver::Driver;
use crate::writer::{NodeWish, Write};

/// A condition that is False is written when it has held for this long (api.md §4.2).
const HOLD: Duration = Duration::from_secs(10);
/// Between two writes of the FabricNode.
const PAUSE: Duration = Duration::from_secs(1);
/// The kernel may be behind the objects for this long before PolicyProgrammed says so.
const BEHIND: Duration = Duration::from_secs(5);

pub(crate) struct Status {
    writes: mpsc::Sender<Write>,
    adopted_table: bool,
    /// Pods' statuses are ours to write: in a directory there is no kubelet.
    writes_pods: bool,
    dirty: bool,
    wish: Option<NodeWish>,
    /// When the wish may be written.
    due: Option<Instant>,
    written: Option<(NodeWish, Instant)>,
    conditions: Vec<Condition>,
    node_seen: bool,
    /// Why this node is not ready for pods, if it is not: reason and text. Absent before anybody looked.
    problem: Option<Result<(), (String, String)>>,
}

impl Status {
    pub(crate) fn new(writes: mpsc::Sender<Write>, adopted_table: bool, writes_pods: bool) -> Self {
        Self {
            writes,
            adopted_table,
            writes_pods,
            dirty: true,
            wish: None,
            due: None,
            written: None,
            conditions: Vec::new(),
            node_seen: false,
            problem: None,
        }
    }

    /// The kernel held our table when we started.
    pub(crate) fn adopted_table(&self) -> bool {
        self.adopted_table
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn repaired(&mut self, what: &str) {
        self.send(Write::NodeEvent {
            warning: true,
            reason: "RulesetRepaired",
            note: format!("{what} was gone"),
        });
    }

    pub(crate) fn address_changed(&mut self, old: &str, new: &str, source: &str) {
        self.send(Write::NodeEvent {
            warning: false,
            reason: "AddressChanged",
            note: format!("{old} is now {new}, by {source}"),
        });
    }

    /// Why this node is not ready for pods, if it is not.
    pub(crate) fn problem(&self) -> Option<&Result<(), (String, String)>> {
        self.problem.as_ref()
    }

    /// The FabricNode is gone, or no longer says what was written: it is written again.
    pub(crate) fn forget_written(&mut self) {
        self.written = None;
        self.wish = None;
        self.dirty = true;
    }

    pub(crate) fn pod_event(&mut self, pod: &Key, reason: &'static str, note: &str) {
        self.send(Write::PodEvent { pod: pod.clone(), reason, note: note.to_owned() });
    }

    /// The addresses of a pod of this node, for its status; `write` is false where another sandbox has them.
    pub(crate) fn pod_addresses(&mut self, pod: &Key, addresses: &[IpAddr], write: bool) {
        if write && self.writes_pods {
            self.send(Write::PodAddresses { pod: pod.clone(), addresses: addresses.to_vec() });
        }
    }

    pub(crate) fn send(&self, write: Write) {
        if self.writes.try_send(write).is_err() {
            tracing::warn!("the store's writer is behind: a status or an Event is lost");
        }
    }

    fn offer(&mut self, wish: NodeWish, settled: bool, now: Instant) {
        if self.wish.as_ref() != Some(&wish) {
            self.wish = Some(wish);
            let earliest =
                self.written.as_ref().and_then(|(_, at)| at.checked_add(PAUSE)).unwrap_or(now).max(now);
            let held =
                if settled { Some(earliest) } else { now.checked_add(HOLD).map(|held| held.max(earliest)) };
            // What else changed does not wait for a condition that is being held back.
            self.due = match (self.due, held) {
                (Some(due), Some(held)) if !settled => Some(due.min(held)),
                (_, held) => held,
            };
        }
        if self.due.is_none_or(|at| at > now) {
            return;
        }
        self.due = None;
        let Some(wish) = &self.wish else { return };
        if self.written.as_ref().is_some_and(|(written, _)| written == wish) {
            return;
        }
        if self.writes.try_send(Write::Node(Box::new(wish.clone()))).is_ok() {
            self.written = Some((wish.clone(), now));
        } else {
            self.due = now.checked_add(PAUSE);
        }
    }
}

impl<S: Store> Driver<S> {
    pub(crate) fn tick_status(&mut self, now: Instant) {
        let due = self.status.due.is_some_and(|at| at <= now);
        if !std::mem::take(&mut self.status.dirty) && !due {
            return;
        }
        let node = self.objects.nodes.named(&self.node);
        self.status.node_seen |= node.is_some();
        if self.status.node_seen && node.is_none() {
            // The Node was deleted, and its FabricNode with it.
            self.status.due = None;
            return;
        }
        let wall = Timestamp::now();
        let mut conditions = std::mem::take(&mut self.status.conditions);
        let generation =
            self.objects.fabric_nodes.named(&self.node).and_then(|node| node.metadata.generation);
        let (addresses, source, address_reason, address_text) = self.address_status();
        let (dataplane, text) = self.dataplane_state();
        self.status.problem = Some(match (address_reason.status(), dataplane.status()) {
            ("True", "True") => Ok(()),
            ("True", _) => Err((dataplane.as_str().to_owned(), text.clone())),
            (_, _) => Err((address_reason.as_str().to_owned(), address_text.clone())),
        });
        set_condition(&mut conditions, address_reason, address_text, generation, Time(wall));
        set_condition(&mut conditions, dataplane, text, generation, Time(wall));
        let (policy, text) = self.policy_state(now);
        set_condition(&mut conditions, policy, text, generation, Time(wall));
        let settled = conditions.iter().all(|condition| condition.status == "True");
        let mut blocks: Vec<String> = self.allocator.blocks().map(|block| block.cidr().to_string()).collect();
        blocks.sort();
        let wish = NodeWish {
            labels: self.labels(),
            addresses,
            address_source: source,
            pod_mtu: u16::try_from(self.pod_mtu()).ok(),
            blocks,
            conditions: conditions.clone(),
            owner: self.objects.nodes.named(&self.node).and_then(|node| node.metadata.uid.clone()),
        };
        self.status.conditions = conditions;
        self.status.offer(wish, settled, now);
    }

    fn address_status(&self) -> (NodeAddressesStatus, String, AddressesReady, String) {
        let chosen = &self.chosen;
        let status = NodeAddressesStatus { ipv4: chosen.ipv4.map(Ip), ipv6: chosen.ipv6.map(Ip) };
        let (reason, text) = chosen.problem.clone().unwrap_or((AddressesReady::Selected, String::new()));
        (status, chosen.source.clone(), reason, text)
    }

    /// Condition DataplaneReady.
    pub(crate) fn dataplane_state(&self) -> (DataplaneReady, String) {
        if let Some(error) = &self.programming.error {
            return (DataplaneReady::KernelRejected, format!("the kernel refused the ruleset: {error}"));
        }
        if let Some((prefix, error)) = self.programming.refused_routes.iter().next() {
            return (
                DataplaneReady::KernelRejected,
                format!("the kernel refuses the route to {prefix}: {error}"),
            );
        }
        let remark = self.inputs.remark();
        if !self.is_settled() {
            let unread = "the objects were not read whole yet";
            let text = if remark.is_empty() { unread.to_owned() } else { format!("{unread}; {remark}") };
            return (DataplaneReady::InitialSync, text);
        }
        if let Some(problem) = self.settings_problems.first() {
            return (DataplaneReady::HostSetting, problem.clone());
        }
        (DataplaneReady::Programmed, remark)
    }

    /// Condition PolicyProgrammed.
    pub(crate) fn policy_state(&self, now: Instant) -> (PolicyProgrammed, String) {
        if let Some(error) = &self.programming.error {
            return (PolicyProgrammed::PartlyFailed, error.clone());
        }
        // What waits for the store, while a memory is in force, is not behind it.
        let dirty = self.programming.dirty.filter(|_| self.may_program());
        let behind = dirty.map(|since| now.saturating_duration_since(since));
        match behind {
            Some(behind) if behind > BEHIND => (
                PolicyProgrammed::Behind,
                format!("a change of {}s ago is not in the kernel", behind.as_secs()),
            ),
            Some(_) | None if !self.is_settled() => {
                (PolicyProgrammed::Behind, "the first table is not in the kernel yet".to_owned())
            }
            Some(_) | None => (PolicyProgrammed::Programmed, String::new()),
        }
    }

    /// What a flush changed, for the log.
    pub(crate) fn note_flush(&mut self, flush: &Flush) {
        for change in &flush.changes {
            match change {
                Change::Endpoint { id, policies } => {
                    tracing::debug!(endpoint = %id, policies = ?policies, "endpoint changed");
                }
                Change::Policy { key, selects } => {
                    tracing::debug!(policy = %key, selects = ?selects, "policy changed");
                }
            }
        }
    }
}

/// The reason of a condition and whether it is True, for the control socket.
pub(crate) fn words<R: ConditionReason>(state: (R, String)) -> (String, String) {
    (state.0.as_str().to_owned(), state.1)
}

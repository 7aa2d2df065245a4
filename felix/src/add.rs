//! ADD, step by step. What a call waits for is written down in its [`Stage`]; every event moves on whoever it
//! concerns.
//!
//! ```text
//!             Pod seen                 addresses                 link made                 rules decide,
//!   WaitPod ───────────► Assigning ───────────────► Wiring ───────────────► Programming ── record on disk ──► answer
//!      │ 5 s                 │ no address              │ refused                │ DEL came
//!      └──────────────► failed: addresses released, link deleted, error answered ◄──┘
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use felix_kernel::descriptor::PodNamespace;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use manx_cni::error::{CniError, Code};
use manx_cni::request::{PodRef, Request, Response};
use manx_cni::result::PodNetwork;
use manx_crds::annotations::BadAnnotation;
use manx_crds::store::{Key, Store};
use manx_ipam::allocator::{AssignError, AssignRequest, Input, RequestId};
use manx_ipam::journal::Attachment;
use tokio::sync::oneshot;

use crate::cni::Call;
use crate::dataplane::Generation;
use crate::driver::{Attached, Driver, Event};
use crate::source_prefixes::{self, SourcePrefixes};
use crate::wiring::{self, Ends, Wire, WiringError};

/// How long an ADD waits for its Pod to appear in the watch.
const POD: Duration = Duration::from_secs(5);
/// How long an ADD waits for its rules once its link is made.
const RULES: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) enum Stage {
    /// The Pod is not in the watch yet: nothing is guessed about its labels.
    WaitPod,
    Assigning,
    Wiring {
        record: u64,
    },
    /// `generation`: the table that holds the pod, once it was handed over.
    Programming {
        record: u64,
        generation: Option<Generation>,
    },
}

#[derive(Debug)]
pub(crate) struct Add {
    request: Request,
    reference: PodRef,
    namespace: Option<PodNamespace>,
    answer: oneshot::Sender<Response>,
    ends: Ends,
    stage: Stage,
    began: Instant,
    deadline: Instant,
    addresses: Vec<IpAddr>,
    /// From [`Stage::Assigning`] on.
    mtu: u32,
}

impl Add {
    pub(crate) fn attachment(&self) -> Attachment {
        attachment(&self.request)
    }
}

/// How CNI names what it adds and deletes.
pub(crate) fn attachment(request: &Request) -> Attachment {
    Attachment { container_id: request.container_id.clone(), interface: request.ifname.clone() }
}

impl<S: Store> Driver<S> {
    pub(crate) fn begin_add(&mut self, id: RequestId, call: Call) {
        let Call { request, pod: namespace, answer } = call;
        let Some(reference) = request.pod.clone() else {
            let error = CniError::new(Code::InvalidEnvironment, "CNI_ARGS names no pod").because(
                "environment of manx-cni",
                "K8S_POD_NAMESPACE and K8S_POD_NAME",
                "let the kubelet's runtime call manx-cni",
            );
            reply(answer, Response::Failed(error));
            return;
        };
        let began = Instant::now();
        let ends = Ends::of(&request.container_id, &request.ifname);
        let deadline = began.checked_add(POD).unwrap_or(began);
        let stage = Stage::WaitPod;
        let add = Add {
            request,
            reference,
            namespace,
            answer,
            ends,
            stage,
            began,
            deadline,
            addresses: Vec::new(),
            mtu: 0,
        };
        self.adds.insert(id, add);
        self.try_pod(id);
    }

    /// Goes on with an ADD whose Pod is known.
    fn try_pod(&mut self, id: RequestId) {
        let mtu = self.pod_mtu();
        let Some(add) = self.adds.get_mut(&id) else { return };
        if !matches!(add.stage, Stage::WaitPod) || !self.objects.known() {
            return;
        }
        let PodRef { namespace, name, uid } = &add.reference;
        let Some(pod) = self.objects.pod(namespace, name).filter(|pod| is_meant(pod, uid.as_deref())) else {
            return;
        };
        if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            let what = format!("pod {namespace}/{name} is on the host network");
            let error = CniError::new(Code::InvalidConfig, what).because(
                "felix, ADD",
                "a pod with a network of its own",
                "nothing: the runtime must not call ADD for it",
            );
            self.fail_add(id, error);
            return;
        }
        if let Err(error) = self.objects.allowed_sources(namespace, pod) {
            self.refuse_sources(id, &error);
            return;
        }
        let of_namespace = self.objects.namespaces.named(namespace);
        let request = AssignRequest {
            container_id: add.request.container_id.clone(),
            interface: add.request.ifname.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone().or_else(|| pod.uid()).unwrap_or_default(),
            network: add.request.network.clone(),
            pod_annotations: pod.annotations().clone(),
            namespace_annotations: of_namespace.map(|ns| ns.annotations().clone()).unwrap_or_default(),
            namespace_labels: of_namespace.map(felix_input::namespace::labels).unwrap_or_default(),
        };
        add.stage = Stage::Assigning;
        add.mtu = mtu;
        let now = self.now();
        self.allocator.handle_input(Input::Assign { id, request }, now);
        self.drain_allocator();
    }

    /// Pods have come or changed: somebody may have waited for them.
    pub(crate) fn retry_adds(&mut self) {
        let waiting: Vec<RequestId> = self
            .adds
            .iter()
            .filter(|(_, add)| matches!(add.stage, Stage::WaitPod))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.try_pod(id);
        }
    }

    pub(crate) fn next_add_deadline(&self) -> Option<Instant> {
        let waits = |add: &&Add| matches!(add.stage, Stage::WaitPod | Stage::Programming { .. });
        self.adds.values().filter(waits).map(|add| add.deadline).min()
    }

    pub(crate) fn expire_adds(&mut self, now: Instant) {
        let late: Vec<(RequestId, bool)> = self
            .adds
            .iter()
            .filter(|(_, add)| add.deadline <= now)
            .filter_map(|(id, add)| match add.stage {
                Stage::WaitPod => Some((*id, true)),
                Stage::Programming { .. } => Some((*id, false)),
                Stage::Assigning | Stage::Wiring { .. } => None,
            })
            .collect();
        for (id, for_pod) in late {
            let Some(add) = self.adds.get(&id) else { continue };
            let PodRef { namespace, name, uid } = &add.reference;
            let error = if for_pod {
                CniError::new(
                    Code::TryAgainLater,
                    format!("pod {namespace}/{name} is not known to felix yet"),
                )
                .because(
                    &format!("felix on {}, {}s after the call", self.node, POD.as_secs()),
                    &format!("the Pod object, uid {}", uid.as_deref().unwrap_or("any")),
                    "nothing: the runtime tries again by itself",
                )
            } else {
                let why =
                    self.programming.error.clone().unwrap_or_else(|| "the kernel did not confirm".to_owned());
                CniError::new(
                    Code::TryAgainLater,
                    format!("the policy of {namespace}/{name} is not in the kernel: {why}"),
                )
                .because(
                    &format!("felix on {}, {}s after the link was made", self.node, RULES.as_secs()),
                    "nftables to take the ruleset",
                    "manxctl status; the runtime tries again by itself",
                )
            };
            self.fail_add(id, error);
        }
    }

    pub(crate) fn not_assigned(&mut self, id: RequestId, error: &AssignError) {
        let Some(add) = self.adds.get(&id) else { return };
        let PodRef { namespace, name, .. } = &add.reference;
        let (code, text) = match error {
            AssignError::BadAnnotation(_) => (Code::InvalidConfig, error.to_string()),
            AssignError::NoAddress(_) | AssignError::NotInSync { .. } | AssignError::Cancelled => {
                (Code::TryAgainLater, error.to_string())
            }
        };
        let key = Key::namespaced(namespace, name);
        self.status.pod_event(&key, "AddressAssignmentFailed", &text);
        let error = CniError::new(code, text).because(
            &format!("felix on {}, ADD", self.node),
            "a free address in an IPPool that serves this pod here",
            "manxctl ipam show; add an IPPool",
        );
        self.fail_add(id, error);
    }

    fn refuse_sources(&mut self, id: RequestId, error: &BadAnnotation) {
        let Some(add) = self.adds.get(&id) else { return };
        let PodRef { namespace, name, .. } = &add.reference;
        self.status.pod_event(
            &Key::namespaced(namespace, name),
            source_prefixes::REFUSED,
            &error.to_string(),
        );
        let error = CniError::new(Code::InvalidConfig, error.to_string()).because(
            &format!("felix on {}, ADD", self.node),
            "prefixes that the pod's Namespace lists",
            "correct the annotation; the runtime tries again by itself",
        );
        self.fail_add(id, error);
    }

    pub(crate) fn assigned(&mut self, id: RequestId, addresses: Vec<IpAddr>) {
        let record = self.journal_next;
        let Some(add) = self.adds.get_mut(&id) else { return };
        add.addresses.clone_from(&addresses);
        add.stage = Stage::Wiring { record };
        let Some(pod) = add.namespace.take() else { return };
        let (ends, interface, mtu) = (add.ends.clone(), add.request.ifname.clone(), add.mtu);
        let ipv6_off = add.request.ipv6_off.clone();
        let (host, events) = (Arc::clone(&self.host), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let wire = Wire {
                ends: &ends,
                interface: &interface,
                addresses: &addresses,
                mtu,
                pod: &pod,
                ipv6_off: ipv6_off.as_deref(),
            };
            let outcome = wiring::wire(&host, &wire);
            // The loop is gone: the process ends.
            drop(events.send(Event::Wired { id, ends, outcome }));
        });
    }

    pub(crate) fn wired(&mut self, id: RequestId, ends: &Ends, outcome: Result<u32, WiringError>) {
        let Some(add) = self.adds.get_mut(&id) else {
            // DEL was faster: nobody wants the link any more.
            if outcome.is_ok() {
                self.delete_links(vec![ends.host_interface.clone()]);
            }
            return;
        };
        let Stage::Wiring { record } = add.stage else { return };
        let index = match outcome {
            Ok(index) => index,
            Err(error) => {
                let place =
                    format!("felix on {}, ADD {}/{}", self.node, add.reference.namespace, add.reference.name);
                let error = CniError::new(Code::Internal, format!("the pod's link was not made: {error}"))
                    .because(
                        &place,
                        "the kernel to make a veth pair with addresses and routes",
                        "look at felix's log; the runtime tries again by itself",
                    );
                self.fail_add(id, error);
                return;
            }
        };
        add.stage = Stage::Programming { record, generation: None };
        add.deadline = Instant::now().checked_add(RULES).unwrap_or(add.deadline);
        let attachment = add.attachment();
        let attached = Attached {
            namespace: add.reference.namespace.clone(),
            name: add.reference.name.clone(),
            host_interface: ends.host_interface.clone(),
            index,
            addresses: add.addresses.clone(),
            sources: SourcePrefixes::strict(),
        };
        self.attach(attachment, attached);
    }

    /// ADDs whose rules go with this hand-over.
    pub(crate) fn mark_handed_over(&mut self, handed_over: Generation) {
        for add in self.adds.values_mut() {
            if let Stage::Programming { generation: generation @ None, .. } = &mut add.stage {
                *generation = Some(handed_over);
            }
        }
        for del in self.dels.values_mut() {
            del.handed_over(handed_over);
        }
    }

    /// Answers every ADD whose rules decide and whose record is on disk.
    pub(crate) fn answer_ready(&mut self) {
        let (switched, acked) = (self.programming.switched, self.journal_acked);
        let ready: Vec<(RequestId, u64)> = self
            .adds
            .iter()
            .filter_map(|(id, add)| match add.stage {
                Stage::Programming { record, generation: Some(generation) }
                    if generation <= switched && record <= acked && self.is_routed(&add.addresses) =>
                {
                    Some((*id, record))
                }
                Stage::WaitPod | Stage::Assigning | Stage::Wiring { .. } | Stage::Programming { .. } => None,
            })
            .collect();
        for (id, record) in ready {
            if let Some(why) = self.journal_failed.get(&record) {
                let error = CniError::new(Code::Io, format!("the address could not be recorded: {why}"))
                    .because(
                        &format!("felix on {}, the journal in its state directory", self.node),
                        "a file system that takes writes",
                        "look at the disk; the runtime tries again by itself",
                    );
                self.fail_add(id, error);
            } else if let Some(add) = self.adds.remove(&id) {
                self.succeed(add);
            }
        }
        self.journal_failed = self.journal_failed.split_off(&acked.saturating_sub(1024));
        self.answer_dels();
    }

    /// The kernel has taken the routes to these addresses.
    pub(crate) fn is_routed(&self, addresses: &[IpAddr]) -> bool {
        self.refusal(addresses).is_none()
    }

    /// Which route to these addresses the kernel does not take, and why.
    pub(crate) fn refusal(&self, addresses: &[IpAddr]) -> Option<String> {
        let refused = &self.programming.refused_routes;
        addresses.iter().find_map(|address| {
            let (destination, why) = refused.get_key_value(&ipnet::IpNet::from(*address).to_string())?;
            Some(format!("{destination}: {why}"))
        })
    }

    fn succeed(&mut self, add: Add) {
        let PodRef { namespace, name, .. } = &add.reference;
        let addresses: Vec<String> = add.addresses.iter().map(ToString::to_string).collect();
        tracing::info!(
            pod = format!("{namespace}/{name}"),
            ip = addresses.join(" "),
            r#if = add.ends.host_interface,
            took = manx_daemon::log::took(add.began.elapsed()),
            "pod added"
        );
        self.status.pod_addresses(&Key::namespaced(namespace, name), &add.addresses, true);
        let gateways = add.addresses.iter().map(|address| wiring::gateway(*address));
        let network = PodNetwork {
            host_interface: add.ends.host_interface.clone(),
            host_mac: add.ends.host_mac.to_string(),
            ifname: add.request.ifname.clone(),
            mac: add.ends.pod_mac.to_string(),
            mtu: add.mtu,
            addresses: add.addresses.iter().map(|address| (*address).into()).collect(),
            gateways: gateways.collect(),
        };
        reply(add.answer, Response::Added(network));
    }

    /// Undoes what was done and answers.
    pub(crate) fn fail_add(&mut self, id: RequestId, error: CniError) {
        let Some(add) = self.adds.remove(&id) else { return };
        let PodRef { namespace, name, .. } = &add.reference;
        tracing::warn!(
            pod = format!("{namespace}/{name}"),
            code = error.code,
            error = error.msg,
            "ADD failed"
        );
        let attachment = add.attachment();
        match add.stage {
            Stage::WaitPod => {}
            Stage::Assigning => self.release(&attachment),
            // A repeated ADD replaces the link of the one before, whose endpoint goes with it.
            Stage::Wiring { .. } | Stage::Programming { .. } => {
                self.detach(&attachment);
                self.delete_links(vec![add.ends.host_interface.clone()]);
                self.release(&attachment);
            }
        }
        reply(add.answer, Response::Failed(error));
    }

    /// An ADD of this attachment that is under way fails: its DEL has come.
    pub(crate) fn cancel_add(&mut self, attachment: &Attachment) {
        let found: Vec<RequestId> =
            self.adds.iter().filter(|(_, add)| add.attachment() == *attachment).map(|(id, _)| *id).collect();
        for id in found {
            let error = CniError::new(Code::TryAgainLater, "DEL came while ADD was under way");
            self.fail_add(id, error);
        }
    }

    /// Gives the addresses back; nobody waits for it.
    fn release(&mut self, attachment: &Attachment) {
        self.next_request += 1;
        let (id, now) = (RequestId(self.next_request), self.now());
        self.allocator.handle_input(Input::Release { id, attachment: attachment.clone() }, now);
    }

    pub(crate) fn delete_links(&mut self, names: Vec<String>) {
        self.dataplane.send(crate::dataplane::Command::DeleteLinks(names));
    }
}

/// A static pod's sandbox carries the hash of its manifest, not the uid of its mirror.
fn is_meant(pod: &Pod, uid: Option<&str>) -> bool {
    let Some(uid) = uid else { return true };
    pod.metadata.uid.as_deref() == Some(uid)
        || pod.annotations().get("kubernetes.io/config.hash").is_some_and(|hash| hash == uid)
}

pub(crate) fn reply(answer: oneshot::Sender<Response>, response: Response) {
    // The shim may have given up; the runtime calls DEL then.
    drop(answer.send(response));
}

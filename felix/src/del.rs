//! DEL: the pod's rules and route go first, then its addresses are given back, then the answer; its link is deleted
//! in the background, since that alone takes the kernel's routing lock for milliseconds.
//!
//! ```text
//!   Unprogramming ── rules no longer name it ──► Releasing ── record on disk ──► answer
//! ```
//! DEL of what nobody knows succeeds. Before felix knows or remembers the objects nothing is removed from the rules, so
//! DEL goes straight to releasing: rules of an interface that is gone match nothing.

use std::time::Instant;

use manx_cni::error::{CniError, Code};
use manx_cni::request::Response;
use manx_crds::store::{Key, Store};
use manx_ipam::allocator::{Input, RequestId};
use manx_ipam::journal::Attachment;
use tokio::sync::oneshot;

use crate::add::{attachment, reply};
use crate::cni::Call;
use crate::dataplane::Generation;
use crate::driver::Driver;
use crate::wiring::Ends;

#[derive(Debug)]
enum Stage {
    Unprogramming {
        generation: Option<Generation>,
    },
    /// `record`: the removal in the journal, once the allocator has written it.
    Releasing {
        record: Option<u64>,
    },
}

#[derive(Debug)]
pub(crate) struct Del {
    attachment: Attachment,
    host_interface: String,
    answer: oneshot::Sender<Response>,
    stage: Stage,
    pod: Option<String>,
    began: Instant,
}

impl Del {
    pub(crate) fn handed_over(&mut self, handed_over: Generation) {
        if let Stage::Unprogramming { generation: generation @ None } = &mut self.stage {
            *generation = Some(handed_over);
        }
    }
}

impl<S: Store> Driver<S> {
    pub(crate) fn begin_del(&mut self, id: RequestId, call: Call) {
        let attachment = attachment(&call.request);
        self.cancel_add(&attachment);
        let ends = Ends::of(&attachment.container_id, &attachment.interface);
        let known = self
            .attached
            .get(&attachment)
            .map(|attached| (attached.namespace.clone(), attached.name.clone()));
        if let Some((namespace, name)) = &known {
            self.status.pod_addresses(
                &Key::namespaced(namespace, name),
                &[],
                self.is_last(&attachment, namespace, name),
            );
        }
        let was_attached = self.detach(&attachment);
        let stage = if was_attached && self.serves() {
            Stage::Unprogramming { generation: None }
        } else {
            Stage::Releasing { record: None }
        };
        let release = matches!(stage, Stage::Releasing { .. });
        let del = Del {
            attachment,
            host_interface: ends.host_interface,
            answer: call.answer,
            stage,
            pod: known.map(|(namespace, name)| format!("{namespace}/{name}")),
            began: Instant::now(),
        };
        self.dels.insert(id, del);
        if release {
            self.release_for(id);
        }
    }

    /// No other sandbox of the pod is left: its status says that it has no address.
    fn is_last(&self, gone: &Attachment, namespace: &str, name: &str) -> bool {
        !self
            .attached
            .iter()
            .any(|(key, other)| key != gone && other.namespace == namespace && other.name == name)
    }

    /// The rules of this generation decide: whoever waited for them gives its addresses back.
    pub(crate) fn after_switch(&mut self, switched: Generation) {
        let due: Vec<RequestId> = self
            .dels
            .iter()
            .filter(|(_, del)| match del.stage {
                Stage::Unprogramming { generation } => generation.is_some_and(|g| g <= switched),
                Stage::Releasing { .. } => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.release_for(id);
        }
    }

    fn release_for(&mut self, id: RequestId) {
        let Some(del) = self.dels.get_mut(&id) else { return };
        del.stage = Stage::Releasing { record: None };
        let (attachment, link) = (del.attachment.clone(), del.host_interface.clone());
        self.delete_links(vec![link]);
        let now = self.now();
        self.allocator.handle_input(Input::Release { id, attachment }, now);
        self.drain_allocator();
    }

    /// The allocator has let go; its record is the last one handed to the journal.
    pub(crate) fn released(&mut self, id: RequestId) {
        let written = self.journal_next;
        if let Some(del) = self.dels.get_mut(&id)
            && let Stage::Releasing { record } = &mut del.stage
        {
            *record = Some(written);
        }
        self.answer_dels();
    }

    pub(crate) fn answer_dels(&mut self) {
        let acked = self.journal_acked;
        let due: Vec<(RequestId, u64)> = self
            .dels
            .iter()
            .filter_map(|(id, del)| match del.stage {
                Stage::Releasing { record: Some(record) } if record <= acked => Some((*id, record)),
                Stage::Releasing { .. } | Stage::Unprogramming { .. } => None,
            })
            .collect();
        for (id, record) in due {
            let Some(del) = self.dels.remove(&id) else { continue };
            if let Some(why) = self.journal_failed.get(&record) {
                let error = CniError::new(Code::Io, format!("the release could not be recorded: {why}"))
                    .because(
                        &format!("felix on {}, the journal in its state directory", self.node),
                        "a file system that takes writes",
                        "look at the disk; the runtime tries again by itself",
                    );
                reply(del.answer, Response::Failed(error));
                continue;
            }
            if let Some(pod) = del.pod {
                tracing::info!(pod, took = manx_daemon::log::took(del.began.elapsed()), "pod deleted");
            }
            reply(del.answer, Response::Done);
        }
    }
}

//! GC: attachments that the runtime no longer knows are deleted as DEL would. Runtimes lose DELs; the record of what was
//! added is the journal.
//!
//! Deleted is what the journal holds of the runtime's network and the runtime does not name, apart from ADDs that are
//! under way: the runtime lists an attachment when its ADD has answered.

use std::collections::BTreeSet;

use manx_cni::error::CniError;
use manx_cni::request::{Request, Response, Verb};
use manx_crds::store::Store;
use manx_ipam::allocator::RequestId;
use manx_ipam::journal::Attachment;
use tokio::sync::oneshot;

use crate::add::reply;
use crate::cni::Call;
use crate::driver::Driver;

impl<S: Store> Driver<S> {
    pub(crate) fn begin_collect(&mut self, call: Call) {
        let named: BTreeSet<Attachment> = call
            .request
            .attachments
            .iter()
            .map(|named| Attachment {
                container_id: named.container_id.clone(),
                interface: named.ifname.clone(),
            })
            .collect();
        let stale = self.stale(&call.request.network, &named);
        let mut answers = Vec::new();
        for attachment in stale {
            tracing::info!(container = attachment.container_id, "collected: the runtime does not know it");
            let (answer, answered) = oneshot::channel();
            self.next_request += 1;
            let id = RequestId(self.next_request);
            let request = deletion(&call.request, attachment);
            self.begin_del(id, Call { request, pod: None, answer });
            answers.push(answered);
        }
        tokio::spawn(async move {
            let mut failed: Option<CniError> = None;
            for answered in answers {
                // Dropped: felix stops, and so does the runtime's connection.
                if let Ok(Response::Failed(error)) = answered.await {
                    failed.get_or_insert(error);
                }
            }
            reply(call.answer, failed.map_or(Response::Done, Response::Failed));
        });
    }

    fn stale(&self, network: &str, named: &BTreeSet<Attachment>) -> Vec<Attachment> {
        let adding: BTreeSet<Attachment> = self.adds.values().map(crate::add::Add::attachment).collect();
        let pods = &self.allocator.pods().pods;
        let of_network = |attachment: &&Attachment| {
            // A record that names no network was written by a felix that knew only one.
            pods.get(*attachment).is_none_or(|pod| pod.network.is_empty() || pod.network == network)
        };
        let known: BTreeSet<&Attachment> = pods.keys().chain(self.attached.keys()).collect();
        known
            .into_iter()
            .filter(|attachment| !named.contains(attachment) && !adding.contains(attachment))
            .filter(of_network)
            .cloned()
            .collect()
    }
}

fn deletion(collect: &Request, attachment: Attachment) -> Request {
    Request {
        verb: Verb::Del,
        network: collect.network.clone(),
        container_id: attachment.container_id,
        ifname: attachment.interface,
        netns: None,
        pod: None,
        ipv6_off: None,
        expected: None,
        attachments: Vec::new(),
    }
}

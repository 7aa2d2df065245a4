//! The allocator's outputs, carried out in order: nothing leaves the node before the journal holds it.

use std::net::IpAddr;

use manx_crds::store::{Key, Revision, Store, StoreError};
use manx_crds::v1alpha1::{Cidr, IPBlock};
use manx_ipam::allocator::{Output, StoreAnswer, StoreId, StoreRequest};
use manx_ipam::journal::{MacAddress, Record};

use crate::driver::{Driver, Event};
use crate::wiring::Ends;

impl<S: Store> Driver<S> {
    pub(crate) fn drain_allocator(&mut self) {
        while let Some(output) = self.allocator.poll_output() {
            match output {
                Output::Journal(record) => self.append(record),
                Output::Store { id, request } => {
                    if self.journal_saved >= self.journal_next {
                        self.ask_store(id, request);
                    } else {
                        self.gated.push_back((self.journal_next, id, request));
                    }
                }
                Output::Assigned { id, addresses } => {
                    let addresses: Vec<IpAddr> = addresses.into_iter().map(|address| address.ip).collect();
                    self.assigned(id, addresses);
                }
                Output::Failed { id, error } => self.not_assigned(id, &error),
                Output::Released { id, .. } => self.released(id),
                Output::BlockClaimed { cidr, pool } => {
                    tracing::info!(%cidr, pool, "block claimed");
                    self.status.touch();
                }
                Output::BlockReleased { cidr, pool } => {
                    tracing::info!(%cidr, pool, "block released");
                    self.status.touch();
                }
                Output::BlockLost { cidr, node, addresses } => {
                    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    tracing::error!(
                        %cidr, node, addresses = addresses.join(" "),
                        expected = "this node as holder of its own block",
                        r#do = "find out who changed the IPBlock; restart these pods",
                        "another node holds a block of ours"
                    );
                }
            }
        }
    }

    /// The record of a pod carries the names of its link too: they follow from container and interface, so one
    /// record, and one sync to disk, is all that an ADD needs.
    fn append(&mut self, mut record: Record) {
        if let Record::Pod(pod) = &mut record {
            let ends = Ends::of(&pod.container_id, &pod.interface);
            pod.host_interface = Some(ends.host_interface);
            pod.host_mac = Some(MacAddress(ends.host_mac.0));
            pod.mac = Some(MacAddress(ends.pod_mac.0));
        }
        self.journal_next += 1;
        let sequence = self.journal_next;
        if let Err(error) = self.journal.append(sequence, record) {
            // The loop is gone: the process ends.
            drop(self.events.send(Event::Journaled { sequence, outcome: Err(error) }));
        }
    }

    fn ask_store(&self, id: StoreId, request: StoreRequest) {
        let (store, events) = (self.store.clone(), self.events.clone());
        tokio::spawn(async move {
            let answer = Box::new(ask(&store, request).await);
            drop(events.send(Event::Store { id, answer }));
        });
    }
}

/// What waited for the journal may go.
pub(crate) fn release_gated<S: Store>(driver: &mut Driver<S>) {
    while driver.gated.front().is_some_and(|(sequence, ..)| *sequence <= driver.journal_saved) {
        if let Some((_, id, request)) = driver.gated.pop_front() {
            driver.ask_store(id, request);
        }
    }
}

async fn ask<S: Store>(store: &S, request: StoreRequest) -> StoreAnswer {
    match request {
        StoreRequest::Get { cidr } => match store.get::<IPBlock>(&key(cidr)).await {
            Ok(block) => StoreAnswer::Found(block),
            Err(error) => refused(error),
        },
        StoreRequest::Create(block) => match store.create::<IPBlock>(&block).await {
            Ok(block) => StoreAnswer::Created(block),
            Err(error) => refused(error),
        },
        StoreRequest::Replace(block) => match store.replace::<IPBlock>(&block).await {
            Ok(block) => StoreAnswer::Replaced(block),
            Err(error) => refused(error),
        },
        StoreRequest::Delete { cidr, uid, revision } => {
            match store.delete::<IPBlock>(&key(cidr), Some(&uid), Some(&Revision(revision))).await {
                Ok(()) => StoreAnswer::Deleted,
                Err(error) => refused(error),
            }
        }
    }
}

fn refused(error: StoreError) -> StoreAnswer {
    match error {
        StoreError::AlreadyExists { .. } => StoreAnswer::AlreadyExists,
        StoreError::NotFound { .. } => StoreAnswer::NotFound,
        StoreError::Conflict { .. } => StoreAnswer::Conflict,
        StoreError::Invalid(text) | StoreError::Forbidden(text) => StoreAnswer::Refused(text),
        error @ (StoreError::Expired { .. } | StoreError::Unavailable(_)) => {
            StoreAnswer::Unavailable(error.to_string())
        }
    }
}

fn key(cidr: ipnet::IpNet) -> Key {
    Key::cluster(Cidr::masked(cidr).block_name())
}

/// The CIDR of a block object by its key, for a watch that says only that it is gone.
pub(crate) fn cidr_of(blocks: impl Iterator<Item = ipnet::IpNet>, key: &Key) -> Option<ipnet::IpNet> {
    let mut blocks = blocks;
    blocks.find(|cidr| Cidr::masked(*cidr).block_name() == key.name)
}

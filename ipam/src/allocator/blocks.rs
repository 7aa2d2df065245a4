//! Which blocks this node holds: what the store says of them, claims, spares, and giving back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use manx_crds::v1alpha1::IPBlock;

use super::held::{Held, Stored, Verb};
use super::{Allocator, Now, Output, RefusedClaim, StoreAnswer, StoreId, StoreRequest, Taken};
use crate::block::{self, Block, Slot};
use crate::journal::{Address, Record};
use crate::owner::Owner;
use crate::pool::Pool;

/// How long an empty block beyond the spare ones is kept: a rolling update would claim it again.
pub(super) const SURPLUS: Duration = Duration::from_secs(300);
/// How long another node's block is believed to be its own.
const TAKEN: Duration = Duration::from_secs(60);
/// How long a pool whose blocks the store refuses is left alone.
const REFUSED: Duration = Duration::from_secs(30);
/// A spare block is a convenience: after this many candidates in a row that were taken, the search rests.
const SPARE_TRIES: u32 = 16;
const SPARE_REST: Duration = Duration::from_secs(300);

/// The search for spare blocks of one pool.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpareSearch {
    tries: u32,
    pub(super) not_before: Duration,
}

impl Allocator {
    pub(super) fn on_list(&mut self, objects: Vec<IPBlock>, now: Now) {
        let mut listed = BTreeSet::new();
        for object in objects {
            match Block::read(&object) {
                Ok(theirs) => {
                    listed.insert(theirs.cidr());
                    self.on_listed(object, &theirs, now);
                }
                Err(error) => tracing::warn!(%error, "an IPBlock of this node is left alone"),
            }
        }
        for (cidr, held) in &mut self.held {
            if !listed.contains(cidr) {
                held.hint("");
            }
        }
        self.listed = true;
        self.look_for_recorded_blocks(now);
    }

    /// Addresses are given from these until the store answers: a restart during an outage must not stop the node.
    /// What could have taken a block away since is a request of ours, which the journal knows, or somebody else's word,
    /// against which a node that did not restart is not safe either.
    pub(super) fn on_remembered(&mut self, objects: &[IPBlock], now: Now) {
        if self.listed || !self.complete {
            return;
        }
        self.remembered = true;
        for object in objects {
            let Ok(theirs) = Block::read(object) else { continue };
            let (uid, _) = block::identity_of(object);
            let left = self.known.leaving.contains(&theirs.cidr());
            #[cfg(test)]
            let left = left && self.fault != Some(super::Fault::ForgetLeaving);
            if left || !self.is_mine(object) || self.held.contains_key(&theirs.cidr()) {
                continue;
            }
            let Some(block) = self.recorded(theirs.cidr(), theirs.pool(), now) else { continue };
            let mut held = Held::new(block, Stored::Unread);
            held.absorb(&theirs, self.complete, self.settings, now);
            held.remember(uid);
            self.held.insert(theirs.cidr(), held);
        }
    }

    fn on_listed(&mut self, object: IPBlock, theirs: &Block, now: Now) {
        if self.held.contains_key(&theirs.cidr()) || !self.is_mine(&object) {
            return self.on_changed(&object, now);
        }
        let Some(block) = self.recorded(theirs.cidr(), theirs.pool(), now) else { return };
        let mut held = Held::new(block, Stored::Unread);
        held.seen(&object);
        held.absorb(theirs, self.complete, self.settings, now);
        held.stored = Stored::Present(Box::new(object));
        #[cfg(test)]
        {
            held.fenced |= self.fault == Some(super::Fault::NoFenceAtStart);
        }
        self.held.insert(theirs.cidr(), held);
    }

    /// Addresses of the journal whose block is not among ours: it was deleted, or its claim was cleared. Their
    /// pods run, so the block is taken back if nobody else has it.
    fn look_for_recorded_blocks(&mut self, now: Now) {
        let missing: BTreeSet<(IpNet, String)> = self
            .known
            .pods
            .values()
            .flat_map(|pod| &pod.addresses)
            .filter(|address| !self.held.contains_key(&address.block))
            .map(|address| (address.block, address.pool.clone()))
            .collect();
        for (cidr, pool) in missing {
            if let Some(block) = self.recorded(cidr, &pool, now) {
                self.held.insert(cidr, Held::new(block, Stored::Unread));
            }
        }
    }

    /// A block as the journal knows it.
    fn recorded(&self, cidr: IpNet, pool: &str, now: Now) -> Option<Block> {
        let mut block = match Block::new(cidr, pool) {
            Ok(block) => block,
            Err(error) => {
                tracing::warn!(%error, "a block is left alone");
                return None;
            }
        };
        for (ip, until) in
            self.known.cooling.iter().filter(|(ip, until)| cidr.contains(*ip) && **until > now.wall)
        {
            block.set(*ip, Slot::Cooling { until: *until });
        }
        for pod in self.known.pods.values() {
            for Address { ip, .. } in pod.addresses.iter().filter(|address| cidr.contains(&address.ip)) {
                block.set(*ip, Slot::Owned(block::own(Owner::Pod(pod.owner()))));
            }
        }
        Some(block)
    }

    /// The watch is late by nature and may show what was: it says only where to look.
    pub(super) fn on_changed(&mut self, object: &IPBlock, now: Now) {
        let Ok(theirs) = Block::read(object) else { return };
        let (_, revision) = block::identity_of(object);
        if let Some(held) = self.held.get_mut(&theirs.cidr()) {
            held.hint(&revision);
        } else if self.listed
            && self.is_mine(object)
            && let Some(block) = self.recorded(theirs.cidr(), theirs.pool(), now)
        {
            // a claim of ours that came late, or an echo of one that is over
            self.held.insert(theirs.cidr(), Held::new(block, Stored::Unread));
        }
    }

    pub(super) fn on_gone(&mut self, cidr: IpNet) {
        if let Some(held) = self.held.get_mut(&cidr) {
            held.hint("");
        }
    }

    pub(super) fn on_answer(&mut self, id: StoreId, answer: StoreAnswer, now: Now) {
        let found = self.held.iter().find_map(|(cidr, held)| match held.in_flight {
            Some((in_flight, verb)) if in_flight == id => Some((*cidr, verb)),
            Some(_) | None => None,
        });
        let Some((cidr, verb)) = found else { return };
        let Some(held) = self.held.get_mut(&cidr) else { return };
        held.in_flight = None;
        match answer {
            StoreAnswer::Created(object) | StoreAnswer::Replaced(object) => {
                if held.claiming {
                    let pool = held.block.pool().to_owned();
                    self.spare_search.remove(&pool);
                    self.outputs.push_back(Output::BlockClaimed { cidr, pool });
                }
                held.written(object);
                if self.known.leaving.contains(&cidr) {
                    self.journal(Record::Kept { block: cidr });
                }
            }
            StoreAnswer::Found(object) => self.on_found(cidr, object, now),
            StoreAnswer::AlreadyExists | StoreAnswer::Conflict => held.unsettled(now),
            StoreAnswer::Deleted => self.forget(cidr),
            StoreAnswer::NotFound if verb == Verb::Delete || held.leaving => self.forget(cidr),
            StoreAnswer::NotFound => {
                (held.fenced, held.remembered) = (false, false);
                held.stored = Stored::Absent;
                held.well();
                if held.block.is_empty() && !held.claiming {
                    self.held.remove(&cidr);
                }
            }
            StoreAnswer::Unavailable(text) => {
                if verb != Verb::Get {
                    held.unsettled(now);
                }
                held.back_off(text, now);
                #[cfg(test)]
                if verb == Verb::Delete && self.fault == Some(super::Fault::ResumeAfterLostDelete) {
                    (held.leaving, held.fenced, held.dirty_since) = (false, true, None);
                }
            }
            StoreAnswer::Refused(text) if held.claiming => {
                let until = now.monotonic.saturating_add(REFUSED);
                self.refused.insert(held.block.pool().to_owned(), RefusedClaim { text, until });
                self.held.remove(&cidr);
            }
            StoreAnswer::Refused(text) => {
                held.leaving = false;
                held.touch(now);
                held.back_off(text, now);
            }
        }
        if let Some(held) = self.held.get_mut(&cidr) {
            held.follow_hint();
        }
    }

    fn on_found(&mut self, cidr: IpNet, object: IPBlock, now: Now) {
        let holder = block::holder_of(&object).map(str::to_owned);
        let Some(held) = self.held.get_mut(&cidr) else { return };
        held.well();
        if let Some(node) = holder.clone().filter(|node| *node != self.me.node) {
            return self.lose(cidr, node, now);
        }
        let theirs = match Block::read(&object) {
            Ok(theirs) => theirs,
            Err(error) => return held.back_off(error.to_string(), now),
        };
        let is_kept = holder.is_some() && held.is_same(&object);
        held.fenced &= is_kept;
        held.remembered &= is_kept;
        held.seen(&object);
        held.absorb(&theirs, self.complete, self.settings, now);
        held.stored = Stored::Present(Box::new(object));
        if !held.block.is_empty() {
            held.leaving = false;
        }
    }

    /// Another node holds it.
    fn lose(&mut self, cidr: IpNet, node: String, now: Now) {
        let until = now.monotonic.saturating_add(TAKEN);
        self.taken.insert(cidr, Taken { node: node.clone(), until });
        let known = self.known_addresses();
        let lost = self.held.remove(&cidr);
        // A claim that was never ours is in nobody's memory.
        if lost.as_ref().is_some_and(|held| !held.claiming) {
            self.journal(Record::Leaving { block: cidr });
        }
        let addresses: Vec<IpAddr> = lost
            .iter()
            .flat_map(|held| held.block.owned())
            .map(|(ip, _)| ip)
            .filter(|ip| known.contains(ip))
            .collect();
        if !addresses.is_empty() {
            self.outputs.push_back(Output::BlockLost { cidr, node, addresses });
        }
    }

    /// The object of a surplus block is gone.
    fn forget(&mut self, cidr: IpNet) {
        if let Some(held) = self.held.remove(&cidr) {
            self.outputs.push_back(Output::BlockReleased { cidr, pool: held.block.pool().to_owned() });
        }
    }

    /// Keeps `spareBlocks` empty blocks of every pool that serves this node, and gives back the others.
    pub(super) fn keep_spares(&mut self, now: Now) {
        let Some(pools) = self.pools.take_if(|_| self.listed) else { return };
        let in_held = self.held.values().map(|held| held.block.pool().to_owned());
        let names: BTreeSet<String> = pools.iter().map(|pool| pool.name.clone()).chain(in_held).collect();
        for name in names {
            let in_use = self.of_pool(&name).any(|held| !held.block.is_empty());
            let pool = pools.get(&name);
            let prepared = pool.filter(|pool| pools.prepares(pool, &self.node_labels, in_use));
            let open = pool.is_some_and(|pool| pools.open(pool).is_ok());
            let wanted = if prepared.is_some() { usize::from(self.settings.spare_blocks) } else { 0 };
            self.give_back(&name, wanted, if open { SURPLUS } else { Duration::ZERO }, now);
            if let Some(pool) = prepared {
                self.claim_spare(pool, wanted, now);
            }
        }
        self.pools = Some(pools);
    }

    fn give_back(&mut self, pool: &str, wanted: usize, patience: Duration, now: Now) {
        let mut empty = 0;
        for held in self.held.values_mut().filter(|held| held.block.pool() == pool) {
            if !held.block.is_empty() || held.leaving {
                held.surplus_since = None;
                continue;
            }
            empty += 1;
            if empty <= wanted || !held.fenced {
                held.surplus_since = None;
            } else {
                let since = *held.surplus_since.get_or_insert(now.monotonic);
                held.leaving = now.monotonic >= since.saturating_add(patience);
            }
        }
    }

    fn claim_spare(&mut self, pool: &Pool, wanted: usize, now: Now) {
        let empty = self.of_pool(&pool.name).filter(|held| held.block.is_empty() && !held.leaving).count();
        let claiming = self.of_pool(&pool.name).any(|held| held.claiming);
        if empty >= wanted || claiming || self.refused.contains_key(&pool.name) {
            return;
        }
        let search = self.spare_search.entry(pool.name.clone()).or_default();
        if now.monotonic < search.not_before {
            return;
        }
        search.tries += 1;
        if search.tries > SPARE_TRIES {
            *search = SpareSearch { tries: 0, not_before: now.monotonic.saturating_add(SPARE_REST) };
            return;
        }
        match self.next_candidate(pool) {
            Some(cidr) => self.claim(cidr, &pool.name, now),
            None => {
                let not_before = now.monotonic.saturating_add(SPARE_REST);
                self.spare_search.insert(pool.name.clone(), SpareSearch { tries: 0, not_before });
            }
        }
    }

    /// The next block of the pool that may be free.
    pub(super) fn next_candidate(&self, pool: &Pool) -> Option<IpNet> {
        pool.candidates(&self.me.node)
            .find(|cidr| !self.held.contains_key(cidr) && !self.taken.contains_key(cidr))
    }

    /// Creating the object is the claim. Before the blocks were listed it may turn out to be one of ours, so what the
    /// journal knows of it goes along.
    pub(super) fn claim(&mut self, cidr: IpNet, pool: &str, now: Now) {
        if let Some(block) = self.recorded(cidr, pool, now) {
            let mut held = Held::new(block, Stored::Absent);
            held.claiming = true;
            self.held.insert(cidr, held);
        }
    }

    fn journal(&mut self, record: Record) {
        self.known.apply(record.clone());
        self.outputs.push_back(Output::Journal(record));
    }

    pub(super) fn drive_blocks(&mut self, now: Now) {
        let mut requests = Vec::new();
        for held in self.held.values_mut() {
            #[cfg(test)]
            if self.fault == Some(super::Fault::NoWrite) {
                held.dirty_since = None;
            }
            if let Some((verb, request)) = held.next_request(&self.me, now) {
                let id = StoreId(self.next_store_id);
                self.next_store_id += 1;
                held.sent(id, verb);
                requests.push((id, request));
            }
        }
        for (id, request) in requests {
            // Behind its record: the request may take effect long after this process is gone.
            if let StoreRequest::Delete { cidr, .. } = &request {
                self.journal(Record::Leaving { block: *cidr });
            }
            self.outputs.push_back(Output::Store { id, request });
        }
    }

    pub(super) fn of_pool<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Held> {
        self.held.values().filter(move |held| held.block.pool() == pool)
    }

    fn is_mine(&self, object: &IPBlock) -> bool {
        block::holder_of(object) == Some(self.me.node.as_str())
    }
}

//! Blocks of nodes that are gone (api.md §6.2, Life): dead allocations are removed and `nodeName` is cleared; what is
//! nobody's and empty is deleted.
//!
//! ```text
//!   held ── its Node is not there ──► suspected ── for 60 s ──► dead ── replace ──► nobody's ── cooled down ──► deleted
//!    ▲                                    │                      │
//!    └────────── the Node is there again ─┘        more than a tenth, and of several nodes: refused
//! ```
//! Every write compares: a block that felix touched meanwhile is looked at again. Addresses of pods that are gone are
//! felix's own business while their node lives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use manx_crds::store::Key;
use manx_crds::v1alpha1::{IPBlock, Released};
use manx_ipam::block::INCARNATION;

use crate::Now;

/// A Node must be missing for this long: it may be created again, and a list may be of a bad moment.
const GRACE: Duration = Duration::from_secs(60);
/// How often Nodes are asked for while one seems to be missing.
const ASK: Duration = Duration::from_secs(20);
/// At most this many blocks in [`MINUTE`].
const BLOCKS: usize = 50;
const MINUTE: Duration = Duration::from_secs(60);
/// More than one in this many blocks dead at once is more likely our error than the cluster's loss.
const DEAD_ONE_IN: usize = 10;
/// The cooldown where nobody set one (api.md §4.1).
pub const COOLDOWN: Duration = Duration::from_secs(60);

/// One write, if the block is still as it was.
#[derive(Clone, Debug, PartialEq)]
pub enum Cut {
    /// The dead allocations removed, nobody's.
    Clear(Box<IPBlock>),
    /// Empty and nobody's.
    Delete(Box<IPBlock>),
}

/// What a node's end gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    pub node: String,
    pub addresses: usize,
    pub blocks: usize,
}

/// What is known of nodes and blocks.
#[derive(Clone, Debug, Default)]
pub struct Garbage {
    /// All Nodes, as last asked for.
    nodes: Option<(BTreeSet<String>, Duration)>,
    asking: bool,
    /// Nodes that were missing from every list since.
    missing: BTreeMap<String, Duration>,
    cut: VecDeque<Duration>,
    in_flight: BTreeSet<Key>,
    /// Blocks whose write failed, and when they are tried again.
    resting: BTreeMap<Key, Duration>,
    reclaimed: BTreeMap<String, (usize, usize)>,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The Nodes have to be listed.
    pub ask: bool,
    pub cuts: Vec<Cut>,
    /// Of nodes all of whose blocks are done.
    pub reclaimed: Vec<Reclaimed>,
    /// The text of GarbageCollectionRefused.
    pub refused: Option<String>,
    pub again: Option<Duration>,
}

impl Garbage {
    /// The names of all Nodes.
    pub fn nodes(&mut self, names: BTreeSet<String>, now: Duration) {
        self.asking = false;
        self.missing.retain(|name, _| !names.contains(name));
        self.nodes = Some((names, now));
    }

    /// The Nodes could not be listed.
    pub fn not_asked(&mut self) {
        self.asking = false;
    }

    /// What became of a cut.
    pub fn answered(&mut self, block: &Key, done: bool, now: Duration) {
        self.in_flight.remove(block);
        if !done {
            self.resting.insert(block.clone(), now.saturating_add(Duration::from_secs(5)));
        }
    }

    /// `living`: nodes that are not suspected, because what stands for them is there. Blocks that no felix ever wrote
    /// are an operator's own and stay as they are.
    pub fn plan(
        &mut self,
        blocks: &BTreeMap<Key, IPBlock>,
        living: &BTreeSet<String>,
        cooldown: Duration,
        now: Now,
    ) -> Plan {
        let mut plan = Plan::default();
        let at = now.monotonic;
        self.resting.retain(|_, until| *until > at);
        let blocks: BTreeMap<&Key, &IPBlock> =
            blocks.iter().filter(|(_, block)| block.annotations().contains_key(INCARNATION)).collect();
        let blocks = &blocks;
        let holders: BTreeMap<&str, usize> = blocks.values().fold(BTreeMap::new(), |mut holders, block| {
            if let Some(node) = block.spec.node_name.as_deref() {
                *holders.entry(node).or_default() += 1;
            }
            holders
        });
        self.missing.retain(|name, _| holders.contains_key(name.as_str()));
        let suspects: Vec<&str> = holders.keys().copied().filter(|name| !living.contains(*name)).collect();
        self.suspect(&suspects, at, &mut plan);
        // As of the last list: a Node that came back while nobody could ask is not gone.
        let heard = self.nodes.as_ref().map_or(Duration::ZERO, |(_, heard)| *heard);
        let dead: BTreeSet<&str> = self
            .missing
            .iter()
            .filter(|(_, since)| since.saturating_add(GRACE) <= heard)
            .filter_map(|(name, _)| suspects.iter().copied().find(|suspect| suspect == name))
            .collect();
        let dead_blocks: usize = dead.iter().filter_map(|name| holders.get(name)).sum();
        // One node may hold more than a tenth of a small cluster, and be gone all the same.
        if dead.len() > 1 && dead_blocks.saturating_mul(DEAD_ONE_IN) > blocks.len() {
            plan.refused = Some(format!(
                "{dead_blocks} of {} IPBlocks belong to {} Nodes that are not there ({}): more than a tenth is not cleaned \
                 up by itself. Create the Nodes again, or delete the IPBlocks of those that are gone (field selector \
                 spec.nodeName)",
                blocks.len(),
                dead.len(),
                dead.iter().copied().take(5).collect::<Vec<_>>().join(", ")
            ));
        } else {
            self.cut_dead(blocks, &dead, cooldown, now, &mut plan);
        }
        self.delete_empty(blocks, now, &mut plan);
        self.report(&holders, &mut plan);
        let resting = self.resting.values().min().copied();
        plan.again = [plan.again, resting].into_iter().flatten().filter(|when| *when > at).min();
        plan
    }

    /// Notes which suspects are really missing, and asks again while there are any.
    fn suspect(&mut self, suspects: &[&str], at: Duration, plan: &mut Plan) {
        if suspects.is_empty() {
            self.missing.clear();
            return;
        }
        if let Some((nodes, heard)) = &self.nodes {
            for name in suspects.iter().filter(|name| !nodes.contains(**name)) {
                self.missing.entry((*name).to_owned()).or_insert(*heard);
            }
        }
        let due = self.nodes.as_ref().map_or(at, |(_, heard)| heard.saturating_add(ASK));
        if due <= at && !self.asking {
            self.asking = true;
            plan.ask = true;
        } else if !self.asking {
            plan.again = Some(due);
        }
    }

    fn may_cut(&mut self, at: Duration, plan: &mut Plan) -> bool {
        while self.cut.front().is_some_and(|when| when.saturating_add(MINUTE) <= at) {
            self.cut.pop_front();
        }
        if self.cut.len() < BLOCKS {
            self.cut.push_back(at);
            return true;
        }
        let freed = self.cut.front().map(|when| when.saturating_add(MINUTE));
        plan.again = [plan.again, freed].into_iter().flatten().min();
        false
    }

    fn cut_dead(
        &mut self,
        blocks: &BTreeMap<&Key, &IPBlock>,
        dead: &BTreeSet<&str>,
        cooldown: Duration,
        now: Now,
        plan: &mut Plan,
    ) {
        for (key, block) in blocks {
            let Some(node) = block.spec.node_name.as_deref().filter(|node| dead.contains(node)) else {
                continue;
            };
            if self.in_flight.contains(*key) || self.resting.contains_key(*key) {
                continue;
            }
            if !self.may_cut(now.monotonic, plan) {
                return;
            }
            let (cleared, addresses) = clear(block, node, cooldown, now);
            let (all, of_blocks) = self.reclaimed.entry(node.to_owned()).or_default();
            *all += addresses;
            *of_blocks += 1;
            self.in_flight.insert((*key).clone());
            plan.cuts.push(Cut::Clear(Box::new(cleared)));
        }
    }

    /// What nobody holds and nobody's pod uses is given back to its pool.
    fn delete_empty(&mut self, blocks: &BTreeMap<&Key, &IPBlock>, now: Now, plan: &mut Plan) {
        for (key, block) in blocks {
            if block.spec.node_name.is_some()
                || !block.spec.allocations.is_empty()
                || self.in_flight.contains(*key)
                || self.resting.contains_key(*key)
            {
                continue;
            }
            let cooling = block.spec.released.iter().map(|released| released.until.0).max();
            if let Some(left) =
                cooling.map(|until| until.duration_since(now.wall)).filter(|left| left.is_positive())
            {
                // Whatever the object says: nothing cools for longer than the longest cooldown.
                let left = left.unsigned_abs().min(Duration::from_secs(3600));
                let when = now.monotonic.saturating_add(left).saturating_add(Duration::from_secs(1));
                plan.again = [plan.again, Some(when)].into_iter().flatten().min();
                continue;
            }
            if !self.may_cut(now.monotonic, plan) {
                return;
            }
            self.in_flight.insert((*key).clone());
            plan.cuts.push(Cut::Delete(Box::new((*block).clone())));
        }
    }

    /// A node is reported when it holds nothing any more.
    fn report(&mut self, holders: &BTreeMap<&str, usize>, plan: &mut Plan) {
        let done: Vec<String> =
            self.reclaimed.keys().filter(|node| !holders.contains_key(node.as_str())).cloned().collect();
        for node in done {
            if let Some((addresses, blocks)) = self.reclaimed.remove(&node) {
                plan.reclaimed.push(Reclaimed { node, addresses, blocks });
            }
        }
    }
}

/// The block without its dead, and how many they were. What another node borrowed lives with that node.
fn clear(block: &IPBlock, node: &str, cooldown: Duration, now: Now) -> (IPBlock, usize) {
    let mut cleared = block.clone();
    let until =
        now.wall.checked_add(SignedDuration::try_from(cooldown).unwrap_or_default()).unwrap_or(now.wall);
    let until = Time(jiff::Timestamp::from_second(until.as_second()).unwrap_or(until));
    let (borrowed, dead): (Vec<_>, Vec<_>) = cleared
        .spec
        .allocations
        .into_iter()
        .partition(|one| one.borrowed_by.as_deref().is_some_and(|borrower| borrower != node));
    cleared.spec.allocations = borrowed;
    let count = dead.len();
    for one in dead {
        if !cleared.spec.released.iter().any(|released| released.ip == one.ip) {
            cleared.spec.released.push(Released { ip: one.ip, until: until.clone() });
        }
    }
    cleared.spec.node_name = None;
    (cleared, count)
}

#[cfg(test)]
mod tests;

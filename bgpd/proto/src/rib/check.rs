//! The invariants of DESIGN.md, checked over the whole table. Slow; tests call it after every few steps.

use std::collections::{BTreeMap, BTreeSet};

use super::Rib;
use super::attrs::AttrId;
use super::core::{Core, Family};
use super::group::Verdict;
use super::long_lived::{LLGR_STALE, as_long_lived};
use super::table::{Entry, LOCAL, Path};
use super::values::Counts;
use crate::policy::{ImportRejection, carries};
use crate::types::PeerId;
use crate::wire::attr::{self, Key, code, flag};
use crate::wire::nlri::V6;

/// What is counted over both families.
#[derive(Default)]
struct Tally {
    refs: BTreeMap<AttrId, u32>,
    counts: BTreeMap<(PeerId, usize), Counts>,
}

impl Rib {
    /// Checks every invariant.
    ///
    /// # Errors
    /// The first one that does not hold, as a sentence.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut tally = Tally::default();
        self.core.check_table::<u32>(&mut tally)?;
        self.core.check_table::<V6>(&mut tally)?;
        self.core.check_sets(&tally)?;
        self.core.check_counts(&tally)?;
        if !self.is_dirty() {
            self.check_groups::<u32>()?;
            self.check_groups::<V6>()?;
        }
        Ok(())
    }

    /// Invariants 2 and 7: a bit is set exactly where the best path is told; cursors lie within the log.
    fn check_groups<A: Family>(&self) -> Result<(), String> {
        for group in self.groups.iter().filter(|group| !group.members.is_empty()) {
            let out = group.out.of(A::FAMILY);
            // A member that walks sets the bits on its way; everybody else has set them, also for its own routes.
            let walking = group.members.iter().all(|member| {
                self.core.peer(*member).is_some_and(|peer| !peer.walk.of(A::FAMILY).is_empty())
            });
            for slot in 0..A::plane(&self.core).table.slots() {
                if group.adds_paths::<A>() {
                    if !group.paths_fit::<A>(slot, walking, &self.core) {
                        return Err(format!("slot {slot}: the paths told are not those to be told"));
                    }
                    continue;
                }
                let verdict = group.verdict::<A>(slot, self.core.best::<A>(slot), &self.core);
                let fits = match verdict {
                    Verdict::Tell(..) => out.bit(slot) || walking,
                    Verdict::Not | Verdict::TooLong(_) => !out.bit(slot),
                };
                if !fits {
                    return Err(format!("slot {slot}: {verdict:?}, bit {}", out.bit(slot)));
                }
            }
            if out.paths.slots().iter().any(|slot| A::plane(&self.core).table.entry(*slot).is_none()) {
                return Err("paths are told of a prefix that is no more".to_owned());
            }
            for member in &group.members {
                let several = out.paths.each().filter(|(_, source)| source != member).count();
                let told = group.told::<A>(*member, &self.core).count() + several;
                if told != out.told_to(*member) as usize {
                    return Err(format!("{member:?} is told {told}, {} counted", out.told_to(*member)));
                }
                self.check_explanations::<A>(*member)?;
                let peer = self.core.peer(*member).ok_or_else(|| format!("member {member:?} is no peer"))?;
                let first = group.log.head() - group.log.len();
                if peer.cursor > group.log.head() || peer.cursor < first {
                    return Err(format!(
                        "{member:?} reads at {} of {first}..{}",
                        peer.cursor,
                        group.log.head()
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Rib {
    /// What is explained is what was told, for a peer that has nothing more to be told.
    fn check_explanations<A: Family>(&self, peer: PeerId) -> Result<(), String> {
        let Some(group) = self.group_of(peer).filter(|_| self.has_all(peer)) else { return Ok(()) };
        let told: BTreeSet<u32> = if group.adds_paths::<A>() {
            let paths = group.out.of(A::FAMILY).paths.each();
            paths.filter(|(_, source)| *source != peer).map(|((slot, _), _)| slot).collect()
        } else {
            group.told::<A>(peer, &self.core).collect()
        };
        let table = &A::plane(&self.core).table;
        for slot in 0..table.slots() {
            let Some((addr, len)) = table.prefix(slot) else { continue };
            let prefix = addr.prefix(len);
            let explained = self.export_to(peer, &prefix).map(|export| export.told.map(|_| ()));
            if explained.as_ref().is_none_or(|explained| explained.is_ok() != told.contains(&slot)) {
                return Err(format!(
                    "{prefix} towards {peer:?}: told {}, {explained:?}",
                    told.contains(&slot)
                ));
            }
        }
        Ok(())
    }
}

impl Core {
    /// Invariants 3, 4, 6: dirty once, the best path inline, slots found by their prefix.
    fn check_table<A: Family>(&self, tally: &mut Tally) -> Result<(), String> {
        let plane = A::plane(self);
        let mut dirty = BTreeMap::<u32, u32>::new();
        plane.dirty.iter().skip(plane.done).for_each(|item| *dirty.entry(item.slot).or_default() += 1);
        let mut used = 0;
        for slot in 0..plane.table.slots() {
            let Some(entry) = plane.table.entry(slot) else { continue };
            used += 1;
            if plane.table.find(entry.addr, entry.len) != Some(slot) {
                return Err(format!("slot {slot} is not found by its prefix"));
            }
            if entry.addr.masked(entry.len) != entry.addr {
                return Err(format!("slot {slot} has host bits"));
            }
            let queued = dirty.get(&slot).copied().unwrap_or(0);
            if queued != u32::from(entry.has(Entry::<A>::DIRTY)) {
                return Err(format!("slot {slot} is {queued} times in the dirty queue"));
            }
            if queued == 0 && !self.next_hops.has_changed() {
                self.check_decision::<A>(slot)?;
            }
            for (path, _) in plane.table.paths(slot) {
                self.check_import::<A>(slot, &path)?;
                *tally.refs.entry(path.attrs).or_default() += 1;
                *tally.refs.entry(path.raw).or_default() += 1;
                let counts = tally.counts.entry((path.peer, A::INDEX)).or_default();
                counts.received += 1;
                counts.accepted += u32::from(path.rejected == 0);
                counts.stale += u32::from(path.has(Path::STALE));
            }
        }
        if used != plane.table.prefixes() {
            return Err(format!("{used} prefixes, {} counted", plane.table.prefixes()));
        }
        Ok(())
    }

    /// Invariant 10: a path is what import makes of what was received.
    fn check_import<A: Family>(&self, slot: u32, path: &Path) -> Result<(), String> {
        let Some((addr, len)) = A::plane(self).table.prefix(slot).filter(|_| path.peer != LOCAL) else {
            return Ok(());
        };
        let set = self.judged(path.peer, path.raw);
        let verdict = self.import_verdict(path.peer, &set, &addr.prefix(len));
        let mut expected = self.attrs.bytes(path.raw).to_vec();
        if let Some(changes) = verdict.changes {
            changes.apply(self.attrs.bytes(path.raw), &mut expected);
        }
        if path.has(Path::LONG_LIVED_STALE) && !carries(&expected, LLGR_STALE, None) {
            let before = std::mem::take(&mut expected);
            as_long_lived().apply(&before, &mut expected);
        }
        let rejected = super::import::rejection(path.rejected);
        let too_long = rejected == Some(ImportRejection::AttributesTooLong);
        if !too_long && (rejected != verdict.rejected || expected != self.attrs.bytes(path.attrs)) {
            return Err(format!(
                "slot {slot}: {path:?} is not what import makes of it: {:?}",
                verdict.rejected
            ));
        }
        Ok(())
    }

    fn check_decision<A: Family>(&self, slot: u32) -> Result<(), String> {
        let table = &A::plane(self).table;
        let mut candidates: Vec<_> =
            table.paths(slot).filter_map(|(path, at)| self.candidate(&path, at)).collect();
        let selection = crate::decision::select(&mut candidates, self.config.max_paths);
        let selected = table.entry(slot).is_some_and(|entry| entry.has(Entry::<A>::BEST));
        let leaves_the_kernel = table.entry(slot).is_some_and(|entry| entry.has(Entry::<A>::FIB));
        if table.paths(slot).next().is_none() && !leaves_the_kernel {
            return Err(format!("slot {slot} is decided and empty, yet not free"));
        }
        match selection {
            None if selected => Err(format!("slot {slot} has a best path and no candidate")),
            Some(selection) if !selected || selection.best.place != super::attrs::NIL => {
                Err(format!("slot {slot}: the best path is not the one inline"))
            }
            Some(selection) if selection.multipath > 1 => {
                let flagged = table.paths(slot).filter(|(path, _)| path.has(Path::MULTIPATH)).count();
                if flagged == selection.multipath {
                    Ok(())
                } else {
                    Err(format!("slot {slot}: {flagged} flagged"))
                }
            }
            None | Some(_) => Ok(()),
        }
    }

    /// Invariants 1 and 5: counts of references, canonical bytes, next hops in use.
    fn check_sets(&self, tally: &Tally) -> Result<(), String> {
        let mut next_hops = BTreeMap::<u32, u32>::new();
        for (id, key, refs) in self.attrs.each() {
            if refs != tally.refs.get(&id).copied().unwrap_or(0) {
                return Err(format!("set {id} counts {refs}, paths name it {:?} times", tally.refs.get(&id)));
            }
            *next_hops.entry(key.next_hop).or_default() += 1;
            check_canonical(self.attrs.bytes(id), key).map_err(|what| format!("set {id}: {what}"))?;
            if self.attrs.find(self.attrs.bytes(id), key.flags & Key::IDENTITY) != Some(id) {
                return Err(format!("set {id} is not found by its bytes"));
            }
        }
        for (id, sets) in next_hops {
            let own = u32::from(id == super::next_hop::SELF);
            if self.next_hops.refs(id) != sets + own {
                return Err(format!(
                    "next hop {id} counts {}, sets name it {sets} times",
                    self.next_hops.refs(id)
                ));
            }
        }
        Ok(())
    }

    fn check_counts(&self, tally: &Tally) -> Result<(), String> {
        for ((peer, family), counted) in &tally.counts {
            if *peer == LOCAL {
                continue;
            }
            let known = self.peer(*peer).ok_or_else(|| format!("paths of {peer:?}, which is no peer"))?;
            let counts = if *family == 0 { known.counts.ipv4 } else { known.counts.ipv6 };
            if counts != *counted {
                return Err(format!("{peer:?} counts {counts:?}, has {counted:?}"));
            }
        }
        let held: u64 = tally
            .counts
            .iter()
            .filter(|((peer, _), _)| *peer != LOCAL)
            .map(|(_, c)| u64::from(c.received))
            .sum();
        let known = self.peers.iter().flatten();
        let counted: u64 =
            known.map(|p| u64::from(p.counts.ipv4.received) + u64::from(p.counts.ipv6.received)).sum();
        if held == counted { Ok(()) } else { Err(format!("{held} paths, {counted} counted")) }
    }
}

fn check_canonical(bytes: &[u8], key: Key) -> Result<(), String> {
    let mut last = None; // type 0 is a type that nobody knows, like others
    let mut walk = attr::attributes(bytes);
    for attribute in walk.by_ref() {
        if Some(attribute.code) <= last {
            return Err(format!("attribute {} follows {last:?}", attribute.code));
        }
        last = Some(attribute.code);
        if attribute.flags & flag::EXTENDED_LENGTH != 0 && attribute.value.len() <= 255 {
            return Err(format!("attribute {} has an extended length it does not need", attribute.code));
        }
        let cleaned = matches!(attribute.code, code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST);
        let elsewhere = matches!(attribute.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI);
        // What import sets stands in the set: it is not what the peer said.
        let ours = attribute.code == code::LOCAL_PREF && key.has(Key::CHANGED);
        if elsewhere || cleaned && key.has(Key::EBGP) && !ours {
            return Err(format!("attribute {} does not belong into a set", attribute.code));
        }
    }
    if walk.rest.is_empty() { Ok(()) } else { Err("an attribute runs over the end".to_owned()) }
}

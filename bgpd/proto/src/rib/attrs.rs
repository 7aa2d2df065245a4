//! Attribute sets, each once: canonical bytes in one arena, a record per set, ids of 32 bits.

use hashbrown::HashTable;

use super::hash::{hash_bytes, spread};
use super::next_hop::NextHops;
use crate::wire::attr::Key;

/// An attribute set.
pub(super) type AttrId = u32;

/// No attribute set.
pub(super) const NIL: u32 = u32::MAX;
/// `Key::len` of an unused record.
const FREED: u16 = u16::MAX;
/// The longest set: the lengths of a record are 16 bits.
pub(super) const LONGEST: usize = 65_000;

/// 36 bytes, plus the canonical bytes in the arena and an id in the index.
#[derive(Debug, Clone, Copy)]
struct AttrSet {
    key: Key,
    /// Arena offset / 4.
    at: u32,
    /// Paths that name it, as `attrs` or as `raw`.
    refs: u32,
    /// So that growing the index never touches the bytes.
    hash: u32,
}

#[derive(Debug)]
pub(super) struct AttrTable {
    sets: Vec<AttrSet>,
    free: Vec<AttrId>,
    /// Unreferenced ids. They are freed at the end of a drain that leaves no prefix dirty, never before: a dirty prefix may
    /// still name its old set, and a reused id would make a change look like none.
    grave: Vec<AttrId>,
    index: HashTable<AttrId>,
    /// Append only; compacted when half of it is dead, which only moves `AttrSet::at`.
    arena: Vec<u8>,
    dead: usize,
    seed: u64,
}

fn padded(len: u16) -> usize {
    usize::from(len).next_multiple_of(4)
}

impl AttrTable {
    pub(super) fn new(seed: u64) -> AttrTable {
        let (sets, free, grave, arena) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        AttrTable { sets, free, grave, index: HashTable::new(), arena, dead: 0, seed }
    }

    /// The key of a set in use.
    pub(super) fn key(&self, id: AttrId) -> Key {
        debug_assert!((id as usize) < self.sets.len(), "set {id}");
        self.sets.get(id as usize).map_or(Key::default(), |set| set.key)
    }

    /// The canonical bytes of a set in use.
    pub(super) fn bytes(&self, id: AttrId) -> &[u8] {
        self.sets.get(id as usize).map_or(&[], |set| self.bytes_of(set))
    }

    fn bytes_of(&self, set: &AttrSet) -> &[u8] {
        let at = set.at as usize * 4;
        self.arena.get(at..at + usize::from(set.key.len)).unwrap_or_default()
    }

    fn hash(&self, bytes: &[u8], identity: u8) -> u32 {
        hash_bytes(bytes, self.seed ^ u64::from(identity))
    }

    /// The set with these bytes and this identity ([`Key::IDENTITY`]). Also tried with the bytes as received: where they are
    /// canonical and known, nothing is parsed at all.
    pub(super) fn find(&self, bytes: &[u8], identity: u8) -> Option<AttrId> {
        self.find_hashed(bytes, identity, self.hash(bytes, identity))
    }

    fn find_hashed(&self, bytes: &[u8], identity: u8, hash: u32) -> Option<AttrId> {
        let same = |id: &AttrId| {
            self.sets.get(*id as usize).is_some_and(|set| {
                set.hash == hash && set.key.flags & Key::IDENTITY == identity && self.bytes_of(set) == bytes
            })
        };
        self.index.find(spread(hash), same).copied()
    }

    /// The id of these canonical bytes, at most [`LONGEST`]. A new set belongs to nobody until it is acquired; its next hop is.
    pub(super) fn intern(&mut self, bytes: &[u8], key: Key, next_hops: &mut NextHops) -> AttrId {
        let hash = self.hash(bytes, key.flags & Key::IDENTITY);
        if let Some(known) = self.find_hashed(bytes, key.flags & Key::IDENTITY, hash) {
            return known;
        }
        let len = u16::try_from(bytes.len()).unwrap_or(FREED - 1);
        let at = u32::try_from(self.arena.len() / 4).unwrap_or(u32::MAX);
        let set = AttrSet { key: Key { len, ..key }, at, refs: 0, hash };
        self.arena.extend_from_slice(bytes);
        self.arena.resize(self.arena.len().next_multiple_of(4), 0);
        next_hops.acquire(key.next_hop);
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(record) = self.sets.get_mut(id as usize) {
                    *record = set;
                }
                id
            }
            None => {
                self.sets.push(set);
                u32::try_from(self.sets.len() - 1).unwrap_or(NIL)
            }
        };
        self.grave.push(id);
        let sets = &self.sets;
        let rehash = |id: &AttrId| spread(sets.get(*id as usize).map_or(0, |set| set.hash));
        self.index.insert_unique(spread(hash), id, rehash);
        id
    }

    /// A path names the set.
    pub(super) fn acquire(&mut self, id: AttrId) {
        if let Some(set) = self.sets.get_mut(id as usize) {
            set.refs += 1;
        }
    }

    /// A path no longer names it.
    pub(super) fn release(&mut self, id: AttrId) {
        let Some(set) = self.sets.get_mut(id as usize) else { return };
        debug_assert!(set.refs > 0, "set {id} released once too often");
        set.refs = set.refs.saturating_sub(1);
        if set.refs == 0 {
            self.grave.push(id);
        }
    }

    /// Frees what nobody names; `true`: there was something. Only while no prefix is dirty.
    pub(super) fn reap(&mut self, next_hops: &mut NextHops) -> bool {
        let before = self.free.len();
        for id in std::mem::take(&mut self.grave) {
            let Some(set) =
                self.sets.get_mut(id as usize).filter(|set| set.refs == 0 && set.key.len != FREED)
            else {
                continue;
            };
            if let Ok(found) = self.index.find_entry(spread(set.hash), |other| *other == id) {
                found.remove();
            }
            self.dead += padded(set.key.len);
            next_hops.release(set.key.next_hop);
            set.key.len = FREED;
            self.free.push(id);
        }
        let has_freed = self.free.len() > before;
        if self.free.len() == self.sets.len() {
            *self = AttrTable::new(self.seed); // all gone: give the memory back
        } else if self.dead > 1 << 16 && self.dead * 2 > self.arena.len() {
            self.compact();
        }
        has_freed
    }

    fn compact(&mut self) {
        let old = std::mem::take(&mut self.arena);
        self.arena.reserve_exact(old.len() - self.dead);
        for set in self.sets.iter_mut().filter(|set| set.key.len != FREED) {
            let from = set.at as usize * 4;
            set.at = u32::try_from(self.arena.len() / 4).unwrap_or(u32::MAX);
            self.arena.extend_from_slice(old.get(from..from + padded(set.key.len)).unwrap_or_default());
        }
        self.dead = 0;
    }

    /// Sets in use, and in the grave.
    pub(super) fn len(&self) -> usize {
        self.sets.len() - self.free.len()
    }

    /// Every set in use with its count, for [`super::Rib::check_invariants`].
    pub(super) fn each(&self) -> impl Iterator<Item = (AttrId, Key, u32)> + '_ {
        let in_use = self.sets.iter().enumerate().filter(|(_, set)| set.key.len != FREED);
        in_use.map(|(id, set)| (u32::try_from(id).unwrap_or(NIL), set.key, set.refs))
    }
}

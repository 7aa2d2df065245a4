//! Prefixes and their candidate paths, one table per family. A slot is a prefix's id everywhere else.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Found;

use super::attrs::{AttrId, NIL};
use super::hash::fold;
use crate::types::PeerId;
use crate::wire::nlri::Address;

/// A prefix: an index into the table's entries.
pub(super) type Slot = u32;

/// The source of routes that this node originates.
pub(super) const LOCAL: PeerId = PeerId(u16::MAX);

/// A candidate, 16 bytes. `raw` is what the peer sent, `attrs` what import policy made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    pub attrs: AttrId,
    pub raw: AttrId,
    /// RFC 7911; of a route of our own the tag it is told with.
    pub path_id: u32,
    pub peer: PeerId,
    pub flags: u8,
    /// Why import rejected it: the place in `ImportRejection::ALL` + 1, or 0.
    pub rejected: u8,
}

impl Path {
    /// Not heard again since the peer's restart.
    pub(super) const STALE: u8 = 1;
    /// Long-lived stale: the last choice.
    pub(super) const LONG_LIVED_STALE: u8 = 2;
    /// Used beside the best one.
    pub(super) const MULTIPATH: u8 = 8;

    pub(super) const NONE: Path =
        Path { attrs: NIL, raw: NIL, path_id: 0, peer: LOCAL, flags: 0, rejected: 0 };

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A prefix: 28 bytes for IPv4, 40 for IPv6. `first` is a candidate inline, and after a decision the best one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<A> {
    pub addr: A,
    pub first: Path,
    /// Further candidates: a list in `nodes`.
    pub more: u32,
    pub len: u8,
    pub flags: u8,
}

impl<A> Entry<A> {
    /// `first` holds a candidate.
    pub(super) const USED: u8 = 1;
    /// ... which the last decision selected.
    pub(super) const BEST: u8 = 2;
    /// It waits for a decision.
    pub(super) const DIRTY: u8 = 4;
    /// What is told of it is to be looked at again, even where the best path stays the same.
    pub(super) const FORCED: u8 = 8;
    /// It is in the queue towards the FIB.
    pub(super) const FIB: u8 = 16;

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// How many bits of a prefix choose its place among its neighbours.
const NEIGHBOURS: u32 = 4;

/// `Entry::len` of a free slot.
const FREE_SLOT: u8 = u8::MAX;

/// 20 bytes per further candidate.
#[derive(Debug, Clone, Copy)]
struct Node {
    path: Path,
    next: u32,
}

#[derive(Debug)]
pub(super) struct Table<A> {
    entries: Vec<Entry<A>>,
    free: Vec<Slot>,
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    /// Slots by prefix, in 256 small tables: each grows alone, so no pause and no doubled memory at a large rehash.
    index: Vec<HashTable<Slot>>,
    seed: u64,
}

/// Sixteen neighbours of one length lie side by side: prefixes come in order where they come in numbers (a node's blocks, a provider's
/// /24s), and each would otherwise miss the cache, when it is looked for and whenever its index grows.
fn hash<A: Address>(addr: A, len: u8, seed: u64) -> u64 {
    let number = u128::from_be_bytes(addr.octets()).checked_shr(128 - u32::from(len.min(128))).unwrap_or(0);
    let (block, place) = (number >> NEIGHBOURS, number & ((1 << NEIGHBOURS) - 1));
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are hashed one after the other")]
    let (high, low, place) = ((block >> 64) as u64, block as u64, place as u64);
    let seed = seed.wrapping_add(u64::from(len).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut hash = fold(low ^ seed, 0xA076_1D64_78BD_642F);
    if A::BITS > 64 {
        hash = fold(hash ^ high, 0xE703_7ED1_A0B4_28DB);
    }
    // A hash table begins to look where the low bits say, and compares the high ones first.
    hash & !((1 << NEIGHBOURS) - 1) ^ (place | place << (64 - NEIGHBOURS))
}

fn shard(hash: u64) -> usize {
    (hash >> 40) as usize & 0xFF
}

impl<A: Address> Table<A> {
    pub(super) fn new(seed: u64) -> Table<A> {
        let index = (0..256).map(|_| HashTable::new()).collect();
        let seed = seed ^ 0x243F_6A88_85A3_08D3;
        Table {
            entries: Vec::new(),
            free: Vec::new(),
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            index,
            seed,
        }
    }

    /// One above the highest slot in use.
    pub(super) fn slots(&self) -> Slot {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// How many prefixes there are.
    pub(super) fn prefixes(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// How many paths there are beyond one per prefix.
    pub(super) fn further_paths(&self) -> usize {
        self.nodes.len() - self.free_nodes.len()
    }

    pub(super) fn find(&self, addr: A, len: u8) -> Option<Slot> {
        let hash = hash(addr, len, self.seed);
        let same = |slot: &Slot| {
            self.entries.get(*slot as usize).is_some_and(|entry| entry.addr == addr && entry.len == len)
        };
        self.index.get(shard(hash))?.find(hash, same).copied()
    }

    pub(super) fn find_or_insert(&mut self, addr: A, len: u8) -> Option<Slot> {
        let Table { entries, free, index, seed, .. } = self;
        let hashed = hash(addr, len, *seed);
        let same = |slot: &Slot| {
            entries.get(*slot as usize).is_some_and(|entry| entry.addr == addr && entry.len == len)
        };
        let rehash = |slot: &Slot| entries.get(*slot as usize).map_or(0, |e| hash(e.addr, e.len, *seed));
        match index.get_mut(shard(hashed))?.entry(hashed, same, rehash) {
            Found::Occupied(found) => Some(*found.get()),
            Found::Vacant(vacant) => {
                let new = Entry { addr, first: Path::NONE, more: NIL, len, flags: 0 };
                let slot = match free.pop() {
                    Some(slot) => slot,
                    None => u32::try_from(entries.len()).ok()?,
                };
                vacant.insert(slot);
                match entries.get_mut(slot as usize) {
                    Some(entry) => *entry = new,
                    None => entries.push(new),
                }
                Some(slot)
            }
        }
    }

    /// Frees the slot of a prefix without candidates.
    pub(super) fn remove(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get_mut(slot as usize).filter(|entry| entry.len != FREE_SLOT) else {
            return;
        };
        let hash = hash(entry.addr, entry.len, self.seed);
        if let Some(Ok(found)) =
            self.index.get_mut(shard(hash)).map(|index| index.find_entry(hash, |s| *s == slot))
        {
            found.remove();
        }
        (entry.len, entry.flags, entry.more) = (FREE_SLOT, 0, NIL);
        self.free.push(slot);
        if self.free.len() == self.entries.len() {
            let seed = self.seed;
            *self = Table { seed, ..Table::new(0) };
        }
    }

    /// The entry of a slot in use.
    pub(super) fn entry(&self, slot: Slot) -> Option<&Entry<A>> {
        self.entries.get(slot as usize).filter(|entry| entry.len != FREE_SLOT)
    }

    pub(super) fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry<A>> {
        self.entries.get_mut(slot as usize).filter(|entry| entry.len != FREE_SLOT)
    }

    /// The prefix of a slot in use.
    pub(super) fn prefix(&self, slot: Slot) -> Option<(A, u8)> {
        self.entry(slot).map(|entry| (entry.addr, entry.len))
    }

    /// The path that the last decision selected.
    pub(super) fn best(&self, slot: Slot) -> Option<Path> {
        self.entry(slot).filter(|entry| entry.has(Entry::<A>::BEST)).map(|entry| entry.first)
    }

    /// All candidates with their place: `NIL` is inline, anything else an index into `nodes`.
    pub(super) fn paths(&self, slot: Slot) -> Paths<'_> {
        match self.entry(slot) {
            Some(entry) if entry.has(Entry::<A>::USED) => {
                Paths { nodes: &self.nodes, first: Some(entry.first), next: entry.more }
            }
            _ => Paths { nodes: &[], first: None, next: NIL },
        }
    }

    /// Where the path of this peer is.
    pub(super) fn locate(&self, slot: Slot, peer: PeerId, path_id: u32) -> Option<u32> {
        let mut paths = self.paths(slot);
        paths.find(|(path, _)| path.peer == peer && path.path_id == path_id).map(|(_, at)| at)
    }

    /// The candidate at this place.
    pub(super) fn path(&self, slot: Slot, at: u32) -> Option<Path> {
        match at {
            NIL => self.entry(slot).map(|entry| entry.first),
            _ => self.nodes.get(at as usize).map(|node| node.path),
        }
    }

    pub(super) fn path_mut(&mut self, slot: Slot, at: u32) -> Option<&mut Path> {
        if at == NIL {
            self.entry_mut(slot).map(|entry| &mut entry.first)
        } else {
            self.nodes.get_mut(at as usize).map(|node| &mut node.path)
        }
    }

    /// One more candidate.
    pub(super) fn add(&mut self, slot: Slot, path: Path) {
        let Table { entries, nodes, free_nodes, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize) else { return };
        if !entry.has(Entry::<A>::USED) {
            entry.first = path;
            entry.flags |= Entry::<A>::USED;
            return;
        }
        let node = Node { path, next: entry.more };
        let at = free_nodes.pop().unwrap_or_else(|| u32::try_from(nodes.len()).unwrap_or(NIL));
        match nodes.get_mut(at as usize) {
            Some(place) => *place = node,
            None => nodes.push(node),
        }
        entry.more = at;
    }

    /// Takes a candidate away.
    pub(super) fn take(&mut self, slot: Slot, at: u32) -> Option<Path> {
        let Table { entries, nodes, free_nodes, .. } = self;
        let entry = entries.get_mut(slot as usize)?;
        let leaving = if at == NIL { entry.more } else { at };
        if leaving == NIL {
            entry.flags &= !(Entry::<A>::USED | Entry::<A>::BEST);
            return Some(entry.first);
        }
        let Node { path, next } = *nodes.get(leaving as usize)?;
        if entry.more == leaving {
            entry.more = next;
        } else {
            let mut before = entry.more;
            while let Some(node) = nodes.get_mut(before as usize) {
                if node.next == leaving {
                    node.next = next;
                    break;
                }
                before = node.next;
            }
        }
        free_nodes.push(leaving);
        if at != NIL {
            return Some(path);
        }
        // The next candidate moves into the entry; no decision has selected it.
        entry.flags &= !Entry::<A>::BEST;
        Some(std::mem::replace(&mut entry.first, path))
    }

    /// Makes the candidate at `at` the inline one, in exchange.
    pub(super) fn promote(&mut self, slot: Slot, at: u32) {
        let Table { entries, nodes, .. } = self;
        if let (Some(entry), Some(node)) = (entries.get_mut(slot as usize), nodes.get_mut(at as usize)) {
            std::mem::swap(&mut entry.first, &mut node.path);
        }
    }

    /// Calls `f` for every candidate of a slot, to change its flags.
    pub(super) fn each_path_mut(&mut self, slot: Slot, mut f: impl FnMut(&mut Path, u32)) {
        let Table { entries, nodes, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize) else { return };
        if !entry.has(Entry::<A>::USED) {
            return;
        }
        f(&mut entry.first, NIL);
        let mut at = entry.more;
        while let Some(node) = nodes.get_mut(at as usize) {
            f(&mut node.path, at);
            at = node.next;
        }
    }
}

/// The candidates of one prefix.
pub(super) struct Paths<'a> {
    nodes: &'a [Node],
    first: Option<Path>,
    next: u32,
}

impl Iterator for Paths<'_> {
    type Item = (Path, u32);

    fn next(&mut self) -> Option<(Path, u32)> {
        if let Some(first) = self.first.take() {
            return Some((first, NIL));
        }
        let (at, node) = (self.next, self.nodes.get(self.next as usize)?);
        self.next = node.next;
        Some((node.path, at))
    }
}

//! What rules change on a route, put together over all of them and applied to canonical attributes at once.

use std::collections::BTreeSet;

use crate::types::Asn;
use crate::wire::as_path;
use crate::wire::attr::{self, code, flag};

/// GRACEFUL_SHUTDOWN (RFC 8326).
pub const GRACEFUL_SHUTDOWN: u32 = 0xFFFF_0000;
/// NOPEER (RFC 3765).
pub const NO_PEER: u32 = 0xFFFF_FF04;

/// Changes of a route's attributes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Changes {
    /// LOCAL_PREF (RFC 4271 §5.1.5).
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC (RFC 4271 §5.1.4).
    pub med: Option<u32>,
    /// Taken away before others are added.
    pub remove_communities: BTreeSet<u32>,
    /// Added where missing.
    pub add_communities: BTreeSet<u32>,
    /// Taken away before others are added.
    pub remove_large_communities: BTreeSet<[u32; 3]>,
    /// Added where missing.
    pub add_large_communities: BTreeSet<[u32; 3]>,
    /// Put before the path, the first one outermost; our own AS goes before them.
    pub prepend: Vec<Asn>,
}

impl Changes {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// `later` happens after this: afterwards this stands for both.
    pub fn then(&mut self, later: &Changes) {
        self.local_pref = later.local_pref.or(self.local_pref);
        self.med = later.med.or(self.med);
        follow(
            (&mut self.remove_communities, &mut self.add_communities),
            (&later.remove_communities, &later.add_communities),
        );
        follow(
            (&mut self.remove_large_communities, &mut self.add_large_communities),
            (&later.remove_large_communities, &later.add_large_communities),
        );
        self.prepend.splice(0..0, later.prepend.iter().copied());
    }

    /// By how many octets attributes may grow at the most.
    #[must_use]
    pub fn growth(&self) -> usize {
        32 + self.add_communities.len() * 4 + self.add_large_communities.len() * 12 + self.prepend.len() * 6
    }

    /// Canonical attributes with the changes, in `out`: canonical again, but that a LOCAL_PREF may stand in a set from eBGP.
    pub fn apply(&self, canonical: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let mut edits = Edits { at: 0, all: self.edits(canonical) };
        for attribute in attr::attributes(canonical) {
            edits.put_below(attribute.code, out);
            if !edits.replaces(attribute.code, out) {
                out.extend_from_slice(attribute.whole);
            }
        }
        edits.put_below(u8::MAX, out);
    }

    /// The attributes that change, ascending by type.
    fn edits(&self, canonical: &[u8]) -> Vec<Edit> {
        let mut edits = Vec::new();
        if !self.prepend.is_empty() {
            let mut path = attr::find(canonical, code::AS_PATH).unwrap_or_default().to_vec();
            for asn in self.prepend.iter().rev() {
                let behind = std::mem::take(&mut path);
                as_path::prepend(&behind, *asn, 1, &mut path);
            }
            edits.push(Edit { code: code::AS_PATH, flags: flag::WELL_KNOWN, value: Some(path) });
        }
        if let Some(med) = self.med {
            let value = Some(med.to_be_bytes().to_vec());
            edits.push(Edit { code: code::MULTI_EXIT_DISC, flags: flag::OPTIONAL_NON_TRANSITIVE, value });
        }
        if let Some(local_pref) = self.local_pref {
            let value = Some(local_pref.to_be_bytes().to_vec());
            edits.push(Edit { code: code::LOCAL_PREF, flags: flag::WELL_KNOWN, value });
        }
        edits.extend(list::<4>(
            canonical,
            code::COMMUNITIES,
            &self.remove_communities.iter().map(|one| one.to_be_bytes()).collect(),
            &self.add_communities.iter().map(|one| one.to_be_bytes()).collect(),
        ));
        edits.extend(list::<12>(
            canonical,
            code::LARGE_COMMUNITIES,
            &self.remove_large_communities.iter().map(attr::large_octets).collect(),
            &self.add_large_communities.iter().map(attr::large_octets).collect(),
        ));
        edits
    }
}

fn follow<T: Ord + Copy>(
    (remove, add): (&mut BTreeSet<T>, &mut BTreeSet<T>),
    (later_remove, later_add): (&BTreeSet<T>, &BTreeSet<T>),
) {
    add.retain(|one| !later_remove.contains(one));
    add.extend(later_add);
    remove.extend(later_remove);
}

/// An attribute as it is to be; `None`: it goes.
struct Edit {
    code: u8,
    flags: u8,
    value: Option<Vec<u8>>,
}

struct Edits {
    at: usize,
    all: Vec<Edit>,
}

impl Edits {
    /// Puts the attributes that were not there, as far as they come before this one.
    fn put_below(&mut self, code: u8, out: &mut Vec<u8>) {
        while let Some(edit) = self.all.get(self.at).filter(|edit| edit.code < code) {
            if let Some(value) = &edit.value {
                attr::put(out, edit.flags, edit.code, value);
            }
            self.at += 1;
        }
    }

    fn replaces(&mut self, code: u8, out: &mut Vec<u8>) -> bool {
        let is_due = self.all.get(self.at).is_some_and(|edit| edit.code == code);
        if is_due {
            self.put_below(code.saturating_add(1), out);
        }
        is_due
    }
}

/// A list of communities of `N` octets without some and with others, those that stay in their order.
fn list<const N: usize>(
    canonical: &[u8],
    code: u8,
    remove: &BTreeSet<[u8; N]>,
    add: &BTreeSet<[u8; N]>,
) -> Option<Edit> {
    if remove.is_empty() && add.is_empty() {
        return None;
    }
    let known = attr::attributes(canonical).find(|attribute| attribute.code == code);
    let (received, _) = known.map_or(&[][..], |attribute| attribute.value).as_chunks::<N>();
    let stays = |one: &&[u8; N]| !remove.contains(*one) || add.contains(*one);
    let mut all: Vec<[u8; N]> = received.iter().filter(stays).copied().collect();
    let missing: Vec<[u8; N]> = add.iter().filter(|one| !all.contains(one)).copied().collect();
    all.extend(missing);
    let flags = known.map_or(flag::OPTIONAL_TRANSITIVE, |attribute| attribute.flags);
    Some(Edit { code, flags, value: Some(all.concat()).filter(|value| !value.is_empty()) })
}

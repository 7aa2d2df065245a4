//! Which peers are told of which routes of our own, as the RIB's tags.

use std::collections::{BTreeMap, BTreeSet};

use crate::rib::{OriginAttributes, Origination, Tag};
use crate::route::{Audience, OwnRoute};
use crate::types::PeerName;

/// A set of peers. The sets of one prefix never overlap, so that a peer takes one of its tags at the most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Only(BTreeSet<PeerName>),
    AllBut(BTreeSet<PeerName>),
}

impl Class {
    fn contains(&self, peer: &PeerName) -> bool {
        match self {
            Class::Only(peers) => peers.contains(peer),
            Class::AllBut(peers) => !peers.contains(peer),
        }
    }
}

/// The tags in use: one for each distinct set of peers, so that peers with equal tags share an update group.
#[derive(Debug, Default)]
pub(crate) struct Audiences {
    tags: BTreeMap<Class, (Tag, u32)>,
    next: u32,
}

impl Audiences {
    /// The tags that a peer takes.
    pub(crate) fn tags_of(&self, peer: &PeerName) -> BTreeSet<Tag> {
        self.tags.iter().filter(|(class, _)| class.contains(peer)).map(|(_, (tag, _))| *tag).collect()
    }

    /// Routes of a prefix as the RIB takes them. Pair with [`Audiences::release`]. `true`: a set of peers is new, so peers
    /// may take other tags from here on.
    pub(crate) fn acquire(&mut self, routes: &[OwnRoute]) -> (Origination, bool) {
        let mut origination = Origination::default();
        let mut is_new = false;
        for (class, route) in classes(routes) {
            let next = &mut self.next;
            let (tag, users) = self.tags.entry(class).or_insert_with(|| {
                is_new = true;
                *next = next.wrapping_add(1);
                (Tag(*next), 0)
            });
            *users += 1;
            origination.exports.insert(*tag, attributes(route));
        }
        (origination, is_new)
    }

    /// The routes are not used any more.
    pub(crate) fn release(&mut self, routes: &[OwnRoute]) {
        for (class, _) in classes(routes) {
            if let Some((_, users)) = self.tags.get_mut(&class) {
                *users = users.saturating_sub(1);
                if *users == 0 {
                    self.tags.remove(&class);
                }
            }
        }
    }
}

/// The peers each route is for: those of its audience that no earlier one has.
fn classes(routes: &[OwnRoute]) -> Vec<(Class, &OwnRoute)> {
    let mut seen = BTreeSet::new();
    let mut classes = Vec::new();
    for route in routes {
        match &route.audience {
            Audience::All => {
                classes.push((Class::AllBut(seen), route));
                return classes;
            }
            Audience::Only(peers) => {
                let fresh: BTreeSet<PeerName> = peers.difference(&seen).cloned().collect();
                seen.extend(peers.iter().cloned());
                if !fresh.is_empty() {
                    classes.push((Class::Only(fresh), route));
                }
            }
        }
    }
    classes
}

fn attributes(route: &OwnRoute) -> OriginAttributes {
    OriginAttributes {
        communities: route.communities.clone(),
        large_communities: route.large_communities.clone(),
        local_pref: route.local_pref,
        med: route.med,
        prepend: route.prepend,
        sources: route.sources,
    }
}

#[cfg(test)]
mod tests;

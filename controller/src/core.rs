//! All conclusions in one value: changes and `now` in, writes out. It holds nothing that the store does not say, apart
//! from what is under way; a new leader begins with an empty one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use kube::ResourceExt;
use manx_crds::store::Key;
use manx_crds::v1alpha1::LoadBalancerAssign;
use serde_json::{Value, json};

use crate::Now;
use crate::events::Events;
use crate::garbage::{COOLDOWN, Cut, Garbage, Plan, Reclaimed};
use crate::judge::node::Conflicts;
use crate::judge::{self, About, Notice, Offer};
use crate::load_balancer::pool::Pools;
use crate::load_balancer::{LoadBalancer, Outcome as Addresses, World, request};
use crate::objects::{Change, Objects, Stale, name};
use crate::reflectors::Reflectors;
use crate::wish::{Kind, Outcome, Part, Slot, Wish, Wishes};

/// Changes are taken together for this long: at a start, or when a node goes, thousands come at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Something to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// `uid`: the object that it is meant for.
    Apply {
        slot: Slot,
        uid: String,
        body: Value,
    },
    Block(Cut),
    Event {
        about: About,
        warning: bool,
        reason: &'static str,
        note: String,
    },
}

/// Which notices are recomputed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Nodes,
    Peers,
    Advertisements,
    Pools,
    LoadBalancerPools,
    Services,
    Policies,
    Garbage,
}

/// The controller as a value.
#[derive(Debug, Default)]
pub struct Core {
    pub objects: Objects,
    /// Nobody removes what belongs to a Node that is gone (a directory).
    nodes_known: bool,
    wishes: Wishes,
    events: Events,
    cuts: VecDeque<Cut>,
    told: BTreeMap<Group, BTreeMap<(About, &'static str), String>>,
    conflicts: Conflicts,
    conflicts_at: Option<Duration>,
    reflectors: Reflectors,
    elect_at: Option<Duration>,
    load_balancer: LoadBalancer,
    pools: Pools,
    /// What each Service should have.
    addresses: BTreeMap<Key, Addresses>,
    /// Statuses of Services on their way, and what stood there before.
    sent: BTreeMap<Key, (Vec<IpAddr>, Vec<IpAddr>)>,
    garbage: Garbage,
    garbage_at: Option<Duration>,
    asks_for_nodes: bool,
    worked: Option<Duration>,
    begun: bool,
}

impl Core {
    pub fn new(nodes_known: bool) -> Self {
        Self { nodes_known, ..Self::default() }
    }

    /// Takes a change of the store in.
    pub fn take(&mut self, change: Change) {
        self.objects.take(change);
    }

    /// The names of all Nodes, or that they could not be listed.
    pub fn nodes(&mut self, names: Option<BTreeSet<String>>, now: Duration) {
        match names {
            Some(names) => {
                self.garbage.nodes(names, now);
                self.garbage_at = Some(now);
            }
            None => {
                self.garbage.not_asked();
                self.garbage_at = now.checked_add(Duration::from_secs(5));
            }
        }
    }

    /// Whether the Nodes have to be listed; true once for each time.
    pub fn asks_for_nodes(&mut self) -> bool {
        std::mem::take(&mut self.asks_for_nodes)
    }

    /// Draws every conclusion that is out of date. Before all kinds were heard whole there is none.
    pub fn work(&mut self, now: Now) {
        if !self.objects.in_sync() {
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.objects.stale = Stale::ALL;
        }
        let at = now.monotonic;
        if self.objects.stale != Stale::default() && self.settling_until().is_none_or(|until| until <= at) {
            let stale = std::mem::take(&mut self.objects.stale);
            self.worked = Some(at);
            self.conclude(stale, at);
        }
        if self.conflicts_at.is_some_and(|due| due <= at) {
            self.nodes_judged(at);
        }
        if self.elect_at.is_some_and(|due| due <= at) {
            self.configuration_judged(at);
        }
        if self.load_balancer.deadline().is_some_and(|due| due <= at) {
            self.services(at);
        }
        if self.garbage_at.is_some_and(|due| due <= at) {
            self.collect(now);
        }
    }

    fn settling_until(&self) -> Option<Duration> {
        self.worked.map(|worked| worked.saturating_add(SETTLE))
    }

    fn conclude(&mut self, stale: Stale, at: Duration) {
        if stale.fabric || stale.sessions {
            self.configuration_judged(at);
        }
        if stale.fabric {
            let (offers, notices) = judge::advertisement::judge(&self.objects);
            self.offer(Kind::BGPAdvertisement, offers);
            self.tell(Group::Advertisements, notices);
            self.nodes_judged(at);
        }
        if stale.fabric || stale.sessions {
            let (offers, notices) = judge::peer::judge(&self.objects);
            self.offer(Kind::BGPPeer, offers);
            self.tell(Group::Peers, notices);
        }
        if stale.pools {
            let (offers, notices) = judge::pool::judge(&self.objects);
            self.offer(Kind::IPPool, offers);
            self.tell(Group::Pools, notices);
            self.garbage_at = Some(at);
        }
        if stale.load_balancer {
            self.pools = judge::load_balancer_pool::pools(&self.objects);
            self.services(at);
        }
        if stale.later {
            for (kind, offers) in judge::later::judge(&self.objects) {
                self.offer(kind, offers);
            }
        }
        if stale.policies {
            let notices = judge::policy::judge(&self.objects);
            self.tell(Group::Policies, notices);
        }
    }

    /// Whatever the election found is said at once: clients dial by it.
    fn configuration_judged(&mut self, at: Duration) {
        let elected = self.reflectors.elect(&self.objects, at);
        self.elect_at = self.reflectors.deadline(at);
        for (reason, note) in &elected.events {
            let about = About::Object(Kind::FabricConfiguration, Key::cluster("default"));
            self.events.push(about, false, reason, note.clone());
        }
        let offers = judge::configuration::judge(&self.objects, &elected);
        self.offer(Kind::FabricConfiguration, offers);
    }

    fn nodes_judged(&mut self, at: Duration) {
        let (offers, notices) = self.conflicts.judge(&self.objects, at);
        self.conflicts_at = self.conflicts.deadline(at);
        self.offer(Kind::FabricNode, offers);
        self.tell(Group::Nodes, notices);
    }

    /// Addresses of Services, and what their pools say of it.
    fn services(&mut self, at: Duration) {
        let namespaces = self.objects.namespace_labels();
        let configuration = self.objects.the_configuration();
        let assign = configuration.and_then(|object| object.spec.load_balancer.as_ref()?.assign.as_ref());
        // Of a mode that this version does not know the one that takes less is meant.
        let class_only = match assign {
            None | Some(LoadBalancerAssign::AllServices) => false,
            Some(LoadBalancerAssign::ClassOnly | LoadBalancerAssign::Unknown(_)) => true,
        };
        let world = World {
            services: &self.objects.services.objects,
            namespaces: &namespaces,
            pools: &self.pools,
            class_only,
        };
        let outcomes = self.load_balancer.settle(&world, at);
        let in_use = self.load_balancer.in_use(&world);
        let mut offers = Vec::new();
        let mut notices = Vec::new();
        for (key, outcome) in &outcomes {
            let Some(service) = self.objects.services.objects.get(key) else { continue };
            let mut wish = Wish::default();
            if !outcome.addresses.is_empty() {
                let ingress: Vec<Value> =
                    outcome.addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
                wish.fields.insert("loadBalancer".to_owned(), json!({"ingress": ingress}));
            }
            offers.push(judge::status(Kind::Service, service, service.status.as_ref(), wish));
            notices.extend(outcome.problem.clone().map(|note| Notice {
                about: About::Object(Kind::Service, key.clone()),
                reason: "AddressRequestFailed",
                note,
                told: false,
            }));
        }
        self.addresses = outcomes;
        self.offer(Kind::Service, offers);
        self.tell(Group::Services, notices);
        let (offers, notices) = judge::load_balancer_pool::judge(&self.objects, &self.pools, &in_use);
        self.offer(Kind::LoadBalancerPool, offers);
        self.tell(Group::LoadBalancerPools, notices);
    }

    fn collect(&mut self, now: Now) {
        let configuration = self.objects.the_configuration();
        let cooldown = configuration.and_then(|object| object.spec.ipam.as_ref()?.cooldown);
        // Without a garbage collector a FabricNode outlives the Node that it belongs to; one of people's stands alone.
        let living = self.objects.fabric_nodes.iter().filter(|node| {
            !self.nodes_known || !node.owner_references().iter().any(|owner| owner.kind == "Node")
        });
        let living = living.map(ResourceExt::name_any).collect();
        let Plan { ask, cuts, reclaimed, refused, again } = self.garbage.plan(
            &self.objects.blocks.objects,
            &living,
            cooldown.map_or(COOLDOWN, Into::into),
            now,
        );
        self.asks_for_nodes |= ask;
        self.cuts.extend(cuts);
        self.garbage_at = again;
        for Reclaimed { node, addresses, blocks } in reclaimed {
            let note = format!("{addresses} addresses in {blocks} IPBlocks of node {node}, which is gone");
            let about = About::Object(Kind::FabricNode, Key::cluster(&node));
            self.events.push(about, false, "AddressesReclaimed", note);
        }
        let notices = refused.into_iter().map(|note| Notice {
            about: About::Object(Kind::FabricConfiguration, Key::cluster("default")),
            reason: "GarbageCollectionRefused",
            note,
            told: false,
        });
        self.tell(Group::Garbage, notices.collect());
    }

    /// All offers of one kind.
    fn offer(&mut self, kind: Kind, offers: Vec<Offer>) {
        let alive: BTreeSet<Key> = offers.iter().map(|offer| offer.slot.key.clone()).collect();
        self.wishes.keep_only(kind, |key| alive.contains(key));
        for Offer { slot, uid, current, wish } in offers {
            self.wishes.offer(slot, &uid, current, wish);
        }
    }

    /// All notices of one group: what is new becomes an Event.
    fn tell(&mut self, group: Group, notices: Vec<Notice>) {
        let mut before = self.told.remove(&group).unwrap_or_default();
        let mut told = BTreeMap::new();
        for Notice { about, reason, note, told: known } in notices {
            let slot = (about.clone(), reason);
            if !known && before.remove(&slot).as_ref() != Some(&note) {
                self.events.push(about, true, reason, note.clone());
            }
            told.insert(slot, note);
        }
        for (about, reason) in before.into_keys().filter(|slot| !told.contains_key(slot)) {
            self.events.retract(&about, reason);
        }
        self.told.insert(group, told);
    }

    /// The next write.
    pub fn pull(&mut self, now: Now) -> Option<Write> {
        if let Some((slot, uid, body)) = self.wishes.pull(now) {
            if slot.kind == Kind::Service {
                let service = self.objects.services.objects.get(&slot.key);
                let before = service.map(request::observed).unwrap_or_default();
                let after =
                    self.addresses.get(&slot.key).map(|found| found.addresses.clone()).unwrap_or_default();
                self.load_balancer.sent(&slot.key, &after);
                self.sent.insert(slot.key.clone(), (before, after));
            }
            return Some(Write::Apply { slot, uid, body });
        }
        self.cuts.pop_front().map(Write::Block).or_else(|| self.events.pull(now.monotonic))
    }

    /// What became of a write.
    pub fn answer(&mut self, write: &Write, outcome: &Outcome, now: Duration) {
        match write {
            Write::Apply { slot, .. } => {
                self.wishes.answer(slot, outcome, now);
                if slot.kind == Kind::Service && slot.part == Part::Status {
                    self.service_written(&slot.key, outcome, now);
                }
            }
            Write::Block(Cut::Clear(block) | Cut::Delete(block)) => {
                let done = matches!(outcome, Outcome::Done | Outcome::Gone);
                self.garbage.answered(&Key::cluster(block.name_any()), done, now);
                if !done {
                    self.garbage_at = now.checked_add(Duration::from_secs(5));
                }
            }
            // An Event that is lost is lost.
            Write::Event { .. } => {}
        }
    }

    fn service_written(&mut self, key: &Key, outcome: &Outcome, now: Duration) {
        let took_place = match outcome {
            Outcome::Done => Some(true),
            Outcome::Gone | Outcome::Refused(_) => Some(false),
            Outcome::Unknown(_) => None,
        };
        self.load_balancer.answered(key, took_place, now);
        // Somebody may wait for an address that this write gave up.
        self.objects.stale.load_balancer = true;
        let Some((before, after)) = self.sent.remove(key) else { return };
        if took_place != Some(true) {
            return;
        }
        let new = after.iter().filter(|ip| !before.contains(ip)).map(|ip| {
            let pool = self.pools.holding(*ip).map(|pool| format!(" from LoadBalancerPool {}", pool.name));
            format!("{ip}{}", pool.unwrap_or_default())
        });
        let new: Vec<String> = new.collect();
        if !new.is_empty() {
            let note = format!("{} has {}", name(key), new.join(" and "));
            self.events.push(About::Object(Kind::Service, key.clone()), false, "AddressAssigned", note);
        }
    }

    /// When to work and pull again though nothing was heard.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        if !self.objects.in_sync() {
            return None;
        }
        let settle = (self.objects.stale != Stale::default() || !self.begun)
            .then(|| self.settling_until().unwrap_or(now));
        let told = self.events.deadline(now);
        [
            settle,
            self.wishes.deadline(),
            self.conflicts_at,
            self.elect_at,
            self.load_balancer.deadline(),
            self.garbage_at,
            told,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

//! Addresses of Services of type LoadBalancer. The Services' statuses are the record; there are no blocks.
//!
//! ```text
//!              ┌──────────── of an older Service, unshareable ◄──────────┐
//!              ▼                                                         │
//!   none ── chosen ──► held ── status written ──► held and stored ── restart, new leader
//!              ▲         │ type, class or request changed, Service gone
//!              │         ▼
//!              └──── stored only: nobody's again when the store shows that it left the status
//! ```
//! What is recomputed whole at every look: who holds what (an older Service's word first), then who gets what. An
//! address is free when no Service holds it, none has it in its status as last heard, and no write that may still
//! take effect carries it. DESIGN.md says why two leaders do not give one address twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use manx_crds::store::Key;
use manx_ipam::pool::Family;

pub mod pool;
pub mod range;
pub mod request;
#[cfg(test)]
mod tests;

use pool::{Asking, Pools, Refused};
use request::{Asks, Count, Request};

/// A write without an answer may take effect for this long: an API server gives a request up after a minute. And the
/// watch is behind by less than this.
pub const LATE: Duration = Duration::from_secs(90);

/// What the assignment depends on.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    pub services: &'a BTreeMap<Key, Service>,
    /// Labels by Namespace.
    pub namespaces: &'a BTreeMap<String, BTreeMap<String, String>>,
    pub pools: &'a Pools,
    /// `loadBalancer.assign: ClassOnly`
    pub class_only: bool,
}

/// What a Service has, and what is wrong about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In the order of the families asked for; empty clears the status.
    pub addresses: Vec<IpAddr>,
    /// For the Event AddressRequestFailed.
    pub problem: Option<String>,
}

/// Who holds what.
#[derive(Clone, Debug, Default)]
pub struct LoadBalancer {
    holdings: BTreeMap<Key, Holding>,
    writes: BTreeMap<Key, Writes>,
}

#[derive(Clone, Debug)]
struct Holding {
    uid: String,
    addresses: Vec<IpAddr>,
}

/// What the status of a Service may come to hold without being heard.
#[derive(Clone, Debug, Default)]
struct Writes {
    /// What took place, until the watch must have told it.
    stored: Option<(BTreeSet<IpAddr>, Duration)>,
    in_flight: Option<BTreeSet<IpAddr>>,
    unanswered: Vec<(BTreeSet<IpAddr>, Duration)>,
}

/// Who uses an address, as far as sharing goes.
#[derive(Clone, Debug, Default)]
struct Used(BTreeMap<IpAddr, BTreeMap<Key, Option<Request>>>);

impl LoadBalancer {
    /// A status with these addresses is on its way.
    pub fn sent(&mut self, service: &Key, addresses: &[IpAddr]) {
        self.writes.entry(service.clone()).or_default().in_flight = Some(addresses.iter().copied().collect());
    }

    /// What became of it. `None`: nobody knows whether it took place.
    pub fn answered(&mut self, service: &Key, took_place: Option<bool>, now: Duration) {
        let Some(writes) = self.writes.get_mut(service) else { return };
        let Some(addresses) = writes.in_flight.take() else { return };
        match took_place {
            Some(true) => writes.stored = Some((addresses, now.saturating_add(LATE))),
            Some(false) => {}
            None => writes.unanswered.push((addresses, now.saturating_add(LATE))),
        }
    }

    /// When an address becomes free without anything being heard.
    pub fn deadline(&self) -> Option<Duration> {
        self.writes
            .values()
            .flat_map(|writes| writes.unanswered.iter().chain(&writes.stored))
            .map(|(_, until)| *until)
            .min()
    }

    /// Addresses in use, by whomever.
    pub fn in_use(&self, world: &World<'_>) -> BTreeSet<IpAddr> {
        let held = self.holdings.values().flat_map(|holding| holding.addresses.iter().copied());
        let observed = world.services.values().flat_map(request::observed);
        held.chain(observed).chain(self.writes.values().flat_map(Writes::addresses)).collect()
    }

    /// Decides about every Service of ours, and every Service that was.
    pub fn settle(&mut self, world: &World<'_>, now: Duration) -> BTreeMap<Key, Outcome> {
        let asks: BTreeMap<&Key, Asks> = world
            .services
            .iter()
            .map(|(key, service)| (key, request::read(service, world.class_only)))
            .collect();
        self.forget(world, &asks, now);
        let by_age = by_age(world, &asks);
        self.recognise(&by_age);
        let mut outcomes = self.clear(world, &asks);
        self.yield_to_older(&by_age);
        let mut used = self.used(world, &asks);
        // Who asks for one address comes before who takes any.
        let asks_by_address =
            |asks: &&Asks| matches!(asks, Asks::Addresses(request) if !request.addresses.is_empty());
        let first = by_age.iter().filter(|(_, _, asks)| asks_by_address(asks));
        let then = by_age.iter().filter(|(_, _, asks)| !asks_by_address(asks));
        for (key, service, asks) in first.chain(then) {
            let outcome = match asks {
                Asks::Nothing | Asks::NotOurs => continue,
                Asks::Unreadable(text) => Outcome {
                    addresses: self.held(key),
                    problem: Some(format!("no address for {}: {text}", name(key))),
                },
                Asks::Addresses(request) => self.serve(key, service, request, world, &used),
            };
            for ip in &outcome.addresses {
                let request = match asks {
                    Asks::Addresses(request) => Some(request.clone()),
                    Asks::Nothing | Asks::NotOurs | Asks::Unreadable(_) => None,
                };
                used.0.entry(*ip).or_default().insert((*key).clone(), request);
            }
            if let Some(holding) = self.holdings.get_mut(*key) {
                holding.addresses.clone_from(&outcome.addresses);
            }
            outcomes.insert((*key).clone(), outcome);
        }
        outcomes
    }

    /// Services that are gone, replaced, or no longer ours hold nothing.
    fn forget(&mut self, world: &World<'_>, asks: &BTreeMap<&Key, Asks>, now: Duration) {
        self.holdings.retain(|key, holding| {
            let same = world.services.get(key).is_some_and(|service| uid(service) == holding.uid);
            same && matches!(asks.get(key), Some(Asks::Addresses(_) | Asks::Unreadable(_)))
        });
        self.writes.retain(|key, writes| {
            writes.unanswered.retain(|(_, until)| *until > now);
            // A Service that is gone took its status along.
            let lives = world.services.contains_key(key);
            writes.stored.take_if(|(_, until)| !lives || *until <= now);
            writes.stored.is_some() || writes.in_flight.is_some() || !writes.unanswered.is_empty()
        });
    }

    /// A Service that is met for the first time holds what its status says: an earlier leader, or another controller
    /// before us, gave it.
    fn recognise(&mut self, by_age: &[(&Key, &Service, &Asks)]) {
        for (key, service, _) in by_age {
            self.holdings
                .entry((*key).clone())
                .or_insert_with(|| Holding { uid: uid(service), addresses: request::observed(service) });
        }
    }

    /// Services of another type whose status still holds addresses. What another controller wrote there is its own field:
    /// our apply does not touch it.
    fn clear(&self, world: &World<'_>, asks: &BTreeMap<&Key, Asks>) -> BTreeMap<Key, Outcome> {
        let left = |key: &Key, service: &Service| {
            let written = self.writes.get(key).is_some_and(|writes| writes.addresses().next().is_some());
            written || !request::observed(service).is_empty()
        };
        world
            .services
            .iter()
            .filter(|(key, service)| matches!(asks.get(key), Some(Asks::Nothing)) && left(key, service))
            .map(|(key, _)| (key.clone(), Outcome::default()))
            .collect()
    }

    /// Two Services with one address that they do not share: the younger loses it.
    fn yield_to_older(&mut self, by_age: &[(&Key, &Service, &Asks)]) {
        let mut kept = Used::default();
        for (key, _, asks) in by_age {
            let request = match asks {
                Asks::Addresses(request) => Some(request),
                Asks::Nothing | Asks::NotOurs | Asks::Unreadable(_) => None,
            };
            let Some(holding) = self.holdings.get_mut(*key) else { continue };
            holding.addresses.retain(|ip| kept.conflict(*ip, key, request).is_none());
            for ip in &holding.addresses {
                kept.0.entry(*ip).or_default().insert((*key).clone(), request.cloned());
            }
        }
    }

    fn used(&self, world: &World<'_>, asks: &BTreeMap<&Key, Asks>) -> Used {
        let mut used = Used::default();
        let request = |key: &Key| match asks.get(key) {
            Some(Asks::Addresses(request)) => Some(request.clone()),
            Some(Asks::Nothing | Asks::NotOurs | Asks::Unreadable(_)) | None => None,
        };
        let mut add = |key: &Key, ip: IpAddr| {
            used.0.entry(ip).or_default().entry(key.clone()).or_insert_with(|| request(key));
        };
        for (key, holding) in &self.holdings {
            holding.addresses.iter().for_each(|ip| add(key, *ip));
        }
        for (key, service) in world.services {
            request::observed(service).into_iter().for_each(|ip| add(key, ip));
        }
        for (key, writes) in &self.writes {
            writes.addresses().for_each(|ip| add(key, ip));
        }
        used
    }

    fn held(&self, key: &Key) -> Vec<IpAddr> {
        self.holdings.get(key).map(|holding| holding.addresses.clone()).unwrap_or_default()
    }

    fn serve(
        &self,
        key: &Key,
        service: &Service,
        request: &Request,
        world: &World<'_>,
        used: &Used,
    ) -> Outcome {
        let nothing = BTreeMap::new();
        let namespace = key.namespace.as_ref().and_then(|namespace| world.namespaces.get(namespace));
        let choice = Choice {
            key,
            request,
            used,
            pools: world.pools,
            asking: Asking {
                service_labels: service.labels(),
                namespace_labels: namespace.unwrap_or(&nothing),
                named: request.pool.as_deref(),
                by_address: !request.addresses.is_empty(),
            },
        };
        let held = self.held(key);
        if service.metadata.deletion_timestamp.is_some() {
            return Outcome { addresses: held, problem: None };
        }
        let mut outcome =
            if request.addresses.is_empty() { choice.any(&held) } else { choice.exactly(&held) };
        if outcome.problem.is_none() {
            outcome.problem = choice.outside(&outcome.addresses);
        }
        outcome
    }
}

impl Writes {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let late = self.unanswered.iter().chain(&self.stored).flat_map(|(addresses, _)| addresses);
        self.in_flight.iter().flatten().chain(late).copied()
    }
}

impl Used {
    /// Who has the address and does not share it with this Service.
    fn conflict(&self, ip: IpAddr, me: &Key, request: Option<&Request>) -> Option<&Key> {
        let others = self.0.get(&ip)?.iter().filter(|(key, _)| *key != me);
        others.into_iter().find(|(_, other)| !share(request, other.as_ref())).map(|(key, _)| key)
    }
}

/// Equal keys, disjoint ports (api.md §8).
fn share(one: Option<&Request>, other: Option<&Request>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.sharing.is_some() && one.sharing == other.sharing && one.ports.is_disjoint(&other.ports)
        }
        (Some(_) | None, Some(_) | None) => false,
    }
}

/// The choice for one Service.
struct Choice<'a> {
    key: &'a Key,
    request: &'a Request,
    used: &'a Used,
    pools: &'a Pools,
    asking: Asking<'a>,
}

impl Choice<'_> {
    /// Exactly the addresses asked for, all of them; what is held stays until they can be had.
    fn exactly(&self, held: &[IpAddr]) -> Outcome {
        let wanted = &self.request.addresses;
        let problem = wanted.iter().filter(|ip| !held.contains(ip)).find_map(|ip| self.refusal(*ip));
        match problem {
            None => Outcome { addresses: wanted.clone(), problem: None },
            Some(problem) => Outcome { addresses: held.to_vec(), problem: Some(problem) },
        }
    }

    /// Why this address cannot be had.
    fn refusal(&self, ip: IpAddr) -> Option<String> {
        let asked = format!("{ip}, asked for by {} ({})", name(self.key), self.request.asked_in);
        let Some(pool) = self.pools.holding(ip) else {
            return Some(format!(
                "{asked}, is an address of no LoadBalancerPool: add it to spec.addresses of a pool, or ask for another{}",
                self.examples()
            ));
        };
        if let Err(refused) = self.pools.serves(pool, &self.asking, Family::of(ip)) {
            return Some(format!(
                "{asked}, belongs to LoadBalancerPool {}: {}; ask for another address, or change the pool",
                pool.name,
                refused.text()
            ));
        }
        if self.pools.is_reserved(ip) {
            return Some(format!("{asked}, is the address of a node: ask for another"));
        }
        let other = self.used.conflict(ip, self.key, Some(self.request))?;
        Some(format!(
            "{asked}, belongs to Service {}: ask for another address; to share it, give both Services the same {} \
             and different ports",
            name(other),
            request::SHARING
        ))
    }

    fn examples(&self) -> String {
        let names: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).take(5).collect();
        if names.is_empty() { String::new() } else { format!(" (there are: {})", names.join(", ")) }
    }

    /// An address of each family from the pools.
    fn any(&self, held: &[IpAddr]) -> Outcome {
        let Request { families, count, addresses: _, asked_in: _, pool: _, sharing: _, ports: _ } =
            self.request;
        let in_named = |ip: IpAddr| {
            let Some(named) = self.asking.named else { return true };
            self.pools.get(named).is_some_and(|pool| pool.addresses.contains(ip))
        };
        if *count == Count::One
            && let Some(ip) = held.iter().find(|ip| families.contains(&Family::of(**ip)) && in_named(**ip))
        {
            return Outcome { addresses: vec![*ip], problem: None };
        }
        let mut addresses = Vec::new();
        let mut problems = Vec::new();
        // What the Service has and may not have for ever, but keeps until there is something better.
        let mut kept = Vec::new();
        for family in families {
            let has = held.iter().copied().find(|ip| Family::of(*ip) == *family);
            if let Some(ip) = has.filter(|ip| in_named(*ip)) {
                addresses.push(ip);
            } else {
                match self.choose(*family) {
                    Ok(ip) => addresses.push(ip),
                    Err(problem) => {
                        kept.extend(has);
                        problems.push(problem);
                    }
                }
            }
            if *count == Count::One && !addresses.is_empty() {
                return Outcome { addresses, problem: None };
            }
        }
        let enough = match count {
            Count::One | Count::Some => !addresses.is_empty(),
            Count::All => problems.is_empty(),
        };
        if enough {
            return Outcome { addresses, problem: None };
        }
        // All or nothing concerns what is new: what the Service has, it keeps.
        addresses.retain(|ip| held.contains(ip));
        addresses.extend(kept);
        let problem = format!("{}. {}", problems.join("; "), self.remedy());
        Outcome { addresses, problem: Some(problem) }
    }

    /// One address: shared with a Service of the same key where there is one, else the lowest that is free.
    fn choose(&self, family: Family) -> Result<IpAddr, String> {
        let mut serving = Vec::new();
        let mut refused = Vec::new();
        for pool in self.pools.iter() {
            match self.pools.serves(pool, &self.asking, family) {
                Ok(()) => serving.push(pool),
                Err(why) => refused.push((pool.name.as_str(), why)),
            }
        }
        let is_free = |ip: IpAddr| {
            !self.pools.is_reserved(ip) && self.used.conflict(ip, self.key, Some(self.request)).is_none()
        };
        if self.request.sharing.is_some() {
            let shared = self.used.0.iter().filter(|(ip, by)| {
                Family::of(**ip) == family
                    && by.values().flatten().any(|other| other.sharing == self.request.sharing)
                    && is_free(**ip)
            });
            let shared: Vec<IpAddr> = shared.map(|(ip, _)| *ip).collect();
            let in_pools =
                serving.iter().find_map(|pool| shared.iter().find(|ip| pool.addresses.contains(**ip)));
            if let Some(ip) = in_pools {
                return Ok(*ip);
            }
        }
        for pool in serving {
            match pool.addresses.lowest(family, is_free) {
                Some(ip) => return Ok(ip),
                None => refused.push((pool.name.as_str(), Refused::Full)),
            }
        }
        let mut text = format!("no {family} address for {}", name(self.key));
        match self.asking.named.filter(|named| self.pools.get(named).is_none()) {
            Some(named) => text
                .push_str(&format!(": {} names LoadBalancerPool {named}, which is not there", request::POOL)),
            None if refused.is_empty() => text.push_str(": there is no LoadBalancerPool"),
            None => {
                let why: Vec<String> =
                    refused.iter().map(|(pool, why)| format!("{pool}: {}", why.text())).collect();
                text.push_str(&format!(": {}", why.join("; ")));
            }
        }
        Err(text)
    }

    fn remedy(&self) -> String {
        match self.asking.named {
            Some(named) => format!("Add addresses to LoadBalancerPool {named}, or remove {}", request::POOL),
            None => "Add a LoadBalancerPool, or addresses to one that serves this Service".to_owned(),
        }
    }

    /// Addresses that are kept though no pool has them (any more).
    fn outside(&self, addresses: &[IpAddr]) -> Option<String> {
        let ip = addresses.iter().find(|ip| self.pools.holding(**ip).is_none())?;
        Some(format!(
            "{ip} of {} belongs to no LoadBalancerPool (any more); it stays until the Service goes: add it to \
             spec.addresses of a pool, or delete and create the Service",
            name(self.key)
        ))
    }
}

/// Oldest first: of two that want the same, the older has it, whoever decides and however often.
fn by_age<'a>(world: &World<'a>, asks: &'a BTreeMap<&'a Key, Asks>) -> Vec<(&'a Key, &'a Service, &'a Asks)> {
    let ours = world.services.iter().filter_map(|(key, service)| {
        let asks = asks.get(key)?;
        matches!(asks, Asks::Addresses(_) | Asks::Unreadable(_)).then_some((key, service, asks))
    });
    let mut services: Vec<(&Key, &Service, &Asks)> = ours.collect();
    services.sort_by_key(|(key, service, _)| (service.creation_timestamp().map(|time| time.0), *key));
    services
}

fn uid(service: &Service) -> String {
    service.uid().unwrap_or_default()
}

fn name(key: &Key) -> String {
    match &key.namespace {
        Some(namespace) => format!("{namespace}/{}", key.name),
        None => key.name.clone(),
    }
}

//! Random histories of Services, pools, restarts and changes of leadership against one store: no address is ever in
//! the statuses of two Services, and at rest everybody has what there is.
//!
//! With `late` writes of a leader take effect after the next one began, which no lease can exclude; then two statuses may
//! hold one address for a moment, and at rest the older Service has it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::cast_possible_truncation, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceStatus};
use manx_controller::Now;
use manx_controller::core::{Core, Write};
use manx_controller::objects::Change;
use manx_controller::wish::{Kind, Outcome};
use manx_crds::store::Key;
use manx_crds::store::follow::Change as Follow;
use manx_crds::v1alpha1::LoadBalancerPool;

/// Runs of `make test`; `MANX_LB_RUNS` asks for more, `MANX_LB_SEED` replays one, with every step.
const RUNS: u64 = 400;
const STEPS: usize = 150;
/// How far a watch lags behind at most.
const SLOWEST: Duration = Duration::from_secs(30);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A write on its way: whether it takes place, and when its effect and its answer come.
struct Flying {
    write: Write,
    lands: Option<Duration>,
    answered: Duration,
    outcome: Outcome,
    leader: u64,
}

struct Sim {
    random: Random,
    late: bool,
    now: Duration,
    services: BTreeMap<Key, Service>,
    pool: LoadBalancerPool,
    born: u64,
    revision: u64,
    core: Core,
    leader: u64,
    /// Changes that the leader has not heard of yet.
    watch: VecDeque<(Change, Duration)>,
    flying: Vec<Flying>,
    writes: u64,
    takeovers: u64,
    doubles: u64,
}

fn pool(last: u8) -> LoadBalancerPool {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "manx.dev/v1alpha1", "kind": "LoadBalancerPool",
        "metadata": {"name": "public", "uid": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"addresses": [format!("192.0.2.1-192.0.2.{last}")]}
    }))
    .unwrap()
}

fn ips(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|one| one.ip.clone()).collect()
}

fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().unwrap().type_.as_deref() == Some("LoadBalancer")
}

fn shares(a: &Service, b: &Service) -> bool {
    let key = |s: &Service| s.metadata.annotations.as_ref()?.get("manx.dev/shared-address-key").cloned();
    let port = |s: &Service| s.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port;
    key(a).is_some() && key(a) == key(b) && port(a) != port(b)
}

impl Sim {
    fn new(seed: u64, late: bool) -> Sim {
        let mut sim = Sim {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            late,
            now: Duration::ZERO,
            services: BTreeMap::new(),
            pool: pool(6),
            born: 0,
            revision: 0,
            core: Core::default(),
            leader: 0,
            watch: VecDeque::new(),
            flying: Vec::new(),
            writes: 0,
            takeovers: 0,
            doubles: 0,
        };
        sim.take_over();
        sim
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        Now { monotonic: self.now, wall: wall + jiff::SignedDuration::try_from(self.now).unwrap() }
    }

    /// A new leader: an empty core, and everything as the store has it.
    fn take_over(&mut self) {
        self.leader += 1;
        self.takeovers += 1;
        self.core = Core::new(false);
        if !self.late {
            // The lease: what the last leader began is over.
            let mut flying = std::mem::take(&mut self.flying);
            flying.sort_by_key(|one| one.lands);
            for one in flying.iter().filter(|one| one.lands.is_some()) {
                self.land(&one.write);
            }
        }
        self.watch.clear();
        for service in self.services.values() {
            self.core.take(Change::Service(Box::new(Follow::Put(service.clone()))));
        }
        self.core.take(Change::LoadBalancerPool(Follow::Put(self.pool.clone())));
        self.core.take(Change::Configuration(Box::new(Follow::InSync)));
        self.core.take(Change::FabricNode(Follow::InSync));
        self.core.take(Change::Peer(Box::new(Follow::InSync)));
        self.core.take(Change::Session(Follow::InSync));
        self.core.take(Change::Advertisement(Follow::InSync));
        self.core.take(Change::BfdProfile(Follow::InSync));
        self.core.take(Change::Pool(Follow::InSync));
        self.core.take(Change::Block(Follow::InSync));
        self.core.take(Change::LoadBalancerPool(Follow::InSync));
        self.core.take(Change::Service(Box::new(Follow::InSync)));
        self.core.take(Change::Namespace(Follow::InSync));
        self.core.take(Change::Policy(Follow::InSync));
        self.core.take(Change::ServiceCidr(Follow::InSync));
        self.core.take(Change::Filter(Box::new(Follow::InSync)));
        self.core.take(Change::Tier(Follow::InSync));
        self.core.take(Change::OwnPolicy(Box::new(Follow::InSync)));
        self.core.take(Change::GlobalPolicy(Box::new(Follow::InSync)));
        self.core.take(Change::HostEndpoint(Box::new(Follow::InSync)));
    }

    fn put(&mut self, key: &Key, service: Service) {
        self.revision += 1;
        let mut service = service;
        service.metadata.resource_version = Some(self.revision.to_string());
        self.services.insert(key.clone(), service.clone());
        self.watch.push_back((Change::Service(Box::new(Follow::Put(service))), self.now));
    }

    fn people(&mut self) {
        let name = format!("s{}", self.random.below(8));
        let key = Key::namespaced("shop", &name);
        match self.services.get(&key).cloned() {
            None => {
                self.born += 1;
                let mut annotations = serde_json::Map::new();
                if self.random.one_in(4) {
                    annotations.insert("manx.dev/shared-address-key".into(), "k".into());
                }
                if self.random.one_in(4) {
                    let asked = format!("192.0.2.{}", 1 + self.random.below(8));
                    annotations.insert("manx.dev/load-balancer-ips".into(), asked.into());
                }
                let created = Timestamp::from_second(1_700_000_000 + self.born as i64).unwrap();
                let service = serde_json::from_value(serde_json::json!({
                    "metadata": {"name": name, "namespace": "shop", "uid": format!("u{}", self.born),
                                 "creationTimestamp": created, "annotations": annotations},
                    "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                             "ports": [{"port": 80 + self.random.below(3)}]}
                }));
                self.put(&key, service.unwrap());
            }
            Some(service) if self.random.one_in(2) => {
                self.services.remove(&key);
                self.watch.push_back((Change::Service(Box::new(Follow::Deleted(service))), self.now));
            }
            Some(mut service) => {
                let kind = if is_ours(&service) { "ClusterIP" } else { "LoadBalancer" };
                service.spec.as_mut().unwrap().type_ = Some(kind.into());
                self.put(&key, service);
            }
        }
        if self.random.one_in(12) {
            self.pool = pool(3 + self.random.below(7) as u8);
            self.watch.push_back((Change::LoadBalancerPool(Follow::Put(self.pool.clone())), self.now));
        }
    }

    /// The store's part of a write of a status, and what the writer says of it. A write meets no other object of the name.
    fn land(&mut self, write: &Write) -> Outcome {
        let Write::Apply { slot, uid, body } = write else { return Outcome::Done };
        if slot.kind != Kind::Service {
            return Outcome::Done;
        }
        let Some(mut service) = self.services.get(&slot.key).cloned() else { return Outcome::Gone };
        if service.metadata.uid.as_ref() != Some(uid) {
            return Outcome::Refused("another object has the name".into());
        }
        let status: ServiceStatus = serde_json::from_value(body.clone()).unwrap();
        service.status = Some(status);
        self.put(&slot.key, service);
        Outcome::Done
    }

    fn leader_works(&mut self) {
        self.core.work(self.now());
        while self.flying.len() < 8
            && let Some(write) = self.core.pull(self.now())
        {
            // The sim keeps no other statuses, and what a store forgets is written again.
            let of_service = matches!(&write, Write::Apply { slot, .. } if slot.kind == Kind::Service);
            self.writes += u64::from(of_service);
            let delay = Duration::from_millis(self.random.below(1_500));
            let (lands, answered, outcome) = match self.random.below(10) {
                // Nobody knows: it took place, did not, or will.
                0 => (Some(delay), Duration::from_secs(3), Outcome::Unknown("no answer".into())),
                1 => (None, Duration::from_secs(3), Outcome::Unknown("no answer".into())),
                2 => (
                    Some(Duration::from_secs(self.random.below(80))),
                    Duration::from_secs(3),
                    Outcome::Unknown("no".into()),
                ),
                3 => (None, delay, Outcome::Refused("forbidden".into())),
                _ => (Some(delay), delay, Outcome::Done),
            };
            if std::env::var("MANX_LB_SEED").is_ok() {
                println!("  {:?} writes {write:?} lands {lands:?} {outcome:?}", self.now);
            }
            self.flying.push(Flying {
                write,
                lands: lands.map(|delay| self.now + delay),
                answered: self.now + answered,
                outcome,
                leader: self.leader,
            });
        }
    }

    fn network(&mut self) {
        let mut flying = std::mem::take(&mut self.flying);
        for one in &mut flying {
            if one.lands.is_some_and(|at| at <= self.now) {
                one.lands = None;
                let outcome = self.land(&one.write);
                if one.outcome == Outcome::Done {
                    one.outcome = outcome;
                }
            }
            if one.answered <= self.now && one.leader == self.leader {
                one.leader = 0;
                self.core.answer(&one.write, &one.outcome, self.now);
            }
        }
        flying.retain(|one| one.lands.is_some() || (one.leader == self.leader && one.answered > self.now));
        self.flying = flying;
    }

    /// A watch may be slow, but not for longer than a write may be late.
    fn hear(&mut self, most: u64) {
        let mut heard = 0;
        while let Some((_, since)) = self.watch.front()
            && (heard < most || *since + SLOWEST < self.now)
            && let Some((change, _)) = self.watch.pop_front()
        {
            heard += 1;
            self.core.take(change);
        }
    }

    fn doubles(&self) -> Vec<(Key, Key, String)> {
        let mut doubles = Vec::new();
        for (a, one) in &self.services {
            for (b, other) in self.services.range(a.clone()..).skip(1) {
                for ip in ips(one).into_iter().filter(|ip| ips(other).contains(ip)) {
                    if !shares(one, other) {
                        doubles.push((a.clone(), b.clone(), ip));
                    }
                }
            }
        }
        doubles
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.below(2_000));
        if self.random.one_in(2) {
            self.people();
        }
        if self.random.one_in(25) {
            self.take_over();
        }
        let most = self.random.below(4);
        self.hear(most);
        self.network();
        self.leader_works();
        if std::env::var("MANX_LB_SEED").is_ok() {
            let view: Vec<String> = self
                .services
                .iter()
                .map(|(k, s)| {
                    format!(
                        "{}={}{}{:?}",
                        k.name,
                        s.metadata.uid.as_ref().unwrap(),
                        if is_ours(s) { "" } else { "(no)" },
                        ips(s)
                    )
                })
                .collect();
            println!("{:?} leader {} lag {}: {}", self.now, self.leader, self.watch.len(), view.join(" "));
        }
        let doubles = self.doubles();
        self.doubles += doubles.len() as u64;
        assert!(self.late || doubles.is_empty(), "twice: {doubles:?}");
    }

    /// Nobody changes anything any more.
    fn rest(&mut self) {
        for _ in 0..4_000 {
            self.now += Duration::from_millis(500);
            self.hear(100);
            self.network();
            self.leader_works();
        }
        assert!(self.doubles().is_empty(), "at rest twice: {:?}", self.doubles());
        let writes = self.writes;
        for _ in 0..1_000 {
            self.now += Duration::from_millis(500);
            self.hear(100);
            self.network();
            self.leader_works();
        }
        assert_eq!(writes, self.writes, "an idle cluster is written to");
        let used: Vec<String> = self.services.values().flat_map(ips).collect();
        let last: u8 =
            self.pool.spec.addresses[0].last().to_string().rsplit('.').next().unwrap().parse().unwrap();
        let free = (1..=last).any(|n| !used.contains(&format!("192.0.2.{n}")));
        for (key, service) in &self.services {
            let asked =
                service.metadata.annotations.as_ref().and_then(|a| a.get("manx.dev/load-balancer-ips"));
            if !is_ours(service) {
                assert!(ips(service).is_empty(), "{key:?} is of another type and keeps {:?}", ips(service));
            } else if asked.is_none() && free {
                let flying = self.flying.len();
                assert_eq!(
                    ips(service).len(),
                    1,
                    "{key:?} has nothing of {used:?} up to {last}; {flying} {:?}",
                    self.core
                );
            }
        }
    }
}

fn run(seed: u64, late: bool) -> Sim {
    let mut sim = Sim::new(seed, late);
    for _ in 0..STEPS {
        sim.step();
    }
    sim.rest();
    sim
}

fn runs(late: bool) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("MANX_LB_SEED") {
        run(seed, late);
        return;
    }
    let (mut writes, mut takeovers, mut doubles) = (0, 0, 0);
    for seed in 0..number("MANX_LB_RUNS").unwrap_or(RUNS) {
        let outcome = std::panic::catch_unwind(|| run(seed, late));
        let sim = outcome.unwrap_or_else(|_| {
            panic!("replay: MANX_LB_SEED={seed} cargo test -p manx-controller --test model late_{late}")
        });
        writes += sim.writes;
        takeovers += sim.takeovers;
        doubles += sim.doubles;
    }
    println!("late {late}: {writes} writes, {takeovers} leaders, {doubles} doubles seen on the way");
    assert!(writes > 1_000 && takeovers > 1_000, "the histories are too dull to show anything");
}

#[test]
fn late_false_no_address_is_ever_given_twice() {
    runs(false);
}

#[test]
fn late_true_what_a_dead_leader_wrote_late_is_repaired() {
    runs(true);
}

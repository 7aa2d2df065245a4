//! The simulated cluster: one random walk per seed, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use manx_crds::v1alpha1::IPBlock;
use manx_ipam::allocator::{
    Allocator, AssignRequest, Identity, Input, Now, Output, RequestId, Restored, Settings, StoreRequest,
};
use manx_ipam::journal::{self, Address, Attachment};
use manx_ipam::pool::{Assignment, Family, Pool};

mod rng;
mod stats;
mod store;

use rng::Rng;
pub(crate) use stats::Stats;
use store::Store;

const NODES: usize = 3;
const STEPS: usize = 160;
const COOLDOWN: SignedDuration = SignedDuration::from_secs(60);

pub(crate) type NewAllocator<'a> = &'a dyn Fn(Identity, Settings, Restored) -> Allocator;

/// One run. Err: what was violated.
pub(crate) fn run(seed: u64, trace: bool, new: NewAllocator<'_>) -> Result<Stats, String> {
    let mut world = World::new(seed, trace, new);
    for step in 0..STEPS {
        world.step();
        if let Some(violation) = world.violation.take() {
            return Err(format!("step {step}, {:?}: {violation}", world.clock));
        }
    }
    world.come_to_rest();
    match world.violation.take() {
        Some(violation) => Err(format!("at rest, {:?}: {violation}", world.clock)),
        None => Ok(world.stats),
    }
}

struct Node {
    name: String,
    allocator: Option<Allocator>,
    starts: u32,
    /// What is on the disk.
    disk: Vec<u8>,
    /// Appended, not synced.
    unsynced: Vec<u8>,
    /// Dies when it has asked for a deletion, and starts again.
    fragile: bool,
    /// When the blocks are listed after a start.
    list_at: Option<Duration>,
    /// When it falls back on its memory of the blocks, because the store gives no answer.
    recall_at: Option<Duration>,
    /// The blocks as it heard of them at some moment.
    memory: Vec<IPBlock>,
    /// What the runtime was told.
    running: BTreeMap<Attachment, Vec<Address>>,
    /// Requests without an answer.
    asked: BTreeMap<RequestId, Asked>,
    /// DELs that the runtime repeats until they are answered.
    dels: BTreeSet<Attachment>,
}

enum Asked {
    Add { attachment: Attachment, by_name: bool },
    Del(Attachment),
}

struct World<'a> {
    rng: Rng,
    clock: Duration,
    store: Store,
    nodes: Vec<Node>,
    new: NewAllocator<'a>,
    /// Who uses an address, as the runtimes believe.
    given: BTreeMap<IpAddr, (usize, Attachment)>,
    /// When an address was released.
    freed: BTreeMap<IpAddr, Timestamp>,
    /// A fragile node asked for a deletion.
    deletion_sent: bool,
    next_request: u64,
    next_pod: u64,
    trace: bool,
    violation: Option<String>,
    stats: Stats,
}

fn pools() -> Vec<Pool> {
    let pool = |name: &str, cidr: &str, block_size| Pool {
        name: name.into(),
        cidr: cidr.parse().unwrap(),
        block_size,
        assignment: Assignment::Automatic,
        node_selector: None,
        namespace_selector: None,
        excluded: Vec::new(),
        terminating: false,
        created: None,
    };
    let mut v4 = pool("a-ipv4", "10.0.0.0/26", 29);
    v4.excluded = vec!["10.0.0.0/31".parse().unwrap()];
    vec![v4, pool("b-ipv4", "10.1.0.0/28", 30), pool("c-ipv6", "fd00::/121", 125)]
}

impl<'a> World<'a> {
    fn new(seed: u64, trace: bool, new: NewAllocator<'a>) -> World<'a> {
        let nodes = (0..NODES)
            .map(|n| Node {
                name: format!("worker-{n}"),
                allocator: None,
                starts: 0,
                disk: Vec::new(),
                unsynced: Vec::new(),
                fragile: false,
                list_at: None,
                recall_at: None,
                memory: Vec::new(),
                running: BTreeMap::new(),
                asked: BTreeMap::new(),
                dels: BTreeSet::new(),
            })
            .collect();
        World {
            rng: Rng::new(seed),
            clock: Duration::from_secs(1_000),
            store: Store::default(),
            nodes,
            new,
            given: BTreeMap::new(),
            freed: BTreeMap::new(),
            deletion_sent: false,
            next_request: 0,
            next_pod: 0,
            trace,
            violation: None,
            stats: Stats::default(),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.clock, wall: Timestamp::UNIX_EPOCH + self.clock }
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:9.3}  {}", self.clock.as_secs_f64(), text());
        }
    }

    fn violate(&mut self, text: String) {
        self.say(|| format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    /// One random event, and whatever time brings with it.
    fn step(&mut self) {
        let n = self.rng.below(NODES as u64) as usize;
        match self.rng.below(100) {
            0..=29 => self.add(n),
            30..=47 => self.del_one(n),
            48..=50 => self.add_again(n),
            51..=53 => self.del_unknown(n),
            54..=57 => self.crash(n),
            58..=59 => self.store.outage_until(self.clock + Duration::from_millis(self.rng.below(15_000))),
            60 => self.compact(n),
            61 => self.lull(n),
            62..=88 => self.wait(900),
            89..=97 => self.wait(20_000),
            _ => self.wait(400_000),
        }
        if self.nodes[n].allocator.is_none() && self.rng.chance(50) {
            self.start(n);
        }
        if self.nodes[n].list_at.is_none() && self.rng.chance(30) {
            self.nodes[n].memory = self.store.list(&self.nodes[n].name);
        }
    }

    /// Every pod of a node goes, its blocks become surplus, and in the middle of giving them back it may die, come
    /// back at once and be asked for addresses: the worst moment for a request that is still on its way.
    fn lull(&mut self, n: usize) {
        let running: Vec<Attachment> = self.nodes[n].running.keys().cloned().collect();
        running.into_iter().for_each(|attachment| self.ask_del(n, attachment));
        self.wait(400_000);
        self.nodes[n].fragile = true;
        self.deletion_sent = false;
        for _ in 0..330 {
            self.advance(Duration::from_secs(1));
            if self.deletion_sent {
                break;
            }
        }
        self.nodes[n].fragile = false;
        if self.nodes[n].allocator.is_none() {
            self.start(n);
        }
        // enough to fill the spare block and reach the one that was to go
        for _ in 0..14 {
            self.wait(500);
            self.add(n);
        }
    }

    fn start(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.starts += 1;
        let replay = journal::replay(&node.disk);
        assert!(replay.complete(), "{:?}", replay.corrupt);
        node.disk.truncate(replay.valid_length);
        if node.disk.is_empty() {
            node.disk.extend(journal::HEADER.as_bytes());
        }
        let me = Identity { node: node.name.clone(), incarnation: format!("start-{}", node.starts) };
        let settings = Settings { cooldown: COOLDOWN, spare_blocks: 1 };
        let restored = Restored { state: replay.state, complete: node.starts > 1 };
        node.allocator = Some((self.new)(me, settings, restored));
        let (mut delay, mut recall) = (self.rng.below(3_000), None);
        if self.rng.chance(40) {
            (delay, recall) = (3_000 + self.rng.below(90_000), Some(self.rng.below(3_000)));
        }
        self.nodes[n].list_at = Some(self.clock + Duration::from_millis(delay));
        self.nodes[n].recall_at = recall.map(|millis| self.clock + Duration::from_millis(millis));
        self.say(|| format!("node {n} starts"));
        self.feed(n, Input::Pools(pools()));
        for attachment in self.nodes[n].dels.clone() {
            self.ask_del(n, attachment);
        }
    }

    /// The process dies; what it sent may still take effect, what it appended may be torn.
    fn crash(&mut self, n: usize) {
        let kept = self.rng.below(self.nodes[n].unsynced.len() as u64 + 1) as usize;
        let node = &mut self.nodes[n];
        if node.allocator.take().is_none() {
            return;
        }
        let torn: Vec<u8> = node.unsynced.drain(..).take(kept).collect();
        node.disk.extend(torn);
        for asked in std::mem::take(&mut node.asked).into_values() {
            let (Asked::Add { attachment, .. } | Asked::Del(attachment)) = asked;
            node.dels.insert(attachment);
        }
        self.stats.crashes += 1;
        self.store.orphan(n, &mut self.rng, self.clock);
        self.say(|| format!("node {n} crashes"));
    }

    fn compact(&mut self, n: usize) {
        let now = self.now().wall;
        let node = &mut self.nodes[n];
        if node.unsynced.is_empty() && !node.disk.is_empty() {
            node.disk = journal::replay(&node.disk).state.compact(now);
        }
    }

    fn add(&mut self, n: usize) {
        self.next_pod += 1;
        let attachment =
            Attachment { container_id: format!("sandbox-{:06}", self.next_pod), interface: "eth0".into() };
        let mut annotations = BTreeMap::new();
        let by_name = self.rng.chance(8);
        if by_name {
            let ip = format!("10.0.0.{}", self.rng.below(64));
            annotations.insert(manx_crds::annotations::IP_ADDRESSES.key.to_owned(), ip);
        }
        self.ask_add(n, attachment, annotations, by_name);
    }

    fn ask_add(
        &mut self,
        n: usize,
        attachment: Attachment,
        annotations: BTreeMap<String, String>,
        by_name: bool,
    ) {
        if self.nodes[n].allocator.is_none() {
            return;
        }
        self.stats.adds += 1;
        self.say(|| format!("node {n} ADD {} {annotations:?}", attachment.container_id));
        let request = AssignRequest {
            container_id: attachment.container_id.clone(),
            interface: attachment.interface.clone(),
            namespace: "shop".into(),
            name: attachment.container_id.clone(),
            uid: format!("uid-{}", attachment.container_id),
            pod_annotations: annotations,
            ..AssignRequest::default()
        };
        let id = self.request_id();
        self.nodes[n].asked.insert(id, Asked::Add { attachment, by_name });
        self.feed(n, Input::Assign { id, request });
    }

    fn add_again(&mut self, n: usize) {
        let pick = self.rng.below(16) as usize;
        if let Some(attachment) = self.nodes[n].running.keys().nth(pick).cloned() {
            self.ask_add(n, attachment, BTreeMap::new(), false);
        }
    }

    fn del_one(&mut self, n: usize) {
        let pick = self.rng.below(6) as usize;
        if let Some(attachment) = self.nodes[n].running.keys().nth(pick).cloned() {
            self.ask_del(n, attachment);
        }
    }

    /// A late or repeated DEL: of a sandbox that was never there, or of one that is gone.
    fn del_unknown(&mut self, n: usize) {
        let number = self.rng.below(self.next_pod + 2);
        let attachment =
            Attachment { container_id: format!("sandbox-{number:06}"), interface: "eth0".into() };
        let elsewhere = self.nodes.iter().any(|node| {
            node.running.contains_key(&attachment)
                || node
                    .asked
                    .values()
                    .any(|asked| matches!(asked, Asked::Add { attachment: a, .. } if *a == attachment))
        });
        if !elsewhere {
            self.ask_del(n, attachment);
        }
    }

    fn ask_del(&mut self, n: usize, attachment: Attachment) {
        if self.nodes[n].allocator.is_none() {
            return;
        }
        self.say(|| format!("node {n} DEL {}", attachment.container_id));
        self.nodes[n].dels.insert(attachment.clone());
        let wall = self.now().wall;
        for address in self.nodes[n].running.remove(&attachment).unwrap_or_default() {
            self.given.remove(&address.ip);
            self.freed.insert(address.ip, wall);
        }
        let id = self.request_id();
        self.nodes[n].asked.insert(id, Asked::Del(attachment.clone()));
        self.feed(n, Input::Release { id, attachment });
    }

    fn request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    fn feed(&mut self, n: usize, input: Input) {
        let now = self.now();
        let Some(allocator) = self.nodes[n].allocator.as_mut() else { return };
        allocator.handle_input(input, now);
        self.drain(n);
    }

    /// Carries out what the allocator asks for, in order; sometimes the process dies in the middle.
    fn drain(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].allocator.as_mut().and_then(Allocator::poll_output) {
            if self.rng.chance(1) && self.rng.chance(30) {
                return self.crash(n);
            }
            match output {
                Output::Journal(record) => {
                    self.nodes[n].unsynced.extend(record.encode());
                    continue;
                }
                Output::Store { id, request } => {
                    self.sync(n);
                    self.say(|| format!("node {n} {}", store::describe(&request)));
                    let worst = self.nodes[n].fragile && matches!(request, StoreRequest::Delete { .. });
                    self.store.send(n, id, request, worst, &mut self.rng, self.clock);
                    self.deletion_sent |= worst;
                    if worst && self.rng.chance(50) {
                        self.crash(n);
                        return self.start(n);
                    }
                }
                Output::Assigned { id, addresses } => {
                    self.sync(n);
                    self.on_assigned(n, id, addresses);
                }
                Output::Failed { id, error } => {
                    self.say(|| format!("node {n} refuses: {error}"));
                    self.stats.refused += 1;
                    self.nodes[n].asked.remove(&id);
                }
                Output::Released { id, .. } => {
                    self.sync(n);
                    if let Some(Asked::Del(attachment)) = self.nodes[n].asked.remove(&id) {
                        self.nodes[n].dels.remove(&attachment);
                    }
                }
                Output::BlockClaimed { .. } => self.stats.claimed += 1,
                Output::BlockReleased { .. } => self.stats.given_back += 1,
                Output::BlockLost { cidr, node, .. } => {
                    self.violate(format!("node {n} lost {cidr} to {node}"))
                }
            }
        }
    }

    fn sync(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.disk.append(&mut node.unsynced);
    }

    fn on_assigned(&mut self, n: usize, id: RequestId, addresses: Vec<Address>) {
        let Some(Asked::Add { attachment, by_name }) = self.nodes[n].asked.remove(&id) else { return };
        let shown: Vec<String> = addresses.iter().map(|address| address.ip.to_string()).collect();
        self.say(|| format!("node {n} gives {} {shown:?}", attachment.container_id));
        self.stats.assigned += 1;
        self.stats.from_memory += u64::from(self.nodes[n].list_at.is_some());
        let families: Vec<Family> = addresses.iter().map(|address| Family::of(address.ip)).collect();
        if families != Family::ALL {
            self.violate(format!(
                "{} got {shown:?}: not one address of each family",
                attachment.container_id
            ));
        }
        if let Some(before) = self.nodes[n].running.get(&attachment) {
            if *before != addresses {
                self.violate(format!("{} had {before:?} and got {shown:?}", attachment.container_id));
            }
            return;
        }
        for Address { ip, block, .. } in &addresses {
            if let Some((other, holder)) = self.given.get(ip).cloned() {
                let container = &attachment.container_id;
                self.violate(format!(
                    "{ip} given twice: node {other} {}, node {n} {container}",
                    holder.container_id
                ));
            }
            let since = self.freed.get(ip).map(|freed| self.now().wall.duration_since(*freed));
            if since.is_some_and(|since| since < COOLDOWN) && !(by_name && ip.is_ipv4()) {
                self.violate(format!("{ip} given {:?} after its release", since.unwrap_or_default()));
            }
            if self.store.holder(*block).is_none_or(|holder| holder != self.nodes[n].name) {
                let holder = self.store.holder(*block);
                self.violate(format!("node {n} gave {ip} out of {block}, which {holder:?} holds"));
            }
            self.given.insert(*ip, (n, attachment.clone()));
        }
        self.nodes[n].dels.remove(&attachment);
        self.nodes[n].running.insert(attachment, addresses);
    }

    fn wait(&mut self, most_millis: u64) {
        let by = Duration::from_millis(self.rng.below(most_millis));
        self.advance(by);
    }

    /// Lets time pass, stopping at every event on the way.
    fn advance(&mut self, by: Duration) {
        let end = self.clock + by;
        for _ in 0..100_000 {
            let Some(next) = self.next_event().filter(|at| *at <= end) else {
                self.clock = end;
                return;
            };
            self.clock = self.clock.max(next);
            self.turn();
            if self.violation.is_some() {
                return;
            }
        }
        self.violate("an event without end: something asks again and again".to_owned());
    }

    fn next_event(&self) -> Option<Duration> {
        let now = self.now();
        let timers = self.nodes.iter().filter_map(|node| node.allocator.as_ref()?.poll_timeout(now));
        let lists = self.nodes.iter().filter_map(|node| node.allocator.as_ref().and(node.list_at));
        let recalls = self.nodes.iter().filter_map(|node| node.allocator.as_ref().and(node.recall_at));
        timers.chain(lists).chain(recalls).chain(self.store.next_event()).min()
    }

    /// Everything that is due at this moment.
    fn turn(&mut self) {
        let heard = self.store.due(&mut self.rng, self.clock, &mut self.stats);
        for object in self.store.take_deleted() {
            let cidr = object.spec.cidr.net();
            if !object.spec.allocations.is_empty() || !object.spec.released.is_empty() {
                self.violate(format!("{cidr} was deleted while its object was not empty"));
            }
            let user = self.given.iter().find(|(ip, _)| cidr.contains(*ip)).map(|(ip, (n, _))| (*ip, *n));
            if let Some((ip, n)) = user {
                self.violate(format!("{cidr} was deleted under a running pod: node {n} gave {ip}"));
            }
        }
        for (n, input) in heard {
            let up = self.nodes[n].list_at.is_none();
            let answer = matches!(input, Input::Answer { .. });
            if self.nodes[n].allocator.is_some() && (up || answer) {
                self.say(|| format!("node {n} hears {}", store::describe_input(&input)));
                self.feed(n, input);
            }
        }
        let now = self.now();
        for n in 0..NODES {
            if self.nodes[n].allocator.is_some() && self.nodes[n].recall_at.is_some_and(|at| at <= self.clock)
            {
                self.nodes[n].recall_at = None;
                let memory = self.nodes[n].memory.clone();
                self.say(|| format!("node {n} remembers {} blocks", memory.len()));
                self.feed(n, Input::Remembered(memory));
            }
            if self.nodes[n].allocator.is_some() && self.nodes[n].list_at.is_some_and(|at| at <= self.clock) {
                self.nodes[n].list_at = None;
                let listed = self.store.list(&self.nodes[n].name);
                self.store.watch_from_here(n);
                self.say(|| format!("node {n} lists {} blocks", listed.len()));
                self.feed(n, Input::Listed(listed));
            }
            let due = self.nodes[n].allocator.as_ref().and_then(|a| a.poll_timeout(now));
            if due.is_some_and(|at| at <= self.clock) {
                self.feed(n, Input::Timeout);
            }
        }
    }

    /// The store recovers, every pod is deleted, everything cools down: nothing may be left.
    fn come_to_rest(&mut self) {
        self.say(|| "coming to rest".to_owned());
        self.store.heal();
        for _ in 0..50 {
            for n in 0..NODES {
                if self.nodes[n].allocator.is_none() {
                    self.start(n);
                }
            }
            self.advance(Duration::from_secs(20));
            for n in 0..NODES {
                let running: Vec<Attachment> = self.nodes[n].running.keys().cloned().collect();
                running.into_iter().for_each(|attachment| self.ask_del(n, attachment));
            }
            let idle = |node: &Node| node.running.is_empty() && node.asked.is_empty() && node.dels.is_empty();
            if self.nodes.iter().all(idle) {
                break;
            }
        }
        self.advance(Duration::from_secs(600));
        for n in 0..NODES {
            self.check_rest(n);
        }
        for n in 0..NODES {
            if self.violation.is_none() && self.nodes[n].allocator.is_some() {
                self.add_must_succeed(n);
            }
        }
    }

    fn check_rest(&mut self, n: usize) {
        let Some(allocator) = self.nodes[n].allocator.as_ref() else { return };
        let name = self.nodes[n].name.clone();
        let mut wrong = Vec::new();
        if !allocator.pods().pods.is_empty() {
            wrong.push(format!("node {n} remembers {:?}", allocator.pods().pods.keys()));
        }
        let mine: BTreeSet<String> = allocator.blocks().map(|block| block.cidr().to_string()).collect();
        let stored = self.store.list(&name);
        let theirs: BTreeSet<String> = stored.iter().map(|object| object.spec.cidr.to_string()).collect();
        if mine != theirs {
            wrong.push(format!("node {n} holds {mine:?}, the store says {theirs:?}"));
        }
        for object in &stored {
            if !object.spec.allocations.is_empty() || !object.spec.released.is_empty() {
                wrong.push(format!("node {n}: {:?} is not empty: {:?}", object.metadata.name, object.spec));
            }
        }
        for pool in pools() {
            let spare = stored.iter().filter(|object| object.spec.pool == pool.name).count();
            if spare > 1 {
                wrong.push(format!("node {n} keeps {spare} spare blocks of {}", pool.name));
            }
        }
        if allocator.blocks().any(|block| !block.is_empty()) {
            wrong.push(format!("node {n}: {:?}", allocator.blocks().collect::<Vec<_>>()));
        }
        wrong.into_iter().for_each(|text| self.violate(text));
    }

    fn add_must_succeed(&mut self, n: usize) {
        let before = self.stats.assigned;
        self.add_plain(n);
        self.advance(Duration::from_secs(5));
        if self.stats.assigned == before && self.nodes[n].allocator.is_some() {
            self.violate(format!("at rest node {n} has no address for a pod"));
        }
    }

    fn add_plain(&mut self, n: usize) {
        self.next_pod += 1;
        let attachment =
            Attachment { container_id: format!("sandbox-{:06}", self.next_pod), interface: "eth0".into() };
        self.ask_add(n, attachment, BTreeMap::new(), false);
    }
}

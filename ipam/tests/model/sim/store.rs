//! A compare-and-swap store that loses answers, carries out requests late, and tells watchers late.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipnet::IpNet;
use manx_crds::v1alpha1::{Cidr, IPBlock};
use manx_ipam::allocator::{Input, StoreAnswer, StoreId, StoreRequest};

use super::rng::Rng;
use super::stats::Stats;

#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<String, IPBlock>,
    revision: u64,
    outage_until: Duration,
    /// Blocks that were deleted since this was read last.
    deleted: Vec<IPBlock>,
    requests: Vec<Request>,
    watches: BTreeMap<usize, VecDeque<(Duration, Input)>>,
}

struct Request {
    node: usize,
    request: StoreRequest,
    /// When it is carried out; never, if absent.
    runs_at: Option<Duration>,
    /// When the node hears of it, and under which id; never after a crash.
    answer: Option<(Duration, StoreId)>,
    /// The answer is lost: the node hears that there is none.
    lost: bool,
    result: Option<StoreAnswer>,
}

impl Store {
    /// Almost every answer is lost until then.
    pub(super) fn outage_until(&mut self, end: Duration) {
        self.outage_until = end;
    }

    pub(super) fn heal(&mut self) {
        self.outage_until = Duration::ZERO;
    }

    pub(super) fn holder(&self, cidr: IpNet) -> Option<&str> {
        self.objects.get(&Cidr::masked(cidr).block_name())?.spec.node_name.as_deref()
    }

    pub(super) fn list(&self, node: &str) -> Vec<IPBlock> {
        self.objects
            .values()
            .filter(|object| object.spec.node_name.as_deref() == Some(node))
            .cloned()
            .collect()
    }

    pub(super) fn take_deleted(&mut self) -> Vec<IPBlock> {
        std::mem::take(&mut self.deleted)
    }

    pub(super) fn watch_from_here(&mut self, n: usize) {
        self.watches.insert(n, VecDeque::new());
    }

    /// `worst`: the answer of this request is likely to be lost.
    pub(super) fn send(
        &mut self,
        node: usize,
        id: StoreId,
        request: StoreRequest,
        worst: bool,
        rng: &mut Rng,
        clock: Duration,
    ) {
        let millis = |most: u64, rng: &mut Rng| Duration::from_millis(1 + rng.below(most));
        let runs = clock + millis(40, rng);
        let lost = rng.chance(if clock < self.outage_until {
            90
        } else if worst {
            60
        } else {
            6
        });
        let entry = if lost {
            let answered = clock + millis(3_000, rng);
            let runs_at = match rng.below(3) {
                0 => None,
                1 => Some(runs.min(answered)),
                // long after the node was told that nobody knows
                _ if rng.chance(50) => Some(answered + millis(5_000, rng)),
                _ => Some(answered + millis(90_000, rng)),
            };
            Request { node, request, runs_at, answer: Some((answered, id)), lost, result: None }
        } else {
            let answered = runs + millis(60, rng);
            Request { node, request, runs_at: Some(runs), answer: Some((answered, id)), lost, result: None }
        };
        self.requests.push(entry);
    }

    /// The node died: nobody hears the answers, but what was sent may still run, some of it much later.
    pub(super) fn orphan(&mut self, node: usize, rng: &mut Rng, clock: Duration) {
        self.watches.remove(&node);
        for request in
            self.requests.iter_mut().filter(|request| request.node == node && request.answer.is_some())
        {
            request.answer = None;
            if request.runs_at.is_some() && request.result.is_none() && rng.chance(40) {
                request.runs_at = Some(clock + Duration::from_millis(rng.below(60_000)));
            }
        }
    }

    pub(super) fn next_event(&self) -> Option<Duration> {
        let runs = self
            .requests
            .iter()
            .filter(|request| request.result.is_none())
            .filter_map(|request| request.runs_at);
        let answers = self.requests.iter().filter_map(|request| request.answer.as_ref().map(|(at, _)| *at));
        let watches = self.watches.values().filter_map(|events| events.front().map(|(at, _)| *at));
        runs.chain(answers).chain(watches).min()
    }

    /// Carries out what is due and returns what the nodes hear.
    pub(super) fn due(&mut self, rng: &mut Rng, clock: Duration, stats: &mut Stats) -> Vec<(usize, Input)> {
        let mut heard = Vec::new();
        let mut requests = std::mem::take(&mut self.requests);
        requests.sort_by_key(|request| request.runs_at);
        for request in &mut requests {
            if request.result.is_none() && request.runs_at.is_some_and(|at| at <= clock) {
                let late = request.answer.is_none();
                let result = self.carry_out(&request.request, rng, clock);
                stats.conflicts += u64::from(matches!(result, StoreAnswer::Conflict));
                stats.taken += u64::from(matches!(result, StoreAnswer::AlreadyExists));
                stats.late += u64::from(late);
                stats.late_deletes += u64::from(late && matches!(result, StoreAnswer::Deleted));
                request.result = Some(result);
            }
        }
        for request in &mut requests {
            if let Some((at, id)) = request.answer.take_if(|(at, _)| *at <= clock) {
                let _ = at;
                let answer = if request.lost {
                    stats.lost_before += u64::from(request.result.is_none());
                    stats.lost_after += u64::from(request.result.is_some());
                    StoreAnswer::Unavailable("connection reset".to_owned())
                } else {
                    request.result.clone().expect("it ran before it was answered")
                };
                heard.push((request.node, Input::Answer { id, answer }));
            }
        }
        requests.retain(|request| {
            request.answer.is_some() || (request.result.is_none() && request.runs_at.is_some())
        });
        self.requests = requests;
        for (node, events) in &mut self.watches {
            while events.front().is_some_and(|(at, _)| *at <= clock) {
                let (_, event) = events.pop_front().expect("there is one");
                // an intermediate state may be skipped, the last may not
                if events.is_empty() || rng.chance(70) {
                    heard.push((*node, event));
                }
            }
        }
        heard
    }

    fn carry_out(&mut self, request: &StoreRequest, rng: &mut Rng, clock: Duration) -> StoreAnswer {
        match request {
            StoreRequest::Get { cidr } => match self.objects.get(&Cidr::masked(*cidr).block_name()) {
                Some(object) => StoreAnswer::Found(object.clone()),
                None => StoreAnswer::NotFound,
            },
            StoreRequest::Create(object) => {
                let name = name_of(object);
                if self.objects.contains_key(&name) {
                    return StoreAnswer::AlreadyExists;
                }
                let mut object = through_json(object);
                object.metadata.uid = Some(format!("block-{}", self.revision + 1));
                StoreAnswer::Created(self.put(object, rng, clock))
            }
            StoreRequest::Replace(object) => {
                let Some(stored) = self.objects.get(&name_of(object)) else { return StoreAnswer::NotFound };
                if stored.metadata.resource_version != object.metadata.resource_version {
                    return StoreAnswer::Conflict;
                }
                if stored.spec.node_name.is_some() && stored.spec.node_name != object.spec.node_name {
                    return StoreAnswer::Refused(
                        "spec: Invalid value: nodeName changes by being released first".into(),
                    );
                }
                let object = through_json(object);
                // as the API server: what changes nothing does not raise the revision
                let unchanged =
                    stored.spec == object.spec && stored.metadata.annotations == object.metadata.annotations;
                StoreAnswer::Replaced(if unchanged { stored.clone() } else { self.put(object, rng, clock) })
            }
            StoreRequest::Delete { cidr, uid, revision } => {
                let name = Cidr::masked(*cidr).block_name();
                let Some(stored) = self.objects.get(&name) else { return StoreAnswer::NotFound };
                let same = stored.metadata.uid.as_ref() == Some(uid)
                    && stored.metadata.resource_version.as_ref() == Some(revision);
                if !same {
                    return StoreAnswer::Conflict;
                }
                self.deleted.push(stored.clone());
                let gone = self.objects.remove(&name).expect("it was there");
                self.tell(&gone.spec.node_name.clone(), Input::Gone(*cidr), rng, clock);
                StoreAnswer::Deleted
            }
        }
    }

    fn put(&mut self, mut object: IPBlock, rng: &mut Rng, clock: Duration) -> IPBlock {
        self.revision += 1;
        object.metadata.resource_version = Some(self.revision.to_string());
        self.objects.insert(name_of(&object), object.clone());
        self.tell(&object.spec.node_name.clone(), Input::Changed(object.clone()), rng, clock);
        object
    }

    fn tell(&mut self, node: &Option<String>, event: Input, rng: &mut Rng, clock: Duration) {
        let number = node.as_deref().and_then(|name| name.strip_prefix("worker-")?.parse::<usize>().ok());
        if let Some(events) = number.and_then(|n| self.watches.get_mut(&n)) {
            let delay = Duration::from_millis(if rng.chance(20) { rng.below(8_000) } else { rng.below(50) });
            let after = events.back().map_or(clock, |(at, _)| *at);
            events.push_back((after.max(clock + delay), event));
        }
    }
}

fn name_of(object: &IPBlock) -> String {
    object.metadata.name.clone().expect("an object has a name")
}

/// What is stored is text: what does not survive it must not be relied on.
fn through_json(object: &IPBlock) -> IPBlock {
    let text = serde_json::to_string(object).expect("it serializes");
    serde_json::from_str(&text).expect("it reads back")
}

pub(super) fn describe(request: &StoreRequest) -> String {
    match request {
        StoreRequest::Get { cidr } => format!("Get {cidr}"),
        StoreRequest::Create(object) => format!("Create {}", object.spec.cidr),
        StoreRequest::Replace(object) => {
            let revision = object.metadata.resource_version.as_deref().unwrap_or("-");
            let (owned, cooling) = (object.spec.allocations.len(), object.spec.released.len());
            format!("Replace {} at {revision}: {owned} owned, {cooling} cooling", object.spec.cidr)
        }
        StoreRequest::Delete { cidr, revision, .. } => format!("Delete {cidr} at {revision}"),
    }
}

pub(super) fn describe_input(input: &Input) -> String {
    match input {
        Input::Answer { answer, .. } => match answer {
            StoreAnswer::Created(o) | StoreAnswer::Replaced(o) | StoreAnswer::Found(o) => {
                format!("{} is {:?} of {:?}", o.spec.cidr, o.metadata.resource_version, o.spec.node_name)
            }
            other => format!("{other:?}"),
        },
        Input::Changed(object) => {
            format!("{} changed: {:?}", object.spec.cidr, object.metadata.resource_version)
        }
        other => format!("{other:?}"),
    }
}

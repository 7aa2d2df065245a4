#![allow(clippy::wildcard_enum_match_arm)]

use manx_crds::annotations::IP_ADDRESSES;

use super::*;
use crate::journal::Step;
use crate::pool::Assignment;

/// An allocator and what it asked for, with a store that the test plays by hand.
struct Node {
    allocator: Allocator,
    clock: Duration,
    outputs: Vec<Output>,
    revision: u64,
    next: u64,
}

fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    Pool {
        name: name.into(),
        cidr: cidr.parse().unwrap(),
        block_size,
        assignment: Assignment::Automatic,
        node_selector: None,
        namespace_selector: None,
        excluded: Vec::new(),
        terminating: false,
        created: None,
    }
}

impl Node {
    fn new(pools: Vec<Pool>, restored: Restored) -> Node {
        let me = Identity { node: "worker-1".into(), incarnation: "one".into() };
        let allocator = Allocator::new(me, Settings::default(), restored);
        let mut node = Node { allocator, clock: Duration::ZERO, outputs: Vec::new(), revision: 0, next: 0 };
        node.feed(Input::Pools(pools));
        node
    }

    /// Ready: listed, and every claim answered.
    fn ready(pools: Vec<Pool>) -> Node {
        let mut node = Node::new(pools, Restored::default());
        node.feed(Input::Listed(Vec::new()));
        node.grant_all();
        node.outputs.clear();
        node
    }

    fn now(&self) -> Now {
        Now { monotonic: self.clock, wall: Timestamp::UNIX_EPOCH + self.clock }
    }

    fn feed(&mut self, input: Input) {
        self.allocator.handle_input(input, self.now());
        while let Some(output) = self.allocator.poll_output() {
            self.outputs.push(output);
        }
    }

    fn requests(&mut self) -> Vec<(StoreId, StoreRequest)> {
        let (requests, rest) = std::mem::take(&mut self.outputs)
            .into_iter()
            .partition(|output| matches!(output, Output::Store { .. }));
        self.outputs = rest;
        let requests: Vec<Output> = requests;
        requests
            .into_iter()
            .map(|output| match output {
                Output::Store { id, request } => (id, request),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn stored(&mut self, mut object: IPBlock) -> IPBlock {
        self.revision += 1;
        object.metadata.resource_version = Some(self.revision.to_string());
        object.metadata.uid.get_or_insert_with(|| format!("uid-{}", self.revision));
        object
    }

    /// Lets every create, replace and delete succeed, until nothing is asked any more.
    fn grant_all(&mut self) {
        loop {
            let requests = self.requests();
            if requests.is_empty() {
                return;
            }
            for (id, request) in requests {
                let answer = match request {
                    StoreRequest::Create(object) => StoreAnswer::Created(self.stored(*object)),
                    StoreRequest::Replace(object) => StoreAnswer::Replaced(self.stored(*object)),
                    StoreRequest::Delete { .. } => StoreAnswer::Deleted,
                    StoreRequest::Get { .. } => StoreAnswer::NotFound,
                };
                self.feed(Input::Answer { id, answer });
            }
        }
    }

    fn wait(&mut self, by: Duration) {
        self.clock += by;
        self.feed(Input::Timeout);
    }

    fn add(&mut self, name: &str) -> RequestId {
        self.add_with(name, &[])
    }

    fn add_with(&mut self, name: &str, annotations: &[(&str, &str)]) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        let request = AssignRequest {
            container_id: format!("c-{name}"),
            interface: "eth0".into(),
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            pod_annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            ..AssignRequest::default()
        };
        self.feed(Input::Assign { id, request });
        id
    }

    fn del(&mut self, name: &str) {
        let attachment = Attachment { container_id: format!("c-{name}"), interface: "eth0".into() };
        self.feed(Input::Release { id: RequestId(0), attachment });
    }

    fn answer(&self, wanted: RequestId) -> Option<Result<Vec<String>, String>> {
        self.outputs.iter().find_map(|output| match output {
            Output::Assigned { id, addresses } if *id == wanted => {
                Some(Ok(addresses.iter().map(|address| address.ip.to_string()).collect()))
            }
            Output::Failed { id, error } if *id == wanted => Some(Err(error.to_string())),
            _ => None,
        })
    }
}

fn v4() -> Vec<Pool> {
    vec![pool("v4", "10.0.0.0/24", 26)]
}

fn both() -> Vec<Pool> {
    vec![pool("v4", "10.0.0.0/24", 26), pool("v6", "fd00::/120", 122)]
}

#[test]
fn a_spare_block_is_claimed_before_the_first_pod_and_an_add_asks_nobody() {
    let mut node = Node::ready(both());
    assert_eq!(node.allocator.blocks().count(), 2);
    let id = node.add("web");
    let answer = node.answer(id).unwrap().unwrap();
    assert_eq!(answer.len(), 2);
    let [Output::Journal(Record::Pod(record)), Output::Assigned { .. }, rest @ ..] = node.outputs.as_slice()
    else {
        panic!("{:?}", node.outputs)
    };
    assert_eq!((record.step, record.addresses.len()), (Step::Assigned, 2));
    // what is used is no spare any more
    assert!(
        rest.iter().all(|o| matches!(o, Output::Store { request: StoreRequest::Create(_), .. })),
        "{rest:?}"
    );
    assert_eq!(rest.len(), 2);
}

#[test]
fn the_object_follows_within_a_second_in_one_write() {
    let mut node = Node::ready(v4());
    for pod in 0..20 {
        node.add(&format!("web-{pod}"));
        node.wait(Duration::from_millis(10));
    }
    node.grant_all();
    assert!(node.allocator.unsynced_since().is_some());
    let mut writes = Vec::new();
    while let Some(due) = node.allocator.poll_timeout(node.now()).filter(|at| *at < Duration::from_secs(1)) {
        node.clock = due;
        node.feed(Input::Timeout);
        writes.extend(node.requests());
        if !writes.is_empty() {
            break;
        }
    }
    let [(_, StoreRequest::Replace(object))] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(object.spec.allocations.len(), 20);
    assert!(node.clock < Duration::from_secs(1));
    assert_eq!(node.allocator.unsynced_since(), None);
}

#[test]
fn the_same_sandbox_asks_again_and_gets_the_same() {
    let mut node = Node::ready(v4());
    let (one, two) = (node.add("web"), node.add("web"));
    assert_eq!(node.answer(one), node.answer(two));
    let records = node.outputs.iter().filter(|output| matches!(output, Output::Journal(_))).count();
    assert_eq!(records, 1);
}

#[test]
fn both_families_or_none() {
    let mut node = Node::ready(vec![pool("v4", "10.0.0.0/24", 26), pool("v6", "fd00::/128", 128)]);
    let first = node.add("one");
    assert_eq!(node.answer(first).unwrap().unwrap().len(), 2);
    node.grant_all();
    let second = node.add("two");
    assert_eq!(
        node.answer(second).unwrap().unwrap_err(),
        "no IPv6 address for shop/two on worker-1: v6: all 1 blocks claimed, borrowing Never. \
         Add an IPPool, or allow borrowing"
    );
    let used: usize = node.allocator.blocks().map(|block| block.owned().count()).sum();
    assert_eq!(used, 2, "the IPv4 address of the second pod was never taken");
}

#[test]
fn a_block_of_another_node_is_passed_over_and_a_pool_full_of_them_says_so() {
    let mut node = Node::new(vec![pool("v4", "10.0.0.0/30", 31)], Restored::default());
    node.feed(Input::Listed(Vec::new()));
    let id = node.add("web");
    for _ in 0..2 {
        let (create, StoreRequest::Create(mut object)) = node.requests().remove(0) else { panic!() };
        node.feed(Input::Answer { id: create, answer: StoreAnswer::AlreadyExists });
        let (get, StoreRequest::Get { .. }) = node.requests().remove(0) else { panic!() };
        object.spec.node_name = Some("worker-2".into());
        let object = node.stored(*object);
        node.feed(Input::Answer { id: get, answer: StoreAnswer::Found(object) });
    }
    let error = node.answer(id).unwrap().unwrap_err();
    assert!(error.contains("v4: all 2 blocks claimed, borrowing Never. Add an IPPool"), "{error}");
}

#[test]
fn before_the_start_is_over_an_add_waits_and_says_for_what() {
    let mut node = Node::new(v4(), Restored::default());
    let id = node.add("web");
    assert_eq!(node.answer(id), None);
    node.wait(ASSIGN_WAIT);
    assert_eq!(
        node.answer(id).unwrap().unwrap_err(),
        "the addresses of this node are not known yet: its IPBlocks not read from the datastore"
    );
    let id = node.add("web");
    node.del("web");
    assert_eq!(node.answer(id).unwrap().unwrap_err(), "DEL came before the addresses were there");
}

#[test]
fn a_store_that_does_not_answer_is_named_in_the_error() {
    let mut node = Node::new(v4(), Restored::default());
    node.feed(Input::Listed(Vec::new()));
    let id = node.add("web");
    let (create, _) = node.requests().remove(0);
    node.feed(Input::Answer { id: create, answer: StoreAnswer::Unavailable("connect: timed out".into()) });
    // read before writing again
    node.wait(Duration::from_millis(100));
    assert!(matches!(node.requests().as_slice(), [(_, StoreRequest::Get { .. })]));
    node.wait(ASSIGN_WAIT);
    let error = node.answer(id).unwrap().unwrap_err();
    assert!(error.contains("v4: claiming a block: connect: timed out. Wait for the datastore"), "{error}");
}

#[test]
fn a_surplus_block_is_given_back_when_it_was_empty_for_a_while() {
    let mut node = Node::ready(v4());
    node.add("web");
    node.grant_all();
    assert_eq!(node.allocator.blocks().count(), 2);
    node.del("web");
    for _ in 0..61 {
        node.wait(Duration::from_secs(1));
        node.grant_all();
    }
    assert_eq!(node.allocator.blocks().count(), 2, "kept for a while");
    for _ in 0..301 {
        node.wait(Duration::from_secs(1));
        node.grant_all();
    }
    assert_eq!(node.allocator.blocks().count(), 1, "one spare is kept");
    assert!(node.outputs.iter().any(|output| matches!(output, Output::BlockReleased { .. })));
}

#[test]
fn a_pool_that_closes_gets_its_blocks_back_at_once() {
    let mut node = Node::ready(v4());
    node.feed(Input::Pools(vec![Pool { assignment: Assignment::None, ..pool("v4", "10.0.0.0/24", 26) }]));
    assert!(matches!(node.requests().as_slice(), [(_, StoreRequest::Delete { .. })]));
}

#[test]
fn an_address_by_name_is_given_or_refused_with_the_reason() {
    let mut node = Node::ready(v4());
    let block = node.allocator.blocks().next().unwrap().cidr();
    let (wanted, last) = (block.addr().to_string(), "10.9.9.9");
    let id = node.add_with("one", &[(IP_ADDRESSES.key, wanted.as_str())]);
    assert_eq!(node.answer(id).unwrap().unwrap(), [wanted.as_str()]);
    let id = node.add_with("two", &[(IP_ADDRESSES.key, wanted.as_str())]);
    let error = node.answer(id).unwrap().unwrap_err();
    assert!(error.contains(&format!("v4: the address asked for {wanted} belongs to shop/one")), "{error}");
    let id = node.add_with("three", &[(IP_ADDRESSES.key, last)]);
    let error = node.answer(id).unwrap().unwrap_err();
    assert!(error.contains("IPPools: the address asked for 10.9.9.9 lies in none of them"), "{error}");
    // released a moment ago, and asked for by name
    node.del("one");
    let id = node.add_with("four", &[(IP_ADDRESSES.key, wanted.as_str())]);
    assert_eq!(node.answer(id).unwrap().unwrap(), [wanted.as_str()]);
}

/// What the journal and an object say of one block after a restart.
fn restarted(complete: bool) -> (Node, IPBlock) {
    let mut before = Node::ready(v4());
    before.add("kept");
    before.add("dead");
    before.grant_all();
    before.wait(Duration::from_millis(600));
    let (_, StoreRequest::Replace(object)) = before.requests().remove(0) else { panic!() };
    let object = before.stored(*object);
    let mut state = before.allocator.pods().clone();
    state.pods.retain(|attachment, _| attachment.container_id == "c-kept" && complete);
    (Node::new(v4(), Restored { state, complete }), object)
}

#[test]
fn after_a_restart_the_journal_is_the_truth_and_a_block_is_fenced_first() {
    let (mut node, object) = restarted(true);
    node.feed(Input::Listed(vec![object]));
    let id = node.add("new");
    assert_eq!(node.answer(id), None, "no address before a write of this process");
    let (fence, request) =
        node.requests().into_iter().find(|(_, r)| matches!(r, StoreRequest::Replace(_))).unwrap();
    let StoreRequest::Replace(written) = request else { panic!() };
    assert_eq!(written.spec.allocations.len(), 1, "the pod that died with the process before is let go");
    assert_eq!(written.spec.released.len(), 1);
    let written = node.stored(*written);
    node.feed(Input::Answer { id: fence, answer: StoreAnswer::Replaced(written) });
    assert!(node.answer(id).unwrap().is_ok());
}

#[test]
fn without_a_journal_the_object_is_believed_and_a_del_still_finds_its_address() {
    let (mut node, object) = restarted(false);
    node.feed(Input::Listed(vec![object]));
    node.grant_all();
    assert_eq!(node.allocator.blocks().map(|block| block.owned().count()).sum::<usize>(), 2);
    node.del("dead");
    let released =
        node.outputs.iter().any(|o| matches!(o, Output::Released { addresses, .. } if addresses.len() == 1));
    assert!(released, "{:?}", node.outputs);
    assert_eq!(node.allocator.blocks().map(|block| block.owned().count()).sum::<usize>(), 1);
}

#[test]
fn garbage_collection_is_overruled_by_a_pod_that_runs_and_obeyed_for_the_unknown() {
    for (complete, left) in [(true, 1), (false, 0)] {
        let (mut node, object) = restarted(complete);
        node.feed(Input::Listed(vec![object.clone()]));
        node.grant_all();
        let mut emptied = object;
        emptied.spec.allocations.clear();
        emptied.metadata.resource_version = Some("by-the-controller".into());
        node.feed(Input::Changed(emptied.clone()));
        let (get, StoreRequest::Get { .. }) = node.requests().remove(0) else { panic!() };
        emptied.metadata.uid = Some("uid-1".into());
        node.feed(Input::Answer { id: get, answer: StoreAnswer::Found(emptied) });
        assert_eq!(node.allocator.blocks().map(|block| block.owned().count()).sum::<usize>(), left);
    }
}

#[test]
fn a_block_that_another_node_took_is_reported_with_the_pods_it_strands() {
    let mut node = Node::ready(v4());
    node.add("web");
    node.grant_all();
    let cidr = node.allocator.blocks().find(|block| !block.is_empty()).unwrap().cidr();
    node.feed(Input::Gone(cidr));
    let (get, _) = node.requests().remove(0);
    let mut theirs = Block::new(cidr, "v4").unwrap().object(&node.allocator.me, None);
    theirs.spec.node_name = Some("worker-2".into());
    let theirs = node.stored(theirs);
    node.feed(Input::Answer { id: get, answer: StoreAnswer::Found(theirs) });
    let lost = node.outputs.iter().find_map(|output| match output {
        Output::BlockLost { node, addresses, .. } => Some((node.clone(), addresses.len())),
        _ => None,
    });
    assert_eq!(lost, Some(("worker-2".to_owned(), 1)));
    assert!(node.allocator.blocks().all(|block| block.cidr() != cidr));
}

#[test]
fn annotations_that_do_not_parse_fail_the_add() {
    let mut node = Node::ready(v4());
    let id = node.add_with("web", &[("manx.dev/ip-families", "v4")]);
    let error = node.answer(id).unwrap().unwrap_err();
    assert_eq!(
        error,
        "annotation manx.dev/ip-families: invalid value \"v4\": must be IPv4, IPv6 or IPv4,IPv6"
    );
}

#[test]
fn settings_are_those_of_the_configuration_or_the_defaults() {
    let configured = |ipam: serde_json::Value| {
        let object = serde_json::json!({"apiVersion": "manx.dev/v1alpha1", "kind": "FabricConfiguration",
            "metadata": {"name": "default"}, "spec": {"ipam": ipam}});
        Settings::of(Some(&serde_json::from_value(object).unwrap()))
    };
    assert_eq!(Settings::of(None), Settings { cooldown: SignedDuration::from_secs(60), spare_blocks: 1 });
    assert_eq!(configured(serde_json::json!({})), Settings::default());
    let set = configured(serde_json::json!({"cooldown": "1m30s", "spareBlocks": 0}));
    assert_eq!(set, Settings { cooldown: SignedDuration::from_secs(90), spare_blocks: 0 });
}

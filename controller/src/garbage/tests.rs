use jiff::Timestamp;

use super::*;

fn now(seconds: u64) -> Now {
    let wall = Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap();
    Now { monotonic: Duration::from_secs(seconds), wall }
}

fn block(index: usize, node: Option<&str>, extra: &str) -> (Key, IPBlock) {
    let node = node.map(|node| format!("nodeName: {node}, ")).unwrap_or_default();
    let object: IPBlock = serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: IPBlock, metadata: {{name: 10-0-{index}-0-26, resourceVersion: '1', \
         annotations: {{manx.dev/incarnation: x}}}}, spec: {{cidr: 10.0.{index}.0/26, pool: p, {node}{extra}}}}}"
    ))
    .unwrap();
    (Key::cluster(object.name_any()), object)
}

const POD: &str = "allocations: [{ip: 10.0.0.5, owner: {kind: Pod, namespace: a, name: b}}]";

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Plans every second with Nodes listed as asked for, until something is cut.
fn until_cut(
    garbage: &mut Garbage,
    blocks: &BTreeMap<Key, IPBlock>,
    nodes: &[&str],
    from: u64,
) -> (u64, Plan) {
    for at in from..from + 300 {
        let plan = garbage.plan(blocks, &names(nodes), COOLDOWN, now(at));
        if plan.ask {
            garbage.nodes(names(nodes), now(at).monotonic);
        }
        if !plan.cuts.is_empty() || plan.refused.is_some() {
            return (at, plan);
        }
    }
    panic!("nothing happened")
}

#[test]
fn the_blocks_of_a_node_that_is_gone_are_cleared_cooled_and_deleted() {
    let mut garbage = Garbage::default();
    let mut blocks = BTreeMap::from([block(0, Some("gone"), POD), block(1, Some("here"), "")]);
    let (at, plan) = until_cut(&mut garbage, &blocks, &["here"], 0);
    assert!((60..=90).contains(&at), "{at}");
    let [Cut::Clear(cleared)] = plan.cuts.as_slice() else { panic!("{plan:?}") };
    assert_eq!((&cleared.spec.node_name, cleared.spec.allocations.len()), (&None, 0));
    assert_eq!(cleared.spec.released[0].until.0, now(at + 60).wall);
    assert_eq!(cleared.metadata.resource_version.as_deref(), Some("1"));
    // It is under way: nothing is done twice.
    assert!(garbage.plan(&blocks, &names(&["here"]), COOLDOWN, now(at + 1)).cuts.is_empty());
    let key = Key::cluster("10-0-0-0-26");
    blocks.insert(key.clone(), (**cleared).clone());
    garbage.answered(&key, true, now(at + 1).monotonic);
    let plan = garbage.plan(&blocks, &names(&["here"]), COOLDOWN, now(at + 1));
    assert_eq!(plan.reclaimed, [Reclaimed { node: "gone".into(), addresses: 1, blocks: 1 }]);
    assert!(plan.cuts.is_empty());
    assert!(plan.again.unwrap() <= now(at + 62).monotonic);
    let plan = garbage.plan(&blocks, &names(&["here"]), COOLDOWN, now(at + 62));
    assert!(matches!(plan.cuts.as_slice(), [Cut::Delete(_)]), "{plan:?}");
}

#[test]
fn a_node_that_comes_back_loses_nothing() {
    let mut garbage = Garbage::default();
    let blocks = BTreeMap::from([block(0, Some("away"), POD), block(1, Some("here"), "")]);
    for at in 0..300 {
        let there: &[&str] = if at % 50 < 45 { &["here"] } else { &["here", "away"] };
        let plan = garbage.plan(&blocks, &names(&["here"]), COOLDOWN, now(at));
        if plan.ask {
            garbage.nodes(names(there), now(at).monotonic);
        }
        // In some list of any 60 s the Node is there.
        if at % 50 == 46 {
            garbage.nodes(names(there), now(at).monotonic);
        }
        assert!(plan.cuts.is_empty(), "at {at}");
    }
}

#[test]
fn nodes_that_nobody_could_list_are_not_gone() {
    let mut garbage = Garbage::default();
    let blocks = BTreeMap::from([block(0, Some("away"), POD)]);
    assert!(garbage.plan(&blocks, &names(&[]), COOLDOWN, now(0)).ask);
    garbage.nodes(names(&[]), now(0).monotonic);
    for at in 1..300 {
        let plan = garbage.plan(&blocks, &names(&[]), COOLDOWN, now(at));
        garbage.not_asked();
        assert!(plan.cuts.is_empty(), "at {at}");
    }
}

#[test]
fn many_at_once_are_refused_and_one_node_never() {
    let mut blocks: BTreeMap<Key, IPBlock> = (0..6).map(|n| block(n, Some("here"), "")).collect();
    blocks.extend([block(7, Some("gone-a"), ""), block(8, Some("gone-b"), "")]);
    let (_, plan) = until_cut(&mut Garbage::default(), &blocks, &["here"], 0);
    assert!(plan.cuts.is_empty());
    let text = plan.refused.unwrap();
    assert!(
        text.starts_with("2 of 8 IPBlocks belong to 2 Nodes that are not there (gone-a, gone-b)"),
        "{text}"
    );
    let (_, plan) = until_cut(&mut Garbage::default(), &blocks, &["here", "gone-a"], 0);
    assert_eq!((plan.cuts.len(), plan.refused), (1, None));
}

#[test]
fn fifty_blocks_a_minute_and_no_more() {
    let mut garbage = Garbage::default();
    let blocks: BTreeMap<Key, IPBlock> = (0..120).map(|n| block(n, Some("gone"), "")).collect();
    let (at, plan) = until_cut(&mut garbage, &blocks, &[], 0);
    assert_eq!(plan.cuts.len(), 50);
    assert_eq!(plan.again, Some(now(at + 60).monotonic).min(plan.again));
    assert!(garbage.plan(&blocks, &names(&[]), COOLDOWN, now(at + 59)).cuts.is_empty());
    assert_eq!(garbage.plan(&blocks, &names(&[]), COOLDOWN, now(at + 60)).cuts.len(), 50);
}

#[test]
fn what_an_operator_wrote_and_what_another_borrowed_stays() {
    let (key, mut own) = block(0, Some("later"), "");
    own.metadata.annotations = None;
    let borrowed = "allocations: [{ip: 10.0.1.5, owner: {kind: Pod}, borrowedBy: here}, {ip: 10.0.1.6, owner: {kind: Pod}}]";
    let blocks = BTreeMap::from([(key, own), block(1, Some("gone"), borrowed)]);
    let (_, plan) = until_cut(&mut Garbage::default(), &blocks, &["here"], 0);
    let [Cut::Clear(cleared)] = plan.cuts.as_slice() else { panic!("{plan:?}") };
    assert_eq!(cleared.spec.cidr.to_string(), "10.0.1.0/26");
    assert_eq!(cleared.spec.allocations.len(), 1);
    assert_eq!(cleared.spec.allocations[0].borrowed_by.as_deref(), Some("here"));
}

//! The suite: every function asks one thing of any store.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use manx_crds::store::{Part, Revision, Selection, Store, StoreError, Watch, WatchEvent};
use manx_crds::v1alpha1::{BGPPeer, FabricNode, IPBlock, IPPool};
use serde_json::json;

use super::objects::*;

/// Hands the names of all functions of the suite to a macro, behind its own arguments: no backend can leave one out.
macro_rules! every {
    ($run:ident, $($argument:expr),* $(,)?) => {
        $run!(
            $($argument,)*
            create_is_a_claim,
            of_many_claims_one_succeeds,
            replace_compares,
            no_increment_is_lost,
            delete_compares,
            a_finalizer_holds_a_deleted_object,
            what_does_not_validate_is_refused,
            managers_own_their_fields,
            a_wish_for_one_object_meets_no_other_of_its_name,
            a_selection_selects,
            a_watch_goes_on_from_its_list,
            a_watch_resumes_or_is_expired,
        );
    };
}
pub(crate) use every;

/// Two handles on one store: what two processes have.
pub struct Backend<S> {
    pub here: S,
    pub there: S,
}

pub async fn create_is_a_claim<S: Store>(b: &Backend<S>) {
    let made = b.here.create(&pool("p", "10.244.0.0/16")).await.unwrap();
    assert!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    assert_eq!(made.spec, pool("p", "10.244.0.0/16").spec);
    for store in [&b.here, &b.there] {
        let again = store.create(&pool("p", "10.245.0.0/16")).await;
        assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
    }
    assert_eq!(b.there.get::<IPPool>(&cluster("p")).await.unwrap().uid(), made.uid());
    let absent = b.here.get::<IPPool>(&cluster("q")).await;
    assert!(matches!(absent, Err(StoreError::NotFound { .. })));
}

pub async fn of_many_claims_one_succeeds<S: Store>(b: &Backend<S>) {
    for round in 0..20 {
        let claims = (0..8).map(|n| {
            let store = if n % 2 == 0 { b.here.clone() } else { b.there.clone() };
            tokio::spawn(async move { store.create(&block(round, Some(&format!("n{n}")))).await })
        });
        let mut won = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            match claim.await.unwrap() {
                Ok(object) => won.push(object),
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won.len(), 1);
        let stored = b.there.get::<IPBlock>(&cluster(&won[0].name_any())).await.unwrap();
        assert_eq!(stored.spec.node_name, won[0].spec.node_name);
    }
}

pub async fn replace_compares<S: Store>(b: &Backend<S>) {
    let first = b.here.create(&peer("a", "tor", 179)).await.unwrap();
    let mut second = first.clone();
    second.spec.port = Some(1179);
    let second = b.there.replace(&second).await.unwrap();
    assert_eq!(second.spec.port, Some(1179));
    assert_eq!(second.uid(), first.uid());
    assert_ne!(second.resource_version(), first.resource_version());
    assert_ne!(second.metadata.generation, first.metadata.generation);
    let mut stale = first.clone();
    stale.spec.port = Some(2179);
    assert!(is_conflict(&b.here.replace(&stale).await));
    assert_eq!(b.here.get::<BGPPeer>(&cluster("a")).await.unwrap().spec.port, Some(1179));
    let unknown = b.here.replace(&peer("b", "tor", 179)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

/// Of two writers that read the same revision one is refused, in every round: no increment is lost.
pub async fn no_increment_is_lost<S: Store>(b: &Backend<S>) {
    b.here.create(&peer("counter", "tor", 1)).await.unwrap();
    let count = |store: S| async move {
        let mut done = 0;
        while done < 25 {
            let mut object = store.get::<BGPPeer>(&cluster("counter")).await.unwrap();
            object.spec.port = object.spec.port.map(|port| port + 1);
            match store.replace(&object).await {
                Ok(_) => done += 1,
                Err(StoreError::Conflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    let (one, two) = (tokio::spawn(count(b.here.clone())), tokio::spawn(count(b.there.clone())));
    one.await.unwrap();
    two.await.unwrap();
    assert_eq!(b.here.get::<BGPPeer>(&cluster("counter")).await.unwrap().spec.port, Some(51));
}

pub async fn delete_compares<S: Store>(b: &Backend<S>) {
    let made = b.here.create(&pool("p", "10.244.0.0/16")).await.unwrap();
    let key = cluster("p");
    assert!(is_conflict(&b.there.delete::<IPPool>(&key, Some("another"), None).await));
    let old = Revision("another".to_owned());
    assert!(is_conflict(&b.there.delete::<IPPool>(&key, None, Some(&old)).await));
    let revision = Revision(made.resource_version().unwrap());
    b.there.delete::<IPPool>(&key, made.uid().as_deref(), Some(&revision)).await.unwrap();
    let gone = b.here.delete::<IPPool>(&key, None, None).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
    let next = b.here.create(&pool("p", "10.250.0.0/16")).await.unwrap();
    assert_ne!(next.uid(), made.uid(), "another object, though of the same name");
}

pub async fn a_finalizer_holds_a_deleted_object<S: Store>(b: &Backend<S>) {
    b.here.create(&pool("p", "10.244.0.0/16")).await.unwrap();
    let key = cluster("p");
    b.here
        .apply::<IPPool>(&key, None, "manx-controller", Part::Finalizers, json!(["manx.dev/ipam"]))
        .await
        .unwrap();
    b.there.delete::<IPPool>(&key, None, None).await.unwrap();
    let held = b.here.get::<IPPool>(&key).await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(held.spec, pool("p", "10.244.0.0/16").spec);
    let taken = b.there.create(&pool("p", "10.244.0.0/16")).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists { .. })));
    b.there.apply::<IPPool>(&key, None, "manx-controller", Part::Finalizers, json!([])).await.unwrap();
    assert!(matches!(b.here.get::<IPPool>(&key).await, Err(StoreError::NotFound { .. })));
}

pub async fn what_does_not_validate_is_refused<S: Store>(b: &Backend<S>) {
    let bad = b.here.create(&pool("p", "10.244.0.0/28")).await;
    let Err(StoreError::Invalid(text)) = bad else { panic!("{bad:?}") };
    assert_eq!(text, "spec: Invalid value: cidr must be at least one block (blockSize, or /26 and /122)");
    let mut made = b.here.create(&pool("p", "10.244.0.0/16")).await.unwrap();
    made.spec.cidr = "10.245.0.0/16".parse().unwrap();
    let changed = b.there.replace(&made).await;
    let Err(StoreError::Invalid(text)) = changed else { panic!("{changed:?}") };
    assert!(text.ends_with("is immutable: create a second pool and drain this one"), "{text}");
    let status = json!({"capacity": {"assigned": "many"}});
    let refused = b.here.apply::<IPPool>(&cluster("p"), None, "manx-controller", Part::Status, status).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
}

pub async fn managers_own_their_fields<S: Store>(b: &Backend<S>) {
    b.here.create(&node("n1")).await.unwrap();
    let key = cluster("n1");
    let at = "2026-11-20T10:00:00Z";
    let condition = |name: &str| json!({"type": name, "status": "True", "reason": "R", "message": "", "observedGeneration": 1, "lastTransitionTime": at});
    let agent = |name: &str| json!({"name": name, "version": "0.1.0", "schemaRevision": 1});
    let felix = json!({"addresses": {"ipv4": "10.0.0.1"}, "agents": [agent("felix")], "conditions": [condition("AddressesReady")]});
    let bgpd =
        json!({"bgp": {"asn": 64512}, "agents": [agent("bgpd")], "conditions": [condition("BGPReady")]});
    b.here.apply::<FabricNode>(&key, None, "manx-felix", Part::Status, felix.clone()).await.unwrap();
    let both = b.there.apply::<FabricNode>(&key, None, "manx-bgpd", Part::Status, bgpd).await.unwrap();
    let status = both.status.clone().unwrap();
    assert_eq!((status.agents.len(), status.conditions.len()), (2, 2));
    assert_eq!(status.bgp.unwrap().asn, Some(64512));
    let again = b.here.apply::<FabricNode>(&key, None, "manx-felix", Part::Status, felix).await.unwrap();
    assert_eq!(again.resource_version(), both.resource_version(), "the same wish writes nothing");

    let labels = json!({"example.com/rack": "12"});
    b.here.apply::<FabricNode>(&key, None, "manx-felix", Part::Labels, labels).await.unwrap();
    let less = b.there.apply::<FabricNode>(&key, None, "manx-bgpd", Part::Status, json!({})).await.unwrap();
    let status = less.status.clone().unwrap();
    assert_eq!((status.agents.len(), status.conditions.len(), status.bgp), (1, 1, None));
    assert_eq!(less.labels()["example.com/rack"], "12");

    let mut spec = less.clone();
    spec.spec.router_id = Some("10.9.9.9".parse().unwrap());
    let replaced = b.here.replace(&spec).await.unwrap();
    assert_eq!(replaced.status, less.status, "replace touches no status");
    assert_eq!(replaced.labels(), less.labels());
    let none = b.here.apply::<FabricNode>(&key, None, "manx-felix", Part::Labels, json!({})).await.unwrap();
    assert!(none.labels().is_empty(), "{:?}", none.labels());
    let absent = b.here.apply::<FabricNode>(&cluster("n2"), None, "manx-bgpd", Part::Status, json!({})).await;
    assert!(matches!(absent, Err(StoreError::NotFound { .. })));
}

pub async fn a_wish_for_one_object_meets_no_other_of_its_name<S: Store>(b: &Backend<S>) {
    let key = cluster("p");
    let first = b.here.create(&pool("p", "10.244.0.0/16")).await.unwrap().uid();
    let status = json!({"capacity": {"assigned": 7}});
    let finalizer = json!(["manx.dev/ipam"]);
    let wish = async |store: &S, uid: Option<&str>, part: Part| {
        let body = if part == Part::Status { status.clone() } else { finalizer.clone() };
        store.apply::<IPPool>(&key, uid, "manx-controller", part, body).await
    };
    let met = wish(&b.there, first.as_deref(), Part::Status).await.unwrap();
    assert_eq!(met.status.unwrap().capacity.unwrap().assigned, Some(7));
    b.there.delete::<IPPool>(&key, None, None).await.unwrap();
    for part in [Part::Status, Part::Finalizers] {
        let gone = wish(&b.there, first.as_deref(), part).await;
        assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{part:?}: {gone:?}");
    }
    let second = b.here.create(&pool("p", "10.244.0.0/16")).await.unwrap();
    for part in [Part::Status, Part::Finalizers] {
        let other = wish(&b.there, first.as_deref(), part).await;
        assert!(is_conflict(&other), "{part:?}: {other:?}");
    }
    let labels =
        b.there.apply::<IPPool>(&key, first.as_deref(), "manx-felix", Part::Labels, json!({"a": "b"}));
    assert!(is_conflict(&labels.await));
    let untouched = b.here.get::<IPPool>(&key).await.unwrap();
    assert_eq!(untouched.resource_version(), second.resource_version());
    assert!(untouched.status.is_none_or(|status| status.capacity.is_none()));
    wish(&b.there, second.uid().as_deref(), Part::Finalizers).await.unwrap();
    wish(&b.there, second.uid().as_deref(), Part::Status).await.unwrap();
}

pub async fn a_selection_selects<S: Store>(b: &Backend<S>) {
    for (number, owner) in [(1, Some("n1")), (2, Some("n2")), (3, None)] {
        b.here.create(&block(number, owner)).await.unwrap();
    }
    let of_node = |name: &str| Selection {
        fields: BTreeMap::from([("spec.nodeName".into(), name.into())]),
        ..everything()
    };
    let list = b.there.list::<IPBlock>(&of_node("n1")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let mut watch = b.there.watch::<IPBlock>(&of_node("n1"), &list.revision).await.unwrap();

    let mut free = b.here.get::<IPBlock>(&cluster("10-244-3-0-26")).await.unwrap();
    free.spec.node_name = Some("n1".into());
    let mut claimed = b.here.replace(&free).await.unwrap();
    assert_eq!(put(&mut watch).await.name_any(), "10-244-3-0-26", "it entered the selection");
    claimed.spec.node_name = None;
    b.here.replace(&claimed).await.unwrap();
    assert_eq!(deleted(&mut watch).await.name_any(), "10-244-3-0-26", "it left the selection");

    b.here.create(&peer("a", "tor", 179)).await.unwrap();
    b.here.create(&peer("b", "spine", 179)).await.unwrap();
    let labels: LabelSelector = serde_saphyr::from_str("{matchLabels: {tier: tor}}").unwrap();
    let tors = Selection { labels: Some(labels), ..everything() };
    let list = b.here.list::<BGPPeer>(&tors).await.unwrap();
    assert_eq!(list.items.iter().map(|peer| peer.name_any()).collect::<Vec<_>>(), ["a"]);
    let unknown = Selection { fields: BTreeMap::from([("spec.asn".into(), "1".into())]), ..everything() };
    assert!(matches!(b.here.list::<BGPPeer>(&unknown).await, Err(StoreError::Invalid(_))));
}

pub async fn a_watch_goes_on_from_its_list<S: Store>(b: &Backend<S>) {
    b.here.create(&pool("before", "10.1.0.0/16")).await.unwrap();
    let list = b.here.list::<IPPool>(&everything()).await.unwrap();
    // a change between the list and the watch is not lost
    b.there.create(&pool("between", "10.2.0.0/16")).await.unwrap();
    let mut watch = b.here.watch::<IPPool>(&everything(), &list.revision).await.unwrap();
    assert_eq!(put(&mut watch).await.name_any(), "between");
    let after = b.there.create(&pool("after", "10.3.0.0/16")).await.unwrap();
    assert_eq!(put(&mut watch).await.resource_version(), after.resource_version());
    b.there.delete::<IPPool>(&cluster("before"), None, None).await.unwrap();
    assert_eq!(deleted(&mut watch).await.name_any(), "before");
}

pub async fn a_watch_resumes_or_is_expired<S: Store>(b: &Backend<S>) {
    let list = b.here.list::<IPPool>(&everything()).await.unwrap();
    let mut watch = b.here.watch::<IPPool>(&everything(), &list.revision).await.unwrap();
    b.there.create(&pool("a", "10.1.0.0/16")).await.unwrap();
    assert_eq!(put(&mut watch).await.name_any(), "a");
    let reached = watch.revision();
    drop(watch);
    b.there.create(&pool("b", "10.2.0.0/16")).await.unwrap();
    b.there.delete::<IPPool>(&cluster("a"), None, None).await.unwrap();
    match b.here.watch::<IPPool>(&everything(), &reached).await {
        Ok(mut resumed) => {
            // `a` may be told again: it is gone at the end all the same
            let (mut gone, mut made) = (false, false);
            while !(gone && made) {
                match soon(resumed.next()).await.unwrap() {
                    WatchEvent::Put(object) => made |= object.name_any() == "b",
                    WatchEvent::Deleted(object) => gone |= object.name_any() == "a",
                    other => panic!("{other:?}"),
                }
            }
        }
        Err(StoreError::Expired { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    let unknown = b.here.watch::<IPPool>(&everything(), &Revision("no such moment".to_owned())).await;
    assert!(matches!(unknown, Err(StoreError::Expired { .. })));
}

//! Objects to store, and patience.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use manx_crds::store::{Key, Object, Selection, Store, StoreError, Watch, WatchEvent};
use manx_crds::v1alpha1::{BGPPeer, FabricNode, IPBlock, IPPool};

pub fn cluster(name: &str) -> Key {
    Key { namespace: None, name: name.to_owned() }
}

pub fn pool(name: &str, cidr: &str) -> IPPool {
    IPPool::new(name, serde_saphyr::from_str(&format!("{{cidr: '{cidr}'}}")).unwrap())
}

pub fn peer(name: &str, tier: &str, port: u16) -> BGPPeer {
    let spec = format!("{{address: 10.0.0.1, asn: 65001, port: {port}}}");
    let mut peer = BGPPeer::new(name, serde_saphyr::from_str(&spec).unwrap());
    peer.metadata.labels = Some(BTreeMap::from([("tier".to_owned(), tier.to_owned())]));
    peer
}

pub fn block(number: u8, node: Option<&str>) -> IPBlock {
    let cidr: manx_crds::v1alpha1::Cidr = format!("10.244.{number}.0/26").parse().unwrap();
    let node = node.map_or_else(String::new, |node| format!(", nodeName: {node}"));
    IPBlock::new(
        &cidr.block_name(),
        serde_saphyr::from_str(&format!("{{cidr: {cidr}, pool: p{node}}}")).unwrap(),
    )
}

pub fn node(name: &str) -> FabricNode {
    FabricNode::new(name, Default::default())
}

pub fn everything() -> Selection {
    Selection::default()
}

/// Fails where nothing comes within ten seconds.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("within ten seconds")
}

pub async fn put<K: Object>(watch: &mut impl Watch<K>) -> K {
    match soon(watch.next()).await.unwrap() {
        WatchEvent::Put(object) => object,
        other => panic!("expected Put, got {other:?}"),
    }
}

pub async fn deleted<K: Object>(watch: &mut impl Watch<K>) -> K {
    match soon(watch.next()).await.unwrap() {
        WatchEvent::Deleted(object) => object,
        other => panic!("expected Deleted, got {other:?}"),
    }
}

/// Name and revision of every object.
pub async fn state<K: Object, S: Store>(store: &S) -> BTreeMap<String, String> {
    let list = store.list::<K>(&everything()).await.unwrap();
    list.items.iter().map(|object| (object.name_any(), object.resource_version().unwrap())).collect()
}

pub fn is_conflict<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict { .. }))
}

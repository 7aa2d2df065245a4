//! The objects of the API document, put into a directory as people's files.

use std::collections::BTreeMap;

use manx_crds::store::dir::DirStore;
use manx_crds::store::{InvalidObject, Key, Store, StoreError};
use manx_crds::v1alpha1::*;

use super::api::{Case, Printer, Step, UPSTREAM, Verdict, cases};

/// The folder of a kind: its CRD's name.
fn folders() -> BTreeMap<String, String> {
    crds()
        .unwrap()
        .iter()
        .map(|crd| {
            let of = |pointer: &str| crd.pointer(pointer).unwrap().as_str().unwrap().to_owned();
            (of("/spec/names/kind"), of("/metadata/name"))
        })
        .collect()
}

async fn remove<K: manx_crds::store::Object>(store: &DirStore, key: &Key) {
    match store.delete::<K>(key, None, None).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => {}
        Err(error) => panic!("{key:?}: {error}"),
    }
}

/// What stands in the directory of a name: an object, a refusal, or both.
async fn found<K: manx_crds::store::Object>(store: &DirStore, key: &Key) -> (bool, Option<InvalidObject>) {
    let object = store.get::<K>(key).await.is_ok();
    let invalid = store.invalid::<K>().await.unwrap();
    let own = |what: &InvalidObject| what.name == key.name && what.namespace == key.namespace;
    (object, invalid.into_iter().find(own))
}

/// Calls a function of a kind's type by the kind's name.
macro_rules! by_kind {
    ($kind:expr, $function:ident $arguments:tt, $($type:ident)+) => {
        match $kind {
            $(stringify!($type) => $function::<$type> $arguments.await,)+
            other => panic!("{other} is no kind of ours"),
        }
    };
}

macro_rules! of_kind {
    ($kind:expr, $function:ident $arguments:tt) => {
        by_kind!($kind, $function $arguments,
            FabricConfiguration FabricNode BGPPeer BGPSession BGPAdvertisement BGPFilter BFDProfile IPPool IPBlock
            LoadBalancerPool Tier NetworkPolicy GlobalNetworkPolicy NetworkSet GlobalNetworkSet HostEndpoint)
    };
}

async fn run(case: &Case, folder: &str, directory: &std::path::Path, store: &DirStore) {
    let title = &case.title;
    let key = Key { namespace: case.namespace.clone(), name: case.name.clone() };
    if case.step == Step::Create {
        of_kind!(case.kind.as_str(), remove(store, &key));
    }
    let mut file = directory.join(folder);
    file.extend(case.namespace.as_deref());
    std::fs::create_dir_all(&file).unwrap();
    file.push(format!("{}.yaml", case.name));
    assert_eq!(file.exists(), case.step == Step::Update, "{title}");
    std::fs::write(&file, &case.text).unwrap();
    let (object, fault) = of_kind!(case.kind.as_str(), found(store, &key));
    match &case.verdict {
        Verdict::Accepted => {
            assert_eq!(fault, None, "{title}");
            assert!(object, "{title}");
        }
        Verdict::Refused { want, .. } => {
            let fault = fault.unwrap_or_else(|| panic!("{title} is refused"));
            assert!(fault.error.contains(want), "{title}: {:?} does not hold {want:?}", fault.error);
            // the directory adds of which object a field is unknown
            let of = format!(" of {} {}", case.kind, case.name);
            let error = fault.error.strip_suffix(&of).unwrap_or(&fault.error);
            assert_eq!(Some(error), case.text(Printer::Directory).as_deref(), "{title}");
            // what it replaces stays in force
            assert_eq!(
                (object, fault.last_good),
                (case.step == Step::Update, case.step == Step::Update),
                "{title}"
            );
        }
    }
    if matches!(case.verdict, Verdict::Refused { .. }) && case.step == Step::Create {
        std::fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn every_object_of_the_api_document_gets_its_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let store = DirStore::open(directory.path()).unwrap();
    let folders = folders();
    let (mut accepted, mut refused, mut upstream) = (0, 0, Vec::new());
    for case in cases() {
        let Some(folder) = folders.get(&case.kind) else {
            upstream.push(case.kind);
            continue;
        };
        run(&case, folder, directory.path(), &store).await;
        match case.verdict {
            Verdict::Accepted => accepted += 1,
            Verdict::Refused { .. } => refused += 1,
        }
    }
    assert_eq!((accepted, refused), (29, 67));
    assert_eq!(upstream, UPSTREAM);
    assert_eq!(folders.len(), 16);
}

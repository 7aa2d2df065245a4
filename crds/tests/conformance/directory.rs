//! The suite over the directory backend, and what only a directory has: people's editors and broken files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use manx_crds::store::dir::DirStore;
use manx_crds::store::follow::{Change, Follow};
use manx_crds::store::{
    InvalidObject, Key, NewEvent, Part, Revision, Selection, Store, StoreError, Watch, WatchEvent,
};
use manx_crds::v1alpha1::{BGPPeer, FabricNode, IPBlock, IPPool};
use serde_json::json;

use super::objects::*;
use super::suite::Backend;
use super::{model, suite};

struct Directory {
    directory: tempfile::TempDir,
    backend: Backend<DirStore>,
}

fn directory() -> Directory {
    let directory = tempfile::tempdir().unwrap();
    let open = || DirStore::open(directory.path()).unwrap();
    let backend = Backend { here: open(), there: open() };
    Directory { directory, backend }
}

impl Directory {
    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }
    fn store(&self) -> &DirStore {
        &self.backend.here
    }
    /// A store that remembers nothing, as after a restart.
    fn restarted(&self) -> DirStore {
        DirStore::open(self.directory.path()).unwrap()
    }
    /// As an editor does: in place.
    fn edit(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

macro_rules! one_test_each {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            suite::$name(&directory().backend).await;
        })+
    };
}

suite::every!(one_test_each,);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_ends_where_the_store_does() {
    let directory = directory();
    model::a_follower_ends_where_the_store_does(&directory.backend, directory.restarted()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_reader_ends_where_the_store_does() {
    let directory = directory();
    model::an_interrupted_reader_ends_where_the_store_does(&directory.backend, directory.restarted()).await;
}

const POOL: &str =
    "apiVersion: manx.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: p\nspec:\n  cidr: 10.244.0.0/16\n";
const FILE: &str = "ippools.manx.dev/p.yaml";

async fn watch_from_now(store: &DirStore) -> impl Watch<IPPool> {
    let list = store.list::<IPPool>(&everything()).await.unwrap();
    store.watch::<IPPool>(&everything(), &list.revision).await.unwrap()
}

async fn refusal(watch: &mut impl Watch<IPPool>) -> InvalidObject {
    match soon(watch.next()).await.unwrap() {
        WatchEvent::Invalid(what) => what,
        other => panic!("expected Invalid, got {other:?}"),
    }
}

#[tokio::test]
async fn a_person_writes_a_file_in_a_directory_that_appears_later() {
    let directory = directory();
    let mut watch = watch_from_now(directory.store()).await;
    directory.edit(FILE, POOL);
    let made = put(&mut watch).await;
    assert_eq!(made.spec.cidr.to_string(), "10.244.0.0/16");
    let uid = made.uid().unwrap();
    assert_eq!(directory.restarted().get::<IPPool>(&cluster("p")).await.unwrap().uid(), Some(uid));
    fs::remove_file(directory.path(FILE)).unwrap();
    assert_eq!(deleted(&mut watch).await.name_any(), "p");
    // an editor that writes another name and renames
    directory.edit("ippools.manx.dev/.p.swp", "half");
    directory.edit("ippools.manx.dev/p.yaml~", "old");
    directory.edit("ippools.manx.dev/4913", POOL);
    fs::rename(directory.path("ippools.manx.dev/4913"), directory.path(FILE)).unwrap();
    assert_eq!(put(&mut watch).await.name_any(), "p");
}

#[tokio::test]
async fn the_last_good_version_stays_in_force_also_after_a_restart() {
    let directory = directory();
    directory.edit(FILE, POOL);
    let mut watch = watch_from_now(directory.store()).await;
    for (text, line, error) in [
        (
            POOL.replace("10.244.0.0/16", "10.244.1.0/16"),
            Some(6),
            "spec.cidr: Invalid value: \"10.244.1.0/16\": must be a CIDR in canonical form with no host bits set, such as 10.244.0.0/16 or fd00:10::/48",
        ),
        (
            POOL.replace("10.244.0.0/16", "10.245.0.0/16"),
            Some(6),
            "spec.cidr: Invalid value: \"10.245.0.0/16\": is immutable: create a second pool and drain this one",
        ),
        (POOL.replace("spec:", "spec: ["), Some(5), "not YAML: unclosed bracket"),
        (POOL.replace("cidr", "cird"), Some(5), "unknown field \"cird\" in spec of IPPool p"),
        (
            POOL.replace("name: p", "name: q"),
            Some(4),
            "metadata.name: Invalid value: \"q\": must be \"p\", as the file's place says",
        ),
        (POOL.get(..POOL.len() / 2).unwrap().to_owned(), None, ""),
        ("\u{0}\u{1}".to_owned(), None, "not YAML: "),
    ] {
        directory.edit(FILE, &text);
        let what = refusal(&mut watch).await;
        assert!(what.error.contains(error), "{what:?}");
        assert!(what.last_good);
        let file = fs::canonicalize(directory.path(FILE)).unwrap();
        let line = line.map(|line: u32| format!("{}:{line}:", file.display()));
        assert!(line.is_none_or(|line| what.place.starts_with(&line)), "{what:?}");
        for store in [directory.store(), &directory.restarted()] {
            let in_force = store.get::<IPPool>(&cluster("p")).await.unwrap();
            assert_eq!(in_force.spec.cidr.to_string(), "10.244.0.0/16", "{text}");
            assert_eq!(store.invalid::<IPPool>().await.unwrap(), std::slice::from_ref(&what));
        }
        directory.edit(FILE, POOL);
        let event = soon(watch.next()).await.unwrap();
        assert!(matches!(&event, WatchEvent::Valid(key) if key.name == "p"), "{event:?}");
    }
}

#[tokio::test]
async fn what_was_never_valid_is_absent_and_named() {
    let directory = directory();
    directory.edit("bgppeers.manx.dev/tor-a.yaml", "apiVersion: manx.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: tor-a}\nspec:\n  nodeselector: {}\n  address: 10.0.0.1\n  asn: 65001\n");
    let store = directory.store();
    assert!(store.list::<BGPPeer>(&everything()).await.unwrap().items.is_empty());
    let [what] = &store.invalid::<BGPPeer>().await.unwrap()[..] else { panic!("one") };
    assert_eq!(what.error, "unknown field \"nodeselector\" in spec of BGPPeer tor-a");
    assert_eq!(what.expected.as_deref(), Some("nodeSelector"));
    assert!(what.place.ends_with("/bgppeers.manx.dev/tor-a.yaml:5:3"), "{}", what.place);
    assert_eq!(what.line.as_deref(), Some("  nodeselector: {}"));
    assert!(!what.last_good);
    let taken = store.create(&peer("tor-a", "tor", 179)).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists { .. })), "a person's file is not overwritten");
    store.delete::<BGPPeer>(&cluster("tor-a"), None, None).await.unwrap();
    store.create(&peer("tor-a", "tor", 179)).await.unwrap();
}

#[tokio::test]
async fn a_follower_hears_of_invalid_files_and_of_their_mending() {
    let directory = directory();
    directory.edit(FILE, "spec: [");
    let mut follow = Follow::<DirStore, IPPool>::new(directory.store().clone(), everything());
    assert!(matches!(soon(follow.next()).await, Change::InSync));
    assert!(matches!(soon(follow.next()).await, Change::Invalid(what) if what.name == "p"));
    directory.edit(FILE, POOL);
    let (mut put, mut valid) = (false, false);
    while !(put && valid) {
        match soon(follow.next()).await {
            Change::Put(_) => put = true,
            Change::Valid(key) => valid = key.name == "p",
            other => panic!("{other:?}"),
        }
    }
    fs::remove_dir_all(directory.path("ippools.manx.dev")).unwrap();
    assert!(matches!(soon(follow.next()).await, Change::Deleted(object) if object.name_any() == "p"));
}

#[tokio::test]
async fn a_removed_file_with_a_finalizer_stays_terminating_and_comes_back() {
    let directory = directory();
    directory.edit(FILE, POOL);
    let (store, key) = (directory.store(), cluster("p"));
    let finalizer = json!(["manx.dev/ipam"]);
    let made =
        store.apply::<IPPool>(&key, None, "manx-controller", Part::Finalizers, finalizer).await.unwrap();
    fs::remove_file(directory.path(FILE)).unwrap();
    for store in [store, &directory.restarted()] {
        let held = store.get::<IPPool>(&key).await.unwrap();
        assert!(held.metadata.deletion_timestamp.is_some());
        assert_eq!((held.uid(), held.spec), (made.uid(), made.spec.clone()));
    }
    directory.edit(FILE, POOL);
    let back = store.get::<IPPool>(&key).await.unwrap();
    assert_eq!((back.metadata.deletion_timestamp, back.metadata.uid), (None, made.metadata.uid));
    fs::remove_file(directory.path(FILE)).unwrap();
    store.apply::<IPPool>(&key, None, "manx-controller", Part::Finalizers, json!([])).await.unwrap();
    assert!(store.list::<IPPool>(&everything()).await.unwrap().items.is_empty());
    let left: Vec<_> = fs::read_dir(directory.path(".last/ippools.manx.dev")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn upstream_kinds_are_read_as_files() {
    let directory = directory();
    directory.edit(
        "namespaces/shop.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n",
    );
    directory.edit(
        "pods/shop/web-1.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1}\nspec: {nodeName: n1, containers: [{name: c}]}\n",
    );
    directory.edit("pods/shop/web-2.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web-2}\nspec: {nodeName: n2, hostNetwork: true, containers: [{name: c}]}\n");
    let store = directory.store();
    assert_eq!(store.list::<Namespace>(&everything()).await.unwrap().items.len(), 1);
    let select = |field: &str, value: &str| Selection {
        fields: [(field.to_owned(), value.to_owned())].into(),
        ..everything()
    };
    for (selection, name) in [
        (select("spec.nodeName", "n1"), "web-1"),
        (select("spec.hostNetwork", "false"), "web-1"),
        (select("spec.hostNetwork", "true"), "web-2"),
    ] {
        let found = store.list::<Pod>(&selection).await.unwrap();
        assert_eq!(found.items.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), [name]);
    }
    let key = Key { namespace: Some("shop".into()), name: "web-1".into() };
    let status = json!({"podIP": "10.244.0.1", "podIPs": [{"ip": "10.244.0.1"}]});
    let pod = store.apply::<Pod>(&key, None, "manx-felix", Part::Status, status).await.unwrap();
    assert_eq!(pod.status.unwrap().pod_ip.as_deref(), Some("10.244.0.1"));
    assert_eq!(pod.metadata.namespace.as_deref(), Some("shop"));
    directory.edit("pods/lost.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: lost}\n");
    let [what] = &store.invalid::<Pod>().await.unwrap()[..] else { panic!("one") };
    assert_eq!(
        (what.error.as_str(), what.expected.as_deref()),
        ("Pod stands in the wrong directory", Some("pods/NAMESPACE/"))
    );
}

#[tokio::test]
async fn a_network_policy_with_a_bad_cidr_arrives_and_one_with_an_unknown_field_does_not() {
    let directory = directory();
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: broken}\nspec:\n  podSelector: {}\n  policyTypes: [Ingress]\n  ingress:\n  - from: [{ipBlock: {cidr: 10.0.0.300/24}}]\n    ports: [{port: http, protocol: TCP}, {port: 80, endPort: 90}]\n";
    directory.edit("networkpolicies.networking.k8s.io/shop/broken.yaml", text);
    let store = directory.store();
    let found = store.list::<NetworkPolicy>(&everything()).await.unwrap();
    assert_eq!(found.items.len(), 1, "{:?}", store.invalid::<NetworkPolicy>().await);
    for (old, new, place, error) in [
        ("podSelector", "podselector", ":5:3", "unknown field \"podselector\" in spec"),
        ("ports:", "port:", ":9:5", "unknown field \"port\" in spec.ingress[0]"),
        ("endPort: 90", "endPort: ninety", ":9:", "spec.ingress[0].ports[1].endPort: Invalid value: "),
        ("podSelector: {}", "podSelector: [x]", ":5:", "spec.podSelector"),
    ] {
        directory.edit("networkpolicies.networking.k8s.io/shop/broken.yaml", &text.replace(old, new));
        let [what] = &store.invalid::<NetworkPolicy>().await.unwrap()[..] else { panic!("{new}: one") };
        assert!(what.error.contains(error) && what.place.contains(place) && what.last_good, "{what:?}");
    }
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    let file = "secrets/manx-system/tor-keys.yaml";
    directory
        .edit(file, "apiVersion: v1\nkind: Secret\nmetadata: {name: tor-keys}\nstringData: {r12: hush}\n");
    let store = directory.store();
    fs::set_permissions(directory.path(file), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(store.list::<Secret>(&everything()).await.unwrap().items.is_empty());
    let [what] = &store.invalid::<Secret>().await.unwrap()[..] else { panic!("one") };
    assert_eq!(what.expected.as_deref(), Some("mode 0600"));
    fs::set_permissions(directory.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(store.list::<Secret>(&everything()).await.unwrap().items.len(), 1);
    let copy = directory.path(".last").join(file);
    assert_eq!(fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn events_are_lines_and_repetition_is_counted() {
    let directory = directory();
    let store = directory.store();
    let object = store.create(&node("n1")).await.unwrap();
    let event = || NewEvent {
        warning: true,
        reason: "IdentityConflict".into(),
        action: "Reconcile".into(),
        note: "two\nlines".into(),
        controller: "manx-controller".into(),
        instance: "n1".into(),
    };
    for _ in 0..5 {
        store.record_event(&object, event()).await.unwrap();
    }
    let text = fs::read_to_string(directory.path(".events/manx-controller.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1);
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["reason"], &line["type"]), (&json!("IdentityConflict"), &json!("Warning")));
    assert_eq!(line["regarding"]["uid"], json!(object.uid()));
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_said_so_and_is_not_empty() {
    let directory = directory();
    assert!(matches!(DirStore::open(directory.path("absent")), Err(StoreError::Unavailable(_))));
    directory.edit(FILE, POOL);
    let mut follow = Follow::<DirStore, IPPool>::new(directory.store().clone(), everything());
    assert!(matches!(soon(follow.next()).await, Change::Put(_)));
    assert!(matches!(soon(follow.next()).await, Change::InSync));
    let aside = directory.directory.path().with_extension("aside");
    fs::rename(directory.directory.path(), &aside).unwrap();
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(700), follow.next()).await;
    assert!(quiet.is_err(), "an unmounted store deletes nothing: {quiet:?}");
    fs::rename(&aside, directory.directory.path()).unwrap();
    fs::remove_file(directory.path(FILE)).unwrap();
    loop {
        match soon(follow.next()).await {
            Change::Deleted(object) => break assert_eq!(object.name_any(), "p"),
            Change::InSync => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Claims blocks 0 to 99 and says which it got.
async fn claim_all(path: &Path, owner: &str) -> Vec<u8> {
    let store = DirStore::open(path).unwrap();
    let mut won = Vec::new();
    for number in 0..100 {
        match store.create(&block(number, Some(owner))).await {
            Ok(_) => won.push(number),
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    won
}

const RACE: &str = "MANX_CONFORMANCE_RACE";

/// Runs as a process of its own, in the directory that the environment names; alone it wins everything.
#[tokio::test]
async fn one_process_claims_everything_it_can() {
    match std::env::var(RACE) {
        Ok(path) => {
            let owner = format!("n{}", std::process::id());
            let won = claim_all(Path::new(&path), &owner).await;
            fs::write(Path::new(&path).join(format!(".won-{owner}")), serde_json::to_string(&won).unwrap())
                .unwrap();
        }
        Err(_) => {
            let directory = directory();
            assert_eq!(claim_all(directory.directory.path(), "n1").await.len(), 100);
        }
    }
}

#[tokio::test]
async fn two_processes_race_and_every_block_has_one_owner() {
    let directory = directory();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "directory::one_process_claims_everything_it_can"])
            .env(RACE, directory.directory.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut processes = [start(), start(), start()];
    let mut all = Vec::new();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
        let owner = format!("n{}", process.id());
        let won: Vec<u8> =
            serde_json::from_slice(&fs::read(directory.path(&format!(".won-{owner}"))).unwrap()).unwrap();
        for number in &won {
            let object =
                directory.store().get::<IPBlock>(&cluster(&block(*number, None).name_any())).await.unwrap();
            assert_eq!(object.spec.node_name.as_deref(), Some(owner.as_str()));
        }
        all.extend(won);
    }
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<u8>>());
    let hidden: Vec<_> = fs::read_dir(directory.path("ipblocks.manx.dev"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "no temporary file is left: {hidden:?}");
}

/// Makes, changes and removes objects until it is killed, or `rounds` are over.
async fn write_on(path: &Path, rounds: usize) {
    let store = DirStore::open(path).unwrap();
    for round in 0..rounds {
        let number = u8::try_from(round % 5).unwrap();
        let key = cluster(&block(number, None).name_any());
        match store.get::<IPBlock>(&key).await {
            Ok(mut object) if object.spec.node_name.is_none() => {
                object.spec.node_name = Some("n1".to_owned());
                store.replace(&object).await.unwrap();
            }
            Ok(object) => {
                let revision = Revision(object.resource_version().unwrap());
                store.delete::<IPBlock>(&key, object.uid().as_deref(), Some(&revision)).await.unwrap();
            }
            Err(StoreError::NotFound { .. }) => {
                store.create(&block(number, None)).await.unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
}

const KILLED: &str = "MANX_CONFORMANCE_KILLED";

/// Runs as a process of its own that is killed; alone it ends by itself, with every block made and taken.
#[tokio::test]
async fn one_process_writes_until_it_is_killed() {
    match std::env::var(KILLED) {
        Ok(path) => write_on(Path::new(&path), usize::MAX).await,
        Err(_) => {
            let directory = directory();
            write_on(directory.directory.path(), 10).await;
            let list = directory.store().list::<IPBlock>(&everything()).await.unwrap();
            assert_eq!(list.items.iter().filter(|b| b.spec.node_name.is_some()).count(), 5);
        }
    }
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_objects_and_no_lock() {
    let directory = directory();
    let (mut alive, mut left) = (0, 0);
    for round in 0..12_u64 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "directory::one_process_writes_until_it_is_killed"])
            .env(KILLED, directory.directory.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(150 + 17 * round)).await;
        assert!(process.try_wait().unwrap().is_none(), "it writes on until it is killed");
        process.kill().unwrap();
        process.wait().unwrap();
        left += temporaries(directory.directory.path());
        let store = directory.restarted();
        assert_eq!(store.invalid::<IPBlock>().await.unwrap(), []);
        alive += store.list::<IPBlock>(&everything()).await.unwrap().items.len();
        write_on(directory.directory.path(), 15).await;
        assert_eq!(temporaries(directory.directory.path()), 0, "what the dead left is cleared");
    }
    assert!(alive > 0, "the killed writers wrote ({left} temporary files were left and cleared)");
}

fn temporaries(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                return temporaries(&entry.path());
            }
            usize::from(entry.file_name().to_string_lossy().ends_with(".tmp"))
        })
        .sum()
}

#[tokio::test]
async fn a_status_in_a_persons_file_is_not_believed() {
    let directory = directory();
    directory.edit("fabricnodes.manx.dev/n1.yaml", "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {name: n1}\nspec: {}\nstatus: {podMTU: 9000}\n");
    let object = directory.store().get::<FabricNode>(&cluster("n1")).await.unwrap();
    assert_eq!(object.status, None);
}

#[tokio::test]
async fn what_agents_said_unreadably_is_refused_and_ignored() {
    let directory = directory();
    directory.edit("pods/shop/web-1.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1}\n");
    let store = directory.store();
    let key = Key { namespace: Some("shop".into()), name: "web-1".into() };
    let refused = store.apply::<Pod>(&key, None, "manx-felix", Part::Status, json!({"podIPs": "none"})).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    store.apply::<Pod>(&key, None, "manx-felix", Part::Status, json!({"podIP": "10.0.0.1"})).await.unwrap();
    let record = directory.path(".status/pods/shop/web-1.yaml");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"10.0.0.1\"", "[1]")).unwrap();
    assert_eq!(store.list::<Pod>(&everything()).await.unwrap().items.len(), 1);
}

//! A service account's token is replaced in its file, as the kubelet does it, and the old one ends: who reads and writes
//! goes on. Here the old one ends at once, which the kubelet never does: it leaves a fifth of the lifetime.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use e2e::cluster::ControlPlane;
use kube::ResourceExt as _;
use manx_crds::store::follow::{Change, Follow};
use manx_crds::store::kube::KubeStore;
use manx_crds::store::{Store as _, StoreError};
use manx_crds::v1alpha1::BGPPeer;

use super::objects::{everything, peer};
use super::{backend, inside, open};

/// A token file is read again once a minute.
const TAKEN_UP: Duration = Duration::from_secs(90);
/// What a server has verified it believes for ten seconds.
const REFUSED: Duration = Duration::from_secs(30);

/// Tokens that end with the Secret that they are bound to.
fn token(plane: &ControlPlane, secret: &str) -> String {
    plane
        .apply(&format!("{{apiVersion: v1, kind: Secret, metadata: {{name: {secret}, namespace: default}}}}"))
        .unwrap();
    let bound = ["--bound-object-kind=Secret", &format!("--bound-object-name={secret}")];
    let text = plane
        .kubectl(&["-n", "default", "create", "token", "rotating", "--duration=600s", bound[0], bound[1]])
        .unwrap();
    text.trim().to_owned()
}

/// Whole or not at all, as the kubelet's links.
fn put(file: &Path, token: &str) {
    let draft = file.with_extension("new");
    std::fs::write(&draft, token).unwrap();
    std::fs::rename(draft, file).unwrap();
}

enum Told {
    Put(String),
    Created(Result<(), StoreError>),
}

/// Who reads and writes, one client and one process from its start to its end.
struct Agent {
    wishes: mpsc::Sender<String>,
    told: mpsc::Receiver<Told>,
    thread: std::thread::JoinHandle<()>,
}

impl Agent {
    fn start(plane: &ControlPlane, config: PathBuf) -> Self {
        let (tell, told) = mpsc::channel();
        let (wishes, wish) = mpsc::channel::<String>();
        let netns = plane.netns().clone();
        let work = async move || {
            let store = open(&config).await;
            let mut follow = Follow::<KubeStore, BGPPeer>::new(store.clone(), everything());
            loop {
                match wish.try_recv() {
                    Ok(name) => {
                        let created = store.create(&peer(&name, "tor", 179)).await;
                        let _ = tell.send(Told::Created(created.map(drop)));
                    }
                    Err(mpsc::TryRecvError::Empty) => {}
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
                let next = tokio::time::timeout(Duration::from_millis(200), follow.next());
                if let Ok(Change::Put(peer)) = next.await {
                    let _ = tell.send(Told::Put(peer.name_any()));
                }
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            netns.run(move || Ok(runtime().block_on(work()))).unwrap();
        });
        Self { wishes, told, thread }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(TAKEN_UP).unwrap()
    }

    fn hears(&self, name: &str) {
        let Told::Put(heard) = self.next() else { panic!("{name} was not asked for") };
        assert_eq!(heard, name);
    }

    fn create(&self, name: &str) -> Result<(), StoreError> {
        self.wishes.send(name.to_owned()).unwrap();
        let Told::Created(outcome) = self.next() else { panic!("{name} is heard before it is made") };
        outcome
    }

    fn end(self) {
        drop(self.wishes);
        self.thread.join().unwrap();
    }
}

pub fn a_rotated_token_is_taken_up(plane: &mut ControlPlane, admin: &Path) {
    inside(plane, async || drop(backend(admin).await));
    plane
        .apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: rotating, namespace: default}}")
        .unwrap();
    let all = ["--clusterrole=cluster-admin", "--serviceaccount=default:rotating"];
    plane.kubectl(&["create", "clusterrolebinding", "rotating", all[0], all[1]]).unwrap();
    let [first, second] = ["first", "second"].map(|secret| token(plane, secret));
    let old = plane.token_kubeconfig("rotating-old", &first).unwrap();
    let config = plane.token_kubeconfig("rotating", &first).unwrap();
    let file = config.with_extension("token");
    put(&file, &first);
    let text = std::fs::read_to_string(&config).unwrap();
    let by_file = text.replace(&format!("token: {first}"), &format!("tokenFile: {}", file.display()));
    assert_ne!(by_file, text);
    std::fs::write(&config, by_file).unwrap();

    let agent = Agent::start(plane, config);
    agent.create("before").unwrap();
    agent.hears("before");

    let replaced = Instant::now();
    put(&file, &second);
    plane.kubectl(&["-n", "default", "delete", "secret", "first"]).unwrap();
    while plane.kubectl_as(&old, &["get", "bgppeers"]).is_ok() {
        assert!(replaced.elapsed() < REFUSED, "the old token is still taken");
        std::thread::sleep(Duration::from_millis(500));
    }
    // A watch that runs is not asked again: this one has to begin anew, with whatever token there is.
    plane.stop_api_server().unwrap();
    plane.start_api_server().unwrap();
    let mut refusals = BTreeSet::new();
    while let Err(error) = agent.create("after") {
        let StoreError::Unavailable(text) = &error else { panic!("{error:?}") };
        refusals.insert(text.clone());
        assert!(replaced.elapsed() < TAKEN_UP, "{refusals:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let wrote = replaced.elapsed().as_secs_f64();
    agent.hears("after");
    let watched = replaced.elapsed().as_secs_f64();
    println!(
        "a token replaced, the old one refused: writes again after {wrote:.0}s, watches after {watched:.0}s; said meanwhile: {refusals:?}"
    );
    assert!(refusals.iter().all(|text| text.contains("refused our token: Unauthorized")), "{refusals:?}");
    agent.end();
}

//! The controller's part where there is none: of all felix on one directory, the one that holds the lock on
//! `.controller.lock` writes the `Accepted` conditions and says which policies were rejected (api.md §13).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::store::Key;
use manx_ipam::pool::{Pool, Pools};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::mpsc;

use crate::objects::Objects;
use crate::writer::{AcceptedKind, Write};

/// How often the lock is tried while another felix holds it.
const TRY: Duration = Duration::from_secs(10);

pub(crate) struct Controller {
    /// The lock of a directory; on Kubernetes manx-controller does this.
    path: Option<PathBuf>,
    writes: mpsc::Sender<Write>,
    /// Held for as long as the process lives; the kernel gives it up with it.
    lock: Option<Flock<File>>,
    tried: Instant,
    written: BTreeMap<(AcceptedKind, String), Condition>,
    rejected: BTreeMap<Key, String>,
}

impl Controller {
    pub(crate) fn new(directory: Option<&Path>, writes: mpsc::Sender<Write>) -> Self {
        let path = directory.map(|directory| directory.join(".controller.lock"));
        Self {
            path,
            writes,
            lock: None,
            tried: Instant::now(),
            written: BTreeMap::new(),
            rejected: BTreeMap::new(),
        }
    }

    /// When to try again to become the one.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        if self.lock.is_some() || self.path.is_none() { None } else { self.tried.checked_add(TRY) }
    }

    /// Whether this felix is the one, trying to become it.
    pub(crate) fn leads(&mut self) -> bool {
        if self.lock.is_some() {
            return true;
        }
        let Some(path) = &self.path else { return false };
        self.tried = Instant::now();
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the controller's lock");
                return false;
            }
        };
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            tracing::info!("this felix writes the controller's conditions");
            self.lock = Some(lock);
        }
        self.lock.is_some()
    }

    /// Looks at everything that may be accepted or not; writes what differs from what was written.
    pub(crate) fn judge(&mut self, objects: &Objects) {
        if !objects.in_sync() || !self.leads() {
            return;
        }
        let configuration = objects.configuration.iter().next();
        if let Some(object) = configuration {
            self.say(
                AcceptedKind::FabricConfiguration,
                &object.name_any(),
                object.metadata.generation,
                Ok(()),
            );
        }
        for object in objects.peers.iter() {
            let verdict = acceptance::bgp_peer(object, configuration);
            self.say(AcceptedKind::BGPPeer, &object.name_any(), object.metadata.generation, verdict);
        }
        for object in objects.advertisements.iter() {
            let verdict = acceptance::bgp_advertisement(object, configuration);
            self.say(AcceptedKind::BGPAdvertisement, &object.name_any(), object.metadata.generation, verdict);
        }
        let pools = Pools::new(objects.pools.iter().filter_map(|object| Pool::try_from(object).ok()));
        for object in objects.pools.iter() {
            let overlap = pools.get(&object.name_any()).and_then(|pool| pools.overlaps(pool));
            let verdict = acceptance::ip_pool(object).and(match overlap {
                Some(older) => Err(Refusal {
                    reason: "Overlaps",
                    message: format!(
                        "{} overlaps IPPool {} ({}); the older pool is used",
                        object.spec.cidr, older.name, older.cidr
                    ),
                }),
                None => Ok(()),
            });
            self.say(AcceptedKind::IPPool, &object.name_any(), object.metadata.generation, verdict);
        }
        self.policies(objects);
    }

    fn say(&mut self, kind: AcceptedKind, name: &str, generation: Option<i64>, verdict: Result<(), Refusal>) {
        let (status, reason, message) = match verdict {
            Ok(()) => ("True", "Accepted", String::new()),
            Err(refusal) => ("False", refusal.reason, refusal.message),
        };
        let slot = (kind, name.to_owned());
        let before = self.written.get(&slot);
        let same = before.is_some_and(|before| {
            before.status == status
                && before.reason == reason
                && before.message == message
                && before.observed_generation == generation
        });
        if same {
            return;
        }
        let last_transition_time = match before {
            Some(before) if before.status == status => before.last_transition_time.clone(),
            Some(_) | None => Time(Timestamp::now()),
        };
        let condition = Condition {
            type_: "Accepted".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time,
            observed_generation: generation,
        };
        let write = Write::Accepted { kind, name: name.to_owned(), condition: Box::new(condition.clone()) };
        if self.writes.try_send(write).is_ok() {
            self.written.insert(slot, condition);
        }
    }

    /// Upstream NetworkPolicy has no status: what is not honoured of it is an Event, once for each content.
    fn policies(&mut self, objects: &Objects) {
        self.rejected.retain(|key, _| objects.policies.objects.contains_key(key));
        for (key, object) in &objects.policies.objects {
            let texts: Vec<String> = felix_input::network_policy(object)
                .rejected
                .into_iter()
                .map(|rejected| rejected.text)
                .collect();
            if texts.is_empty() {
                self.rejected.remove(key);
                continue;
            }
            let note = texts.join("; ");
            if self.rejected.get(key) != Some(&note)
                && self
                    .writes
                    .try_send(Write::PolicyRejected { policy: key.clone(), note: note.clone() })
                    .is_ok()
            {
                self.rejected.insert(key.clone(), note);
            }
        }
    }
}

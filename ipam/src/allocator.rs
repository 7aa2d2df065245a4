//! The addresses of one node, as a value: requests, store answers and time go in, store requests, journal records
//! and answers come out.
//!
//! ```text
//!   pools, labels, settings ─┐                          ┌─▶ Journal   durable before anything behind it acts
//!   own blocks, watch hints ─┼─▶ handle_input ─▶ drain ─┼─▶ Store     one request in flight per block
//!   store answers, requests ─┘        │                 └─▶ Assigned, Failed, Released
//!                                settle: expire, serve what waits, keep spares, drive every block
//! ```
//! Drive it with [`Allocator::handle_input`], then drain [`Allocator::poll_output`] until `None`, then wait for
//! whichever comes first: the next input, or [`Allocator::poll_timeout`].
//!
//! **Order of outputs.** A [`Output::Journal`] record must be durable before a store request behind it is sent and
//! before the runtime hears of an answer behind it. Wiring a pod may begin at once: after a crash its record is
//! missing, its address in no block of the journal, and nobody was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use manx_crds::annotations::BadAnnotation;
use manx_crds::v1alpha1::{FabricConfiguration, IPBlock};

use crate::block::Block;
use crate::journal::{Address, Attachment, Record, State};
use crate::pool::{NoAddress, Pool, Pools};

mod assign;
mod blocks;
#[cfg(test)]
mod fault;
mod held;
mod release;
#[cfg(test)]
mod tests;

use blocks::SpareSearch;
#[cfg(test)]
pub use fault::Fault;
use held::Held;

/// The two clocks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed moment of this process; never set back. Delays are measured by it.
    pub monotonic: Duration,
    /// The time of day: the end of a cooldown outlives the process.
    pub wall: Timestamp,
}

/// What FabricConfiguration says (api.md §4.1). Borrowing is not among it: every block serves its own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub cooldown: SignedDuration,
    pub spare_blocks: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { cooldown: SignedDuration::from_secs(60), spare_blocks: 1 }
    }
}

impl Settings {
    /// As configured, or the defaults.
    pub fn of(configuration: Option<&FabricConfiguration>) -> Settings {
        let ipam = configuration.and_then(|configuration| configuration.spec.ipam.as_ref());
        let default = Settings::default();
        let cooldown = ipam.and_then(|ipam| ipam.cooldown);
        Settings {
            cooldown: cooldown
                .and_then(|cooldown| SignedDuration::try_from(cooldown.get()).ok())
                .unwrap_or(default.cooldown),
            spare_blocks: ipam.and_then(|ipam| ipam.spare_blocks).unwrap_or(default.spare_blocks),
        }
    }
}

/// Who allocates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: String,
    /// Another text for every start of the process: the fence against requests of the process before it.
    pub incarnation: String,
}

/// The journal as it was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub state: State,
    /// False: the journal is new, was lost or is damaged, so a block may hold allocations that it does not know.
    pub complete: bool,
}

/// Names a request of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names a request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(pub u64);

/// Addresses for one interface of one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignRequest {
    pub container_id: String,
    pub interface: String,
    pub namespace: String,
    pub name: String,
    /// The uid that the runtime was told.
    pub uid: String,
    /// Of the runtime: what one of its collections is about.
    pub network: String,
    pub pod_annotations: BTreeMap<String, String>,
    pub namespace_annotations: BTreeMap<String, String>,
    pub namespace_labels: BTreeMap<String, String>,
}

impl AssignRequest {
    pub fn attachment(&self) -> Attachment {
        Attachment { container_id: self.container_id.clone(), interface: self.interface.clone() }
    }
}

#[derive(Clone, Debug)]
pub enum Input {
    /// All pools, at the start and whenever one changes.
    Pools(Vec<Pool>),
    /// This node's labels.
    NodeLabels(BTreeMap<String, String>),
    Settings(Settings),
    /// All blocks whose `nodeName` is ours: at the start, and again after the watch expired.
    Listed(Vec<IPBlock>),
    /// The store gives no answer: the blocks of ours as an earlier start heard of them last. What was given back since
    /// is in the journal; only with a whole journal are addresses given.
    Remembered(Vec<IPBlock>),
    /// The watch shows a block of ours, new or changed. A hint: what it says may be old.
    Changed(IPBlock),
    /// The watch shows that a block of ours is gone. A hint.
    Gone(IpNet),
    Answer {
        id: StoreId,
        answer: StoreAnswer,
    },
    Assign {
        id: RequestId,
        request: AssignRequest,
    },
    /// DEL, or an ADD that failed behind the assignment. A request of the same attachment that still waits fails.
    Release {
        id: RequestId,
        attachment: Attachment,
    },
    /// [`Allocator::poll_timeout`] has come.
    Timeout,
}

/// What the store said, one variant for each way in which it matters.
#[derive(Clone, Debug)]
pub enum StoreAnswer {
    Created(IPBlock),
    AlreadyExists,
    Replaced(IPBlock),
    Deleted,
    Found(IPBlock),
    /// The object is not there.
    NotFound,
    /// The revision was not the newest.
    Conflict,
    /// No answer: nobody knows whether the write took place, or will.
    Unavailable(String),
    /// Refused by validation or rights: the same request would be refused again.
    Refused(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum StoreRequest {
    Get {
        cidr: IpNet,
    },
    Create(Box<IPBlock>),
    /// Only if `metadata.resourceVersion` is the newest.
    Replace(Box<IPBlock>),
    /// Only this uid at this revision.
    Delete {
        cidr: IpNet,
        uid: String,
        revision: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Journal(Record),
    Store {
        id: StoreId,
        request: StoreRequest,
    },
    Assigned {
        id: RequestId,
        addresses: Vec<Address>,
    },
    Failed {
        id: RequestId,
        error: AssignError,
    },
    /// Addresses that were released: none, if the attachment is unknown, which is no error.
    Released {
        id: RequestId,
        addresses: Vec<IpAddr>,
    },
    /// A block was claimed, after this many requests to the store.
    BlockClaimed {
        cidr: IpNet,
        pool: String,
    },
    /// A surplus block was given back.
    BlockReleased {
        cidr: IpNet,
        pool: String,
    },
    /// Another node holds a block that was ours; these of its addresses are in use here. A person must act.
    BlockLost {
        cidr: IpNet,
        node: String,
        addresses: Vec<IpAddr>,
    },
}

/// Why there are no addresses. The text is the Event's and the CNI error's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    #[error(transparent)]
    BadAnnotation(#[from] BadAnnotation),
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    #[error("the addresses of this node are not known yet: {missing} not read from the datastore")]
    NotInSync { missing: &'static str },
    #[error("DEL came before the addresses were there")]
    Cancelled,
}

/// The owner of one node's blocks.
#[derive(Debug)]
pub struct Allocator {
    me: Identity,
    settings: Settings,
    pools: Option<Pools>,
    node_labels: BTreeMap<String, String>,
    /// The blocks of this node were listed.
    listed: bool,
    /// They were not, but an earlier start's memory of them is in force.
    remembered: bool,
    /// Every pod whose addresses were given, and what cooled down when the process started.
    known: State,
    /// Everything that the journal does not know is dead, or came from elsewhere.
    complete: bool,
    held: BTreeMap<IpNet, Held>,
    /// Blocks of other nodes that were met, until when that is believed.
    taken: BTreeMap<IpNet, Taken>,
    /// Why the last claim in a pool failed, until when it is not tried again.
    refused: BTreeMap<String, RefusedClaim>,
    spare_search: BTreeMap<String, SpareSearch>,
    waiting: VecDeque<Waiting>,
    outputs: VecDeque<Output>,
    next_store_id: u64,
    #[cfg(test)]
    fault: Option<Fault>,
}

#[derive(Clone, Debug)]
struct Taken {
    node: String,
    until: Duration,
}

#[derive(Clone, Debug)]
struct RefusedClaim {
    text: String,
    until: Duration,
}

/// An assignment that waits for a block or for the start to be over.
#[derive(Debug)]
struct Waiting {
    id: RequestId,
    request: AssignRequest,
    deadline: Duration,
}

/// How long an assignment waits for a claim. Runtimes try an ADD again by themselves.
const ASSIGN_WAIT: Duration = Duration::from_secs(10);

impl Allocator {
    pub fn new(me: Identity, settings: Settings, restored: Restored) -> Allocator {
        Allocator {
            me,
            settings,
            pools: None,
            node_labels: BTreeMap::new(),
            listed: false,
            remembered: false,
            known: restored.state,
            complete: restored.complete,
            held: BTreeMap::new(),
            taken: BTreeMap::new(),
            refused: BTreeMap::new(),
            spare_search: BTreeMap::new(),
            waiting: VecDeque::new(),
            outputs: VecDeque::new(),
            next_store_id: 0,
            #[cfg(test)]
            fault: None,
        }
    }

    pub fn handle_input(&mut self, input: Input, now: Now) {
        match input {
            Input::Pools(pools) => self.pools = Some(Pools::new(pools)),
            Input::NodeLabels(labels) => self.node_labels = labels,
            Input::Settings(settings) => self.settings = settings,
            Input::Listed(objects) => self.on_list(objects, now),
            Input::Remembered(objects) => self.on_remembered(&objects, now),
            Input::Changed(object) => self.on_changed(&object, now),
            Input::Gone(cidr) => self.on_gone(cidr),
            Input::Answer { id, answer } => self.on_answer(id, answer, now),
            Input::Assign { id, request } => {
                let deadline = now.monotonic.saturating_add(ASSIGN_WAIT);
                self.waiting.push_back(Waiting { id, request, deadline });
            }
            Input::Release { id, attachment } => self.release(id, &attachment, now),
            Input::Timeout => {}
        }
        self.settle(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due at the latest, on the monotonic clock.
    pub fn poll_timeout(&self, now: Now) -> Option<Duration> {
        let blocks = self.held.values().filter_map(|held| held.next_deadline(self.settings, now));
        let waiting = self.waiting.iter().map(|waiting| waiting.deadline);
        let searches = self.spare_search.values().map(|search| search.not_before);
        let refused = self.refused.values().map(|refused| refused.until);
        let later = searches.chain(refused).filter(|at| *at > now.monotonic);
        blocks.chain(waiting).chain(later).min()
    }

    /// The pods whose addresses were given, each as its first record says. Later steps are the caller's, who folds
    /// every record that it appends into a [`State`] of its own and compacts that one.
    pub fn pods(&self) -> &State {
        &self.known
    }

    /// The blocks of this node that serve, or will once the store has confirmed them.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.held.values().map(|held| &held.block)
    }

    /// Since when an object lags behind what was given, on the monotonic clock (metric `ipam_unsynced_seconds`).
    pub fn unsynced_since(&self) -> Option<Duration> {
        self.held.values().filter_map(|held| held.dirty_since).min()
    }

    /// Brings everything to where it belongs. Level-triggered: what it does depends on what is, not on the input.
    fn settle(&mut self, now: Now) {
        self.taken.retain(|_, taken| taken.until > now.monotonic);
        self.refused.retain(|_, refused| refused.until > now.monotonic);
        self.known.cooling.retain(|_, until| *until > now.wall);
        for held in self.held.values_mut() {
            held.expire(self.settings.cooldown, now);
        }
        self.serve_waiting(now);
        self.keep_spares(now);
        self.drive_blocks(now);
    }

    /// Addresses that the journal knows: nobody's word but a release takes them away.
    fn known_addresses(&self) -> BTreeSet<IpAddr> {
        self.known.pods.values().flat_map(|pod| pod.addresses.iter().map(|address| address.ip)).collect()
    }
}

//! A node of these tests: its objects as one-liners, and what it says where something does not come.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use e2e::bgpd_node::BgpdNode;
use e2e::netns::Netns;
use e2e::process::{tail, wait_for};
use serde_json::Value;

/// What is not Established is written after 10 s; a hold time is 9 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Tests run side by side. Held by one that makes the machine busy, and by one that counts milliseconds on it.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Node {
    name: String,
    bgpd: BgpdNode,
}

impl Deref for Node {
    type Target = BgpdNode;

    fn deref(&self) -> &BgpdNode {
        &self.bgpd
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut BgpdNode {
        &mut self.bgpd
    }
}

impl Node {
    /// A node with these addresses, of this AS, that tells its blocks to whoever is configured.
    pub(crate) fn new(name: &str, netns: &Netns, directory: &Path, addresses: &[&str], asn: u32) -> Self {
        let node = Self { name: name.to_owned(), bgpd: BgpdNode::new(name, netns, directory).unwrap() };
        node.objects.put_settings().unwrap();
        node.objects.put_node(name, addresses, asn, "").unwrap();
        node.objects.put_advertisement().unwrap();
        node
    }

    /// A BGPPeer; `spec` as in YAML, on one line.
    pub(crate) fn peer(&self, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        );
        self.objects.put(&format!("bgppeers.manx.dev/{name}"), &text).unwrap();
    }

    pub(crate) fn claim(&self, block: &str) {
        self.objects.put_block(block, &self.name).unwrap();
    }

    pub(crate) fn start(&mut self) {
        self.bgpd.start(&[]).unwrap();
    }

    /// Status, reason and message of condition Established, as it was last written.
    pub(crate) fn established(&self, peer: &str) -> (String, String, String) {
        self.condition(peer, "Established")
    }

    /// Waits for something, and shows what there is when it does not come.
    pub(crate) fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            panic!("not within {PATIENCE:?}: {what}\n{:#?}\n{}", self.sessions(), tail(&self.log(), 40));
        }
        println!("{what}: after {:?}", began.elapsed());
    }

    /// The kernel's route to a prefix as bgpd wrote it.
    pub(crate) fn route(&self, prefix: &str) -> Value {
        self.bgpd.route(prefix).unwrap()
    }
}

//! One node with bgpd, one peer, one link; set up anew for every check.

use std::fs;
use std::time::Duration;

use e2e::bgpd_node::BgpdNode;
use e2e::lab::{Lab, link};
use e2e::netns::{Netns, stdout_of};
use e2e::process::{tail, wait_for};
use e2e::store::{Objects, peer};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::columns::Column;
use crate::peers::Peer;
use crate::setup::{FROM, Feature, IDENTITY, Kind, LINK_LOCAL, OWN, Setup, TO};
use crate::third::{TO_MANX, TO_PEER, Third, Told};

/// The third speaker, where the peer and where bgpd finds it, and how the peer gets to its link with the node.
pub(crate) const THIRD_AT_PEER: &str = "10.97.0.3";
const THIRD_AT_NODE: &str = "10.96.0.3";
pub(crate) const THIRD_LINKS: &str = "10.96.0.0/24";

pub(crate) struct Rig {
    pub(crate) setup: Setup,
    column: Column,
    node: BgpdNode,
    peer: Option<Peer>,
    third: Option<ThirdSpeaker>,
    pub(crate) router: Netns,
    /// How long anything is waited for.
    pub(crate) patience: Duration,
    // Last: what is above runs in its namespaces.
    lab: Lab,
}

/// The speaker beside both, with its session to each.
pub(crate) struct ThirdSpeaker {
    pub(crate) with_peer: Third,
    pub(crate) with_manx: Third,
}

impl ThirdSpeaker {
    /// Its links to the router and to the node, and its two sessions, which are dialled from now on.
    fn start(netns: &Netns, router: &Netns, node: &Netns, told: &Told) -> Self {
        for (other, number, name) in [(router, 97, "eth7"), (node, 96, "eth6")] {
            let [here, there] = [3, 1].map(|host| format!("10.{number}.0.{host}/24"));
            link((netns, name, &[&here]), (other, name, &[&there])).unwrap();
        }
        router.ip(&format!("route add {THIRD_LINKS} via 10.9.0.2\n")).unwrap();
        node.ip("route add 10.97.0.0/24 via 10.9.0.1\n").unwrap();
        let with_peer = Third::dial(netns, THIRD_AT_PEER, "10.97.0.1", TO_PEER, &told.to_peer());
        let with_manx = Third::dial(netns, THIRD_AT_NODE, "10.96.0.1", TO_MANX, told);
        Self { with_peer, with_manx }
    }
}

impl Rig {
    /// `number` keeps checks apart that run at the same time.
    pub(crate) fn start(
        column: &Column,
        setup: &Setup,
        patience: Duration,
        number: usize,
    ) -> Result<Self, String> {
        let mut lab = Lab::new(&format!("interop{number}")).unwrap();
        let [n1, router] = ["n1", "peer"].map(|name| lab.space(name).unwrap());
        let node = BgpdNode::new("n1", &n1, lab.directory()).unwrap();
        let (setup, column) = (setup.clone(), column.clone());
        let mut rig = Self { setup, column, node, peer: None, third: None, router, patience, lab };
        rig.link();
        if let Some(told) = &rig.setup.third {
            let netns = rig.lab.space("third").unwrap();
            rig.third = Some(ThirdSpeaker::start(&netns, &rig.router, &rig.node.netns, told));
        }
        rig.put_objects();
        rig.start_bgpd();
        rig.start_peer()?;
        Ok(rig)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.column.kind
    }

    fn link(&mut self) {
        if self.setup.has(Feature::NarrowPipe) {
            for (netns, key) in [(&self.node.netns, "ipv4/tcp_wmem"), (&self.router, "ipv4/tcp_rmem")] {
                netns.sysctl(&[(key, "4096 4096 4096")]).unwrap();
            }
        }
        if self.setup.has(Feature::Unnumbered) {
            return self.link_without_addresses();
        }
        let node = (&self.node.netns, "eth0", ["10.9.0.2/24", "fd09::2/64"].as_slice());
        let other = ["10.9.0.1/24", "fd09::1/64"].as_slice();
        if !self.setup.has(Feature::Multihop) {
            return link(node, (&self.router, "eth0", other)).unwrap();
        }
        // A router between the two.
        let middle = self.lab.space("middle").unwrap();
        link(node, (&middle, "eth0", other)).unwrap();
        link((&middle, "eth1", &["10.98.0.1/24"]), (&self.router, "eth0", &["10.98.0.2/24"])).unwrap();
        middle.ip("route add 10.99.0.1/32 via 10.98.0.2\n").unwrap();
        if self.setup.has(Feature::Identity) {
            self.node.netns.ip(&format!("addr add {IDENTITY}/32 dev lo\n")).unwrap();
            middle.ip(&format!("route add {IDENTITY}/32 via 10.9.0.2\n")).unwrap();
            self.router.ip(&format!("route add {IDENTITY}/32 via 10.98.0.1\n")).unwrap();
        }
        // FRR 10 refuses a session with IPv6 from an interface that has no address of it.
        let addresses = "addr add 10.99.0.1/32 dev lo\naddr add fd99::1/128 dev lo\n";
        self.router.ip(&format!("{addresses}route add 10.9.0.0/24 via 10.98.0.1\n")).unwrap();
        self.node.netns.ip("route add 10.99.0.1/32 via 10.9.0.1\n").unwrap();
    }

    /// Each end is its loopback, where an address of its own prefix answers.
    fn link_without_addresses(&self) {
        for netns in [&self.node.netns, &self.router] {
            // 1: the kernel makes no link-local address.
            netns.sysctl(&[("ipv6/conf/default/addr_gen_mode", "1")]).unwrap();
        }
        let [here, there] = LINK_LOCAL.map(|address| format!("{address}/64"));
        link((&self.node.netns, "eth0", &[&here]), (&self.router, "eth0", &[&there])).unwrap();
        for (netns, answers) in [(&self.node.netns, FROM), (&self.router, TO)] {
            let lines = answers.map(|address| format!("addr add {address} dev lo\n"));
            netns.ip(&lines.concat()).unwrap();
        }
        // GoBGP and OpenBGPD write no kernel routes here: the way back is made for them.
        match self.kind() {
            Kind::Frr | Kind::Bird => {}
            Kind::GoBgp | Kind::OpenBgpd => {
                let [ipv4, ipv6] = OWN;
                let via = LINK_LOCAL[0];
                self.router
                    .ip(&format!(
                        "route add {ipv4} via inet6 {via} dev eth0\nroute add {ipv6} via {via} dev eth0\n"
                    ))
                    .unwrap();
            }
        }
    }

    fn put_objects(&self) {
        let put = |name: &str, text: &str| self.objects().put(name, text).unwrap();
        self.objects().put_settings().unwrap();
        self.objects().put_node("n1", &["10.9.0.2", "fd09::2"], self.setup.manx_asn, "").unwrap();
        put(
            "fabricconfigurations.manx.dev/default",
            &format!(
                "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {{name: default}}\nspec:\n  \
                 topology: {{mode: None}}\n  session: {{timers: {{hold: {}, connectRetry: 1s}}}}\n",
                self.setup.hold
            ),
        );
        for block in OWN {
            self.objects().put_block(block, "n1").unwrap();
        }
        if self.setup.advertises {
            self.put_advertisement("blocks", self.setup.attributes);
        }
        if let Some(password) = self.setup.manx_password {
            self.put_key(password);
        }
        for (name, text) in &self.setup.objects {
            put(name, text);
        }
        if let Some(told) = &self.setup.third {
            let text = peer("third", THIRD_AT_NODE, told.asn, self.setup.third_spec);
            self.objects().put("bgppeers.manx.dev/third", &text).unwrap();
        }
        self.put_peer(&self.setup.spec);
    }

    /// Writes a BGPAdvertisement of the node's blocks; `attributes` as a flow mapping.
    pub(crate) fn put_advertisement(&self, name: &str, attributes: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {{name: {name}}}\nspec: {{pools: {{}}, \
             attributes: {attributes}}}\n"
        );
        self.objects().put(&format!("bgpadvertisements.manx.dev/{name}"), &text).unwrap();
    }

    /// The session's password, as bgpd finds it.
    pub(crate) fn put_key(&self, password: &str) {
        self.objects().put_secret("manx-secrets", "keys", "peer", password).unwrap();
    }

    /// The FabricNode, with further fields of its spec as in a flow mapping.
    pub(crate) fn put_node(&self, more: &str) {
        let asn = self.setup.manx_asn;
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: n1}}\nspec: {{asn: {asn}{more}}}\n"
        );
        self.objects().put("fabricnodes.manx.dev/n1", &text).unwrap();
    }

    /// Writes the BGPPeer, new or changed; `more` are lines of its spec.
    pub(crate) fn put_peer(&self, more: &str) {
        let auth = match self.setup.manx_password {
            Some(_) => "  session: {auth: {md5: {secretRef: {name: keys, key: peer}}}}\n",
            None => "",
        };
        let mut text = peer("peer", self.setup.remote, self.setup.expects, &format!("{auth}{more}"));
        if let Some(kind) = self.setup.asn_type {
            text = text.replace(&format!("asn: {}", self.setup.expects), &format!("asnType: {kind}"));
        }
        if let Some(place) = self.setup.place {
            text = text.replace(&format!("address: \"{}\"", self.setup.remote), place);
        }
        self.objects().put("bgppeers.manx.dev/peer", &text).unwrap();
    }

    /// What the peer wrote, whoever it is.
    pub(crate) fn peer_log(&self) -> String {
        let names = fs::read_dir(self.lab.directory()).unwrap().flatten().map(|entry| entry.path());
        let logs = names.filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    pub(crate) fn start_bgpd(&mut self) {
        self.node.start(&[]).unwrap();
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.node.objects
    }

    pub(crate) fn start_peer(&mut self) -> Result<(), String> {
        let started = Peer::start(
            &self.column,
            &self.lab.router("peer"),
            &self.router,
            self.lab.directory(),
            &self.setup,
        );
        self.peer =
            Some(started.map_err(|error| format!("{} does not start: {error:#}", self.column.name()))?);
        Ok(())
    }

    pub(crate) fn peer(&self) -> &Peer {
        self.peer.as_ref().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill_bgpd(&mut self) {
        self.node.kill().unwrap();
    }

    pub(crate) fn kill_peer(&mut self) {
        // OpenBGPD's other processes end with the first.
        self.peer = None;
    }

    /// One question on the control socket.
    pub(crate) fn ask(&self, question: &str) -> Value {
        self.node.ask(question)
    }

    /// What bgpd says of its session with the peer.
    pub(crate) fn session(&self) -> Value {
        self.node.session("peer")
    }

    /// The first path to a prefix that bgpd has.
    pub(crate) fn path(&self, prefix: &str) -> Value {
        self.node.paths(prefix).into_iter().next().unwrap_or_default()
    }

    /// Whether bgpd refuses the peer's path to a prefix for a reason that has these words.
    pub(crate) fn rejects(&self, prefix: &str, why: &str) -> bool {
        let path = self.path(prefix);
        path["verdict"] == "rejected" && path["why"].as_str().is_some_and(|text| text.contains(why))
    }

    /// What bgpd wrote so far.
    pub(crate) fn said(&self) -> String {
        self.node.said()
    }

    pub(crate) fn third(&self) -> &ThirdSpeaker {
        self.third.as_ref().unwrap()
    }

    /// Whatever crosses the peer's link is lost, and nobody is told.
    pub(crate) fn cut(&self) -> Result<(), String> {
        let rules = "table inet cut { chain in { type filter hook prerouting priority -300; iifname eth0 drop; }; \
                     chain out { type filter hook postrouting priority 300; oifname eth0 drop; }; }";
        self.nft(rules)
    }

    pub(crate) fn mend(&self) -> Result<(), String> {
        self.nft("delete table inet cut")
    }

    fn nft(&self, rules: &str) -> Result<(), String> {
        let status = self.router.command("nft").arg(rules).status().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("nft {rules}: {status}")) }
    }

    /// Another password at the peer.
    pub(crate) fn rekey_peer(&self, password: &'static str) -> Result<(), String> {
        let setup = Setup { password: Some(password), ..self.setup.clone() };
        self.peer().rekey(&self.router, self.lab.directory(), &setup).map_err(|error| format!("{error:#}"))
    }

    /// To every process of the peer.
    pub(crate) fn signal_peer(&self, signal: Signal) {
        for pid in self.router.pids() {
            kill(pid, signal).unwrap();
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.session()["state"] == "Established" && self.peer().established(&self.setup)
    }

    /// Why bgpd starts no session, if it says so.
    pub(crate) fn refusal(&self) -> Option<String> {
        let status = self.ask("{\"verb\": \"status\"}");
        status["refusedPeers"].as_object()?.values().next()?.as_str().map(str::to_owned)
    }

    /// The route of bgpd in the node's kernel, blackholes left out.
    pub(crate) fn learned(&self, prefix: &str) -> Value {
        self.node.route(prefix).unwrap()
    }

    pub(crate) fn has_learned(&self, prefix: &str) -> bool {
        self.node.has_learned(prefix)
    }

    /// Whether a packet from an address of the node came back.
    pub(crate) fn pings(&self, from: &str, to: &str) -> bool {
        let mut ping = self.node.netns.command("ping");
        ping.args(["-q", "-c", "1", "-W", "1", "-I", from, to]);
        stdout_of(ping).is_ok()
    }

    /// Waits for something; an error that says what did not come.
    pub(crate) fn wait(&self, what: &str, question: impl Fn(&Self) -> bool) -> Result<(), String> {
        let answer =
            wait_for(self.patience, || (question(self) || self.refusal().is_some()).then(|| self.refusal()));
        match answer {
            Some(None) => Ok(()),
            Some(Some(refusal)) => Err(format!("not in bgpd yet: {refusal}")),
            None => Err(format!("not within {} s: {what}", self.patience.as_secs())),
        }
    }

    /// For whoever has to find out why.
    pub(crate) fn evidence(&self) -> String {
        let peer = self.peer.as_ref().map(|peer| peer.neighbour(&self.setup)).unwrap_or_default();
        let logs: Vec<String> = self.peer_log().lines().rev().take(12).map(str::to_owned).collect();
        format!(
            "bgpd: {}\n{}\n{}:\n{peer}\n{}",
            self.session(),
            tail(&self.node.log(), 15),
            self.column.name(),
            logs.into_iter().rev().collect::<Vec<_>>().join("\n")
        )
    }
}

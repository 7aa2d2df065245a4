//! One node with bgpd, one peer, one link; set up anew for every check.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use e2e::netns::{self, Netns, stdout_of};
use e2e::process::{Launch, Process, built, tail, wait_for};
use e2e::store::{Objects, peer};
use e2e::topology::Scope;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::peers::Peer;
use crate::setup::{FROM, Feature, Kind, LINK_LOCAL, OWN, Setup, TO};
use crate::third::{TO_MANX, TO_PEER, Third, Told};

/// The third speaker, where the peer and where bgpd finds it, and how the peer gets to its link with the node.
pub(crate) const THIRD_AT_PEER: &str = "10.97.0.3";
const THIRD_AT_NODE: &str = "10.96.0.3";
pub(crate) const THIRD_LINKS: &str = "10.96.0.0/24";

pub(crate) struct Rig {
    pub(crate) setup: Setup,
    pub(crate) kind: Kind,
    pub(crate) objects: Objects,
    pub(crate) router: Netns,
    node: Netns,
    /// A router between the two, where the peer is two hops away.
    middle: Option<Netns>,
    third: Option<ThirdSpeaker>,
    directory: PathBuf,
    name: String,
    peer: Option<Peer>,
    bgpd: Option<Process>,
    /// How long anything is waited for.
    pub(crate) patience: Duration,
}

/// The speaker beside both, with its session to each.
pub(crate) struct ThirdSpeaker {
    netns: Netns,
    pub(crate) with_peer: Third,
    pub(crate) with_manx: Third,
}

impl ThirdSpeaker {
    /// Its links to the router and to the node, and its two sessions, which are dialled from now on.
    fn start(netns: Netns, router: &Netns, node: &Netns, told: &Told) -> Self {
        for (other, number, name) in [(router, 97, "eth7"), (node, 96, "eth6")] {
            connect((&netns, name), (other, name));
            netns.ip(&format!("addr add 10.{number}.0.3/24 dev {name}\n")).unwrap();
            other.ip(&format!("addr add 10.{number}.0.1/24 dev {name}\n")).unwrap();
        }
        router.ip(&format!("route add {THIRD_LINKS} via 10.9.0.2\n")).unwrap();
        node.ip("route add 10.97.0.0/24 via 10.9.0.1\n").unwrap();
        let with_peer = Third::dial(&netns, THIRD_AT_PEER, "10.97.0.1", TO_PEER, &told.to_peer());
        let with_manx = Third::dial(&netns, THIRD_AT_NODE, "10.96.0.1", TO_MANX, told);
        Self { netns, with_peer, with_manx }
    }
}

impl Rig {
    /// `number` keeps checks apart that run at the same time.
    pub(crate) fn start(
        kind: Kind,
        setup: &Setup,
        patience: Duration,
        number: usize,
    ) -> Result<Self, String> {
        let scope = Scope::test(&format!("interop{number}"));
        let [node, router] = ["n1", "peer"].map(|name| Netns::create(scope.netns(name).name()).unwrap());
        let middle =
            setup.has(Feature::Multihop).then(|| Netns::create(scope.netns("middle").name()).unwrap());
        let directory = std::env::temp_dir().join(scope.router("files"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let objects = Objects::create(&directory.join("objects")).unwrap();
        let name = scope.router("peer");
        let mut rig = Self {
            setup: setup.clone(),
            kind,
            objects,
            router,
            node,
            middle,
            third: None,
            directory,
            name,
            peer: None,
            bgpd: None,
            patience,
        };
        rig.link();
        if let Some(told) = &setup.third {
            let netns = Netns::create(scope.netns("third").name()).unwrap();
            rig.third = Some(ThirdSpeaker::start(netns, &rig.router, &rig.node, told));
        }
        rig.put_objects();
        rig.start_bgpd();
        rig.start_peer()?;
        Ok(rig)
    }

    fn link(&self) {
        for netns in [&self.node, &self.router] {
            netns
                .sysctl(&[
                    ("ipv4/ip_forward", "1"),
                    ("ipv6/conf/all/forwarding", "1"),
                    ("ipv4/conf/all/rp_filter", "0"),
                    ("ipv6/conf/default/accept_dad", "0"),
                ])
                .unwrap();
        }
        if self.setup.has(Feature::NarrowPipe) {
            for (netns, key) in [(&self.node, "ipv4/tcp_wmem"), (&self.router, "ipv4/tcp_rmem")] {
                netns.sysctl(&[(key, "4096 4096 4096")]).unwrap();
            }
        }
        if self.setup.has(Feature::Unnumbered) {
            return self.link_without_addresses();
        }
        let middle = self.middle.as_ref().unwrap_or(&self.router);
        connect((&self.node, "eth0"), (middle, "eth0"));
        for (netns, number) in [(middle, 1), (&self.node, 2)] {
            netns
                .ip(&format!(
                    "addr add 10.9.0.{number}/24 dev eth0\naddr add fd09::{number}/64 dev eth0 nodad\n"
                ))
                .unwrap();
        }
        if let Some(middle) = &self.middle {
            connect((middle, "eth1"), (&self.router, "eth0"));
            middle.sysctl(&[("ipv4/ip_forward", "1")]).unwrap();
            middle.ip("addr add 10.98.0.1/24 dev eth1\nroute add 10.99.0.1/32 via 10.98.0.2\n").unwrap();
            self.router
                .ip("addr add 10.98.0.2/24 dev eth0\naddr add 10.99.0.1/32 dev lo\nroute add 10.9.0.0/24 via 10.98.0.1\n")
                .unwrap();
            self.node.ip("route add 10.99.0.1/32 via 10.9.0.1\n").unwrap();
        }
    }

    /// Each end is its loopback, where an address of its own prefix answers.
    fn link_without_addresses(&self) {
        for netns in [&self.node, &self.router] {
            // 1: the kernel makes no link-local address.
            netns.sysctl(&[("ipv6/conf/default/addr_gen_mode", "1")]).unwrap();
        }
        connect((&self.node, "eth0"), (&self.router, "eth0"));
        for (netns, answers, link_local) in
            [(&self.node, FROM, LINK_LOCAL[0]), (&self.router, TO, LINK_LOCAL[1])]
        {
            netns
                .ip(&format!(
                    "addr add {link_local}/64 dev eth0 nodad\naddr add {}/32 dev lo\n\
                     addr add {}/128 dev lo\n",
                    answers[0], answers[1]
                ))
                .unwrap();
        }
        // GoBGP and OpenBGPD write no kernel routes here: the way back is made for them.
        match self.kind {
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
        let put = |name: &str, text: &str| self.objects.put(name, text).unwrap();
        put(
            "fabricconfigurations.manx.dev/default",
            &format!(
                "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {{name: default}}\nspec:\n  \
                 topology: {{mode: None}}\n  session: {{timers: {{hold: {}, connectRetry: 1s}}}}\n",
                self.setup.hold
            ),
        );
        for (number, (pool, block)) in
            [("10.244.0.0/16", OWN[0]), ("fd00:10:244::/64", OWN[1])].into_iter().enumerate()
        {
            let name = block.replace(['.', ':', '/'], "-");
            put(
                &format!("ippools.manx.dev/p{number}"),
                &format!(
                    "apiVersion: manx.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: p{number}}}\nspec: {{cidr: \"{pool}\"}}\n"
                ),
            );
            put(
                &format!("ipblocks.manx.dev/{name}"),
                &format!(
                    "apiVersion: manx.dev/v1alpha1\nkind: IPBlock\nmetadata: {{name: {name}}}\nspec: {{cidr: \"{block}\", \
                     pool: p{number}, nodeName: n1}}\n"
                ),
            );
        }
        if self.setup.advertises {
            self.put_advertisement("blocks", self.setup.attributes);
        }
        put(
            "nodes/n1",
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus:\n  addresses:\n  \
             - {type: InternalIP, address: 10.9.0.2}\n  - {type: InternalIP, address: \"fd09::2\"}\n",
        );
        self.put_node("");
        if let Some(password) = self.setup.manx_password {
            self.put_key(password);
        }
        for (name, text) in &self.setup.objects {
            put(name, text);
        }
        if let Some(told) = &self.setup.third {
            let text = peer("third", THIRD_AT_NODE, told.asn, self.setup.third_spec);
            self.objects.put("bgppeers.manx.dev/third", &text).unwrap();
        }
        self.put_peer(&self.setup.spec);
    }

    /// Writes a BGPAdvertisement of the node's blocks; `attributes` as a flow mapping.
    pub(crate) fn put_advertisement(&self, name: &str, attributes: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {{name: {name}}}\nspec: {{pools: {{}}, \
             attributes: {attributes}}}\n"
        );
        self.objects.put(&format!("bgpadvertisements.manx.dev/{name}"), &text).unwrap();
    }

    /// The session's password, as bgpd finds it.
    pub(crate) fn put_key(&self, password: &str) {
        self.objects.put_secret("manx-secrets", "keys", "peer", password).unwrap();
    }

    /// The FabricNode, with further fields of its spec as in a flow mapping.
    pub(crate) fn put_node(&self, more: &str) {
        let asn = self.setup.manx_asn;
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: n1}}\nspec: {{asn: {asn}{more}}}\n"
        );
        self.objects.put("fabricnodes.manx.dev/n1", &text).unwrap();
    }

    /// Writes the BGPPeer, new or changed; `more` are lines of its spec.
    pub(crate) fn put_peer(&self, more: &str) {
        let auth = match self.setup.manx_password {
            Some(_) => "  session: {auth: {md5: {secretRef: {name: keys, key: peer}}}}\n",
            None => "",
        };
        let mut text = peer("peer", self.setup.remote, self.setup.expects, &format!("{auth}{more}"));
        if let Some(place) = self.setup.place {
            text = text.replace(&format!("address: \"{}\"", self.setup.remote), place);
        }
        self.objects.put("bgppeers.manx.dev/peer", &text).unwrap();
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("bgpd.log")
    }

    /// What the peer wrote, whoever it is.
    pub(crate) fn peer_log(&self) -> String {
        let names = fs::read_dir(&self.directory).unwrap().flatten().map(|entry| entry.path());
        let logs =
            names.filter(|path| path.extension().is_some_and(|end| end == "log") && *path != self.log());
        logs.map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    pub(crate) fn start_bgpd(&mut self) {
        let path = |name: &str| self.directory.join(name).to_string_lossy().into_owned();
        for name in ["run", "state"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        let (store, run, state) = (path("objects"), path("run"), path("state"));
        let words = ["--node", "n1", "--store", &store, "--run-dir", &run, "--state-dir", &state];
        let launch = Launch {
            label: "bgpd on n1".to_owned(),
            netns: self.node.clone(),
            program: built("bgpd").unwrap(),
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            capabilities: Some(&["net_admin", "net_raw", "net_bind_service"]),
            log: self.log(),
        };
        self.bgpd = Some(launch.start().unwrap());
    }

    pub(crate) fn start_peer(&mut self) -> Result<(), String> {
        let started = Peer::start(self.kind, &self.name, &self.router, &self.directory, &self.setup);
        self.peer = Some(started.map_err(|error| format!("{} does not start: {error:#}", self.kind.name()))?);
        Ok(())
    }

    pub(crate) fn peer(&self) -> &Peer {
        self.peer.as_ref().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill_bgpd(&mut self) {
        self.bgpd = None;
    }

    pub(crate) fn kill_peer(&mut self) {
        // OpenBGPD's other processes end with the first.
        self.peer = None;
    }

    /// One question on the control socket.
    pub(crate) fn ask(&self, question: &str) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.directory.join("run/bgpd.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(question.as_bytes())?;
            stream.write_all(b"\n")?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        serde_json::from_str(&ask().unwrap_or_default()).unwrap_or_default()
    }

    /// What bgpd says of its session with the peer.
    pub(crate) fn session(&self) -> Value {
        let answer = self.ask("{\"verb\": \"peers\"}");
        let sessions = answer["sessions"].as_array().cloned().unwrap_or_default();
        sessions.into_iter().find(|session| session["peer"] == "peer").unwrap_or_default()
    }

    /// The first path to a prefix that bgpd has.
    pub(crate) fn path(&self, prefix: &str) -> Value {
        self.ask(&format!("{{\"verb\": \"routes\", \"prefix\": \"{prefix}\"}}"))["routes"][0].clone()
    }

    /// Whether bgpd refuses the peer's path to a prefix for a reason that has these words.
    pub(crate) fn rejects(&self, prefix: &str, why: &str) -> bool {
        let path = self.path(prefix);
        path["verdict"] == "rejected" && path["why"].as_str().is_some_and(|text| text.contains(why))
    }

    /// What bgpd wrote so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
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
        self.peer().rekey(&self.router, &self.directory, &setup).map_err(|error| format!("{error:#}"))
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
    pub(crate) fn learned(&self, prefix: &str) -> Option<Value> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let answer = self.node.ip_json(&[family, "route", "show", "proto", "77"]).unwrap();
        let routes = answer.as_array().cloned().unwrap_or_default();
        routes.into_iter().find(|route| route["dst"] == prefix && route["type"] != "blackhole")
    }

    pub(crate) fn has_learned(&self, prefix: &str) -> bool {
        self.learned(prefix).is_some()
    }

    /// Whether a packet from an address of the node came back.
    pub(crate) fn pings(&self, from: &str, to: &str) -> bool {
        let mut ping = self.node.command("ping");
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
            tail(&self.log(), 15),
            self.kind.name(),
            logs.into_iter().rev().collect::<Vec<_>>().join("\n")
        )
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.bgpd = None;
        if let Some(Peer::Frr(router)) = self.peer.take() {
            router.stop();
        }
        let third = self.third.take();
        let more = self.middle.iter().chain(third.as_ref().map(|third| &third.netns)).map(Netns::name);
        let _ = netns::remove([self.node.name(), self.router.name()].into_iter().chain(more));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn connect(left: (&Netns, &str), right: (&Netns, &str)) {
    let line = format!(
        "link add {} netns {} type veth peer name {} netns {}\n",
        left.1,
        left.0.name(),
        right.1,
        right.0.name()
    );
    netns::batch(&[], &line).unwrap();
    for (netns, link) in [left, right] {
        netns.ip(&format!("link set {link} up\n")).unwrap();
    }
}

//! One node with bgpd, one peer, one link; set up anew for every check.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use e2e::netns::{self, Netns};
use e2e::process::{Launch, Process, built, tail, wait_for};
use e2e::store::{Objects, peer};
use e2e::topology::Scope;
use serde_json::Value;

use crate::peers::Peer;
use crate::setup::{Feature, Kind, OWN, Setup};

pub(crate) struct Rig {
    pub(crate) setup: Setup,
    pub(crate) kind: Kind,
    pub(crate) objects: Objects,
    pub(crate) router: Netns,
    node: Netns,
    /// A router between the two, where the peer is two hops away.
    middle: Option<Netns>,
    directory: PathBuf,
    name: String,
    peer: Option<Peer>,
    bgpd: Option<Process>,
    /// How long anything is waited for.
    pub(crate) patience: Duration,
}

impl Rig {
    pub(crate) fn start(kind: Kind, setup: &Setup, patience: Duration) -> Result<Self, String> {
        let scope = Scope::test("interop");
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
            directory,
            name,
            peer: None,
            bgpd: None,
            patience,
        };
        rig.link();
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

    fn put_objects(&self) {
        let put = |name: &str, text: &str| self.objects.put(name, text).unwrap();
        put(
            "fabricconfigurations.manx.dev/default",
            "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {name: default}\nspec:\n  \
             topology: {mode: None}\n  session: {timers: {hold: 9s, connectRetry: 1s}}\n",
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
        put(
            "bgpadvertisements.manx.dev/blocks",
            &format!(
                "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {{name: blocks}}\nspec: {{pools: {{}}, \
                 attributes: {}}}\n",
                self.setup.attributes
            ),
        );
        put(
            "nodes/n1",
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus:\n  addresses:\n  \
             - {type: InternalIP, address: 10.9.0.2}\n  - {type: InternalIP, address: \"fd09::2\"}\n",
        );
        put(
            "fabricnodes.manx.dev/n1",
            &format!(
                "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: n1}}\nspec: {{asn: {}}}\n",
                self.setup.manx_asn
            ),
        );
        if let Some(password) = self.setup.manx_password {
            self.objects.put_secret("manx-secrets", "keys", "peer", password).unwrap();
        }
        self.put_peer(&self.setup.spec);
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
            capabilities: Some(&["net_admin", "net_bind_service"]),
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

    /// What bgpd says of its one session.
    pub(crate) fn session(&self) -> Value {
        self.ask("{\"verb\": \"peers\"}")["sessions"][0].clone()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.session()["state"] == "Established" && self.peer().established(&self.setup)
    }

    /// Why bgpd starts no session, if it says so.
    pub(crate) fn refusal(&self) -> Option<String> {
        let status = self.ask("{\"verb\": \"status\"}");
        status["refusedPeers"].as_object()?.values().next()?.as_str().map(str::to_owned)
    }

    /// Routes of bgpd in the node's kernel, blackholes left out.
    pub(crate) fn has_learned(&self, prefix: &str) -> bool {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let answer = self.node.ip_json(&[family, "route", "show", "proto", "77"]).unwrap();
        let routes = answer.as_array().cloned().unwrap_or_default();
        routes.iter().any(|route| route["dst"] == prefix && route["type"] != "blackhole")
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
        format!("bgpd: {}\n{}\n{}:\n{peer}", self.session(), tail(&self.log(), 15), self.kind.name())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.bgpd = None;
        if let Some(Peer::Frr(router)) = self.peer.take() {
            router.stop();
        }
        let middle = self.middle.as_ref().map(Netns::name);
        let _ = netns::remove([self.node.name(), self.router.name()].into_iter().chain(middle));
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

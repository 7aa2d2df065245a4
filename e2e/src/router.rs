//! The routers around the nodes, whoever plays them: FRR, or bgpd with `transit` (`TOR=manx`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::frr::{self, Frr};
use crate::manx_router::ManxRouter;
use crate::process::wait_for;
use crate::topology::{CLIENT_V4, CLIENT_V6, Scope, TORS, Tor, client_config, client_routes, tor_config};

/// What the ToRs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Frr,
    /// Our own bgpd, by the user's choice.
    Manx,
}

/// Where a router's files are, and for [`Kind::Manx`] its binaries.
#[derive(Clone, Copy, Debug)]
pub struct RouterPlaces<'a> {
    pub logs: &'a Path,
    /// Objects and state of the routers that bgpd plays.
    pub home: &'a Path,
    /// Their sockets.
    pub run: &'a Path,
    pub binaries: &'a Path,
}

/// One ToR.
#[derive(Debug)]
pub enum Router {
    Frr(Frr),
    Manx(ManxRouter),
}

/// One session as its router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterSession {
    /// Families in state Established.
    pub families: usize,
    pub uptime: Duration,
    /// Differs from what it was once the session was established anew.
    pub established: u64,
}

/// The best path of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BestPath {
    pub as_path: String,
    pub next_hops: Vec<String>,
}

impl Kind {
    /// As `TOR` says it.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "frr" => Ok(Self::Frr),
            "manx" => Ok(Self::Manx),
            other => {
                bail!(
                    "no such router\n  where      TOR={other}\n  expected   frr or manx\n  do         make demo"
                )
            }
        }
    }

    /// As it stands in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Frr => "frr",
            Self::Manx => "bgpd",
        }
    }
}

impl Router {
    /// Sessions by remote address; both families are counted.
    pub fn sessions(&self) -> Result<BTreeMap<String, RouterSession>> {
        match self {
            Self::Frr(router) => frr_sessions(router),
            Self::Manx(router) => router.sessions(),
        }
    }

    /// The best path to `cidr`.
    pub fn best_path(&self, cidr: &str) -> Result<BestPath> {
        match self {
            Self::Frr(router) => frr_best_path(router, cidr),
            Self::Manx(router) => router.best_path(cidr),
        }
    }

    /// All that it says of its sessions and routes, for people.
    pub fn evidence(&self) -> Result<String> {
        match self {
            Self::Frr(router) => router.vtysh(&[
                "show bgp summary",
                "show bgp ipv4 unicast",
                "show bgp ipv6 unicast",
                "show bgp neighbors",
            ]),
            Self::Manx(router) => router.evidence(),
        }
    }

    /// Whether it knows the way to the client: its addresses, or by default.
    fn knows_client(&self) -> Result<bool> {
        let wanted = match self {
            Self::Frr(_) => [format!("{CLIENT_V4}/32"), format!("{CLIENT_V6}/128")],
            Self::Manx(_) => ["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        };
        Ok(wanted.iter().all(|cidr| self.best_path(cidr).is_ok()))
    }

    fn leave(self) {
        match self {
            Self::Frr(router) => router.leave(),
            Self::Manx(router) => router.leave(),
        }
    }

    fn stop(self) {
        match self {
            Self::Frr(router) => router.stop(),
            Self::Manx(router) => drop(router),
        }
    }
}

/// The routers of a fabric, and the one in the client, which is FRR always.
#[derive(Debug)]
pub struct Routers {
    pub tors: Vec<(Tor, Router)>,
    pub client: Frr,
}

impl Routers {
    /// Starts all three and waits until the ToRs know the client.
    pub fn start(kind: Kind, scope: &Scope, places: &RouterPlaces<'_>) -> Result<Self> {
        Self::start_accepting(kind, scope, places, &[])
    }

    /// The same; FRR then accepts single addresses of the ranges `services` from nodes too.
    pub fn start_accepting(
        kind: Kind,
        scope: &Scope,
        places: &RouterPlaces<'_>,
        services: &[&str],
    ) -> Result<Self> {
        let mut tors = Vec::new();
        for tor in TORS {
            let netns = scope.netns(tor.name);
            let router = match kind {
                Kind::Frr => {
                    let name = scope.router(tor.name);
                    Router::Frr(Frr::start(&name, &netns, places.logs, &tor_config(tor, services))?)
                }
                Kind::Manx => Router::Manx(ManxRouter::start(tor, &netns, places)?),
            };
            tors.push((tor, router));
        }
        if kind == Kind::Manx {
            client_routes(scope).context("the client's routes to the nodes")?;
        }
        let config = client_config(kind == Kind::Manx);
        let client = Frr::start(&scope.router("client"), &scope.netns("client"), places.logs, &config)?;
        let routers = Self { tors, client };
        for (tor, router) in &routers.tors {
            wait_for(Duration::from_secs(20), || router.knows_client().ok()?.then_some(()))
                .with_context(|| format!("{} learned no route to the client", tor.name))?;
        }
        Ok(routers)
    }

    /// The router of that name.
    pub fn tor(&self, name: &str) -> Result<&Router> {
        let found = self.tors.iter().find(|(tor, _)| tor.name == name);
        found.map(|(_, router)| router).with_context(|| format!("no router {name}"))
    }

    pub fn leave(self) {
        self.client.leave();
        for (_, router) in self.tors {
            router.leave();
        }
    }

    pub fn stop(self) {
        self.client.stop();
        for (_, router) in self.tors {
            router.stop();
        }
    }
}

/// The version of what plays the ToRs, such as `FRR 8.4.4`.
pub fn version(kind: Kind, binaries: &Path) -> Result<String> {
    match kind {
        Kind::Frr => Ok(format!("FRR {}", frr::version()?)),
        Kind::Manx => ManxRouter::version(binaries),
    }
}

fn frr_sessions(router: &Frr) -> Result<BTreeMap<String, RouterSession>> {
    let answer = router.json("show bgp summary json")?;
    let mut sessions: BTreeMap<String, RouterSession> = BTreeMap::new();
    for family in ["ipv4Unicast", "ipv6Unicast"] {
        let Some(peers) =
            answer.get(family).and_then(|family| family.get("peers")).and_then(Value::as_object)
        else {
            continue;
        };
        for (address, peer) in peers {
            let number = |key: &str| peer.get(key).and_then(Value::as_u64).unwrap_or_default();
            let session = sessions.entry(address.clone()).or_insert(RouterSession {
                families: 0,
                uptime: Duration::from_millis(number("peerUptimeMsec")),
                established: number("connectionsEstablished"),
            });
            session.families += usize::from(peer.get("state").and_then(Value::as_str) == Some("Established"));
        }
    }
    Ok(sessions)
}

fn frr_best_path(router: &Frr, cidr: &str) -> Result<BestPath> {
    let family = if cidr.contains(':') { "ipv6" } else { "ipv4" };
    let answer = router.json(&format!("show bgp {family} unicast {cidr} json"))?;
    let paths = answer.get("paths").and_then(Value::as_array).context("not in BGP")?;
    let best = paths
        .iter()
        .find(|path| path.pointer("/bestpath/overall").and_then(Value::as_bool) == Some(true))
        .context("no best path")?;
    let as_path = best.pointer("/aspath/string").and_then(Value::as_str).unwrap_or_default();
    let hops = best.get("nexthops").and_then(Value::as_array);
    Ok(BestPath {
        as_path: as_path.to_owned(),
        next_hops: hops
            .into_iter()
            .flatten()
            .filter_map(|hop| hop.get("ip").and_then(Value::as_str).map(str::to_owned))
            .collect(),
    })
}

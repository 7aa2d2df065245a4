//! The four peers: started for a setup, what they say of the session and of a route, and what they are told to do.

use std::fs;
use std::path::Path;

use e2e::bird::{self, Bird};
use e2e::frr::{self, Frr};
use e2e::gobgp::GoBgp;
use e2e::netns::{Netns, stdout_of};
use e2e::openbgpd::OpenBgpd;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::columns::Column;
use crate::configs;
use crate::setup::{Feature, Kind, LINK_LOCAL, Setup, THEIRS};

pub(crate) enum Peer {
    Frr(Frr),
    Bird(Bird),
    GoBgp(GoBgp),
    OpenBgpd(OpenBgpd),
}

impl Peer {
    pub(crate) fn start(
        column: &Column,
        name: &str,
        netns: &Netns,
        directory: &Path,
        setup: &Setup,
    ) -> anyhow::Result<Self> {
        let root = column.root.as_ref();
        Ok(match column.kind {
            Kind::Frr => {
                let beside: &[&str] = if setup.has(Feature::Bfd) { &["bfdd"] } else { &[] };
                let bgpd: &[&str] = if setup.has(Feature::OtherPort) { &["-p", "1790"] } else { &[] };
                let with = frr::Arguments { beside, bgpd, root, ..frr::Arguments::default() };
                Self::Frr(Frr::start_with(name, netns, directory, &configs::frr(setup), with)?)
            }
            Kind::Bird => {
                let with = bird::Arguments { root, ..bird::Arguments::default() };
                Self::Bird(Bird::start_with("peer", netns, directory, &configs::bird(setup), with)?)
            }
            Kind::GoBgp => {
                if setup.has(Feature::Unnumbered) {
                    // Its neighbour is whoever the kernel knows on the interface when it starts.
                    let mut ping = netns.command("ping");
                    ping.args(["-q", "-c", "1", "-W", "5", &format!("{}%eth0", LINK_LOCAL[0])]);
                    stdout_of(ping)?;
                }
                let router = GoBgp::start("peer", netns, directory, &configs::gobgp(setup))?;
                // It takes what it originates by command only.
                let attributes = match setup.says.export {
                    "" => "community 65001:77 large-community 65001:7:7",
                    other => other,
                };
                router.ask(&format!("global rib add {} {attributes} -a ipv4", THEIRS[0]))?;
                router.ask(&format!("global rib add {} -a ipv4", setup.more))?;
                let next_hop = if setup.has(Feature::Unnumbered) { "" } else { "nexthop fd09::1" };
                router.ask(&format!("global rib add {} {next_hop} {attributes} -a ipv6", THEIRS[1]))?;
                Self::GoBgp(router)
            }
            Kind::OpenBgpd => {
                Self::OpenBgpd(OpenBgpd::start("peer", netns, directory, &configs::openbgpd(setup))?)
            }
        })
    }

    /// Takes the password of `setup` for the one that it was started with.
    pub(crate) fn rekey(&self, netns: &Netns, directory: &Path, setup: &Setup) -> anyhow::Result<()> {
        match self {
            Self::Frr(router) => {
                let line = format!(
                    "neighbor {} password {}",
                    setup.manx_address(),
                    setup.password.unwrap_or_default()
                );
                let start = format!("router bgp {}", setup.asn);
                router.vtysh(&["configure terminal", &start, &line]).map(drop)
            }
            Self::Bird(bird) => {
                fs::write(directory.join("peer.bird.conf"), configs::bird(setup))?;
                bird.ask("configure").map(drop)
            }
            Self::GoBgp(_) => {
                fs::write(directory.join("peer.gobgp.toml"), configs::gobgp(setup))?;
                for pid in netns.pids() {
                    kill(pid, Signal::SIGHUP)?;
                }
                Ok(())
            }
            Self::OpenBgpd(router) => {
                let file = directory.join("peer.openbgpd.conf");
                let text = fs::read_to_string(&file)?;
                let socket = text.lines().next().unwrap_or_default();
                fs::write(&file, format!("{socket}\n{}", configs::openbgpd(setup)))?;
                router.ask("reload").map(drop)
            }
        }
    }

    /// Ends the session with a word for the other end (RFC 9003).
    pub(crate) fn shut_down(&self, setup: &Setup, text: &str) -> anyhow::Result<()> {
        let address = setup.manx_address();
        match self {
            Self::Frr(router) => {
                let line = format!("neighbor {address} shutdown message {text}");
                router.vtysh(&["configure terminal", &format!("router bgp {}", setup.asn), &line])
            }
            Self::Bird(bird) => bird.ask(&format!("disable node \"{text}\"")),
            Self::GoBgp(router) => router.ask(&format!("neighbor {address} shutdown --reason {text}")),
            Self::OpenBgpd(router) => router.ask(&format!("neighbor {address} down {text}")),
        }
        .map(drop)
    }

    pub(crate) fn established(&self, setup: &Setup) -> bool {
        let address = setup.manx_address();
        match self {
            Self::Frr(router) => router
                .json(&format!("show bgp neighbors {address} json"))
                .is_ok_and(|answer| answer[address]["bgpState"] == "Established"),
            // Whoever it finds on an interface is node1.
            Self::Bird(bird) => {
                bird.ask("show protocols \"node*\"").is_ok_and(|text| text.contains("Established"))
            }
            Self::GoBgp(router) => router
                .ask(&format!("neighbor {address}"))
                .is_ok_and(|text| text.to_uppercase().contains("BGP STATE = ESTABLISHED")),
            Self::OpenBgpd(router) => router
                .json("show neighbor")
                .is_ok_and(|answer| answer["neighbors"][0]["state"] == "Established"),
        }
    }

    /// All that the peer says of its path to a prefix; empty if it has none.
    pub(crate) fn route(&self, prefix: &str) -> String {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = match self {
            Self::Frr(router) => router
                .json(&format!("show bgp {family} unicast {prefix} json"))
                .ok()
                .filter(|answer| answer["paths"].as_array().is_some_and(|paths| !paths.is_empty()))
                .map(|answer| answer.to_string()),
            Self::Bird(bird) => bird.ask(&format!("show route {prefix} all")).ok(),
            Self::GoBgp(router) => router.ask(&format!("global rib {prefix} -a {family}")).ok(),
            Self::OpenBgpd(router) => router.ask(&format!("show rib detail {prefix}")).ok(),
        };
        text.filter(|text| text.contains(prefix)).unwrap_or_default()
    }

    /// Asks for everything again (RFC 2918).
    pub(crate) fn refresh(&self, setup: &Setup) -> anyhow::Result<()> {
        let address = setup.manx_address();
        match self {
            Self::Frr(router) => router.vtysh(&[&format!("clear bgp ipv4 unicast {address} soft in")]),
            Self::Bird(bird) => bird.ask("reload in node"),
            Self::GoBgp(router) => router.ask(&format!("neighbor {address} softresetin")),
            Self::OpenBgpd(router) => router.ask(&format!("neighbor {address} refresh")),
        }
        .map(drop)
    }

    /// UPDATEs that came in, or routes in them.
    pub(crate) fn updates(&self, setup: &Setup) -> u64 {
        let address = setup.manx_address();
        let count = |value: &Value| value.as_u64();
        match self {
            Self::Frr(router) => router
                .json(&format!("show bgp neighbors {address} json"))
                .ok()
                .and_then(|answer| count(&answer[address]["messageStats"]["updatesRecv"])),
            Self::Bird(bird) => bird.ask("show protocols all node").ok().map(|text| {
                text.lines()
                    .filter(|line| line.trim_start().starts_with("Import updates:"))
                    .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
                    .sum()
            }),
            Self::GoBgp(router) => router.ask(&format!("neighbor {address}")).ok().and_then(|text| {
                // Sent, then received.
                let line = text.lines().find(|line| line.trim_start().starts_with("Updates:"))?;
                line.split_whitespace().nth(2)?.parse().ok()
            }),
            Self::OpenBgpd(router) => router
                .json("show neighbor")
                .ok()
                .and_then(|answer| count(&answer["neighbors"][0]["stats"]["message"]["received"]["updates"])),
        }
        .unwrap_or_default()
    }

    /// Whether both borders of a refresh came in (RFC 7313); `log` is what it wrote.
    pub(crate) fn heard_borders(&self, log: &str) -> bool {
        match self {
            Self::Frr(_) => {
                let rcvd = |border: &str| log.contains(&format!("rcvd route-refresh ({border}) for IPv4"));
                rcvd("BoRR") && rcvd("EoRR")
            }
            Self::Bird(_) => log.contains("Got BEGIN-OF-RR") && log.contains("Got END-OF-RR"),
            // It does not know them.
            Self::GoBgp(_) => false,
            Self::OpenBgpd(router) => router.ask("show neighbor").is_ok_and(|text| {
                let counts = |name: &str| {
                    let line = text.lines().find(|line| line.to_lowercase().contains(name));
                    line.is_some_and(|line| line.split_whitespace().last() != Some("0"))
                };
                counts("begin-of-rr") && counts("end-of-rr")
            }),
        }
    }

    /// Everything that it says of its neighbour, for a person or to look for a word.
    pub(crate) fn neighbour(&self, setup: &Setup) -> String {
        let address = setup.manx_address();
        match self {
            Self::Frr(router) => router.vtysh(&[&format!("show bgp neighbors {address}")]),
            Self::Bird(bird) => bird.ask("show protocols all \"node*\""),
            Self::GoBgp(router) => router.ask(&format!("neighbor {address}")),
            Self::OpenBgpd(router) => router.ask("show neighbor"),
        }
        .unwrap_or_else(|error| format!("{error:#}"))
    }
}

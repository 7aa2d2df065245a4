//! Neighbours on interfaces (api.md §5.1 `interface`): who is at the other end of a link, found out and not configured.
//!
//! ```text
//!   driver ── want(interfaces, facts) ──► a task an interface ◄── router advertisements, solicitations ──► link
//!          ◄── Report::Heard ────────────────┘    advertises us; solicits while there is no session
//!
//!   Served:   nobody ── heard ──► known ── silent, no session ──► nobody, or another one that was heard
//!                ▲                  │
//!                └── link down, gone, our link-local address changed ──┘
//! ```
//! An interface is a link to one router. Of several the first that is heard is spoken to; another one follows only when there is no
//! session and the first was silent while it was asked. Whoever dials us over the interface is heard by that.

mod task;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use bgp_proto::output::Reason;
use bgp_proto::{PeerName, link_local};
use felix_kernel::facts::Facts;
use felix_kernel::link::Link;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// A neighbour that has no session and was asked in vain for this long is gone: that is two solicitations and what a router may
/// take to answer (RFC 4861 §6.2.6: 3 s between two advertisements).
const SILENT: Duration = Duration::from_secs(12);
/// Another router of the link beside a neighbour that has a session is forgotten after this: none advertises more seldom
/// (RFC 4861 §6.2.1, MaxRtrAdvInterval).
const FORGOTTEN: Duration = Duration::from_secs(1800);
/// A neighbour that the kernel still knows is looked at again after this.
const AGAIN: Duration = Duration::from_secs(4);
/// Routers of one link that are remembered: enough to say that there are several.
const OTHERS: usize = 8;
/// Reports that may wait for the driver; tasks wait then.
const QUEUE: usize = 64;

/// What a task tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// A router of the link said that it is there.
    Heard { ifindex: u32, from: Ipv6Addr },
    /// Nobody can be heard; it is tried again.
    Deaf { ifindex: u32, error: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    address: Ipv6Addr,
    heard: Instant,
}

/// One interface that is served.
#[derive(Debug)]
struct Served {
    peer: PeerName,
    ifindex: u32,
    /// Our own address on the link.
    ours: Ipv6Addr,
    known: Option<Known>,
    /// Other routers, and when they were heard.
    others: BTreeMap<Ipv6Addr, Instant>,
    established: bool,
    /// When the neighbour is looked at again.
    look_at: Option<Instant>,
    /// Why nobody can be heard.
    deaf: Option<String>,
    /// Routers are solicited.
    searching: watch::Sender<bool>,
    task: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who is on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A session can be tried.
    Neighbour {
        /// Both link-local, with their interface.
        local: IpAddr,
        remote: IpAddr,
        /// Routers that are not spoken to.
        others: Vec<Ipv6Addr>,
    },
    /// Why none can be.
    Nobody { reason: Reason, text: String, ifindex: Option<u32> },
}

pub(crate) struct Unnumbered {
    reports: mpsc::Sender<Report>,
    receiver: mpsc::Receiver<Report>,
    served: BTreeMap<String, Served>,
}

impl Unnumbered {
    pub(crate) fn new() -> Self {
        let (reports, receiver) = mpsc::channel(QUEUE);
        Self { reports, receiver, served: BTreeMap::new() }
    }

    /// Takes all interfaces that a BGPPeer names. One is served while it passes packets and has a link-local address of ours; when
    /// it does not, everything that was heard there is forgotten.
    pub(crate) fn want(&mut self, interfaces: &BTreeMap<String, PeerName>, facts: &Facts) {
        self.served.retain(|name, served| {
            let is_wanted = interfaces.get(name) == Some(&served.peer);
            let now = end(facts, name, Some(served.ours)).ok().filter(|_| is_wanted);
            now.is_some_and(|(link, ours)| (link.index, ours) == (served.ifindex, served.ours))
        });
        for (name, peer) in interfaces {
            let Ok((link, ours)) = end(facts, name, None) else { continue };
            if !self.served.contains_key(name) {
                let served = self.serve(peer, link, ours);
                self.served.insert(name.clone(), served);
            }
        }
    }

    fn serve(&self, peer: &PeerName, link: &Link, ours: Ipv6Addr) -> Served {
        let (searching, search) = watch::channel(true);
        let on_link = task::OnLink { name: link.name.clone(), ifindex: link.index, mac: link.mac, ours };
        let task = tokio::spawn(task::run(on_link, search, self.reports.clone()));
        Served {
            peer: peer.clone(),
            ifindex: link.index,
            ours,
            known: None,
            others: BTreeMap::new(),
            established: false,
            look_at: None,
            deaf: None,
            searching,
            task: task.abort_handle(),
        }
    }

    /// The next thing that a task tells.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        self.receiver.recv().await
    }

    /// Takes it; whether another neighbour is there from now on, or something else is to be said.
    pub(crate) fn take(&mut self, report: Report, now: Instant) -> bool {
        let (Report::Heard { ifindex, .. } | Report::Deaf { ifindex, .. }) = &report;
        let Some(served) = self.served.values_mut().find(|served| served.ifindex == *ifindex) else {
            return false;
        };
        match report {
            Report::Heard { from, .. } => served.heard(from, now),
            Report::Deaf { error, .. } => {
                let before = served.deaf.replace(error);
                before != served.deaf
            }
        }
    }

    /// Somebody dialled us over an interface: it is there. As [`Unnumbered::take`].
    pub(crate) fn dialled_by(&mut self, remote: IpAddr, now: Instant) -> bool {
        link_local::parts(remote)
            .is_some_and(|(from, ifindex)| self.take(Report::Heard { ifindex, from }, now))
    }

    /// A session came up or ended.
    pub(crate) fn session(&mut self, peer: &PeerName, established: bool, now: Instant) {
        let Some(served) = self.served.values_mut().find(|served| served.peer == *peer) else { return };
        if served.established == established {
            return;
        }
        served.established = established;
        served.searching.send_replace(!established);
        if let Some(known) = &mut served.known {
            // It is asked from now on.
            known.heard = now;
        }
        served.look_at = served.known.filter(|_| !established).map(|known| known.heard + SILENT);
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.served.values().filter_map(|served| served.look_at).min()
    }

    /// Forgets who is silent; whether somebody was.
    pub(crate) fn tick(&mut self, facts: &Facts, now: Instant) -> bool {
        let due = self.served.values_mut().filter(|served| served.look_at.is_some_and(|at| at <= now));
        due.map(|served| served.look(facts, now)).fold(false, |changed, one| changed | one)
    }

    /// Who is on the interface of this name.
    pub(crate) fn place(&self, facts: &Facts, name: &str) -> Place {
        let served = self.served.get(name);
        let (link, ours) = match end(facts, name, served.map(|served| served.ours)) {
            Ok(end) => end,
            Err(text) => {
                let ifindex = facts.link_by_name(name).map(|link| link.index);
                return Place::Nobody { reason: Reason::InterfaceDown, text, ifindex };
            }
        };
        let ifindex = Some(link.index);
        let reason = Reason::NeighborNotFound;
        let Some(served) = served.filter(|served| served.ifindex == link.index) else {
            return Place::Nobody { reason, text: format!("no router was heard on {name} yet"), ifindex };
        };
        match (served.known, &served.deaf) {
            (Some(known), _) => Place::Neighbour {
                local: IpAddr::V6(link_local::scoped(ours, link.index)),
                remote: IpAddr::V6(link_local::scoped(known.address, link.index)),
                others: served.others.keys().copied().collect(),
            },
            (None, Some(error)) => Place::Nobody {
                reason,
                text: format!(
                    "routers cannot be heard on {name}: {error}; expected a raw ICMPv6 socket: give bgpd CAP_NET_RAW"
                ),
                ifindex,
            },
            (None, None) => Place::Nobody {
                reason,
                text: format!(
                    "no router was heard on {name}: expected router advertisements (RFC 4861), or a connection to \
                     {ours}%{name}; switch advertisements on at the neighbour (FRR: no ipv6 nd suppress-ra), or check the cable"
                ),
                ifindex,
            },
        }
    }
}

impl Served {
    fn heard(&mut self, from: Ipv6Addr, now: Instant) -> bool {
        let before = self.others.len();
        self.others.retain(|_, heard| now.duration_since(*heard) < FORGOTTEN);
        // Something else than before is to be said.
        let is_news = self.deaf.take().is_some() || self.others.len() < before;
        let is_gone =
            |known: Known, established: bool| !established && now.duration_since(known.heard) >= SILENT;
        match &mut self.known {
            Some(known) if known.address == from => {
                known.heard = now;
                self.look_at = (!self.established).then_some(now + SILENT);
                is_news
            }
            Some(known) if !is_gone(*known, self.established) => {
                let is_held = self.others.len() < OTHERS || self.others.contains_key(&from);
                is_held && self.others.insert(from, now).is_none() || is_news
            }
            Some(_) | None => {
                self.settle(Known { address: from, heard: now });
                true
            }
        }
    }

    fn settle(&mut self, known: Known) {
        self.others.remove(&known.address);
        self.known = Some(known);
        self.look_at = Some(known.heard + SILENT);
    }

    /// The neighbour has no session and was not heard for a while. One that the kernel has an Ethernet address of is there, and
    /// does not speak BGP or router discovery; one that answers no neighbour solicitation is not.
    fn look(&mut self, facts: &Facts, now: Instant) -> bool {
        self.look_at = None;
        let Some(known) = self.known.filter(|_| !self.established) else { return false };
        if now.duration_since(known.heard) < SILENT {
            self.look_at = Some(known.heard + SILENT);
            return false;
        }
        self.others.retain(|_, heard| now.duration_since(*heard) < SILENT);
        let latest = self.others.iter().max_by_key(|(_, heard)| **heard);
        if let Some((address, heard)) = latest.map(|(address, heard)| (*address, *heard)) {
            self.settle(Known { address, heard });
            return true;
        }
        let address = IpAddr::V6(known.address);
        let of_link = facts.neighbours().filter(|one| one.ifindex == self.ifindex && one.address == address);
        if of_link.into_iter().any(|one| one.mac.is_some() && !one.failed) {
            self.look_at = Some(now + AGAIN);
            return false;
        }
        self.known = None;
        true
    }
}

/// Our end of a link: the link while it passes packets, and our address there; else why there is none.
fn end<'a>(facts: &'a Facts, name: &str, last: Option<Ipv6Addr>) -> Result<(&'a Link, Ipv6Addr), String> {
    let Some(link) = facts.link_by_name(name) else {
        return Err(format!(
            "spec.interface {name}: this node has no such interface: create it, or name another"
        ));
    };
    if !link.is_usable() {
        let what = if link.up { "has no carrier" } else { "is down" };
        return Err(format!("interface {name} {what}"));
    }
    let ours = facts.addresses().filter(|held| held.ifindex == link.index && held.usable);
    let ours = ours.filter_map(|held| match held.address.addr() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    preferred(ours, last).map(|ours| (link, ours)).ok_or_else(|| {
        format!(
            "interface {name} has no link-local address that is usable: expected IPv6 to be on \
             (sysctl net.ipv6.conf.{name}.disable_ipv6=0)"
        )
    })
}

/// Of several the lowest, unless another is in use: a session is not ended for a lower one that came.
fn preferred(ours: impl Iterator<Item = Ipv6Addr>, last: Option<Ipv6Addr>) -> Option<Ipv6Addr> {
    ours.min_by_key(|ours| (Some(*ours) != last, *ours))
}

/// An address as people write it: a link-local one with the name of its interface.
pub(crate) fn shown(facts: &Facts, address: IpAddr) -> String {
    match link_local::parts(address) {
        Some((address, ifindex)) => match facts.link(ifindex) {
            Some(link) => format!("{address}%{}", link.name),
            None => format!("{address}%{ifindex}"),
        },
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests;

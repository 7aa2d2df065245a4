//! What bgpd counts, as ux.md §7 names it. The counts belong to whoever makes them: the speaker, BFD's thread, the thread
//! of the routes, the datastore; a scrape writes them down and walks no table.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bgp_proto::bfd;
use bgp_proto::config::{AdminState, PeerConfig};
use bgp_proto::durations::Durations;
use bgp_proto::fsm::State;
use bgp_proto::status::{ByType, PeerStatus};
use bgp_proto::{AfiSafi, PeerName, Speaker};
use jiff::Timestamp;
use manx_crds::report::MetricsText;
use manx_daemon::control::Question;
use manx_daemon::kind::Invalid;
use manx_daemon::metrics::{self, Distribution, Figures, Labels, as_f64};
use manx_daemon::traffic::{self, Traffic};

use crate::desire::Desire;
use crate::driver::Driver;
use crate::fib::Report;
use crate::originate::Originated;
use crate::session_status;

#[cfg(test)]
mod tests;

const COMPONENT: &str = "bgpd";
/// BFD's thread answers at once; where it does not, the rest is shown without it.
const BFD_PATIENCE: Duration = Duration::from_secs(1);

/// What the loop itself counts.
#[derive(Debug, Default)]
pub(crate) struct LoopFigures {
    /// Steps of the speaker in which prefixes were decided.
    pub(crate) decision: Durations,
    /// By how much timers were served late.
    pub(crate) lag: Durations,
}

/// Everything that is looked at.
pub(crate) struct View<'a> {
    pub(crate) speaker: &'a Speaker,
    pub(crate) desire: &'a Desire,
    pub(crate) originated: &'a Originated,
    pub(crate) report: &'a Report,
    pub(crate) figures: &'a LoopFigures,
    pub(crate) traffic: &'a Traffic,
    pub(crate) in_sync: bool,
    pub(crate) invalid: Invalid,
    pub(crate) now: Instant,
    pub(crate) wall: Timestamp,
}

/// Answers a scrape. BFD's thread is asked beside the loop, which waits for nobody.
pub(crate) fn answer(driver: &Driver, question: Question) {
    let objects = driver.objects.invalid.iter().chain(driver.services.invalid());
    let view = View {
        speaker: &driver.speaker,
        desire: &driver.desire,
        originated: &driver.originated,
        report: &driver.fib.report(),
        figures: &driver.figures,
        traffic: &driver.traffic,
        in_sync: driver.objects.in_sync() && driver.services.in_sync(),
        invalid: objects.map(|(key, what)| (key.clone(), what.clone())).collect(),
        now: Instant::now(),
        wall: Timestamp::now(),
    };
    let mut figures = Figures::default();
    view.expose(&mut figures);
    let names: BTreeMap<PeerName, (String, String)> =
        view.peers().into_iter().map(|peer| (peer.name.clone(), (peer.remote, peer.class))).collect();
    let bfd = driver.bfd.figures();
    tokio::spawn(async move {
        if let Ok(Ok(bfd)) = tokio::time::timeout(BFD_PATIENCE, bfd).await {
            expose_bfd(&mut figures, &bfd, &names);
        }
        match figures.expose() {
            Ok(text) => question.answer(&MetricsText { text }),
            Err(error) => tracing::error!(%error, "metrics"),
        }
    });
}

struct Peer<'a> {
    name: &'a PeerName,
    /// The neighbour's address, or the interface behind which it is.
    remote: String,
    /// The BGPPeer.
    class: String,
    config: &'a PeerConfig,
    status: PeerStatus,
}

impl Peer<'_> {
    fn label(&self) -> (&'static str, String) {
        ("peer", self.remote.clone())
    }

    fn labels(&self) -> Labels {
        vec![self.label(), ("peer_name", self.class.clone())]
    }

    fn and(&self, more: impl IntoIterator<Item = (&'static str, String)>) -> Labels {
        self.labels().into_iter().chain(more).collect()
    }
}

impl View<'_> {
    fn peers(&self) -> Vec<Peer<'_>> {
        let peers = self.speaker.peers().filter_map(|(name, config, range)| {
            let class = self.desire.class_of(range.unwrap_or(name)).to_owned();
            let remote = self.desire.remote_of(name, config);
            Some(Peer { name, remote, class, config, status: self.speaker.peer(name)? })
        });
        peers.collect()
    }

    pub(crate) fn expose(&self, figures: &mut Figures) {
        let peers = self.peers();
        self.sessions(figures, &peers);
        prefixes(figures, &peers);
        messages(figures, &peers);
        self.rib(figures);
        self.routes(figures);
        self.agent(figures);
    }

    fn sessions(&self, figures: &mut Figures, peers: &[Peer<'_>]) {
        let is = |it: bool| f64::from(u8::from(it));
        let up = peers.iter().map(|peer| (peer.labels(), is(peer.status.state == State::Established)));
        figures.gauge("bgp_session_up", "1 if the session is Established", up);
        let admin = peers
            .iter()
            .map(|peer| (peer.labels(), is(!matches!(peer.config.admin, AdminState::Shutdown { .. }))));
        figures.gauge("bgp_session_admin_up", "0 if somebody shut the session down", admin);
        let since = peers.iter().map(|peer| {
            let at = session_status::at(peer.status.since, self.now, self.wall);
            (peer.labels(), as_f64(u64::try_from(at.as_second()).unwrap_or(0)))
        });
        figures.gauge(
            "bgp_session_since_timestamp_seconds",
            "When the state changed last, since 1970",
            since,
        );
        let info = peers.iter().map(|peer| {
            let negotiated = peer.status.negotiated.as_ref().map(|n| n.remote_asn.0);
            let asn = negotiated.or(session_status::expected_asn(peer.config));
            let labels = peer.and([
                ("state", session_status::state(peer.status.state).to_string()),
                ("reason", session_status::reason(peer.status.reason).to_owned()),
                ("peer_asn", asn.map(|asn| asn.to_string()).unwrap_or_default()),
            ]);
            (labels, 1.0)
        });
        figures.gauge("bgp_session_info", "State of the session and why; always 1", info);
        let resets = peers.iter().flat_map(|peer| {
            let by = peer.status.resets_by.iter();
            by.map(|(why, count)| (peer.and([("reason", session_status::reason(*why).to_owned())]), *count))
        });
        figures.counter("bgp_session_resets", "How often the session left Established, by why", resets);
    }

    fn rib(&self, figures: &mut Figures) {
        let rib = self.speaker.rib();
        let sizes = AfiSafi::ALL.map(|family| (vec![family_label(family)], rib.size(family)));
        let of = |count: fn(&(usize, usize)) -> usize| {
            sizes.clone().into_iter().map(move |(labels, size)| (labels, gauge(count(&size))))
        };
        figures.gauge("bgp_rib_paths", "Paths held, refused ones too", of(|size| size.1));
        figures.gauge("bgp_rib_prefixes", "Prefixes with a path", of(|size| size.0));
        let originated = self.originated.counts().map(|((family, source), count)| {
            (vec![family_label(family), ("source", source.as_str().to_owned())], as_f64(count))
        });
        figures.gauge("bgp_originated_prefixes", "Prefixes that this node tells of itself", originated);
        let decision = distribution(&self.figures.decision);
        let text = "A step of the speaker in which prefixes were decided";
        figures.histogram("bgp_decision_duration_seconds", text, Labels::new(), decision);
        let delay = distribution(self.speaker.keepalive_delay());
        figures.histogram(
            "bgp_keepalive_delay_seconds",
            "By how much keepalives left late",
            Labels::new(),
            delay,
        );
    }

    fn routes(&self, figures: &mut Figures) {
        let families: BTreeMap<AfiSafi, _> = AfiSafi::ALL
            .into_iter()
            .map(|family| (family, self.report.families.get(&family).copied().unwrap_or_default()))
            .collect();
        let by = |count: fn(&crate::fib::FamilyReport) -> usize| {
            let samples = families
                .iter()
                .map(move |(family, report)| (vec![family_label(*family)], gauge(count(report))));
            samples.collect::<Vec<_>>()
        };
        figures.gauge("route_desired", "Routes that the kernel should hold", by(|family| family.desired));
        figures.gauge(
            "route_programmed",
            "Routes that the kernel holds as they should be",
            by(|family| family.programmed),
        );
        let pending = by(|family| family.desired.saturating_sub(family.programmed));
        figures.gauge("route_pending", "Routes that the kernel does not hold yet, refused ones too", pending);
        figures.gauge("route_multipath", "Routes with more than one next hop", by(|family| family.multipath));
        let tally = &self.report.tally;
        let text = "A write of kernel routes, to the last answer";
        figures.histogram("route_apply_duration_seconds", text, Labels::new(), distribution(&tally.apply));
        let errors = tally.errors.iter().map(|(errno, count)| (vec![("errno", errno.clone())], *count));
        figures.counter("route_errors", "Routes that the kernel refused, every attempt by itself", errors);
        let repairs = AfiSafi::ALL
            .map(|family| (vec![family_label(family)], tally.repairs.get(&family).copied().unwrap_or(0)));
        figures.counter("route_repairs", "Routes that were gone or changed, and written again", repairs);
    }

    fn agent(&self, figures: &mut Figures) {
        metrics::build_info(figures, COMPONENT);
        traffic::expose_objects(figures, COMPONENT, self.in_sync, &self.invalid);
        self.traffic.expose(figures, COMPONENT);
        let component = vec![("component", COMPONENT.to_owned())];
        let lag = distribution(&self.figures.lag);
        figures.histogram(
            "loop_lag_seconds",
            "By how much timers of the loop were served late",
            component,
            lag,
        );
        metrics::log_events(figures, COMPONENT);
        let ready = session_status::ready(self.speaker, self.desire, self.report, None, self.wall);
        let labels = vec![("type", ready.type_), ("reason", ready.reason)];
        let value = f64::from(u8::from(ready.status == "True"));
        figures.gauge("node_condition", "1 if the condition of the FabricNode is True", [(labels, value)]);
    }
}

fn prefixes(figures: &mut Figures, peers: &[Peer<'_>]) {
    let counts = peers.iter().flat_map(|peer| {
        peer.status.families.iter().flat_map(move |family| {
            let stages = [
                ("received", family.received),
                ("accepted", family.accepted),
                ("advertised", family.advertised),
                ("stale", family.stale),
            ];
            stages.map(|(stage, count)| {
                (peer.and([family_label(family.family), ("stage", stage.to_owned())]), f64::from(count))
            })
        })
    });
    figures.gauge("bgp_prefixes", "Prefixes of a session, by what became of them", counts);
    let limits = peers.iter().flat_map(|peer| {
        let families = peer.status.families.iter();
        families.map(move |family| (peer.and([family_label(family.family)]), f64::from(family.limit)))
    });
    figures.gauge("bgp_prefix_limit", "How many prefixes may be received", limits);
}

fn messages(figures: &mut Figures, peers: &[Peer<'_>]) {
    let messages = peers.iter().flat_map(|peer| {
        let counters = &peer.status.messages;
        [("received", counters.received), ("sent", counters.sent)].into_iter().flat_map(
            move |(direction, counts)| {
                by_type(counts).map(|(kind, count)| {
                    let labels =
                        vec![peer.label(), ("direction", direction.to_owned()), ("type", kind.to_owned())];
                    (labels, count)
                })
            },
        )
    });
    figures.counter("bgp_messages", "Messages of a session", messages);
    let notifications = peers.iter().flat_map(|peer| {
        peer.status.notifications.iter().map(move |(kind, count)| {
            let direction = if kind.sent { "sent" } else { "received" };
            let labels = vec![
                peer.label(),
                ("direction", direction.to_owned()),
                ("code", kind.code.to_string()),
                ("subcode", kind.subcode.to_string()),
            ];
            (labels, *count)
        })
    });
    figures.counter("bgp_notifications", "NOTIFICATIONs, by what they say", notifications);
    let malformed = peers.iter().flat_map(|peer| {
        let mut actions: BTreeMap<&str, u64> = BTreeMap::new();
        for (what, count) in &peer.status.malformed {
            *actions.entry(what.action).or_default() += count;
        }
        actions.into_iter().map(|(action, count)| (vec![peer.label(), ("action", action.to_owned())], count))
    });
    figures.counter("bgp_malformed", "What was malformed, by what followed (RFC 7606)", malformed);
    let queues = peers.iter().map(|peer| (vec![peer.label()], as_f64(peer.status.send_queue)));
    figures.gauge("bgp_send_queue_bytes", "Bytes that wait until the peer reads", queues);
}

fn by_type(counts: ByType) -> [(&'static str, u64); 5] {
    [
        ("open", counts.open),
        ("update", counts.update),
        ("notification", counts.notification),
        ("keepalive", counts.keepalive),
        ("route-refresh", counts.route_refresh),
    ]
}

/// `names`: address and BGPPeer of each session.
pub(crate) fn expose_bfd(
    figures: &mut Figures,
    bfd: &bfd::Figures,
    names: &BTreeMap<PeerName, (String, String)>,
) {
    let sessions: Vec<(&String, &String, &bfd::SessionFigures)> = bfd
        .sessions
        .iter()
        .filter_map(|(name, session)| names.get(name).map(|(peer, class)| (peer, class, session)))
        .collect();
    let up = sessions.iter().map(|(peer, class, session)| {
        let labels = vec![("peer", (*peer).clone()), ("peer_name", (*class).clone())];
        (labels, f64::from(u8::from(session.status.state == bfd::State::Up)))
    });
    figures.gauge("bfd_session_up", "1 if BFD's session is Up", up);
    let detection = sessions.iter().filter_map(|(peer, _, session)| {
        Some((vec![("peer", (*peer).clone())], session.status.detection_time?.as_secs_f64()))
    });
    figures.gauge("bfd_detection_time_seconds", "How long the peer may be silent", detection);
    let downs = sessions.iter().flat_map(|(peer, _, session)| {
        let downs = session.downs.iter();
        downs.map(|(why, count)| (vec![("peer", (*peer).clone()), ("diagnostic", why.to_string())], *count))
    });
    figures.counter("bfd_session_downs", "How often BFD's session left Up, by why", downs);
    let packets = sessions.iter().flat_map(|(peer, _, session)| {
        [("received", session.received), ("sent", session.sent)].map(|(direction, count)| {
            (vec![("peer", (*peer).clone()), ("direction", direction.to_owned())], count)
        })
    });
    figures.counter("bfd_packets", "BFD packets of a session", packets);
    let delay = distribution(&bfd.send_delay);
    figures.histogram(
        "bfd_send_delay_seconds",
        "By how much periodic packets left late",
        Labels::new(),
        delay,
    );
}

fn family_label(family: AfiSafi) -> (&'static str, String) {
    ("family", family.as_str().to_owned())
}

fn gauge(count: usize) -> f64 {
    as_f64(u64::try_from(count).unwrap_or(u64::MAX))
}

fn distribution(durations: &Durations) -> Distribution {
    Distribution {
        buckets: durations.buckets().map(|(bound, count)| (bound.as_secs_f64(), count)).collect(),
        sum: durations.sum().as_secs_f64(),
        count: durations.count(),
    }
}

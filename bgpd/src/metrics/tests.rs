#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bgp_proto::config::{RemoteAsn, SpeakerConfig};
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::route::NextHopResolution;
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{Capability, MessageType, Notification, Open};
use bgp_proto::{Asn, ConnId, Input, Output, RouterId};
use manx_crds::store::{InvalidObject, Key, StoreError};
use prometheus_parse::{Sample, Scrape, Value};

use super::*;

/// ux.md §7, the rows BGP, BFD, Routes and what bgpd has of Agent: name, type, labels.
const SPECIFIED: [(&str, &str, &[&str]); 42] = [
    ("bgp_session_up", "gauge", &["peer", "peer_name"]),
    ("bgp_session_admin_up", "gauge", &["peer", "peer_name"]),
    ("bgp_session_since_timestamp_seconds", "gauge", &["peer", "peer_name"]),
    ("bgp_session_info", "gauge", &["peer", "peer_name", "state", "reason", "peer_asn"]),
    ("bgp_session_resets_total", "counter", &["peer", "peer_name", "reason"]),
    ("bgp_prefixes", "gauge", &["peer", "peer_name", "family", "stage"]),
    ("bgp_prefix_limit", "gauge", &["peer", "peer_name", "family"]),
    ("bgp_messages_total", "counter", &["peer", "direction", "type"]),
    ("bgp_notifications_total", "counter", &["peer", "direction", "code", "subcode"]),
    ("bgp_malformed_total", "counter", &["peer", "action"]),
    ("bgp_send_queue_bytes", "gauge", &["peer"]),
    ("bgp_rib_paths", "gauge", &["family"]),
    ("bgp_rib_prefixes", "gauge", &["family"]),
    ("bgp_originated_prefixes", "gauge", &["family", "source"]),
    ("bgp_decision_duration_seconds", "histogram", &[]),
    ("bgp_keepalive_delay_seconds", "histogram", &[]),
    ("bfd_session_up", "gauge", &["peer", "peer_name"]),
    ("bfd_detection_time_seconds", "gauge", &["peer"]),
    ("bfd_session_downs_total", "counter", &["peer", "diagnostic"]),
    ("bfd_packets_total", "counter", &["peer", "direction"]),
    ("bfd_send_delay_seconds", "histogram", &[]),
    ("route_desired", "gauge", &["family"]),
    ("route_programmed", "gauge", &["family"]),
    ("route_pending", "gauge", &["family"]),
    ("route_multipath", "gauge", &["family"]),
    ("route_apply_duration_seconds", "histogram", &[]),
    ("route_errors_total", "counter", &["errno"]),
    ("route_repairs_total", "counter", &["family"]),
    ("build_info", "gauge", &["component", "version", "schema_revision"]),
    ("store_in_sync", "gauge", &["component"]),
    ("store_disconnected_seconds", "gauge", &["component"]),
    ("store_requests_total", "counter", &["component", "verb", "kind", "code"]),
    ("store_watch_restarts_total", "counter", &["component", "kind"]),
    ("store_invalid_objects", "gauge", &["kind"]),
    ("loop_lag_seconds", "histogram", &["component"]),
    ("log_events_total", "counter", &["component", "level"]),
    ("node_condition", "gauge", &["type", "reason"]),
    // Everybody's names, without our prefix.
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_virtual_memory_bytes", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_max_fds", "gauge", &[]),
];

/// A speaker at 10.0.0.1 whose peer `tor`, 10.0.0.2, is played here.
struct Rig {
    speaker: Speaker,
    desire: Desire,
    now: Instant,
}

const CONN: ConnId = ConnId(1);

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let mut config = SpeakerConfig::new(Asn(65001), RouterId(Ipv4Addr::new(10, 0, 0, 1)));
        let remote = RemoteAsn::Exactly(Asn(65002));
        let tor = PeerConfig::new(
            "10.0.0.2".parse().unwrap(),
            remote,
            ImportPolicy::accept_all(),
            ExportPolicy::default(),
        );
        config.peers.insert(PeerName::from("tor"), tor);
        let mut speaker = Speaker::new(7, now);
        speaker.handle_input(Input::Configure(config.clone()), now);
        let desire = Desire { speaker: Some(config), ..Desire::default() };
        let mut rig = Self { speaker, desire, now };
        rig.drain();
        let (local, remote) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:179".parse().unwrap());
        rig.input(Input::Connected { conn: CONN, peer: "tor".into(), local, remote });
        rig
    }

    fn input(&mut self, input: Input<'_>) {
        self.speaker.handle_input(input, self.now);
        self.drain();
    }

    fn hear(&mut self, kind: MessageType, body: &[u8]) {
        let mut bytes = Vec::new();
        encode(kind, &mut bytes, |out| out.extend_from_slice(body));
        self.input(Input::Bytes { conn: CONN, bytes: &bytes });
    }

    fn drain(&mut self) {
        loop {
            while let Some(output) = self.speaker.poll_output() {
                if let Output::TrackNextHop { address, wanted: true } = output {
                    let resolution = Some(NextHopResolution { metric: 0, interface: 1 });
                    self.speaker.handle_input(Input::NextHop { address, resolution }, self.now);
                }
            }
            let Some(taken) = self.speaker.poll_transmit(CONN).map(<[u8]>::len) else { return };
            self.speaker.transmitted(CONN, taken);
        }
    }

    fn establish(&mut self) {
        let open = Open {
            my_as: 65002,
            hold_time: 30,
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, 2)),
            capabilities: vec![Capability::RouteRefresh],
        };
        let mut body = Vec::new();
        open.encode(&mut body);
        self.hear(MessageType::Open, &body);
        self.hear(MessageType::Keepalive, &[]);
    }

    /// 10.244.n.0/24; `origin` above 2 is malformed.
    fn announce(&mut self, n: u8, origin: u8) {
        let mut body = vec![0, 0, 0, 18, 0x40, 1, 1, origin];
        body.extend([0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2, 24, 10, 244, n]);
        self.hear(MessageType::Update, &body);
    }

    fn keepalive_timer(&mut self) {
        // It fires 40 ms late.
        self.now = self.speaker.poll_timeout().unwrap() + Duration::from_millis(40);
        self.input(Input::Timeout);
    }

    fn expose(&self) -> String {
        let traffic = Traffic::default();
        traffic.note("list", "BGPPeer", &Ok::<(), StoreError>(()));
        traffic.note_watch("BGPPeer");
        let (report, loop_figures) = kernel();
        let mut originated = Originated::default();
        let desire = crate::desire::tests::advertised();
        let index = manx_crds::services::ServiceIndex::new("n1");
        drop(originated.all(&desire.export, &index, self.now));
        let view = View {
            speaker: &self.speaker,
            desire: &self.desire,
            originated: &originated,
            report: &report,
            figures: &loop_figures,
            traffic: &traffic,
            in_sync: true,
            invalid: [(("BGPPeer".to_owned(), Key::cluster("bad")), invalid())].into(),
            now: self.now,
            wall: Timestamp::now(),
        };
        let mut figures = Figures::default();
        view.expose(&mut figures);
        let names = [(PeerName::from("tor"), ("10.0.0.2".to_owned(), "tor".to_owned()))];
        expose_bfd(&mut figures, &watched(self.now), &names.into());
        figures.expose().unwrap()
    }
}

fn invalid() -> InvalidObject {
    InvalidObject {
        kind: "BGPPeer".to_owned(),
        namespace: None,
        name: "bad".to_owned(),
        place: String::new(),
        line: None,
        error: String::new(),
        expected: None,
        last_good: false,
    }
}

fn kernel() -> (Report, LoopFigures) {
    let family = crate::fib::FamilyReport { desired: 5, programmed: 3, multipath: 2 };
    let mut report = Report { families: [(AfiSafi::Ipv4Unicast, family)].into(), ..Report::default() };
    report.tally.errors.insert("ENETUNREACH".to_owned(), 4);
    report.tally.repairs.insert(AfiSafi::Ipv6Unicast, 6);
    report.tally.apply.observe(Duration::from_millis(3));
    let mut figures = LoopFigures::default();
    figures.decision.observe(Duration::from_micros(700));
    figures.lag.observe(Duration::from_millis(2));
    (report, figures)
}

fn watched(now: Instant) -> bfd::Figures {
    let status = bfd::SessionStatus {
        state: bfd::State::Up,
        since: now,
        diagnostic: bfd::Diagnostic::NONE,
        remote_state: bfd::State::Up,
        remote_diagnostic: bfd::Diagnostic::NONE,
        transmit_interval: Duration::from_millis(300),
        detection_time: Some(Duration::from_millis(900)),
    };
    let downs = [(bfd::Diagnostic::DETECTION_TIME_EXPIRED, 2)].into();
    let session = bfd::SessionFigures { status, sent: 10, received: 9, downs };
    bfd::Figures { sessions: [(PeerName::from("tor"), session)].into(), ..bfd::Figures::default() }
}

fn parse(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let is_it = |sample: &&Sample| {
        sample.metric == name && labels.iter().all(|(key, value)| sample.labels.get(key) == Some(value))
    };
    scrape.samples.iter().find(is_it).map(|sample| match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        Value::Histogram(buckets) => buckets.last().map_or(f64::NAN, |bucket| bucket.count),
        Value::Summary(_) => f64::NAN,
    })
}

fn eventful() -> Rig {
    let mut rig = Rig::new();
    rig.establish();
    rig.announce(1, 0);
    rig.announce(2, 0);
    rig.announce(2, 9);
    rig.keepalive_timer();
    let mut body = Vec::new();
    Notification::new(6, 4).encode(&mut body);
    rig.hear(MessageType::Notification, &body);
    rig
}

#[test]
fn every_metric_of_the_guide_is_there_with_its_labels_and_no_other() {
    let text = eventful().expose();
    let scrape = parse(&text);
    for (name, kind, labels) in SPECIFIED {
        let full = if name.starts_with("process_") { name.to_owned() } else { format!("manx_{name}") };
        let family = full.strip_suffix("_total").filter(|_| kind == "counter").unwrap_or(&full);
        assert!(text.contains(&format!("# TYPE {family} {kind}\n")), "{family} is no {kind} in\n{text}");
        let samples: Vec<&Sample> = scrape.samples.iter().filter(|sample| sample.metric == full).collect();
        assert!(!samples.is_empty(), "{full} has no sample in\n{text}");
        for sample in samples {
            let shown: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(shown, labels.iter().copied().collect(), "{full}");
        }
    }
}

#[test]
fn nothing_is_exposed_that_the_guide_does_not_name() {
    let text = eventful().expose();
    let known: BTreeSet<String> = SPECIFIED
        .iter()
        .map(|(name, _, _)| name.strip_suffix("_total").unwrap_or(name))
        .map(|name| if name.starts_with("process_") { name.to_owned() } else { format!("manx_{name}") })
        .chain(["process_threads", "process_start_time_seconds"].map(ToOwned::to_owned))
        .collect();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exposed: BTreeSet<String> =
        types.filter_map(|line| line.split_whitespace().next()).map(ToOwned::to_owned).collect();
    assert_eq!(exposed, known);
    assert!(text.ends_with("# EOF\n") && text.contains("le=\"+Inf\"} 1\n"), "{text}");
}

#[test]
fn figures_are_those_of_the_session() {
    let tor = ("peer", "10.0.0.2");
    let mut rig = Rig::new();
    rig.establish();
    rig.announce(1, 0);
    rig.announce(2, 0);
    let scrape = parse(&rig.expose());
    let of = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<(&str, &str)> = labels.iter().copied().chain([tor]).collect();
        value(&scrape, name, &labels)
    };
    assert_eq!(of("manx_bgp_session_up", &[("peer_name", "tor")]), Some(1.0));
    assert_eq!(of("manx_bgp_session_info", &[("state", "Established"), ("peer_asn", "65002")]), Some(1.0));
    assert_eq!(of("manx_bgp_prefixes", &[("family", "IPv4Unicast"), ("stage", "accepted")]), Some(2.0));
    assert_eq!(of("manx_bgp_messages_total", &[("direction", "received"), ("type", "update")]), Some(2.0));
    assert_eq!(of("manx_bgp_session_resets_total", &[]), None);

    let scrape = parse(&eventful().expose());
    let of = |name: &str, labels: &[(&str, &str)]| value(&scrape, name, labels);
    assert_eq!(of("manx_bgp_session_up", &[tor]), Some(0.0));
    assert_eq!(of("manx_bgp_session_admin_up", &[tor]), Some(1.0));
    let why = ("reason", "NotificationReceived");
    assert_eq!(of("manx_bgp_session_resets_total", &[tor, why]), Some(1.0));
    let said = [("direction", "received"), ("code", "6"), ("subcode", "4")];
    assert_eq!(of("manx_bgp_notifications_total", &said), Some(1.0));
    assert_eq!(of("manx_bgp_malformed_total", &[tor, ("action", "TreatAsWithdraw")]), Some(1.0));
    assert_eq!(of("manx_bgp_rib_prefixes", &[("family", "IPv4Unicast")]), Some(0.0));
    assert_eq!(of("manx_bgp_keepalive_delay_seconds", &[]), Some(1.0));
    assert_eq!(of("manx_bgp_originated_prefixes", &[("source", "Block")]), Some(1.0));
    assert_eq!(of("manx_route_pending", &[("family", "IPv4Unicast")]), Some(2.0));
    assert_eq!(of("manx_route_errors_total", &[("errno", "ENETUNREACH")]), Some(4.0));
    assert_eq!(of("manx_route_repairs_total", &[("family", "IPv6Unicast")]), Some(6.0));
    assert_eq!(of("manx_bfd_packets_total", &[tor, ("direction", "sent")]), Some(10.0));
    assert_eq!(of("manx_bfd_detection_time_seconds", &[tor]), Some(0.9));
    let down = ("diagnostic", "ControlDetectionTimeExpired");
    assert_eq!(of("manx_bfd_session_downs_total", &[tor, down]), Some(2.0));
    assert_eq!(of("manx_store_invalid_objects", &[("kind", "BGPPeer")]), Some(1.0));
}

#[test]
fn the_page_lists_what_is_exposed() {
    let text = eventful().expose();
    let help = |name: &str| {
        let line = format!("# HELP {name} ");
        text.lines().find_map(|one| one.strip_prefix(&line)).unwrap_or_default()
    };
    let mut page = "# Metrics of bgpd\n\nGenerated by `EXPECTORATE=overwrite cargo test --profile ci -p bgpd --bins`. OpenMetrics, at \
                    `/metrics` of `--health-address`; the chart\nopens it with `metrics.enabled` and makes a PodMonitor with \
                    `metrics.podMonitor.enabled`. `peer` is an address without port, `peer_name`\nthe BGPPeer (`topology` between \
                    nodes). Buckets of histograms go from 0.5 ms to 32.768 s by doubling. No prefix and no text of a reason is \
                    a\nlabel: those are in `manxctl bgp peers|routes|explain`, in the log and in Events.\n\n| metric | type | \
                    labels | what |\n|---|---|---|---|\n"
        .to_owned();
    for (name, kind, labels) in SPECIFIED {
        let full = if name.starts_with("process_") { name.to_owned() } else { format!("manx_{name}") };
        let family = full.strip_suffix("_total").filter(|_| kind == "counter").unwrap_or(&full);
        let labels = labels.join(", ");
        page.push_str(&format!("| `{full}` | {kind} | {labels} | {} |\n", help(family)));
    }
    expectorate::assert_contents("../docs/metrics.md", &page);
}

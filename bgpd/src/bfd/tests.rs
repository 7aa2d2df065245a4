use std::collections::BTreeMap;
use std::time::Duration;

use bgp_proto::bfd::State;
use bgp_proto::config::RemoteAsn;
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::{Asn, RouterId};

use super::*;

fn name() -> PeerName {
    PeerName::from("tor")
}

fn peer(change: impl FnOnce(&mut PeerConfig)) -> PeerConfig {
    let remote = "10.0.0.1".parse().unwrap();
    let remote_asn = RemoteAsn::Exactly(Asn(65001));
    let mut config = PeerConfig::new(remote, remote_asn, ImportPolicy::default(), ExportPolicy::default());
    change(&mut config);
    config
}

fn timing(milliseconds: u64) -> Timing {
    let interval = Duration::from_millis(milliseconds);
    Timing { desired_min_tx: interval, required_min_rx: interval, detect_multiplier: 3, passive: false }
}

fn desire(config: PeerConfig) -> Desire {
    let mut speaker = SpeakerConfig::new(Asn(65000), RouterId("10.0.0.2".parse().unwrap()));
    speaker.peers.insert(name(), config);
    Desire { speaker: Some(speaker), bfd: BTreeMap::from([(name(), timing(100))]), ..Desire::default() }
}

fn multihop(config: &mut PeerConfig) {
    config.max_hops = 4;
    config.local_address = Some("10.9.9.9".parse().unwrap());
}

#[test]
fn a_session_is_wanted_for_a_peer_with_a_profile_that_should_be_up() {
    let facts = Facts::default();
    let of = |config| sessions(&desire(config), std::iter::empty(), &facts, &BTreeMap::new());
    let found = of(peer(multihop));
    let path = found[&name()].path;
    assert_eq!((path.multihop, path.interface), (true, None));
    assert_eq!(path.local, "10.9.9.9".parse::<IpAddr>().unwrap());
    let shut = of(peer(|config| {
        multihop(config);
        config.admin = AdminState::Shutdown { message: String::new() };
    }));
    assert_eq!(shut, BTreeMap::new());
    assert_eq!(of(peer(|_| {})), BTreeMap::new(), "no link leads there, and none did");
}

#[test]
fn a_path_that_is_gone_for_now_is_that_of_before_unless_the_peer_is_another() {
    let facts = Facts::default();
    let path = Path {
        remote: "10.0.0.1".parse().unwrap(),
        local: "10.0.0.2".parse().unwrap(),
        interface: Some(7),
        multihop: false,
    };
    let last = BTreeMap::from([(name(), SessionConfig { path, timing: timing(300) })]);
    let found = sessions(&desire(peer(|_| {})), std::iter::empty(), &facts, &last);
    assert_eq!(found[&name()], SessionConfig { path, timing: timing(100) }, "with the timers of now");
    let moved = peer(|config| config.remote = "10.0.0.9".parse().unwrap());
    assert_eq!(sessions(&desire(moved), std::iter::empty(), &facts, &last), BTreeMap::new());
}

#[test]
fn without_its_profile_what_ran_goes_on_and_what_is_new_waits() {
    let missing = || {
        let mut desire = Desire { bfd: BTreeMap::new(), ..desire(peer(|_| {})) };
        desire.bfd_missing.insert(name(), "there is no BFDProfile fast".to_owned());
        desire
    };
    let admin = |desire: &Desire| desire.speaker.as_ref().unwrap().peers[&name()].admin.clone();
    // New: neither dialled nor accepted, with words; and so on the next time.
    let mut fresh = missing();
    resolve_missing(&mut fresh, &Desire::default());
    let AdminState::Withheld { reason, text } = admin(&fresh) else { panic!("{:?}", admin(&fresh)) };
    assert_eq!((reason, text.as_str()), (Reason::BFDDown, "there is no BFDProfile fast"));
    let mut again = missing();
    resolve_missing(&mut again, &fresh);
    assert!(matches!(admin(&again), AdminState::Withheld { .. }));
    // It ran: with the timers of before, and BGPReady says so.
    let mut ran = missing();
    resolve_missing(&mut ran, &desire(peer(|_| {})));
    assert_eq!((admin(&ran), ran.bfd[&name()]), (AdminState::Up, timing(100)));
    assert_eq!(ran.remarks, ["tor goes on as before: there is no BFDProfile fast"]);
    // It ran without BFD: so it does on.
    let mut without = missing();
    resolve_missing(&mut without, &Desire { bfd: BTreeMap::new(), ..desire(peer(|_| {})) });
    assert_eq!((admin(&without), without.bfd.len()), (AdminState::Up, 0));
}

#[test]
fn the_condition_says_who_switched_it_off_and_what_is_missing() {
    let now = Instant::now();
    let status = |state, diagnostic, remote_state| SessionStatus {
        state,
        since: now,
        diagnostic,
        remote_state,
        remote_diagnostic: Diagnostic::NONE,
        transmit_interval: Duration::from_millis(100),
        detection_time: None,
    };
    let said = |status: Option<SessionStatus>, problem: Option<&str>| {
        View { status, problem: problem.map(str::to_owned) }.condition()
    };
    let up = status(State::Up, Diagnostic::NONE, State::Up);
    assert_eq!(said(Some(up), None), (true, "Up", String::new()));
    let off = status(State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN, State::AdminDown);
    assert_eq!(said(Some(off), None).1, "AdminDown");
    let lost = status(State::Down, Diagnostic::DETECTION_TIME_EXPIRED, State::Up);
    let (is_up, reason, message) = said(Some(lost), None);
    assert!(!is_up && reason == "Down" && message.starts_with("ControlDetectionTimeExpired"), "{message}");
    assert!(said(None, None).2.contains("was not heard"));
    assert_eq!(said(None, Some("cannot listen")).2, "cannot listen");
    let report = View { status: Some(lost), problem: None }.report(now, Timestamp::now());
    assert_eq!(report.diagnostic.as_deref(), Some("ControlDetectionTimeExpired"));
}

#[test]
fn a_neighbour_of_a_range_is_watched_by_its_own_name_as_the_range_says() {
    let facts = Facts::default();
    let (neighbour, config) = (PeerName::from("rack.10.0.0.7"), peer(multihop));
    let mut desire = desire(peer(multihop));
    desire.bfd.insert(PeerName::from("rack"), timing(300));
    let found =
        sessions(&desire, std::iter::once((&neighbour, &config, timing(300))), &facts, &BTreeMap::new());
    assert_eq!(found.len(), 2, "the range itself has no path: {found:?}");
    assert_eq!(found[&neighbour].timing, timing(300));
}

//! A speaker that anything happens to, and a station that comes, goes and reads as it likes: what it was told is what is.

use std::time::Duration;

use bgp_proto::bmp::message::{Initiation, Termination};
use bgp_proto::bmp::{StationId, StationOutput};
use bgp_proto::policy::ImportPolicy;
use bgp_proto::wire::MessageType;
use bgp_proto::wire::message::encode;
use bgp_proto::{ConnId, Input};

use super::speaker::Chaos;
use crate::collector::Collector;
use crate::hand::peer;

/// What only this target does; all else is the speaker's.
const STATION: u8 = 23;
/// Deeds of one input, so that each ends soon.
const MOST_DEEDS: usize = 200;

struct Watched {
    chaos: Chaos,
    station: Option<(StationId, Collector)>,
    next: u64,
    reads: bool,
    /// Complete tellings.
    told: usize,
}

pub(crate) fn run(data: &[u8]) {
    told(data);
}

/// How often a station held all that there was.
pub(crate) fn told(mut data: &[u8]) -> usize {
    let mut watched = Watched { chaos: Chaos::new(), station: None, next: 0, reads: true, told: 0 };
    for _ in 0..MOST_DEEDS {
        let Some((deed, rest)) = data.split_first() else { break };
        data = rest;
        if deed & 0x1F < STATION {
            watched.chaos.play(*deed, &mut data);
        } else {
            watched.play(*deed, &mut data);
        }
        watched.pump();
    }
    watched.settles();
    watched.told
}

impl Watched {
    fn play(&mut self, deed: u8, data: &mut &[u8]) {
        let mut octet = || data.split_off_first().copied().unwrap_or_default();
        let hand = &mut self.chaos.hand;
        match deed & 0x1F {
            STATION => self.connect(),
            24 => {
                if let Some((id, mut collector)) = self.station.take() {
                    collector.read(&hand.speaker.remove_station(id, Termination::AdministrativelyClosed));
                    assert!(!collector.is_within_message(), "a message is cut short");
                    assert_eq!(hand.speaker.poll_station(id, hand.now), StationOutput::Nothing);
                }
            }
            25 => self.reads = !self.reads,
            26 => {
                let import =
                    if octet() & 1 == 0 { ImportPolicy::accept_all() } else { ImportPolicy::default() };
                hand.configure(|config| config.import = import);
            }
            27 => {
                let (third, mut out) = (octet(), Vec::new());
                encode(MessageType::Update, &mut out, |out| {
                    out.extend_from_slice(&[0, 4, 24, 10, 244, third, 0, 0]);
                });
                hand.bytes(ConnId(self.chaos.conn), &out);
            }
            28 => {
                let prefix = format!("10.245.{}.0/24", octet()).parse().unwrap();
                hand.input(Input::Withdraw { prefix });
            }
            29 => hand.speaker.report_to_stations(hand.now),
            30 => {
                let asn = 64_000 + u32::from(octet() & 1);
                hand.configure_all(|config| config.asn.0 = asn);
            }
            _ => hand.configure(|config| config.export.drained = !config.export.drained),
        }
    }

    fn connect(&mut self) {
        if self.station.is_some() {
            return;
        }
        self.next += 1;
        let id = StationId(self.next);
        let initiation = Initiation { sys_descr: "test".to_owned(), sys_name: "n1".to_owned() };
        let hand = &mut self.chaos.hand;
        assert!(hand.speaker.add_station(id, &initiation, Duration::from_secs(1_700_000_000), hand.now));
        self.station = Some((id, Collector::default()));
    }

    /// The station reads what there is, if it reads.
    fn pump(&mut self) {
        let hand = &mut self.chaos.hand;
        let Some((id, collector)) = &mut self.station else { return };
        if !self.reads {
            return;
        }
        for _ in 0..100_000 {
            let taken = match hand.speaker.poll_station(*id, hand.now) {
                StationOutput::Nothing => return,
                StationOutput::Again => {
                    hand.input(Input::Timeout);
                    continue;
                }
                StationOutput::Bytes(octets) => {
                    let some = &octets[..octets.len().min(1000)];
                    collector.read(some);
                    some.len()
                }
                StationOutput::Over(why, last) => {
                    collector.read(&last);
                    assert!(!collector.is_within_message() && why == Termination::Unspecified, "{why:?}");
                    hand.speaker.remove_station(*id, why);
                    self.station = None;
                    return;
                }
            };
            hand.speaker.station_took(*id, taken);
        }
        panic!("a station is told without end");
    }

    /// Once everybody has read, the station holds what the speaker does.
    fn settles(&mut self) {
        self.reads = true;
        self.chaos.hand.reads = true;
        // The peer reads the rest.
        self.chaos.hand.run_for(Duration::ZERO);
        self.chaos.hand.input(Input::Timeout);
        self.pump();
        self.connect();
        self.pump();
        let speaker = &self.chaos.hand.speaker;
        let Some((_, collector)) = &self.station else { return };
        if speaker.selection_deferred_until().is_none() {
            collector.agrees_with(speaker, &peer(), "10.0.0.2".parse().unwrap());
            self.told += usize::from(speaker.opens(&peer()).is_some());
        }
    }
}

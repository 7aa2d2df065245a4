//! What is said and heard on one link. It holds no state of the session: who is the neighbour, the driver decides.

use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use felix_kernel::link::MacAddress;
use felix_kernel::router_discovery::{Message, RouterDiscovery};
use tokio::sync::{mpsc, watch};

use super::Report;

/// RFC 4861 §6.3.7: RTR_SOLICITATION_INTERVAL. It goes on as long as there is no session (RFC 7559): a link without a session
/// carries nothing else.
const SOLICIT: Duration = Duration::from_secs(4);
/// Between two advertisements to all, at first and then; RFC 4861 §6.2.6 wants 3 s, §6.2.1 at least 4 s as a rule.
const FIRST: Duration = Duration::from_secs(3);
const ADVERTISE: Duration = Duration::from_secs(10);
/// How many advertisements are the first ones (RFC 4861 §6.2.4).
const FIRST_ONES: u32 = 3;
/// After the socket failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Our end of a link.
#[derive(Debug, Clone)]
pub(super) struct OnLink {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mac: Option<MacAddress>,
    pub(super) ours: Ipv6Addr,
}

/// Advertises and listens until it is aborted; solicits while `searching`.
pub(super) async fn run(link: OnLink, mut searching: watch::Receiver<bool>, reports: mpsc::Sender<Report>) {
    loop {
        let failed = match RouterDiscovery::open(&link.name, link.ifindex) {
            Ok(socket) => serve(&link, &socket, &mut searching, &reports).await,
            Err(error) => Err(error),
        };
        let Err(error) = failed else { return };
        let report = Report::Deaf { ifindex: link.ifindex, error: error.to_string() };
        if reports.send(report).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// `Ok`: nobody asks any more.
async fn serve(
    link: &OnLink,
    socket: &RouterDiscovery,
    searching: &mut watch::Receiver<bool>,
    reports: &mpsc::Sender<Report>,
) -> io::Result<()> {
    let mut advertise_at = Instant::now();
    let mut solicit_at = advertise_at;
    let mut advertised = 0u32;
    loop {
        let now = Instant::now();
        if advertise_at <= now {
            advertised = advertised.saturating_add(1);
            advertise_at = now + if advertised < FIRST_ONES { FIRST } else { ADVERTISE };
            say(link, "advertisement", socket.advertise(None, link.mac));
        }
        let searches = *searching.borrow_and_update();
        if searches && solicit_at <= now {
            solicit_at = now + SOLICIT;
            say(link, "solicitation", socket.solicit());
        }
        let next = if searches { advertise_at.min(solicit_at) } else { advertise_at };
        tokio::select! {
            message = socket.receive() => match message? {
                Message::Solicitation { from: Some(from) } if from != link.ours => {
                    say(link, "advertisement", socket.advertise(Some(from), link.mac));
                }
                // It has no address yet: all are told, soon enough.
                Message::Solicitation { .. } => advertise_at = advertise_at.min(now + FIRST),
                Message::Advertisement { from } if from != link.ours => {
                    if reports.send(Report::Heard { ifindex: link.ifindex, from }).await.is_err() {
                        return Ok(());
                    }
                }
                Message::Advertisement { .. } => {}
            },
            changed = searching.changed() => match changed {
                Ok(()) => solicit_at = Instant::now(),
                Err(_) => return Ok(()),
            },
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// The next one is due in seconds; a link that is gone is seen elsewhere.
fn say(link: &OnLink, what: &str, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, interface = link.name, what, "not sent");
    }
}

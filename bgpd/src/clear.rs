//! `manxctl bgp clear`: a person ends sessions and starts them again, or has their routes sent again.

use std::time::Instant;

use bgp_proto::fsm::State;
use bgp_proto::{AfiSafi, Input, PeerName};
use manx_crds::report::{BgpdCleared, ClearedRow, SoftClear};

use crate::control;
use crate::driver::Driver;
use crate::unnumbered::shown;

/// The capability that a peer answers requests by (RFC 2918).
const ROUTE_REFRESH: &str = "RouteRefresh";

pub(crate) fn clear(driver: &mut Driver, peer: &str, soft: Option<SoftClear>, message: &str) -> BgpdCleared {
    let sessions = control::sessions_named(driver, peer);
    let sessions = sessions.iter().map(|(name, _)| one(driver, name, soft, message)).collect();
    BgpdCleared { node: driver.node.clone(), sessions }
}

fn one(driver: &mut Driver, name: &PeerName, soft: Option<SoftClear>, message: &str) -> ClearedRow {
    let (now, mut done, mut not_done) = (Instant::now(), Vec::new(), Vec::new());
    let remote = driver.speaker.peers().find(|(peer, _, _)| *peer == name);
    let (remote, class) = remote.map_or((String::new(), name.as_str().to_owned()), |(_, config, range)| {
        (
            shown(driver.monitor.facts(), config.remote),
            driver.desire.class_of(range.unwrap_or(name)).to_owned(),
        )
    });
    let status = driver.speaker.peer(name);
    let is_up = status.as_ref().is_some_and(|status| status.state == State::Established);
    match soft {
        None => {
            driver.input(Input::Reset { peer: name.clone(), message: message.to_owned() }, now);
            done.push(match is_up {
                true => "ended with Cease/AdministrativeReset and started again".to_owned(),
                false => "was not up; tried again at once".to_owned(),
            });
        }
        Some(_) if !is_up => not_done.push("the session is not up: there is nothing to refresh".to_owned()),
        Some(soft) => {
            let negotiated = status.and_then(|status| status.negotiated);
            let families = negotiated.as_ref().map(|agreed| agreed.families.clone()).unwrap_or_default();
            let answers = negotiated.is_some_and(|agreed| agreed.capabilities.contains(&ROUTE_REFRESH));
            let (asks, tells) = match soft {
                SoftClear::In => (true, false),
                SoftClear::Out => (false, true),
                SoftClear::Both => (true, true),
            };
            for family in families {
                refresh(driver, name, family, asks && answers, tells, now);
                if asks && answers {
                    done.push(format!("asked to send {family} again (ROUTE-REFRESH)"));
                }
                if tells {
                    done.push(format!("{family} is sent again"));
                }
            }
            if asks && !answers {
                not_done.push(
                    "the peer offers no route refresh (RFC 2918): only a hard clear makes it send again"
                        .to_owned(),
                );
            }
        }
    }
    let soft = soft.map(|soft| format!("{soft:?}"));
    tracing::info!(peer = %name, remote, soft, text = message, ?done, ?not_done, "session cleared by a person");
    ClearedRow { node: driver.node.clone(), peer: class, remote, done, not_done }
}

fn refresh(driver: &mut Driver, peer: &PeerName, family: AfiSafi, asks: bool, tells: bool, now: Instant) {
    if asks {
        driver.input(Input::RequestRefresh { peer: peer.clone(), family }, now);
    }
    if tells {
        driver.input(Input::TellAgain { peer: peer.clone(), family }, now);
    }
}

//! `manxctl node drain|undrain`: a person's word on one node, and how long its bgpd takes to pass it on (RFC 8326).

use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use manx_crds::report::{BgpdStatus, Drain};
use manx_crds::v1alpha1::{AdminState, FabricNode};
use serde_json::json;

use crate::error::Failure;
use crate::fabric::{Daemon, Fabric};

/// How long bgpd may take to say what it was told.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Asks for traffic to go elsewhere, or to come back. False: bgpd did not answer in time.
pub(crate) async fn run(
    fabric: &Fabric,
    node: &str,
    wanted: AdminState,
    message: Option<&str>,
) -> Result<bool, Failure> {
    let began = Instant::now();
    let message = message.map(str::to_owned);
    let changed = fabric
        .change::<FabricNode>(node, |object| {
            let spec = &mut object.spec;
            let is_other = spec.admin_state != wanted || spec.admin_message != message;
            (spec.admin_state, spec.admin_message) = (wanted.clone(), message.clone());
            is_other
        })
        .await?;
    let drains = wanted == AdminState::Drained;
    let name = changed.name_any();
    while began.elapsed() < PATIENCE {
        let status = fabric.ask::<BgpdStatus>(&name, Daemon::Bgpd, &json!({"verb": "status"})).await;
        if let Ok(status) = status
            && stands(&status) == if drains { Drain::Drained } else { Drain::Up }
        {
            println!("{}", passed_on(&status, drains, began.elapsed()));
            println!("{}", conclusion(&name, drains));
            return Ok(true);
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!(
        "  adminState {} is written; bgpd on {name} has not said so within {}s",
        wanted.as_str(),
        PATIENCE.as_secs()
    );
    println!("manxctl status --node {name} says how it stands");
    Ok(false)
}

/// A bgpd that does not say has it as the reason of BGPReady, where no session is down.
fn stands(status: &BgpdStatus) -> Drain {
    let said = if status.ready == "Drained" { Drain::Drained } else { Drain::Up };
    status.drain.unwrap_or(said)
}

fn passed_on(status: &BgpdStatus, drains: bool, took: Duration) -> String {
    let (prefixes, sessions) = (status.own_ipv4 + status.own_ipv6, status.sessions_established);
    let took = took.as_secs_f64();
    match drains {
        true => format!(
            "  adminState Drained, GRACEFUL_SHUTDOWN on {prefixes} prefixes to {sessions} peers   {took:.1}s"
        ),
        false => format!(
            "  adminState Up, {prefixes} prefixes to {sessions} peers without GRACEFUL_SHUTDOWN   {took:.1}s"
        ),
    }
}

fn conclusion(node: &str, drains: bool) -> String {
    match drains {
        true => format!("drained; sessions stay up       undo: manxctl node undrain {node}"),
        false => "attracts traffic again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_numbers() {
        let status =
            BgpdStatus { own_ipv4: 12, own_ipv6: 5, sessions_established: 2, ..BgpdStatus::default() };
        assert_eq!(
            passed_on(&status, true, Duration::from_millis(430)),
            "  adminState Drained, GRACEFUL_SHUTDOWN on 17 prefixes to 2 peers   0.4s"
        );
        assert!(conclusion("worker-12", true).ends_with("undo: manxctl node undrain worker-12"));
        assert_eq!(conclusion("worker-12", false), "attracts traffic again");
    }

    #[test]
    fn a_session_that_is_down_keeps_no_node_from_being_drained() {
        let status =
            |ready: &str, drain| BgpdStatus { ready: ready.to_owned(), drain, ..BgpdStatus::default() };
        for said in [Drain::Up, Drain::Draining, Drain::Drained] {
            assert_eq!(stands(&status("SomeDown", Some(said))), said);
        }
        assert_eq!(stands(&status("Drained", None)), Drain::Drained);
        assert_eq!(stands(&status("SomeDown", None)), Drain::Up);
    }
}

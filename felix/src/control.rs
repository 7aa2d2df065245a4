//! Answers on the control socket, in the words of `crds/src/report`.

use std::collections::BTreeMap;
use std::time::Instant;

use felix_calc::compile::Place;
use felix_calc::evaluator::{Evaluator, Reason};
use felix_calc::{Direction, Endpoint, PolicyKey};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use manx_crds::report::{
    BlockRow, EndpointRow, FelixEndpoints, FelixIpam, FelixPolicies, FelixRequest, FelixStatus, FelixTable,
    PolicyRow,
};
use manx_crds::store::{Key, Store};
use manx_daemon::control::Question;
use tokio::sync::oneshot;

use crate::dataplane::Command;
use crate::driver::Driver;
use crate::status::words;
use crate::trace;

const VERBS: [&str; 6] = ["status", "policies", "ipam", "endpoints", "trace", "table"];

pub(crate) fn answer<S: Store>(driver: &Driver<S>, question: Question) {
    match serde_json::from_value(question.request.clone()) {
        Ok(FelixRequest::Status) => question.answer(&status(driver)),
        Ok(FelixRequest::Policies) => policies(driver, question),
        Ok(FelixRequest::Ipam) => question.answer(&ipam(driver)),
        Ok(FelixRequest::Endpoints) => question.answer(&endpoints(driver)),
        Ok(FelixRequest::Trace { from, to, protocol, port }) => {
            match trace::trace(driver.graph.state(), &from, &to, &protocol, port) {
                Ok(report) => question.answer(&report),
                Err(error) => question.answer(&error),
            }
        }
        Ok(FelixRequest::Table) => match felix_kernel::nft::render(driver.graph.table()) {
            Ok(table) => question.answer(&FelixTable { node: driver.node.clone(), table }),
            Err(error) => question.answer(&serde_json::json!({"error": error.to_string()})),
        },
        Err(_) => question.unknown(&VERBS),
    }
}

fn status<S: Store>(driver: &Driver<S>) -> FelixStatus {
    let now = Instant::now();
    let (dataplane, text) = words(driver.dataplane_state());
    let (policy, policy_text) = words(driver.policy_state(now));
    let started = Timestamp::now().checked_sub(driver.started.elapsed()).ok().map(Time);
    FelixStatus {
        node: driver.node.clone(),
        version: manx_daemon::VERSION.to_owned(),
        started,
        in_sync: driver.programming.complete,
        inputs: driver.inputs.report(),
        pods: driver.attached.len() as u64,
        blocks: driver.allocator.blocks().count() as u64,
        policies: driver.objects.policies.objects.len() as u64,
        dataplane,
        policy,
        message: [text, policy_text]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
        drift: driver.programming.refused_routes.len() as u64,
        invalid: driver.objects.invalid.values().cloned().collect(),
    }
}

fn ipam<S: Store>(driver: &Driver<S>) -> FelixIpam {
    let synced = driver.allocator.unsynced_since().is_none();
    let blocks = driver
        .allocator
        .blocks()
        .map(|block| BlockRow {
            cidr: block.cidr().to_string(),
            pool: block.pool().to_owned(),
            used: block.owned().count() as u64,
            cooling: block.cooling().count() as u64,
            size: block.capacity().into(),
            synced,
        })
        .collect();
    FelixIpam { node: driver.node.clone(), pools: Vec::new(), blocks }
}

fn endpoints<S: Store>(driver: &Driver<S>) -> FelixEndpoints {
    let state = driver.graph.state();
    let evaluator = Evaluator::new(state);
    let names = |endpoint: &Endpoint, direction| -> Vec<String> {
        let tiers = evaluator.applicable(endpoint, direction);
        tiers.iter().flat_map(|(_, _, policies)| policies.iter().map(|(key, _)| key.to_string())).collect()
    };
    let rows = driver
        .attached
        .iter()
        .map(|(attachment, attached)| {
            let known = state
                .endpoints
                .values()
                .find(|endpoint| endpoint.interface.as_deref() == Some(attached.host_interface.as_str()));
            EndpointRow {
                namespace: attached.namespace.clone(),
                name: attached.name.clone(),
                interface: attached.host_interface.clone(),
                addresses: attached.addresses.clone(),
                sandbox: attachment.container_id.clone(),
                ingress: known.map(|endpoint| names(endpoint, Direction::Ingress)).unwrap_or_default(),
                egress: known.map(|endpoint| names(endpoint, Direction::Egress)).unwrap_or_default(),
                programmed: known.is_some() && driver.programming.error.is_none(),
            }
        })
        .collect();
    FelixEndpoints { node: driver.node.clone(), endpoints: rows }
}

/// The kernel's counters are read first, on the thread that owns them; the loop does not wait.
fn policies<S: Store>(driver: &Driver<S>, question: Question) {
    let (answer, read) = oneshot::channel();
    driver.dataplane.send(Command::ReadCounters(answer));
    let node = driver.node.clone();
    let rows = policy_rows(driver);
    let places: BTreeMap<Place, Reason> = driver.graph.counters().places.clone();
    tokio::spawn(async move {
        let mut rows = rows;
        if let Ok(counters) = read.await {
            for ((chain, position), count) in counters.rules {
                let Some(reason) = places.get(&Place { chain, position }) else { continue };
                let Reason::Rule(rule) = reason else { continue };
                if let Some(row) = rows.get_mut(&rule.policy) {
                    row.denied += count.packets;
                }
            }
        }
        let policies = rows.into_values().collect();
        question.answer(&FelixPolicies { node, policies });
    });
}

fn policy_rows<S: Store>(driver: &Driver<S>) -> BTreeMap<PolicyKey, PolicyRow> {
    let state = driver.graph.state();
    let evaluator = Evaluator::new(state);
    let mut rows = BTreeMap::new();
    for (key, policy) in &state.policies {
        let selected = driver
            .attached
            .values()
            .filter_map(|attached| {
                let interface = Some(attached.host_interface.as_str());
                state.endpoints.values().find(|endpoint| endpoint.interface.as_deref() == interface)
            })
            .filter(|endpoint| evaluator.selects(&policy.applies_to, endpoint))
            .count();
        let object = Key::namespaced(&key.namespace, &key.name);
        let rejected = driver.objects.policies.get(&object).map(|object| {
            felix_input::network_policy(object).rejected.into_iter().map(|r| r.text).collect::<Vec<_>>()
        });
        let rejected = rejected.unwrap_or_default();
        let programmed = match (&rejected[..], &driver.programming.error) {
            (_, Some(_)) => "NodesFailed",
            ([], None) => "True",
            (_, None) => "PolicyRejected",
        };
        rows.insert(
            key.clone(),
            PolicyRow {
                tier: policy.tier.clone(),
                order: policy.order.map_or(i64::from(i32::MAX), i64::from),
                kind: key.kind.short().to_owned(),
                namespace: Some(key.namespace.clone()),
                name: key.name.clone(),
                mode: "Enforce".to_owned(),
                selected_pods: selected as u64,
                selects_hosts: false,
                denied: 0,
                programmed: programmed.to_owned(),
                message: Some(rejected.join("; ")).filter(|text| !text.is_empty()),
            },
        );
    }
    rows
}

//! `manxctl policy list`: in the order of evaluation, joined over all nodes.

use std::collections::BTreeMap;

use manx_crds::report::{FelixPolicies, PolicyReport, PolicyRow};
use serde_json::json;

use crate::Global;
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered, missing_line};
use crate::table::{Align, Table, paint};
use crate::words::thousands;

pub(crate) async fn report(fabric: &Fabric) -> Result<PolicyReport, Failure> {
    let mut header = fabric.header("PolicyReport");
    let answers = fabric.ask_all::<FelixPolicies>(Daemon::Felix, &json!({"verb": "policies"})).await;
    let mut joined: BTreeMap<(String, i64, String, Option<String>, String), PolicyRow> = BTreeMap::new();
    for (_, answer) in answered(answers, &mut header) {
        for row in answer.policies {
            // Tiers by their place; there is one tier of people's policies in this version.
            let key =
                (row.tier.clone(), row.order, row.name.clone(), row.namespace.clone(), row.kind.clone());
            match joined.get_mut(&key) {
                Some(sum) => {
                    sum.selected_pods += row.selected_pods;
                    sum.denied += row.denied;
                    // One node that fails is a failure.
                    if sum.programmed == "True" {
                        sum.programmed = row.programmed;
                        sum.message = row.message.or(sum.message.take());
                    }
                }
                None => drop(joined.insert(key, row)),
            }
        }
    }
    Ok(PolicyReport { header, policies: joined.into_values().collect() })
}

pub(crate) async fn run(fabric: &Fabric, global: &Global) -> Result<bool, Failure> {
    let report = report(fabric).await?;
    if global.printed(&report)? {
        return Ok(true);
    }
    let mut table = Table::new(&[
        ("TIER", Align::Left),
        ("ORDER", Align::Left),
        ("KIND", Align::Left),
        ("NAME", Align::Left),
        ("MODE", Align::Left),
        ("SELECTS", Align::Left),
        ("DENIED", Align::Right),
        ("PROGRAMMED", Align::Left),
    ]);
    for policy in &report.policies {
        let name = match &policy.namespace {
            Some(namespace) if !namespace.is_empty() => format!("{namespace}/{}", policy.name),
            Some(_) | None => policy.name.clone(),
        };
        let unit = if policy.selects_hosts { "hosts" } else { "pods" };
        table.row(vec![
            policy.tier.clone(),
            policy.order.to_string(),
            policy.kind.clone(),
            name,
            policy.mode.clone(),
            format!("{} {unit}", policy.selected_pods),
            thousands(policy.denied),
            paint(&policy.programmed, global.colored()),
        ]);
    }
    print!("{}", table.render(!global.no_headers));
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(true)
}

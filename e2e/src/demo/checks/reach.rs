//! 2: packets arrive, with the address that they left with.

use std::time::Duration;

use anyhow::Result;

use crate::demo::check::Verdict;
use crate::demo::fabric::{Fabric, PODS, Question, Want, ask};
use crate::topology::NODES;

const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn same_node(fabric: &mut Fabric) -> Result<Verdict> {
    let questions = between_pods(fabric, |from, to| from == to)?;
    Ok(verdict(&questions).and(", v4 and v6"))
}

pub(super) fn across_nodes(fabric: &mut Fabric) -> Result<Verdict> {
    let questions = between_pods(fabric, |from, to| from != to)?;
    Ok(verdict(&questions))
}

pub(super) fn client(fabric: &mut Fabric) -> Result<Verdict> {
    let client = fabric.client_asker();
    let mut questions = Vec::new();
    for (_, _, name, _) in PODS {
        questions.extend(Question::both(&client, fabric.pod(name)?));
    }
    Ok(verdict(&questions))
}

pub(super) fn node_to_pods(fabric: &mut Fabric) -> Result<Verdict> {
    let mut questions = Vec::new();
    for (node, _, name, _) in PODS {
        for owner in NODES.into_iter().filter(|owner| owner.name == node) {
            questions.extend(Question::both(&fabric.node_asker(owner), fabric.pod(name)?));
        }
    }
    Ok(verdict(&questions))
}

/// Every ordered pair of pods whose nodes are as wanted.
fn between_pods(fabric: &Fabric, wanted: impl Fn(&str, &str) -> bool) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for (from_node, _, from, _) in PODS {
        for (to_node, _, to, _) in PODS {
            if from != to && wanted(from_node, to_node) {
                questions.extend(Question::both(&fabric.asker(from)?, fabric.pod(to)?));
            }
        }
    }
    Ok(questions)
}

fn verdict(questions: &[Question]) -> Verdict {
    Verdict::counted(questions.len(), &ask(questions, Want::Answer, PATIENCE), " flows")
}

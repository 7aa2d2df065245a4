//! Kubernetes NetworkPolicy (`networking.k8s.io/v1`) as a policy of tier `default` (api.md §7.4).
//!
//! **What is invalid fails closed, rule by rule** (api.md §7.2): every rule of a NetworkPolicy allows, so a rule with
//! an invalid part matches nothing and is left out, while the policy still selects its pods and isolates them in the
//! directions it names. A policy whose own `podSelector` is invalid selects nobody. Either way the caller is told what
//! was refused, with the path of the field, for the Event PolicyRejected.

use felix_calc::model::{KUBERNETES_ORDER, TIER_DEFAULT};
use felix_calc::{Action, Namespaces, Policy, PolicyKey, PolicyKind, Rule, Selection, Selector};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};

use crate::labels;

mod peers;
mod ports;
mod problem;
#[cfg(test)]
mod tests;

use problem::{Path, Problems};

/// Annotation that asks for a policy to be counted and logged only; a later stage obeys it.
pub const MODE: &str = "manx.dev/mode";

/// A policy, and what was refused of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    pub key: PolicyKey,
    pub policy: Policy,
    pub rejected: Vec<Rejected>,
}

/// One part of a policy that is not honoured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    pub policy: PolicyKey,
    /// `spec.ingress[0].from[0].ipBlock.cidr`
    pub path: String,
    /// The path, what stands there and what must: the text of the Event.
    pub text: String,
}

/// What names the policy, also when only its deletion is known.
pub fn key(policy: &NetworkPolicy) -> PolicyKey {
    PolicyKey {
        name: policy.metadata.name.clone().unwrap_or_default(),
        namespace: policy.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        kind: PolicyKind::KubernetesNetworkPolicy,
    }
}

/// Translates one object. It never fails: what is wrong becomes narrower and is listed.
pub fn network_policy(object: &NetworkPolicy) -> Translated {
    let key = key(object);
    let mut problems = Problems::default();
    let none = NetworkPolicySpec::default();
    let spec = object.spec.as_ref().unwrap_or(&none);
    check_mode(object, &mut problems);
    let path = Path::root("spec");
    let pods = match spec.pod_selector.as_ref().map_or(Ok(Selector::All), labels::selector) {
        Ok(selector) => selector,
        Err(bad) => {
            problems.selector(&path.field("podSelector"), bad);
            nothing()
        }
    };
    let directions = directions(spec, &path, &mut problems);
    let namespace = &key.namespace;
    let policy = Policy {
        tier: TIER_DEFAULT.to_owned(),
        order: Some(KUBERNETES_ORDER),
        applies_to: Selection { namespaces: Namespaces::One(namespace.clone()), selector: pods },
        ingress: directions.ingress.then(|| {
            let written =
                spec.ingress.iter().flatten().map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
            rules(written, namespace, &path.field("ingress"), "from", &mut problems)
        }),
        egress: directions.egress.then(|| {
            let written =
                spec.egress.iter().flatten().map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
            rules(written, namespace, &path.field("egress"), "to", &mut problems)
        }),
    };
    let rejected = problems.into_rejected(&key);
    Translated { key, policy, rejected }
}

struct Directions {
    ingress: bool,
    egress: bool,
}

/// `policyTypes`, or what its absence means: Ingress always, Egress if there are egress rules. A word that is neither
/// may be a slip of the pen, so then both count, what was written and what absence would mean: isolated at worst.
fn directions(spec: &NetworkPolicySpec, path: &Path, problems: &mut Problems) -> Directions {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let mut by_default = types.is_empty();
    for (index, word) in types.iter().enumerate() {
        if !matches!(word.as_str(), "Ingress" | "Egress") {
            let path = path.field("policyTypes").index(index);
            problems.unsupported(&path, word, &["Ingress", "Egress"]);
            by_default = true;
        }
    }
    let named = |name: &str| types.iter().any(|word| word == name);
    let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    Directions {
        ingress: named("Ingress") || by_default,
        egress: named("Egress") || (by_default && has_egress),
    }
}

/// The rules that can be honoured, each under the index its author sees.
fn rules<'a>(
    written: impl Iterator<Item = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>)>,
    namespace: &str,
    path: &Path,
    peers_field: &str,
    problems: &mut Problems,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (position, (peers, ports)) in written.enumerate() {
        let path = path.index(position);
        let Ok(index) = u16::try_from(position) else {
            problems.invalid(&path, "", "must be at most 65536 rules");
            break;
        };
        let peers = peers::read(peers.unwrap_or_default(), namespace, &path.field(peers_field), problems);
        let traffic = ports::read(ports.unwrap_or_default(), &path.field("ports"), problems);
        // both are read, so that every problem of the rule is told at once
        if let (Some(peers), Some(traffic)) = (peers, traffic) {
            rules.push(Rule { index, name: None, action: Action::Allow, family: None, peers, traffic });
        }
    }
    rules
}

/// Audit would deny nothing. Until it is supported the policy is enforced, which is closed, and its author hears so.
fn check_mode(object: &NetworkPolicy, problems: &mut Problems) {
    let mode = object.metadata.annotations.as_ref().and_then(|annotations| annotations.get(MODE));
    if mode.is_some_and(|mode| mode == "Audit") {
        let path = Path::root(&format!("metadata.annotations[{MODE}]"));
        problems.invalid(&path, "Audit", "is not supported by this version: the policy is enforced");
    }
}

/// Selects nobody.
fn nothing() -> Selector {
    Selector::Or(Vec::new())
}

//! `metav1.LabelSelector` as a selector of the calculation.

use std::collections::BTreeSet;

use felix_calc::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// What is wrong in a selector: where, seen from the selector, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSelector {
    /// `matchExpressions[0].operator`
    pub path: String,
    pub value: String,
    pub expected: &'static str,
}

const OPERATORS: &str = "must be In, NotIn, Exists or DoesNotExist";
const KEY: &str = "must be a label key such as app or example.com/app";
const VALUE: &str =
    "must be empty or at most 63 letters, digits, '-', '_' or '.', the first and last a letter or digit";

/// Reads a selector. Empty selects everything. An invalid one is an error and never something wider: a `NotIn` or
/// `DoesNotExist` that nothing can fulfil would otherwise be true of every pod.
pub fn selector(selector: &LabelSelector) -> Result<Selector, BadSelector> {
    let LabelSelector { match_labels, match_expressions } = selector;
    let mut all = Vec::new();
    for (key, value) in match_labels.iter().flatten() {
        if !is_key(key) {
            return Err(BadSelector { path: "matchLabels".into(), value: key.clone(), expected: KEY });
        }
        if !is_value(value) {
            return Err(BadSelector {
                path: format!("matchLabels[{key}]"),
                value: value.clone(),
                expected: VALUE,
            });
        }
        all.push(Selector::Equals(key.clone(), value.clone()));
    }
    for (index, wanted) in match_expressions.iter().flatten().enumerate() {
        let one = requirement(wanted)
            .map_err(|bad| BadSelector { path: format!("matchExpressions[{index}].{}", bad.path), ..bad })?;
        all.push(one);
    }
    Ok(match all.len() {
        0 => Selector::All,
        1 => all.pop().unwrap_or(Selector::All),
        _ => Selector::And(all),
    })
}

fn requirement(requirement: &LabelSelectorRequirement) -> Result<Selector, BadSelector> {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let bad =
        |path: &str, value: &str, expected| BadSelector { path: path.into(), value: value.into(), expected };
    if !is_key(key) {
        return Err(bad("key", key, KEY));
    }
    let values: BTreeSet<String> = values.iter().flatten().cloned().collect();
    if let Some(value) = values.iter().find(|value| !is_value(value)) {
        return Err(bad("values", value, VALUE));
    }
    match (operator.as_str(), values.is_empty()) {
        ("In", false) => Ok(Selector::In(key.clone(), values)),
        // true of a pod without the label, too
        ("NotIn", false) => Ok(Selector::In(key.clone(), values).negate()),
        ("Exists", true) => Ok(Selector::Has(key.clone())),
        ("DoesNotExist", true) => Ok(Selector::Has(key.clone()).negate()),
        ("In" | "NotIn", true) => Err(bad("values", "", "must be given with the operators In and NotIn")),
        ("Exists" | "DoesNotExist", false) => {
            let given: Vec<String> = values.into_iter().collect();
            Err(bad("values", &given.join(","), "must be absent with the operators Exists and DoesNotExist"))
        }
        _ => Err(bad("operator", operator, OPERATORS)),
    }
}

/// A qualified name: an optional DNS prefix, then a name.
fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let label = |label: &str| {
        is_name(label)
            && label.len() <= 63
            && !label.bytes().any(|b| b.is_ascii_uppercase() || b == b'_' || b == b'.')
    };
    let prefix = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(label));
    prefix && is_name(name)
}

fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn is_name(name: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let middle = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= 63 && edge(name.bytes().next()) && edge(name.bytes().last()) && name.bytes().all(middle)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(yaml: &str) -> Result<Selector, BadSelector> {
        selector(&serde_saphyr::from_str(yaml).unwrap())
    }

    fn matches(yaml: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read(yaml).unwrap().matches(&labels)
    }

    #[test]
    fn a_selector_means_what_it_means_in_kubernetes() {
        let web = [("app", "web"), ("tier", "front")];
        for (yaml, labels, expected) in [
            ("{}", &[][..], true),
            ("{matchLabels: {app: web}}", &web, true),
            ("{matchLabels: {app: web, tier: back}}", &web, false),
            ("{matchLabels: {empty: ''}}", &[("empty", "")], true),
            ("{matchLabels: {empty: ''}}", &web, false),
            ("{matchExpressions: [{key: app, operator: In, values: [api, web]}]}", &web, true),
            ("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", &web, false),
            ("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", &[], true),
            ("{matchExpressions: [{key: app, operator: Exists}]}", &web, true),
            ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", &web, false),
            (
                "{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: DoesNotExist}]}",
                &web,
                false,
            ),
        ] {
            assert_eq!(matches(yaml, labels), expected, "{yaml} {labels:?}");
        }
    }

    #[test]
    fn what_is_invalid_is_named() {
        for (yaml, path, value) in [
            ("{matchLabels: {'-app': web}}", "matchLabels", "-app"),
            ("{matchLabels: {app: 'a b'}}", "matchLabels[app]", "a b"),
            ("{matchExpressions: [{key: app, operator: Is}]}", "matchExpressions[0].operator", "Is"),
            (
                "{matchExpressions: [{key: a, operator: Exists}, {key: b, operator: In}]}",
                "matchExpressions[1].values",
                "",
            ),
            (
                "{matchExpressions: [{key: a, operator: Exists, values: [x]}]}",
                "matchExpressions[0].values",
                "x",
            ),
            (
                "{matchExpressions: [{key: 'app ', operator: DoesNotExist}]}",
                "matchExpressions[0].key",
                "app ",
            ),
            (
                "{matchExpressions: [{key: Example.com/app, operator: Exists}]}",
                "matchExpressions[0].key",
                "Example.com/app",
            ),
        ] {
            let bad = read(yaml).unwrap_err();
            assert_eq!((bad.path.as_str(), bad.value.as_str()), (path, value), "{yaml}");
        }
    }
}

//! metav1.LabelSelector: what it selects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// A selector that means nothing; it selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("operator {operator:?} of key {key:?} must be In, NotIn, Exists or DoesNotExist")]
    UnknownOperator { key: String, operator: String },
    #[error("operator {operator} of key {key:?} needs values")]
    NoValues { key: String, operator: String },
    #[error("operator {operator} of key {key:?} takes no values")]
    NeedlessValues { key: String, operator: String },
}

/// Whether the selector matches; absent or empty matches all, an invalid one nothing.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    try_selects(selector, labels).unwrap_or(false)
}

/// As [`selects`], for the optional selectors of our kinds: absent is all.
pub fn selects_opt(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| selects(selector, labels))
}

/// As [`selects`], and says what is invalid.
///
/// # Errors
/// The first requirement that upstream would refuse, wherever the match would end.
pub fn try_selects(
    selector: &LabelSelector,
    labels: &BTreeMap<String, String>,
) -> Result<bool, SelectorError> {
    let mut matches =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    for requirement in selector.match_expressions.iter().flatten() {
        matches &= holds(requirement, labels)?;
    }
    Ok(matches)
}

fn holds(
    requirement: &LabelSelectorRequirement,
    labels: &BTreeMap<String, String>,
) -> Result<bool, SelectorError> {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let values = values.as_deref().unwrap_or_default();
    let label = labels.get(key);
    let (key, operator) = (key.clone(), operator.clone());
    match (operator.as_str(), values.is_empty()) {
        ("In", false) => Ok(label.is_some_and(|label| values.contains(label))),
        // as upstream: an absent label is not in any list
        ("NotIn", false) => Ok(label.is_none_or(|label| !values.contains(label))),
        ("Exists", true) => Ok(label.is_some()),
        ("DoesNotExist", true) => Ok(label.is_none()),
        ("In" | "NotIn", true) => Err(SelectorError::NoValues { key, operator }),
        ("Exists" | "DoesNotExist", false) => Err(SelectorError::NeedlessValues { key, operator }),
        _ => Err(SelectorError::UnknownOperator { key, operator }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(yaml: &str, labels: &[(&str, &str)]) -> Result<bool, SelectorError> {
        let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        try_selects(&serde_saphyr::from_str(yaml).unwrap(), &labels)
    }

    #[test]
    fn every_operator_does_what_kubectl_users_know() {
        let tor = [("tier", "tor")];
        for (selector, labels, expected) in [
            ("{}", &tor[..], true),
            ("{matchLabels: {tier: tor}}", &tor, true),
            ("{matchLabels: {tier: tor, rack: '1'}}", &tor, false),
            ("{matchExpressions: [{key: tier, operator: In, values: [a, tor]}]}", &tor, true),
            ("{matchExpressions: [{key: tier, operator: In, values: [a]}]}", &tor, false),
            ("{matchExpressions: [{key: tier, operator: In, values: [a]}]}", &[], false),
            ("{matchExpressions: [{key: tier, operator: NotIn, values: [tor]}]}", &tor, false),
            ("{matchExpressions: [{key: tier, operator: NotIn, values: [tor]}]}", &[], true),
            ("{matchExpressions: [{key: tier, operator: Exists}]}", &tor, true),
            ("{matchExpressions: [{key: tier, operator: Exists}]}", &[], false),
            ("{matchExpressions: [{key: tier, operator: DoesNotExist}]}", &tor, false),
            ("{matchExpressions: [{key: tier, operator: DoesNotExist}]}", &[], true),
        ] {
            assert_eq!(matches(selector, labels), Ok(expected), "{selector} {labels:?}");
        }
    }

    #[test]
    fn what_upstream_refuses_selects_nothing_and_says_why() {
        for selector in [
            "{matchExpressions: [{key: tier, operator: Is, values: [tor]}]}",
            "{matchExpressions: [{key: tier, operator: In}]}",
            "{matchExpressions: [{key: tier, operator: Exists, values: [tor]}]}",
            "{matchLabels: {no: match}, matchExpressions: [{key: tier, operator: Is}]}",
        ] {
            assert!(matches(selector, &[("tier", "tor")]).is_err(), "{selector}");
            let labels = BTreeMap::from([("tier".to_owned(), "tor".to_owned())]);
            assert!(!selects(&serde_saphyr::from_str(selector).unwrap(), &labels));
        }
    }
}

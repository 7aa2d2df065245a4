//! Labels of a namespace.

use felix_calc::model::Labels;
use k8s_openapi::api::core::v1::Namespace;

/// The label by which Kubernetes names every namespace.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The labels that selectors see. The API server gives each namespace its name as a label; a directory of YAML has
/// none that would, so it is set here, and an object cannot claim another's name.
pub fn labels(namespace: &Namespace) -> Labels {
    let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
    if let Some(name) = &namespace.metadata.name {
        labels.insert(NAME_LABEL.to_owned(), name.clone());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_carries_its_own_name() {
        let namespace = serde_saphyr::from_str(
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a, kubernetes.io/metadata.name: bank}}}",
        )
        .unwrap();
        let labels = labels(&namespace);
        assert_eq!(labels.get(NAME_LABEL).map(String::as_str), Some("shop"));
        assert_eq!(labels.get("team").map(String::as_str), Some("a"));
    }
}

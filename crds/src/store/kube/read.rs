//! Lists, in pages, and single objects.

use std::fmt::Write as _;

use ::kube::core::Selector;
use ::kube::core::params::{GetParams, ListParams};
use serde::Deserialize;

use super::super::{Key, List, Object, Revision, Selection, StoreError};
use super::KubeStore;
use super::decode::Decoded;

/// Objects a page: 500 Pods are about 5 MB.
const PAGE: u32 = 500;

#[derive(Deserialize)]
#[serde(bound = "K: Object")]
struct Page<K> {
    metadata: PageMeta,
    #[serde(default = "Vec::new")]
    items: Vec<Decoded<K>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    token: Option<String>,
}

/// Label and field selectors as the API server spells them.
pub(super) fn selectors(selection: &Selection) -> Result<(Option<String>, Option<String>), StoreError> {
    let labels = match &selection.labels {
        None => None,
        Some(labels) => {
            let selector =
                Selector::try_from(labels.clone()).map_err(|e| StoreError::Invalid(e.to_string()))?;
            Some(selector.to_string()).filter(|text| !text.is_empty())
        }
    };
    let mut fields = String::new();
    for (field, value) in &selection.fields {
        let comma = if fields.is_empty() { "" } else { "," };
        let _ = write!(fields, "{comma}{field}={}", escape(value));
    }
    Ok((labels, Some(fields).filter(|text| !text.is_empty())))
}

/// `\`, `,` and `=` mean something in a field selector.
fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for sign in value.chars() {
        if matches!(sign, '\\' | ',' | '=') {
            text.push('\\');
        }
        text.push(sign);
    }
    text
}

impl KubeStore {
    /// All objects of one moment. A page whose moment is gone (`410`) is [`StoreError::Expired`]: list again.
    pub(super) async fn list_pages<K: Object>(&self, selection: &Selection) -> Result<List<K>, StoreError> {
        let (label_selector, field_selector) = selectors(selection)?;
        let requests = Self::requests::<K>(selection.namespace.as_deref());
        let mut params =
            ListParams { label_selector, field_selector, limit: Some(PAGE), ..ListParams::default() };
        let mut items = Vec::new();
        loop {
            let page: Page<K> = self.ask(requests.list(&params)).await.map_err(|e| e.of_kind::<K>())?;
            for decoded in page.items {
                match decoded {
                    Decoded::Object(object) => items.push(object),
                    // The watch tells of it again when it changes; here is who was left out.
                    Decoded::Unreadable { key, error } => {
                        tracing::error!(kind = %K::kind(&()), object = %key, error,
                            "an object is not of this version's schema: left out");
                    }
                }
            }
            match page.metadata.token.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(List { items, revision: Revision(page.metadata.resource_version) }),
            }
        }
    }

    pub(super) async fn get_whole<K: Object>(&self, key: &Key) -> Result<K, StoreError> {
        let requests = Self::requests::<K>(key.namespace.as_deref());
        self.ask(requests.get(&key.name, &GetParams::default())).await.map_err(|e| e.of_object::<K>(key))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn selections_are_spelled_as_the_server_reads_them() {
        let labels = serde_saphyr::from_str(
            "{matchLabels: {tier: tor}, matchExpressions: [{key: rack, operator: In, values: ['1', '2']}]}",
        )
        .unwrap();
        let fields = [("spec.nodeName", "n1"), ("spec.peer", "a,b=c")];
        let selection = Selection {
            namespace: None,
            fields: fields.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect(),
            labels: Some(labels),
        };
        let (labels, fields) = selectors(&selection).unwrap();
        assert_eq!(fields.unwrap(), r"spec.nodeName=n1,spec.peer=a\,b\=c");
        let labels = labels.unwrap();
        assert!(labels.contains("tier=tor") && labels.contains("rack in (1,2)"), "{labels}");
        let everything = Selection { fields: BTreeMap::new(), ..Selection::default() };
        assert_eq!(selectors(&everything).unwrap(), (None, None));
    }
}

//! CRDs that are older than this program (api.md §14): they prune from what is created what they do not know, and refuse
//! an apply that holds it. What they know is written all the same, without the rest.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use ::kube::core::{Request, Status};
use http::Request as HttpRequest;
use serde_json::Value;

use super::super::Object;
use super::KubeStore;
use super::error::Failure;

/// How the API server says it of a field.
const UNDECLARED: &str = ": field not declared in schema";

type Built = Result<HttpRequest<Vec<u8>>, ::kube::core::request::Error>;

impl KubeStore {
    /// Applies a patch, without the fields that the server does not know; each is told once.
    pub(super) async fn ask_for_what_is_known<K: Object>(
        &self,
        build: impl Fn(&Request, &Value) -> Built,
        requests: &Request,
        mut patch: Value,
    ) -> Result<K, Failure> {
        loop {
            let refused = match self.ask::<K>(build(requests, &patch)).await {
                Err(Failure::Refused(status)) => status,
                outcome => return outcome,
            };
            let fields = undeclared(&refused);
            let removed: Vec<&String> = fields.iter().filter(|field| remove(&mut patch, field)).collect();
            if removed.is_empty() {
                return Err(Failure::Refused(refused));
            }
            for field in removed {
                let told = format!("{} {field}", K::kind(&()));
                if self.left_out.lock().unwrap_or_else(PoisonError::into_inner).insert(told) {
                    tracing::warn!(
                        kind = %K::kind(&()),
                        field,
                        effect = "the field is left out",
                        r#do = "apply the CRDs of this release (helm upgrade does)",
                        "the CRDs are older than this program"
                    );
                }
            }
        }
    }
}

/// The fields that are no part of the schema, as the server spells them: `.status.agents[name="felix"].version`.
fn undeclared(status: &Status) -> BTreeSet<String> {
    let lines = status.message.lines().filter_map(|line| line.trim_end().strip_suffix(UNDECLARED));
    // The first of them follows the server's own words.
    lines
        .filter_map(|line| Some(line.get(line.find(" .").map_or(0, |at| at + 1)..)?.trim().to_owned()))
        .collect()
}

/// Removes a field, of all items where it is one of a list's. Whether there was one.
fn remove(value: &mut Value, path: &str) -> bool {
    match value {
        Value::Array(items) => {
            let mut any = false;
            for item in items {
                any |= remove(item, path);
            }
            any
        }
        Value::Object(members) => {
            let Some(path) = path.strip_prefix('.') else { return false };
            let end = path.find(['.', '[']).unwrap_or(path.len());
            let (name, rest) = path.split_at(end);
            match beyond_items(rest) {
                "" => members.remove(name).is_some(),
                rest => members.get_mut(name).is_some_and(|inner| remove(inner, rest)),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// What follows `[name="a.b"]`; all items have one schema.
fn beyond_items(mut path: &str) -> &str {
    while path.starts_with('[') {
        let mut quoted = false;
        let end = path.find(|sign| {
            quoted ^= sign == '"';
            sign == ']' && !quoted
        });
        path = end.and_then(|end| path.get(end + 1..)).unwrap_or("");
    }
    path
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(message: &str) -> Status {
        serde_json::from_value(json!({"status": "Failure", "message": message, "reason": "", "code": 500}))
            .unwrap()
    }

    #[test]
    fn fields_are_found_in_one_line_and_in_several() {
        let one = "failed to create typed patch object (/p; manx.dev/v1alpha1, Kind=IPPool): .status.capacity.blocks: \
                   field not declared in schema";
        assert_eq!(Vec::from_iter(undeclared(&refusal(one))), [".status.capacity.blocks"]);
        let two = "failed to create typed patch object (/n; manx.dev/v1alpha1, Kind=FabricNode): errors:\n  \
                   .status.agents[name=\"felix\"].since: field not declared in schema\n  .status.mtu: field not declared in \
                   schema";
        assert_eq!(
            Vec::from_iter(undeclared(&refusal(two))),
            [".status.agents[name=\"felix\"].since", ".status.mtu"]
        );
        assert!(undeclared(&refusal("the server is tired")).is_empty());
    }

    #[test]
    fn a_field_goes_from_all_items_and_nothing_else_does() {
        let mut patch = json!({"status": {"agents": [{"name": "a.b]", "since": 1}, {"name": "c"}], "mtu": 1, "state": "x"}});
        assert!(remove(&mut patch, ".status.agents[name=\"a.b]\"].since"));
        assert!(remove(&mut patch, ".status.mtu"));
        assert_eq!(patch, json!({"status": {"agents": [{"name": "a.b]"}, {"name": "c"}], "state": "x"}}));
        for absent in [".status.mtu", ".spec.mtu", ".status.state.more", "status", ""] {
            assert!(!remove(&mut patch, absent), "{absent}");
        }
    }
}

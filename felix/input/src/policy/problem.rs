//! What is wrong and where, in the words of the API server.

use felix_calc::PolicyKey;

use super::Rejected;
use crate::labels::BadSelector;

/// The path of a field, such as `spec.ingress[0].from[0]`.
#[derive(Clone, Debug)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn root(name: &str) -> Path {
        Path(name.to_owned())
    }

    pub(super) fn field(&self, name: &str) -> Path {
        Path(format!("{}.{name}", self.0))
    }

    pub(super) fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }
}

#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(String, String)>);

impl Problems {
    /// `spec.ports[0].port: Invalid value: 0: must be …`
    pub(super) fn invalid(&mut self, path: &Path, value: &str, expected: &str) {
        self.add(path, format!("Invalid value: {value:?}: {expected}"));
    }

    /// A number is written without quotes.
    pub(super) fn invalid_number(&mut self, path: &Path, value: i32, expected: &str) {
        self.add(path, format!("Invalid value: {value}: {expected}"));
    }

    pub(super) fn unsupported(&mut self, path: &Path, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        self.add(path, format!("Unsupported value: {value:?}: supported values: {}", supported.join(", ")));
    }

    pub(super) fn forbidden(&mut self, path: &Path, why: &str) {
        self.add(path, format!("Forbidden: {why}"));
    }

    pub(super) fn required(&mut self, path: &Path, what: &str) {
        self.add(path, format!("Required value: {what}"));
    }

    /// `path` is the selector's own.
    pub(super) fn selector(&mut self, path: &Path, bad: BadSelector) {
        self.invalid(&path.field(&bad.path), &bad.value, bad.expected);
    }

    pub(super) fn into_rejected(self, policy: &PolicyKey) -> Vec<Rejected> {
        self.0.into_iter().map(|(path, text)| Rejected { policy: policy.clone(), path, text }).collect()
    }

    fn add(&mut self, path: &Path, text: String) {
        self.0.push((path.0.clone(), format!("{}: {text}", path.0)));
    }
}

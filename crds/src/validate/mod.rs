//! Validation as the API server does it: the schema of the CRD, its defaults, then its CEL rules (by kube-cel).
//! The same schema that is installed in a cluster judges a file in a directory, in the same words.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kube::core::cel::{CompiledSchema, ValidationError, compile_schema, validate_compiled};
use serde_json::Value;

mod document;
mod metadata;
mod structural;
pub(crate) mod upstream;

pub use document::{Document, ParseError, Place};

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `spec.prefixes[0].cidr`
    pub path: String,
    /// The key is wrong, not its value.
    pub at_key: bool,
    /// `spec.cidr: Invalid value: "10.244.1.0/16": must be …`
    pub error: String,
    pub expected: Option<String>,
}

impl Fault {
    pub(crate) fn at(path: &str, text: String) -> Self {
        Self { path: path.to_owned(), at_key: false, error: format!("{path}: {text}"), expected: None }
    }

    /// A field that the schema does not have.
    pub(crate) fn unknown(path: &str, name: &str, near: Option<&str>) -> Self {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let of = if parent.is_empty() { String::new() } else { format!(" in {parent}") };
        Self {
            path: path.to_owned(),
            at_key: true,
            error: format!("unknown field {name:?}{of}"),
            expected: near.map(ToOwned::to_owned),
        }
    }
}

/// The schema of one kind, compiled.
pub struct KindSchema {
    pub kind: String,
    /// `openAPIV3Schema`
    pub schema: Value,
    /// `spec.nodeName`
    pub selectable: Vec<String>,
    /// Status is written apart from spec.
    pub has_status: bool,
    compiled: CompiledSchema,
    /// Rules that point elsewhere than at the value they judge; the API server shows no value for those.
    redirected: Vec<String>,
}

static SCHEMAS: LazyLock<BTreeMap<String, KindSchema>> = LazyLock::new(|| {
    let crds = crate::v1alpha1::crds().unwrap_or_default();
    crds.iter().filter_map(KindSchema::of_crd).map(|schema| (schema.kind.clone(), schema)).collect()
});

/// The schema of one of our kinds.
pub fn schema_of(group: &str, kind: &str) -> Option<&'static KindSchema> {
    (group == crate::v1alpha1::GROUP).then(|| SCHEMAS.get(kind)).flatten()
}

impl KindSchema {
    fn of_crd(crd: &Value) -> Option<Self> {
        let version = crd.pointer("/spec/versions/0")?;
        let schema = version.pointer("/schema/openAPIV3Schema")?.clone();
        let selectable = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
        Some(Self {
            kind: crd.pointer("/spec/names/kind")?.as_str()?.to_owned(),
            selectable: selectable
                .filter_map(|field| field.get("jsonPath")?.as_str())
                .map(|path| path.trim_start_matches('.').to_owned())
                .collect(),
            has_status: version.pointer("/subresources/status").is_some(),
            compiled: compile_schema(&schema),
            redirected: rules
                .filter(|rule| rule.get("fieldPath").is_some())
                .filter_map(|rule| rule.get("rule")?.as_str())
                .map(ToOwned::to_owned)
                .collect(),
            schema,
        })
    }

    /// Rules that kube-cel cannot compile: none, and a test says so.
    pub fn compilation_errors(&self) -> usize {
        fn count(schema: &CompiledSchema) -> usize {
            let own = schema.compilation_errors().len();
            own + schema.properties.values().map(count).sum::<usize>()
                + schema.items.as_deref().map_or(0, count)
        }
        count(&self.compiled)
    }

    /// The object with its defaults, if it is valid. `old` is what it replaces: transition rules ask for it.
    ///
    /// # Errors
    /// Everything that is wrong. As in the API server, rules are asked only where the structure is right.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Result<Value, Vec<Fault>> {
        let mut object = object.clone();
        let mut faults = Vec::new();
        metadata::check(&object, &mut faults);
        structural::check(&self.schema, &mut object, "", &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        match validate_compiled(&self.compiled, &object, old) {
            Ok(()) => Ok(object),
            Err(errors) => {
                let mut faults: Vec<Fault> = errors.iter().map(|error| self.fault(error, &object)).collect();
                faults.sort_by(|a, b| a.path.cmp(&b.path).then_with(|| a.error.cmp(&b.error)));
                Err(faults)
            }
        }
    }

    /// What is wrong with a status alone, before it is written.
    ///
    /// # Errors
    /// Everything that the schema refuses.
    pub fn validate_status(&self, status: &Value) -> Result<(), Vec<Fault>> {
        let mut status = status.clone();
        let mut faults = Vec::new();
        match self.schema.pointer("/properties/status") {
            Some(schema) => structural::check(schema, &mut status, "status", &mut faults),
            None => faults.push(Fault::unknown("status", "status", None)),
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn fault(&self, error: &ValidationError, object: &Value) -> Fault {
        let path = error.field_path.trim_start_matches('.');
        let shown = if self.redirected.contains(&error.rule) { None } else { scalar_at(object, path) };
        let value = shown.map_or_else(String::new, |value| format!("{value}: "));
        let message = &error.message;
        let text = match error.reason.as_deref() {
            Some("FieldValueForbidden") => format!("Forbidden: {message}"),
            Some("FieldValueRequired") => format!("Required value: {message}"),
            Some("FieldValueDuplicate") => format!("Duplicate value: {value}{message}"),
            Some(_) | None => format!("Invalid value: {value}{message}"),
        };
        let mut fault = Fault::at(path, text);
        fault.expected = Some(message.strip_prefix("must be ").unwrap_or(message).to_owned());
        fault
    }
}

/// The scalar at a path, as the API server prints it.
fn scalar_at(object: &Value, path: &str) -> Option<String> {
    let mut value = object;
    for segment in path.split(['.', '[']).filter(|segment| !segment.is_empty()) {
        value = match value {
            Value::Array(items) => items.get(segment.trim_end_matches(']').parse::<usize>().ok()?)?,
            Value::Object(members) => members.get(segment)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
    }
    match value {
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The known name that differs least, if it differs little.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_ascii_lowercase();
    known
        .map(|candidate| (distance(&wanted, &candidate.to_ascii_lowercase()), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.chars().zip(row.iter().skip(1)) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(x != y));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;

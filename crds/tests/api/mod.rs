//! The good and the bad objects of the API document, as one list: what a server has to say of each.
//!
//! Whoever runs it does, in order, for each case:
//! * `Step::Create`: nothing of this name is there (remove what an earlier case made), then create the object;
//! * `Step::Update`: put the object in the place of the one that the last accepted case of its name made.
//!
//! A `Verdict::Refused` must be refused, and its error must hold `want`; `server` is the whole text of an API server
//! 1.34, as `kubectl` shows it after `The IPPool "p" is invalid: `. What other servers print differs only as
//! [`Case::text`] says.

use serde_json::Value;

const GOOD: &str = include_str!("../../testdata/good.yaml");
const BAD: &str = include_str!("../../testdata/bad.yaml");
/// What an API server 1.34 said of the objects of `bad.yaml`, in their order.
const ANSWERS: &str = include_str!("../../testdata/bad.expected-1.34.txt");

/// Kinds of good.yaml that are not ours: their CRD is upstream's.
pub const UPSTREAM: [&str; 1] = ["ClusterNetworkPolicy"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Create,
    Update,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Refused {
        /// What the error holds, on every server.
        want: String,
        /// The whole text of an API server 1.34.
        server: String,
    },
}

/// Who prints an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printer {
    /// An API server 1.34: it prints the type of the value that a rule refuses.
    ApiServer134,
    /// The directory, and API servers from 1.37 on: they print the value, and nothing for an object.
    Directory,
}

#[derive(Clone, Debug)]
pub struct Case {
    /// `bad.yaml: IPPool/p (44)`
    pub title: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    /// The YAML document.
    pub text: String,
    pub object: Value,
    pub step: Step,
    pub verdict: Verdict,
}

/// Every object, good ones first.
pub fn cases() -> Vec<Case> {
    let good = documents(GOOD).enumerate().map(|(n, text)| case("good.yaml", n, text, Verdict::Accepted));
    let mut answers = ANSWERS.lines().filter_map(|line| line.strip_prefix("  "));
    let bad = documents(BAD).enumerate().map(|(n, text)| {
        let answer = answers.next().expect("an answer for each object");
        let verdict = match text.lines().find_map(|line| line.strip_prefix("#want: ")) {
            Some(want) => {
                let (_, server) = answer.split_once(": ").expect("who: what");
                assert!(answer.starts_with("ok-refused "), "{answer}");
                Verdict::Refused { want: want.to_owned(), server: server.to_owned() }
            }
            None => {
                assert!(answer.starts_with("ok "), "{answer}");
                Verdict::Accepted
            }
        };
        let case = case("bad.yaml", n, text, verdict);
        assert!(
            answer.contains(&format!(" {}/{}", case.kind, case.name)),
            "{answer} is not of {}",
            case.title
        );
        case
    });
    good.chain(bad).collect()
}

fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.split("---\n").filter(|part| !part.trim().is_empty())
}

fn case(file: &str, number: usize, text: &str, verdict: Verdict) -> Case {
    let object = manx_crds::validate::Document::parse(text).unwrap().to_value();
    let of = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let (kind, name) = (of("/kind").unwrap(), of("/metadata/name").unwrap());
    Case {
        title: format!("{file}: {kind}/{name} ({number})"),
        namespace: of("/metadata/namespace"),
        step: if text.lines().any(|line| line == "#update") { Step::Update } else { Step::Create },
        text: text.to_owned(),
        kind,
        name,
        object,
        verdict,
    }
}

impl Case {
    /// What this printer says of a refused object.
    ///
    /// * API server 1.34 prints `"object": `, `"string": ` or `"integer": ` before the message of a CEL rule; later ones
    ///   and the directory print the value of a scalar, and nothing for an object or where the rule points elsewhere.
    /// * A field that the schema does not have is an error of strict decoding in an API server; the directory says
    ///   which field of what.
    pub fn text(&self, printer: Printer) -> Option<String> {
        let Verdict::Refused { server, .. } = &self.verdict else { return None };
        if printer == Printer::ApiServer134 {
            return Some(server.clone());
        }
        let (path, said) = server.split_once(": ").expect("path: what");
        if said == "Invalid value: \"\": unknown field" {
            let (parent, field) = path.rsplit_once('.').expect("a field of something");
            return Some(format!("unknown field {field:?} in {parent}"));
        }
        if said.contains(" in body ") {
            return Some(server.clone());
        }
        let of_rule = |shown: &str| said.strip_prefix(&format!("Invalid value: {shown:?}: "));
        if let Some(message) = of_rule("object") {
            return Some(format!("{path}: Invalid value: {message}"));
        }
        match of_rule("string").or_else(|| of_rule("integer")) {
            Some(message) => Some(format!("{path}: Invalid value: {}: {message}", self.value(path))),
            None => Some(server.clone()),
        }
    }

    /// The value at `spec.addresses[0]`, as JSON.
    fn value(&self, path: &str) -> &Value {
        let pointer: String =
            path.split(['.', '[']).map(|segment| format!("/{}", segment.trim_end_matches(']'))).collect();
        self.object.pointer(&pointer).unwrap_or_else(|| panic!("{}: {path} is there", self.title))
    }
}

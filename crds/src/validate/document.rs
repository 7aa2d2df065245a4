//! A YAML file as JSON, with the place of every key and value, so that an error can point at it.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// A file that is no single YAML document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub message: String,
    pub place: Option<Place>,
}

/// One YAML document.
#[derive(Debug)]
pub struct Document {
    root: Spanned<Node>,
}

#[derive(Debug)]
enum Node {
    Scalar(Value),
    Seq(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Document {
    /// Reads the one document of a file.
    ///
    /// # Errors
    /// Text that is no YAML, or holds several documents or none; with the place where known.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        match serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options()) {
            Ok(root) if matches!(root.value, Node::Scalar(Value::Null)) => {
                Err(ParseError { message: "the file holds nothing".to_owned(), place: None })
            }
            Ok(root) => Ok(Self { root }),
            Err(error) => Err(parse_error(&error)),
        }
    }

    /// The document as JSON.
    pub fn to_value(&self) -> Value {
        value_of(&self.root.value)
    }

    /// Where the value of a path stands (`spec.prefixes[0].cidr`); of what is absent, where its nearest
    /// ancestor begins.
    pub fn place(&self, path: &str) -> Option<Place> {
        self.find(path, false)
    }

    /// As [`Document::place`], but of the key.
    pub fn place_of_key(&self, path: &str) -> Option<Place> {
        self.find(path, true)
    }

    fn find(&self, path: &str, key: bool) -> Option<Place> {
        let mut node = &self.root;
        let mut place = place_of(&node.referenced);
        for segment in path.split(['.', '[']).filter(|segment| !segment.is_empty()) {
            let next = match &node.value {
                Node::Scalar(_) => None,
                Node::Seq(items) => {
                    let index = segment.trim_end_matches(']').parse::<usize>().ok();
                    index.and_then(|index| items.get(index)).map(|item| (place_of(&item.referenced), item))
                }
                Node::Map(entries) => {
                    entries.iter().find(|(name, _)| name.value == segment).map(|(name, inner)| {
                        let own = matches!(inner.value, Node::Scalar(_)) && !key;
                        (place_of(if own { &inner.referenced } else { &name.referenced }), inner)
                    })
                }
            };
            let Some((found, inner)) = next else { break };
            place = found.or(place);
            node = inner;
        }
        place
    }

    /// The path of the last value that begins at or before a place.
    pub fn path_at(&self, place: Place) -> String {
        let mut best = String::new();
        walk(&self.root, String::new(), &mut |path, at| {
            if at.is_some_and(|at| at <= place) {
                best = path.to_owned();
            }
        });
        best
    }
}

/// YAML 1.2: `true` and `false` are the only booleans, so that `name: n` and `yes` stay text.
pub(crate) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true, with_snippet: false }
}

fn walk(node: &Spanned<Node>, path: String, visit: &mut impl FnMut(&str, Option<Place>)) {
    visit(&path, place_of(&node.referenced));
    match &node.value {
        Node::Scalar(_) => {}
        Node::Seq(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{path}[{index}]"), visit);
            }
        }
        Node::Map(entries) => {
            for (key, inner) in entries {
                let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                walk(inner, path, visit);
            }
        }
    }
}

/// What a parse error says, without the excerpt and the place, which are told apart.
pub(crate) fn parse_error(error: &serde_saphyr::Error) -> ParseError {
    let place = error.location().as_ref().and_then(place_of);
    let full = error.without_snippet().to_string();
    let message = full.lines().next().unwrap_or_default();
    let message = message.split(" at line ").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let message = match message.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest,
        None => message,
    };
    ParseError { message: message.trim_end_matches([',', '.', ' ']).to_owned(), place }
}

fn place_of(location: &serde_saphyr::Location) -> Option<Place> {
    let place = Place { line: location.line(), column: location.column() };
    (place.line > 0).then_some(place)
}

fn value_of(node: &Node) -> Value {
    match node {
        Node::Scalar(value) => value.clone(),
        Node::Seq(items) => Value::Array(items.iter().map(|item| value_of(&item.value)).collect()),
        Node::Map(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, inner)| (key.value.clone(), value_of(&inner.value)))
                .collect::<Map<_, _>>(),
        ),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(v)))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Scalar(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Scalar(v.into()))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Node, E> {
        Number::from_f64(v)
            .map(|n| Node::Scalar(Value::Number(n)))
            .ok_or_else(|| E::custom("not a number of JSON"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(v.to_owned())))
    }
    fn visit_string<E>(self, v: String) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(v)))
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Seq(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

//! The selector language of Calico, whose users bring their selectors along (anchors/calico.md §1.8).
//!
//! ```text
//! selector  = [ or ] ;                                  empty: all()
//! or        = and { "||" and } ;
//! and       = operation { "&&" operation } ;
//! operation = { "!" } primary ;                         ! negates the whole comparison behind it
//! primary   = "has(" label ")" | "all(" ")" | "(" or ")"
//!           | label ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
//!           | label ( "in" | "not in" ) "{" [ string { "," string } [ "," ] ] "}"
//! ```
//! Whitespace is space and tab. Behind a label only an operator can stand, so labels may be called `in` or
//! `has`. `!=` and `not in` are true when the label is absent.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::Selector;

/// What a label may be long.
const LABEL_LIMIT: usize = 512;
/// Parentheses within parentheses; people need three.
const DEPTH_LIMIT: usize = 32;

const OPERATORS: &str = "==, !=, in, not in, contains, starts with or ends with";

/// Where the text ceases to be a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}, found {found}")]
pub struct SelectorError {
    /// In characters, from 1.
    pub column: usize,
    pub expected: &'static str,
    pub found: String,
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        parser.skip_whitespace();
        if parser.rest().is_empty() {
            return Ok(Self::All);
        }
        let selector = parser.any_of()?;
        if parser.rest().is_empty() { Ok(selector) } else { Err(parser.expected("&&, || or the end")) }
    }
}

impl fmt::Display for Selector {
    /// In the language of [`FromStr`]; reading it gives the same tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], operator: &str| {
            f.write_str("(")?;
            for (number, part) in parts.iter().enumerate() {
                if number > 0 {
                    write!(f, " {operator} ")?;
                }
                write!(f, "{part}")?;
            }
            f.write_str(")")
        };
        match self {
            Self::All => f.write_str("all()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Equals(label, value) => write!(f, "{label} == {}", quoted(value)),
            Self::Contains(label, part) => write!(f, "{label} contains {}", quoted(part)),
            Self::StartsWith(label, part) => write!(f, "{label} starts with {}", quoted(part)),
            Self::EndsWith(label, part) => write!(f, "{label} ends with {}", quoted(part)),
            Self::In(label, values) => {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                write!(f, "{label} in {{{}}}", values.join(", "))
            }
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::And(parts) if parts.is_empty() => f.write_str("all()"),
            Self::Or(parts) if parts.is_empty() => f.write_str("!all()"),
            Self::And(parts) => joined(f, parts, "&&"),
            Self::Or(parts) => joined(f, parts, "||"),
        }
    }
}

/// The language has no escapes, so the quote is the one that the value lacks.
fn quoted(value: &str) -> String {
    if value.contains('"') { format!("'{value}'") } else { format!("\"{value}\"") }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any_of(&mut self) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.all_of()?];
        while self.eat("||") {
            self.skip_whitespace();
            parts.push(self.all_of()?);
        }
        Ok(only_or(parts, Selector::Or))
    }

    fn all_of(&mut self) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.operation()?];
        while self.eat("&&") {
            self.skip_whitespace();
            parts.push(self.operation()?);
        }
        Ok(only_or(parts, Selector::And))
    }

    fn operation(&mut self) -> Result<Selector, SelectorError> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
            self.skip_whitespace();
        }
        let primary = self.primary()?;
        Ok(if negated { primary.negate() } else { primary })
    }

    fn primary(&mut self) -> Result<Selector, SelectorError> {
        const CONDITION: &str = "a label, has(, all( or (";
        if self.rest().starts_with("global(") {
            return Err(self.expected("a condition on labels (global() is for namespaceSelector alone)"));
        }
        if self.eat("has(") {
            self.skip_whitespace();
            let label = self.label("a label")?;
            self.close()?;
            return Ok(Selector::Has(label));
        }
        if self.eat("all(") {
            self.close()?;
            return Ok(Selector::All);
        }
        if self.rest().starts_with('(') {
            return self.parenthesis();
        }
        let label = self.label(CONDITION)?;
        self.skip_whitespace();
        self.comparison(label)
    }

    fn parenthesis(&mut self) -> Result<Selector, SelectorError> {
        if self.depth >= DEPTH_LIMIT {
            return Err(self.expected("at most 32 parentheses within each other"));
        }
        self.depth += 1;
        self.eat("(");
        self.skip_whitespace();
        let inner = self.any_of()?;
        self.close()?;
        self.depth -= 1;
        Ok(inner)
    }

    fn comparison(&mut self, label: String) -> Result<Selector, SelectorError> {
        if self.eat("==") {
            return Ok(Selector::Equals(label, self.string()?));
        }
        if self.eat("!=") {
            return Ok(Selector::Equals(label, self.string()?).negate());
        }
        if self.eat_words(&["contains"]) {
            return Ok(Selector::Contains(label, self.string()?));
        }
        if self.eat_words(&["starts", "with"]) {
            return Ok(Selector::StartsWith(label, self.string()?));
        }
        if self.eat_words(&["ends", "with"]) {
            return Ok(Selector::EndsWith(label, self.string()?));
        }
        if self.eat_words(&["not", "in"]) {
            return Ok(Selector::In(label, self.set()?).negate());
        }
        if self.eat_words(&["in"]) {
            return Ok(Selector::In(label, self.set()?));
        }
        Err(self.expected(OPERATORS))
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.skip_whitespace();
        if !self.eat("{") {
            return Err(self.expected("{"));
        }
        let mut values = BTreeSet::new();
        loop {
            self.skip_whitespace();
            if self.eat("}") {
                break;
            }
            values.insert(self.string()?);
            if !self.eat(",") && !self.rest().starts_with('}') {
                return Err(self.expected(", or }"));
            }
        }
        self.skip_whitespace();
        Ok(values)
    }

    /// Quoted, with the whitespace around it.
    fn string(&mut self) -> Result<String, SelectorError> {
        self.skip_whitespace();
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Err(self.expected("a quoted string"));
        };
        let inside = self.rest().get(quote.len_utf8()..).unwrap_or_default();
        let Some(length) = inside.find(quote) else {
            self.at = self.text.len();
            return Err(self.expected("the closing quote"));
        };
        let value = inside.get(..length).unwrap_or_default().to_owned();
        self.at += length + 2 * quote.len_utf8();
        self.skip_whitespace();
        Ok(value)
    }

    fn label(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        let length = self.rest().find(|c| !is_label_character(c)).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.expected(expected));
        }
        if length > LABEL_LIMIT {
            return Err(self.expected("a label of at most 512 characters"));
        }
        let label = self.rest().get(..length).unwrap_or_default().to_owned();
        self.at += length;
        Ok(label)
    }

    fn close(&mut self) -> Result<(), SelectorError> {
        self.skip_whitespace();
        if !self.eat(")") {
            return Err(self.expected(")"));
        }
        self.skip_whitespace();
        Ok(())
    }

    /// Words with any whitespace or none between, and no label character behind them.
    fn eat_words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        for word in words {
            self.skip_whitespace();
            if !self.eat(word) {
                self.at = start;
                return false;
            }
        }
        let ended = !self.rest().starts_with(is_label_character);
        if !ended {
            self.at = start;
        }
        ended
    }

    fn eat(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn skip_whitespace(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        let before = self.text.get(..self.at).unwrap_or_default();
        let rest = self.rest();
        let word = rest.find(|c| !is_label_character(c)).unwrap_or(rest.len());
        let length = if word > 0 { word.min(32) } else { rest.chars().next().map_or(0, char::len_utf8) };
        let found = match rest.get(..length) {
            Some(token) if !token.is_empty() => format!("{token:?}"),
            Some(_) | None => "the end".to_owned(),
        };
        SelectorError { column: before.chars().count() + 1, expected, found }
    }
}

fn only_or(mut parts: Vec<Selector>, join: fn(Vec<Selector>) -> Selector) -> Selector {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            join(parts)
        }
    }
}

fn is_label_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

#[cfg(test)]
mod tests;

//! Which RFC sections the sources cite, and where: found in comments, strings and the names of tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A section in an order that people expect: `4.2` before `4.10`, `3` before `3 (c)`. Empty: the RFC as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Section {
    numbers: Vec<u32>,
    letter: Option<char>,
}

impl Section {
    pub(crate) fn text(&self) -> String {
        let numbers: Vec<String> = self.numbers.iter().map(u32::to_string).collect();
        match (numbers.is_empty(), self.letter) {
            (true, _) => "–".to_owned(),
            (false, None) => format!("§{}", numbers.join(".")),
            (false, Some(letter)) => format!("§{} ({letter})", numbers.join(".")),
        }
    }

    /// Whether what is said of `other` is said of this section: it is this one, or a part of it.
    pub(crate) fn covers(&self, other: &Section) -> bool {
        other.numbers.starts_with(&self.numbers) && (self.letter.is_none() || self == other)
    }
}

/// One citation.
pub(crate) type Cited = (u32, Section);

/// File, then items.
pub(crate) type Places = BTreeMap<String, BTreeSet<String>>;

/// Who cites a section.
#[derive(Debug, Default)]
pub(crate) struct Citations {
    pub(crate) code: Places,
    pub(crate) tests: Places,
}

/// The citations of one line of text.
pub(crate) fn of_text(line: &str) -> Vec<Cited> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("RFC ") {
        let rest = &line[at + 4..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(rfc) = rest[..digits].parse() else { continue };
        let mut rest = &rest[digits..];
        let mut whole = true;
        while let Some(behind) =
            [" §", "'s §", ", §", " and §", "/§"].iter().find_map(|by| rest.strip_prefix(by))
        {
            let (section, behind) = section(behind);
            found.push((rfc, section));
            (rest, whole) = (behind, false);
        }
        if whole {
            found.push((rfc, Section { numbers: vec![], letter: None }));
        }
    }
    found
}

/// A section at the start of a text, and what follows it.
fn section(text: &str) -> (Section, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].trim_end_matches('.');
    let numbers = number.split('.').filter_map(|part| part.parse().ok()).collect();
    let rest = &text[number.len()..];
    let mut letters = rest.trim_start_matches([' ', '(']).chars();
    let lettered = match (letters.next(), letters.next()) {
        (Some(letter @ 'a'..='z'), Some(')')) if rest.starts_with(' ') || rest.starts_with('(') => {
            Some(letter)
        }
        _ => None,
    };
    let rest = if lettered.is_some() { &rest[rest.find(')').unwrap() + 1..] } else { rest };
    (Section { numbers, letter: lettered }, rest)
}

/// The citation in the name of a test: `rfc4271_8_2_2_idle_dials`.
pub(crate) fn of_name(name: &str) -> Option<Cited> {
    let mut words = name.strip_prefix("rfc")?.split('_');
    let rfc = words.next()?.parse().ok()?;
    let numbers = words.map_while(|word| word.parse().ok()).collect();
    Some((rfc, Section { numbers, letter: None }))
}

/// The name of the item that a line begins.
fn item(line: &str) -> Option<&str> {
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let kinds = ["fn", "struct", "enum", "trait", "const", "static", "mod", "type", "impl"];
    let visible = ["pub", "crate", "super", "in", "async"];
    let kind = words.find(|word| !visible.contains(word))?;
    if !kinds.contains(&kind) {
        return None;
    }
    let name = words.find(|word| word.starts_with(char::is_alphabetic) && *word != "fn");
    // Of `impl X for Y` both sound alike: the first is enough to find it.
    name
}

/// Reads one file into `all`.
fn read(path: &str, text: &str, all: &mut BTreeMap<Cited, Citations>) {
    let mut test = path.contains("/tests/") || path.ends_with("/tests.rs");
    let lines: Vec<&str> = text.lines().collect();
    let mut last = "module".to_owned();
    for (at, line) in lines.iter().enumerate() {
        test |= line.trim() == "mod tests {";
        // A heading between items cites for all that follow, and none of them.
        let mut cited = if line.trim_start().starts_with("// ---") { vec![] } else { of_text(line) };
        if let Some(name) = item(line.trim_start()) {
            last = name.to_owned();
            cited.extend(of_name(name));
        }
        // A comment belongs to the item under it, if there is one.
        let comment =
            |line: &&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
        let under = lines[at..].iter().find(|line| !comment(line));
        let here = match under {
            Some(under) if comment(line) => item(under.trim_start()).map_or(last.clone(), str::to_owned),
            _ => last.clone(),
        };
        let here = if line.starts_with("//!") { "module".to_owned() } else { here };
        for cited in cited {
            let citations = all.entry(cited).or_default();
            let places = if test { &mut citations.tests } else { &mut citations.code };
            places.entry(path.to_owned()).or_default().insert(here.clone());
        }
    }
}

/// All citations in these directories of the repository.
pub(crate) fn scan(root: &Path, directories: &[&str]) -> BTreeMap<Cited, Citations> {
    let mut all = BTreeMap::new();
    let mut todo: Vec<PathBuf> = directories.iter().map(|directory| root.join(directory)).collect();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            read(path.strip_prefix(root).unwrap().to_str().unwrap(), &text, &mut all);
        }
    }
    all
}

/// The titles of the RFCs, by number.
pub(crate) fn titles() -> BTreeMap<u32, &'static str> {
    let of =
        |line: &'static str| line.split_once(' ').map(|(number, title)| (number.parse().unwrap(), title));
    include_str!("titles.txt").lines().filter_map(of).collect()
}

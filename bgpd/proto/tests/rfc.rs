//! `docs/rfc.md`: which section is obeyed where, and tested where. `EXPECTORATE=overwrite` writes it anew, as `make golden` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod citations;
mod malformed_table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use citations::{Citations, Cited, Places, of_name, of_text, scan, titles};
use malformed_table::{Session, cases};

const HEAD: &str = "\
# RFCs: section, code, test

Generated from the sources by `make golden`; the gate compares it. A section is listed where a comment, a string or the name of a
test cites it; `proto` is `bgpd/proto`. What a row names is the item that cites it: code that obeys the section, a test that would fail without.
";

/// This file and its helpers speak of citations; they are none.
fn is_about_citations(path: &str) -> bool {
    path.ends_with("proto/tests/rfc.rs") || path.contains("proto/tests/citations/")
}

fn all() -> BTreeMap<Cited, Citations> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = scan(&root, &["bgpd/src", "bgpd/proto/src", "bgpd/proto/tests", "e2e/tests"]);
    for citations in all.values_mut() {
        citations.tests.retain(|path, _| !is_about_citations(path));
    }
    all.retain(|_, citations| !citations.code.is_empty() || !citations.tests.is_empty());
    all
}

fn cell(places: &Places) -> String {
    let one = |(path, items): (&String, &std::collections::BTreeSet<String>)| {
        let items: Vec<String> =
            items.iter().filter(|item| *item != "module").map(|item| format!("`{item}`")).collect();
        let path = if path.starts_with("bgpd/proto/") { &path["bgpd/".len()..] } else { path };
        if items.is_empty() { path.to_owned() } else { format!("{path}: {}", items.join(", ")) }
    };
    places.iter().map(one).collect::<Vec<_>>().join("<br>")
}

fn sections(all: &BTreeMap<Cited, Citations>, out: &mut String) {
    let titles = titles();
    let mut last = None;
    for ((rfc, section), citations) in all {
        if last.replace(*rfc) != Some(*rfc) {
            let title =
                titles.get(rfc).unwrap_or_else(|| panic!("RFC {rfc} has no title in citations/titles.txt"));
            write!(out, "\n## RFC {rfc}: {title}\n\n| section | code | tests |\n|---|---|---|\n").unwrap();
        }
        let (code, tests) = (cell(&citations.code), cell(&citations.tests));
        writeln!(out, "| {} | {code} | {tests} |", section.text()).unwrap();
    }
}

/// The code or the tests.
type Side = fn(&Citations) -> &Places;

/// Sections that one side cites and the other does not, nor a part of them.
fn gaps(all: &BTreeMap<Cited, Citations>, out: &mut String) {
    let covered = |(rfc, section): &Cited, of: Side| {
        all.iter().any(|((other, part), citations)| {
            other == rfc && section.covers(part) && !of(citations).is_empty()
        })
    };
    let mut list = |title: &str, text: &str, has: Side, lacks: Side| {
        let mut rows: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (cited, citations) in all {
            if !has(citations).is_empty() && !covered(cited, lacks) {
                rows.entry(cited.0).or_default().push(cited.1.text());
            }
        }
        write!(out, "\n## {title}\n\n{text}\n\n").unwrap();
        for (rfc, sections) in rows {
            writeln!(out, "- RFC {rfc}: {}", sections.join(", ").replace('–', "as a whole")).unwrap();
        }
    };
    let (code, tests): (Side, Side) = (|c| &c.code, |c| &c.tests);
    let text = "Cited by code, and by no test: not said to be untested, but no test says so.";
    list("Code without a test that names the section", text, code, tests);
    let text = "Cited by a test, and by no code.";
    list("Tests without code that names the section", text, tests, code);
}

fn malformed(out: &mut String) {
    let mut rows = cases();
    // By number, not by letter: §7.9 before §7.10.
    rows.sort_by_key(|case| (of_text(case.rfc).remove(0), case.session as u8));
    out.push_str(
        "\n## Malformed messages\n\nWhat is answered, and what the RFCs would leave as well. Each row is said to a whole speaker \
         by `proto/tests/malformed.rs`, which checks the answer, the counter, the text and the state afterwards.\n\n\
         | section | message | session | answer | allowed too |\n|---|---|---|---|---|\n",
    );
    for case in rows {
        let session = match case.session {
            Session::Opening => "before the OPEN",
            Session::External => "external",
            Session::TwoOctet => "external, two-octet AS",
            Session::Internal => "internal",
            Session::Ipv4Alone => "external, IPv4 alone",
            Session::Ipv6Alone => "external, IPv6 alone",
        };
        let allowed: Vec<String> = case.allowed[1..].iter().map(|answer| answer.text()).collect();
        let (rfc, name, ours, too) = (case.rfc, case.name, case.allowed[0].text(), allowed.join("; "));
        writeln!(out, "| {rfc} | {name} | {session} | {ours} | {too} |").unwrap();
    }
}

#[test]
fn the_document_is_what_the_sources_say() {
    let all = all();
    let mut out = HEAD.to_owned();
    sections(&all, &mut out);
    gaps(&all, &mut out);
    malformed(&mut out);
    expectorate::assert_contents(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rfc.md"), &out);
}

/// What must be among them, or the search finds too little to be compared.
#[test]
fn citations_are_found_in_comments_strings_and_names() {
    let all = all();
    let code = |text: &str| all.get(&of_text(text)[0]).map(|found| cell(&found.code)).unwrap_or_default();
    let tests = |text: &str| all.get(&of_text(text)[0]).map(|found| cell(&found.tests)).unwrap_or_default();
    assert!(code("RFC 7606 §7.1").contains("canonical.rs: `check_length`"), "{}", code("RFC 7606 §7.1"));
    assert!(tests("RFC 7606 §7.1").contains("malformed_table/update.rs: `lists`, `well_known`"));
    assert!(tests("RFC 4271 §6.5").contains("rfc4271_6_5_the_hold_timer_ends_a_silent_session"));
    assert!(all.len() > 100, "{} sections", all.len());
}

#[test]
fn citations_are_read_as_people_write_them() {
    let read = |text: &str| -> Vec<String> {
        of_text(text).iter().map(|(rfc, section)| format!("{rfc} {}", section.text())).collect()
    };
    assert_eq!(read("as RFC 4271 §4.1, §6.1 and §8.2.2 say"), ["4271 §4.1", "4271 §6.1", "4271 §8.2.2"]);
    assert_eq!(read("(RFC 7606 §3 d), RFC 7606 §3 (g)."), ["7606 §3 (d)", "7606 §3 (g)"]);
    assert_eq!(read("RFC 9003's text, RFC 4724 §4.2."), ["9003 –", "4724 §4.2"]);
    assert_eq!(read("an RFC that is none"), Vec::<String>::new());
    let of = |name: &str| of_name(name).map(|(rfc, section)| format!("{rfc} {}", section.text()));
    assert_eq!(of("rfc4271_8_2_2_idle_dials_on_start").unwrap(), "4271 §8.2.2");
    assert_eq!(of("rfc9003_the_peers_text").unwrap(), "9003 –");
    assert_eq!(of("a_day_of_keepalives"), None);
}

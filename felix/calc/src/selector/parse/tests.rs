#![allow(clippy::unwrap_used)]

use super::*;
use crate::model::Labels;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Selector, labels that it matches, labels that it does not.
type Row = (
    &'static str,
    &'static [&'static [(&'static str, &'static str)]],
    &'static [&'static [(&'static str, &'static str)]],
);

const TRUTH: &[Row] = &[
    ("", &[&[], &[("a", "b")]], &[]),
    (" \t ", &[&[]], &[]),
    ("all()", &[&[], &[("a", "b")]], &[]),
    ("all( )", &[&[]], &[]),
    ("!all()", &[], &[&[], &[("a", "b")]]),
    ("a == 'b'", &[&[("a", "b")], &[("a", "b"), ("c", "d")]], &[&[], &[("a", "c")], &[("b", "b")]]),
    ("a==\"b\"", &[&[("a", "b")]], &[&[("a", "")]]),
    ("a == ''", &[&[("a", "")]], &[&[], &[("a", "x")]]),
    ("a == \"it's\"", &[&[("a", "it's")]], &[&[]]),
    ("a != 'b'", &[&[], &[("a", "c")]], &[&[("a", "b")]]),
    ("!a == 'b'", &[&[], &[("a", "c")]], &[&[("a", "b")]]),
    ("!!a == 'b'", &[&[("a", "b")]], &[&[]]),
    ("! ! ! a == 'b'", &[&[]], &[&[("a", "b")]]),
    ("a in {'b', 'c'}", &[&[("a", "b")], &[("a", "c")]], &[&[], &[("a", "d")]]),
    ("a in {'b',}", &[&[("a", "b")]], &[&[]]),
    ("a in{'b'}", &[&[("a", "b")]], &[&[]]),
    ("a in {}", &[], &[&[], &[("a", "b")]]),
    ("a not in {'b'}", &[&[], &[("a", "c")]], &[&[("a", "b")]]),
    ("a notin {'b'}", &[&[]], &[&[("a", "b")]]),
    ("a not in {}", &[&[], &[("a", "b")]], &[]),
    ("has(a)", &[&[("a", "")]], &[&[], &[("b", "a")]]),
    ("has( a )", &[&[("a", "x")]], &[&[]]),
    ("!has(a)", &[&[], &[("b", "a")]], &[&[("a", "")]]),
    ("a contains 'b'", &[&[("a", "abc")], &[("a", "b")]], &[&[], &[("a", "ac")]]),
    ("a contains ''", &[&[("a", "")]], &[&[]]),
    ("a starts with 'b'", &[&[("a", "bc")]], &[&[], &[("a", "cb")]]),
    ("a startswith 'b'", &[&[("a", "bc")]], &[&[("a", "c")]]),
    ("a starts\t with'b'", &[&[("a", "b")]], &[&[]]),
    ("a ends with 'b'", &[&[("a", "cb")]], &[&[("a", "bc")]]),
    ("a endswith 'b'", &[&[("a", "b")]], &[&[]]),
    ("a == 'x' && b == 'y'", &[&[("a", "x"), ("b", "y")]], &[&[("a", "x")], &[("b", "y")]]),
    ("a == 'x' || b == 'y'", &[&[("a", "x")], &[("b", "y")]], &[&[], &[("a", "y")]]),
    ("has(a) || has(b) && has(c)", &[&[("a", "")], &[("b", ""), ("c", "")]], &[&[("b", "")], &[("c", "")]]),
    ("(has(a) || has(b)) && has(c)", &[&[("b", ""), ("c", "")]], &[&[("a", "")], &[("c", "")]]),
    ("!(has(a) && has(b))", &[&[], &[("a", "")]], &[&[("a", ""), ("b", "")]]),
    ("!has(a) && has(b)", &[&[("b", "")]], &[&[("a", ""), ("b", "")], &[]]),
    ("in == 'x'", &[&[("in", "x")]], &[&[]]),
    ("in in {'x'}", &[&[("in", "x")]], &[&[]]),
    ("has == 'x'", &[&[("has", "x")]], &[&[]]),
    ("not not in {'x'}", &[&[]], &[&[("not", "x")]]),
    ("contains contains 'x'", &[&[("contains", "x")]], &[&[]]),
    ("starts starts with 'x'", &[&[("starts", "xy")]], &[&[]]),
    ("kubernetes.io/metadata.name == 'a-b_c'", &[&[("kubernetes.io/metadata.name", "a-b_c")]], &[&[]]),
    ("-_./ == 'x'", &[&[("-_./", "x")]], &[&[]]),
    ("a=='b'&&c=='d'", &[&[("a", "b"), ("c", "d")]], &[&[("a", "b")]]),
    ("a == 'b'   ", &[&[("a", "b")]], &[&[]]),
    ("a == '&& || {}'", &[&[("a", "&& || {}")]], &[&[]]),
];

#[test]
fn selectors_match_what_they_should() {
    for (text, matching, others) in TRUTH {
        let selector: Selector = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        for pairs in *matching {
            assert!(selector.matches(&labels(pairs)), "{text:?} on {pairs:?}");
        }
        for pairs in *others {
            assert!(!selector.matches(&labels(pairs)), "{text:?} on {pairs:?}");
        }
        let again: Selector = selector.to_string().parse().unwrap();
        assert_eq!(again, selector, "{text:?} printed as {selector}");
    }
}

#[test]
fn errors_name_the_column_and_what_was_expected() {
    let operators = "expected ==, !=, in, not in, contains, starts with or ends with";
    let condition = "expected a label, has(, all( or (";
    for (text, error) in [
        ("app = 'x'", format!("column 5: {operators}, found \"=\"")),
        ("app", format!("column 4: {operators}, found the end")),
        ("app is 'x'", format!("column 5: {operators}, found \"is\"")),
        ("a inn {'x'}", format!("column 3: {operators}, found \"inn\"")),
        ("a containsx 'b'", format!("column 3: {operators}, found \"containsx\"")),
        ("a starts 'b'", format!("column 3: {operators}, found \"starts\"")),
        ("has (a)", format!("column 5: {operators}, found \"(\"")),
        ("a == b", "column 6: expected a quoted string, found \"b\"".to_owned()),
        ("a == 'b", "column 8: expected the closing quote, found the end".to_owned()),
        ("a in 'b'", "column 6: expected {, found \"'\"".to_owned()),
        ("a in {'b' 'c'}", "column 11: expected , or }, found \"'\"".to_owned()),
        ("a in {,}", "column 7: expected a quoted string, found \",\"".to_owned()),
        ("a in {'b'", "column 10: expected , or }, found the end".to_owned()),
        ("has()", "column 5: expected a label, found \")\"".to_owned()),
        ("has(a", "column 6: expected ), found the end".to_owned()),
        ("all(a)", "column 5: expected ), found \"a\"".to_owned()),
        ("(has(a)", "column 8: expected ), found the end".to_owned()),
        ("has(a) has(b)", "column 8: expected &&, || or the end, found \"has\"".to_owned()),
        ("has(a) &&", format!("column 10: {condition}, found the end")),
        ("has(a) & has(b)", "column 8: expected &&, || or the end, found \"&\"".to_owned()),
        ("|| has(a)", format!("column 1: {condition}, found \"|\"")),
        ("!", format!("column 2: {condition}, found the end")),
        ("()", format!("column 2: {condition}, found \")\"")),
        ("has(a)\n", "column 7: expected &&, || or the end, found \"\\n\"".to_owned()),
        ("é == 'x'", format!("column 1: {condition}, found \"é\"")),
        ("a == 'é' x", "column 10: expected &&, || or the end, found \"x\"".to_owned()),
    ] {
        let refused = text.parse::<Selector>().expect_err(text);
        assert_eq!(refused.to_string(), error, "{text:?}");
    }
}

#[test]
fn depth_and_length_are_limited() {
    let nested = |levels: usize| format!("{}has(a){}", "(".repeat(levels), ")".repeat(levels));
    assert!(nested(32).parse::<Selector>().is_ok());
    assert_eq!(nested(33).parse::<Selector>().unwrap_err().column, 33);
    assert!(format!("has({})", "x".repeat(512)).parse::<Selector>().is_ok());
    assert!(format!("has({})", "x".repeat(513)).parse::<Selector>().is_err());
    assert!("global()".parse::<Selector>().is_err());
}

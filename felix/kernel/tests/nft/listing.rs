//! nft lists what we write, and takes what we render.

use std::fs;
use std::path::Path;

use felix_calc::table::{Field, Statement, Table, Value};
use felix_kernel::nft::{PolicyTable, render};

use crate::generator::random_table;
use crate::namespace::Namespace;
use crate::table::{chain, equal, everything, put, table};

/// Feeds JSON to nft inside the namespace.
pub(crate) fn nft_json(namespace: &Namespace, options: &str, json: &serde_json::Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), json.to_string()).unwrap();
    let path: &Path = file.path();
    namespace.sh(&format!("nft {options} -j -f {}", path.display()));
}

fn written(table: &Table) -> Namespace {
    let namespace = Namespace::new();
    namespace.run(|| put(&mut PolicyTable::open_unprotected().unwrap(), &Table::default(), table).unwrap());
    namespace
}

/// Every form of rule and set that the writer has; a listing that aborts would break the operator's view of all tables.
#[test]
fn nft_lists_every_form() {
    let table = everything();
    let namespace = written(&table);
    let text = namespace.sh("nft list ruleset");
    for expected in EXPECTED {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    for wrong in ["[invalid", "unknown", "xt "] {
        assert!(!text.contains(wrong), "{wrong}\nis in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&namespace.sh("nft -j list ruleset")).unwrap();
    let rules =
        json["nftables"].as_array().unwrap().iter().filter(|object| object.get("rule").is_some()).count();
    assert_eq!(rules, table.chains.values().map(|chain| chain.rules.len()).sum::<usize>());
    for chain in table.chains.keys() {
        namespace.sh(&format!("nft list chain inet manx {chain}; nft -j list chain inet manx {chain}"));
    }
    for (name, set) in &table.sets {
        let kind = if set.data.is_some() { "map" } else { "set" };
        namespace.sh(&format!("nft list {kind} inet manx {name}; nft -j list {kind} inet manx {name}"));
    }
}

#[test]
fn nft_accepts_what_is_rendered() {
    let namespace = Namespace::new();
    nft_json(&namespace, "-c", &render(&everything()).unwrap());
    nft_json(&namespace, "-c", &render(&Table::default()).unwrap());
    for seed in 1..60 {
        let mut table = random_table(seed);
        for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
            // The syntax refuses rules that can never match, such as IPv4 and IPv6 at once: one condition is enough.
            let action = rule.statements.pop().unwrap();
            rule.statements.truncate(usize::from(!matches!(action, Statement::VerdictMap { .. })));
            rule.statements.push(action);
        }
        nft_json(&namespace, "-c", &render(&table).unwrap());
    }
}

/// Two ways into the kernel, one listing: the writer lowers as nft does.
#[test]
fn nft_lists_its_own_writing_as_ours() {
    let table = everything();
    let other = Namespace::new();
    nft_json(&other, "", &render(&table).unwrap());
    let blocks = |namespace: &Namespace| {
        let text = namespace.sh("nft list table inet manx");
        let mut blocks: Vec<String> =
            text.split("\n\n").map(|block| block.trim_end_matches("\n}\n").to_owned()).collect();
        blocks[0] = blocks[0].replace("table inet manx {\n", "");
        blocks.sort();
        blocks
    };
    assert_eq!(blocks(&written(&table)).join("\n\n"), blocks(&other).join("\n\n"));
}

/// nft before 1.1 knows owners but not that a table persists. Text, and any JSON but that of this table, must be fine.
#[test]
fn an_owned_table_leaves_other_listings_alone() {
    let namespace = Namespace::new();
    let mut kernel = namespace.run(|| PolicyTable::open().unwrap());
    put(&mut kernel, &Table::default(), &everything()).unwrap();
    assert!(namespace.sh("nft list ruleset").contains("iifname vmap @disp"));
    namespace.sh("nft add table ip other; nft add chain ip other c; nft list tables");
    let json: serde_json::Value = serde_json::from_str(&namespace.sh("nft -j list table ip other")).unwrap();
    assert_eq!(json["nftables"][1]["table"]["name"], "other");
    let json: serde_json::Value =
        serde_json::from_str(&namespace.sh("nft -j list chain inet manx pod")).unwrap();
    assert!(json["nftables"].as_array().unwrap().len() > 10);
}

/// A condition that does not stand behind its protocol: nft cannot name the field, and says so in numbers.
#[test]
fn nft_lists_conditions_without_their_protocol() {
    let bare = |field| vec![equal(field, Value::Protocol(1))];
    let fields = [Field::IcmpType, Field::IcmpCode, Field::Icmpv6Type, Field::Icmpv6Code, Field::HopLimit];
    let mut rules: Vec<_> = fields.into_iter().map(bare).collect();
    rules.push(vec![equal(Field::DestinationPort, Value::Port(80))]);
    rules.push(vec![
        equal(Field::IcmpType, Value::Protocol(8)),
        equal(Field::Icmpv6Type, Value::Protocol(128)),
    ]);
    let namespace = written(&table(vec![], vec![("bare", chain(rules))]));
    assert!(namespace.sh("nft list ruleset").contains("@th,0,8 0x1"));
    namespace.sh("nft -j list ruleset; nft list chain inet manx bare");
}

const EXPECTED: &[&str] = &[
    "type ipv4_addr : mark",
    "elements = { 10.0.0.1 : 0x00000007 }",
    "elements = { tcp . 80 counter packets 0 bytes 0 : return }",
    "elements = { \"manx0\" : goto pod }",
    "elements = { 10.0.0.1 . tcp . 80-90 }",
    "elements = { 0.0.0.0-9.255.255.255, 255.0.0.0/8 }",
    "elements = { 0-1023, 8080-65535 }",
    "elements = { \"manx0\" . 10.0.0.1 }",
    "elements = { 0x01020304 }",
    "ct state established,related accept",
    "ct state invalid,untracked drop",
    "ct status dnat return",
    "limit rate 10/second burst 20 packets log prefix \"manx:deny:ns/policy/ingress-0\" group 77",
    "meta l4proto tcp reject with tcp reset",
    "counter packets 0 bytes 0 reject with icmpx admin-prohibited",
    "iifname \"manx*\" oifname != \"manx*\" drop",
    "iifname \"manx0\" oifname \"eth0\"",
    "ip saddr 10.0.0.1 drop",
    "ip saddr 10.0.0.1-10.0.0.9",
    "tcp sport 1 tcp dport 2",
    "udp dport != 5-9 udp dport @port",
    "iifname . ip6 saddr != @own6 drop",
    "ip daddr . meta l4proto . tcp dport @np4",
    "iifname vmap @disp",
    "meta l4proto . tcp dport vmap @cells",
    "icmpv6 type nd-neighbor-solicit ip6 hoplimit 255",
    "type filter hook forward priority filter - 1; policy accept;",
    "type filter hook input priority filter; policy drop;",
    "type nat hook postrouting priority srcnat; policy accept;",
    "counter packets 0 bytes 0 masquerade fully-random",
];

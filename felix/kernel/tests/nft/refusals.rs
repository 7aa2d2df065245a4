//! What the kernel refuses comes back with the operation that was refused, and leaves nothing behind.

use felix_calc::plan::{Operation, Transaction};
use felix_calc::table::{Element, Field, KeyType, Rule, Statement, Table, Value, Verdict};
use felix_kernel::nft::{NftError, PolicyTable};

use crate::namespace::Namespace;
use crate::table::{equal, interface, ranges, rule, set, table, v4};

fn refused(kernel: &mut PolicyTable, operations: Vec<Operation>) -> NftError {
    kernel.commit(&Transaction(operations)).unwrap_err()
}

fn add_set(name: &str, like: &felix_calc::table::Set) -> Operation {
    Operation::AddSet { name: name.to_owned(), shape: like.shape() }
}

fn addresses(count: u32) -> Vec<(Element, Option<felix_calc::table::Data>)> {
    (0..count).map(|n| (Element::Exact(vec![Value::Ipv4((0x0a00_0000 + n).into())]), None)).collect()
}

#[test]
fn the_error_names_operation_and_element() {
    Namespace::new().run(|| {
        let mut kernel = PolicyTable::open().unwrap();
        let four = set(&[KeyType::Ipv4], vec![]);
        let map = crate::table::verdict_map(&[KeyType::Interface], vec![]);
        let good = Operation::AddChain { name: "c".to_owned(), base: None };
        let error = refused(&mut kernel, vec![good, Operation::DeleteSet { name: "nosuch".to_owned() }]);
        assert_eq!(error.to_string(), "operation 1, delete set nosuch: ENOENT: No such file or directory");
        assert_eq!(kernel.read().unwrap().table, Table::default(), "nothing of a refused transaction stays");

        let mut elements = addresses(20_000);
        elements[15_000].0 = Element::Exact(vec![interface("manx0")]);
        let error = refused(
            &mut kernel,
            vec![add_set("sel4", &four), Operation::AddElements { set: "sel4".to_owned(), elements }],
        );
        assert_eq!(error.to_string(), "operation 1, add to set sel4: manx0: EINVAL: Invalid argument");

        let target = felix_calc::table::Data::Verdict(Verdict::Goto("nowhere".to_owned()));
        let elements = vec![(Element::Exact(vec![interface("manx0")]), Some(target))];
        let error = refused(
            &mut kernel,
            vec![add_set("disp", &map), Operation::AddElements { set: "disp".to_owned(), elements }],
        );
        assert!(error.to_string().starts_with("operation 1, add to set disp: manx0: ENOENT"), "{error}");

        let lookup =
            Statement::InSet { fields: vec![Field::SourceV4], negated: false, set: "nosuch".to_owned() };
        let named = Rule { statements: vec![lookup], comment: Some("ns/policy/ingress-0".to_owned()) };
        let rules = vec![rule(vec![Statement::Counter]), named];
        let error = refused(
            &mut kernel,
            vec![
                Operation::AddChain { name: "c".to_owned(), base: None },
                Operation::ReplaceRules { chain: "c".to_owned(), rules },
            ],
        );
        assert!(
            error.to_string().starts_with("operation 1, rule 1 (ns/policy/ingress-0) of chain c: ENOENT"),
            "{error}"
        );
        assert_eq!(kernel.read().unwrap().table, Table::default());
    });
}

/// Thousands of refusals must neither overrun the receive buffer nor hide the first.
#[test]
fn many_refusals_are_one_error() {
    Namespace::new().run(|| {
        let mut kernel = PolicyTable::open().unwrap();
        let missing = |n| Operation::DeleteChain { name: format!("c{n}") };
        let error = refused(&mut kernel, (0..5_000).map(missing).collect());
        assert!(error.to_string().starts_with("operation 0, delete chain c0: ENOENT"), "{error}");
        let chain = |n| Operation::AddChain { name: format!("c{n}"), base: None };
        kernel.commit(&Transaction((0..5_000).map(chain).collect())).unwrap();
        assert_eq!(
            kernel.read().unwrap().table.chains.len(),
            5_000,
            "no answer of the refused batch is left over"
        );
    });
}

#[test]
fn what_nftables_cannot_say_is_not_sent() {
    let chain = |statements| {
        vec![
            Operation::AddChain { name: "c".to_owned(), base: None },
            Operation::ReplaceRules { chain: "c".to_owned(), rules: vec![rule(statements)] },
        ]
    };
    let backwards = ranges(KeyType::Ipv4, &[(v4("10.0.0.2"), v4("10.0.0.1"))]);
    let no_state = Statement::ConnectionState {
        established: false,
        related: false,
        new: false,
        invalid: false,
        untracked: false,
    };
    let cases: Vec<(&str, Vec<Operation>)> = vec![
        ("types", chain(vec![equal(Field::SourceV4, Value::Port(80))])),
        ("15 bytes", chain(vec![equal(Field::InputInterface, interface("manx0123456789ab"))])),
        ("state", chain(vec![no_state])),
        ("above 0", chain(vec![Statement::Limit { per_second: 1, burst: 0 }])),
        ("127 bytes", chain(vec![Statement::Log { prefix: "x".repeat(128), group: 1 }])),
        ("64 bytes", vec![add_set("long", &set(&[KeyType::Ipv6; 5], vec![]))]),
        ("host-order", vec![add_set("words", &ranges(KeyType::Word, &[]))]),
        (
            "in order",
            vec![
                add_set("net4", &backwards),
                Operation::AddElements {
                    set: "net4".to_owned(),
                    elements: backwards.elements.into_iter().collect(),
                },
            ],
        ),
        ("255 bytes", vec![Operation::AddChain { name: "c".repeat(256), base: None }]),
    ];
    Namespace::new().run(|| {
        let mut kernel = PolicyTable::open().unwrap();
        let generation = kernel.generation().unwrap();
        for (text, operations) in cases {
            let error = refused(&mut kernel, operations);
            assert!(matches!(error, NftError::Unsupported { .. }), "{text}: {error}");
            assert!(error.to_string().contains(text), "{text} is not in {error}");
        }
        assert_eq!(kernel.generation().unwrap(), generation);
    });
}

/// Rules and sets that others put into our table are seen, named, and gone after the next plan.
#[test]
fn foreign_things_in_our_table_are_replaced() {
    let wanted = table(
        vec![("sel4", set(&[KeyType::Ipv4], vec![]))],
        vec![("c", crate::table::chain(vec![vec![Statement::Counter]]))],
    );
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut kernel = PolicyTable::open_unprotected().unwrap();
        crate::table::put(&mut kernel, &Table::default(), &wanted).unwrap();
        namespace.sh("nft 'add set inet manx times { type ipv4_addr; timeout 1h; }
                  add chain inet manx hooked { type route hook output priority 0; }
                  add rule inet manx c meta mark set 1
                  add rule inet manx c ip saddr @times accept
                  add element inet manx sel4 { 10.0.0.9 }'");
        let reading = kernel.read().unwrap();
        let mut unknown = reading.unknown.clone();
        unknown.sort();
        assert_eq!(unknown.len(), 3, "{unknown:?}");
        assert!(unknown[0].starts_with("hook of chain hooked"), "{unknown:?}");
        assert!(unknown[1].starts_with("rule of chain c, handle"), "{unknown:?}");
        assert_eq!(unknown[2], "set times");
        crate::table::put(&mut kernel, &reading.table, &wanted).unwrap();
        let reading = kernel.read().unwrap();
        assert_eq!((reading.table, reading.unknown), (wanted, vec![]));
    });
}

//! What was written is what is read, for every table that a generator can think of.

use std::cell::RefCell;

use felix_calc::plan::plan;
use felix_calc::table::Table;
use felix_kernel::nft::PolicyTable;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::generator::random_table;
use crate::namespace::Namespace;
use crate::table::{everything, put};

#[test]
fn a_table_with_everything_reads_back_equal() {
    let mut table = everything();
    table.chains.get_mut("end").unwrap().rules[0].comment = Some("näme of ".to_owned() + &"x".repeat(118));
    table.chains.get_mut("control").unwrap().rules[0].comment = Some(String::new());
    Namespace::new().run(|| {
        let mut kernel = PolicyTable::open().unwrap();
        put(&mut kernel, &Table::default(), &table).unwrap();
        let reading = kernel.read().unwrap();
        assert_eq!(reading.unknown, Vec::<String>::new());
        for (name, chain) in &table.chains {
            assert_eq!(&reading.table.chains[name], chain, "{name}");
        }
        assert_eq!(reading.table, table);
        assert!(plan(&reading.table, &table).is_empty());
    });
}

#[test]
fn random_tables_read_back_equal_after_every_plan() {
    Namespace::new().run(|| {
        let kernel = RefCell::new(PolicyTable::open().unwrap());
        let mut runner =
            TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&any::<u64>().no_shrink(), |seed| {
            let wanted = random_table(seed);
            let mut kernel = kernel.borrow_mut();
            // The kernel is where the last case left it: every case is a change from one random table to another.
            let before = kernel.read().unwrap().table;
            put(&mut kernel, &before, &wanted).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let reading = kernel.read().unwrap();
            prop_assert_eq!(&reading.unknown, &Vec::<String>::new());
            prop_assert_eq!(&reading.table, &wanted);
            Ok(())
        });
        outcome.unwrap();
    });
}

#[test]
fn many_elements_span_several_messages_and_all_arrive() {
    use crate::table::{set, table};
    use felix_calc::table::{Element, KeyType, Value};
    let addresses = |range: std::ops::Range<u32>| {
        range.map(|n| Element::Exact(vec![Value::Ipv4((0x0a00_0000 + n).into())])).collect()
    };
    let before = table(vec![("sel4", set(&[KeyType::Ipv4], addresses(0..100_000)))], vec![]);
    let after = table(vec![("sel4", set(&[KeyType::Ipv4], addresses(50_000..120_000)))], vec![]);
    Namespace::new().run(|| {
        let mut kernel = PolicyTable::open().unwrap();
        put(&mut kernel, &Table::default(), &before).unwrap();
        assert_eq!(kernel.read().unwrap().table, before);
        put(&mut kernel, &before, &after).unwrap();
        assert_eq!(kernel.read().unwrap().table, after);
    });
}

//! What the policy compiler makes, through the kernel: every plan of a random history is accepted, and the table read
//! back is the graph's.

use felix_calc::graph::CalcGraph;
use felix_calc::model::NodeSettings;
use felix_calc::plan::plan;
use felix_kernel::nft::{PolicyTable, render};

use crate::listing::nft_json;
use crate::namespace::Namespace;
use crate::support::change::{change, facts};
use crate::support::generate::{Random, Style, state};

const HISTORIES: u64 = 60;
const CHANGES: usize = 6;

#[test]
fn the_kernel_follows_the_graph() {
    let namespace = Namespace::new();
    let mut kernel = namespace.run(|| PolicyTable::open_unprotected().unwrap());
    for seed in 0..HISTORIES {
        let mut random = Random::new(seed);
        let style = if seed.is_multiple_of(2) { Style::Kubernetes } else { Style::General };
        let mut graph = CalcGraph::new(NodeSettings::default());
        facts(&state(&mut random, style)).into_iter().for_each(|fact| graph.on_update(fact));
        graph.flush();
        // As at a start: from whatever another felix left in the kernel.
        let found = kernel.read().unwrap();
        for transaction in plan(&found.table, graph.table()).transactions() {
            kernel.commit(transaction).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        for step in 0..CHANGES {
            for update in change(&mut random, graph.state(), style) {
                graph.on_update(update);
            }
            for transaction in graph.flush().plan.transactions() {
                kernel.commit(transaction).unwrap_or_else(|error| panic!("seed {seed} step {step}: {error}"));
            }
            let reading = kernel.read().unwrap();
            assert_eq!(reading.unknown, Vec::<String>::new());
            assert!(plan(&reading.table, graph.table()).is_empty(), "seed {seed} step {step}");
            assert_eq!(&reading.table, graph.table(), "seed {seed} step {step}");
        }
        if seed % 10 == 0 {
            namespace.sh("nft list ruleset >/dev/null; nft -j list ruleset >/dev/null");
            nft_json(&Namespace::new(), "-c", &render(graph.table()).unwrap());
        }
    }
}

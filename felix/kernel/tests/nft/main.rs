//! Our table and connection tracking in a real kernel, each test in network namespaces of its own; nft and conntrack
//! are the independent readers.
//!
//! Needs CAP_SYS_ADMIN over the network namespaces it makes: root, or `unshare -Urn` around the test runner.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod compiled;
mod connections;
mod generator;
mod lifetime;
mod listing;
#[path = "../namespaces/namespace.rs"]
#[allow(dead_code)] // shared with the tests of routes and links, which use all of it
mod namespace;
mod outgoing;
mod packets;
mod refusals;
mod roundtrip;
#[path = "../../../calc/tests/support/mod.rs"]
mod support;
mod table;

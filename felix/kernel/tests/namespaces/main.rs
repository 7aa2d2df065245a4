//! What the crate does to a real kernel, each test in network namespaces of its own, read back by `ip -j`.
//!
//! Needs CAP_SYS_ADMIN over the network namespaces it makes: root, or `unshare -Urn` around the test runner.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    unsafe_code
)]

mod ecmp;
mod links;
mod monitor;
mod namespace;
mod objects;
mod pods;
mod privileges;
mod routes;
mod sockets;
mod sysctls;

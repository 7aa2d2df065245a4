//! felix as a node runs it: the binary, a directory of objects, the kernel of a namespace, and manx-cni called as
//! container runtimes call it. Root is needed, and `manx-cni` built (`make build`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::needless_pass_by_value
)]

mod chain;
mod denied;
mod harness;
mod identity;
mod keys;
mod life;
mod loops;
#[path = "../../kernel/tests/namespaces/namespace.rs"]
#[allow(dead_code)] // shared with the tests of the kernel crate, which use all of it
mod namespace;
mod outgoing;
mod silence;
mod sources;

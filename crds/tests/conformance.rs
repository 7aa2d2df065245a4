//! What every datastore owes (src/store/mod.rs), asked of the directory. The Kubernetes backend joins by a
//! second `Backend`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unreachable_pub
)]

mod api;
#[path = "conformance/api.rs"]
mod api_objects;
#[path = "conformance/directory.rs"]
mod directory;
#[path = "conformance/model.rs"]
mod model;
#[path = "conformance/objects.rs"]
mod objects;
#[path = "conformance/suite.rs"]
mod suite;
#[path = "conformance/upstream.rs"]
mod upstream;

//! `demo up` and `demo down`.
fn main() {}

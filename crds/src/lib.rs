//! The API of Manx, `manx.dev/v1alpha1`, and the datastores that hold it.
//!
//! ```text
//!   v1alpha1   one kind per file: schema, defaults, CEL rules, printer columns
//!   annotations the keys on objects of others, and their values
//!   acceptance what this version honours of an object, and why not of the rest
//!   conditions condition types and reasons as enums
//!   store      the trait Store and its backends: a directory of YAML now, the Kubernetes API next
//!   services   which addresses of Services a node originates
//!   report     what `manxctl -o json` and the daemons' sockets print
//!   host       paths on a node
//! ```

pub mod acceptance;
pub mod annotations;
pub mod community;
pub mod conditions;
pub mod defaults;
pub mod host;
pub mod report;
pub mod services;
pub mod store;
pub mod v1alpha1;
pub mod validate;

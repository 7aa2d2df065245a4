//! Cluster state to this node's desired state. Pure: no clock, file, socket, task, lock or client.

pub mod host;
pub mod table;

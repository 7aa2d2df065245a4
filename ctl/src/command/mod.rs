//! One command a file: gather a report, print it as JSON, YAML or a table.

pub(crate) mod capture;
pub(crate) mod clear;
pub(crate) mod drain;
pub(crate) mod explain;
pub(crate) mod install;
pub(crate) mod ipam;
pub(crate) mod nodes;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod routes;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod uninstall;

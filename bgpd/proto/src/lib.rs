//! A BGP-4 speaker as a value (RFC 4271): no I/O, no clock, no tasks.

pub mod types;

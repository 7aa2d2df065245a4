//! `ports`: what is asked of the packet itself.

use std::collections::{BTreeMap, BTreeSet};

use felix_calc::model::{SCTP, TCP, UDP};
use felix_calc::{PortRange, Traffic};
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::problem::{Path, Problems};

const NUMBER: &str = "must be between 1 and 65535";
const NAME: &str =
    "must be a number, or a port name of at most 15 lower-case letters, digits and '-', with a letter";

/// What one entry asks for.
enum Port {
    Any,
    Range(PortRange),
    Name(String),
}

/// All ports of one protocol that a rule names.
#[derive(Default)]
struct OfProtocol {
    any: bool,
    ranges: BTreeSet<PortRange>,
    names: BTreeSet<String>,
}

/// The traffic of a rule; an empty list is everything. None: the rule matches nothing.
pub(super) fn read(
    written: &[NetworkPolicyPort],
    path: &Path,
    problems: &mut Problems,
) -> Option<Vec<Traffic>> {
    let mut by_protocol: BTreeMap<u8, OfProtocol> = BTreeMap::new();
    let mut complete = true;
    for (index, port) in written.iter().enumerate() {
        let path = path.index(index);
        let protocol = read_protocol(port.protocol.as_deref(), &path, problems);
        let port = read_port(port, &path, problems);
        let Some((protocol, port)) = protocol.zip(port) else {
            complete = false;
            continue;
        };
        let entry = by_protocol.entry(protocol).or_default();
        match port {
            Port::Any => entry.any = true,
            Port::Range(range) => {
                entry.ranges.insert(range);
            }
            Port::Name(name) => {
                entry.names.insert(name);
            }
        }
    }
    complete.then(|| by_protocol.into_iter().map(|(protocol, ports)| traffic(protocol, ports)).collect())
}

fn traffic(protocol: u8, ports: OfProtocol) -> Traffic {
    let OfProtocol { any, ranges, names } = ports;
    let everything = Traffic { protocol: Some(protocol), ..Traffic::default() };
    if any {
        return everything;
    }
    Traffic { ports: ranges.into_iter().collect(), port_names: names, ..everything }
}

fn read_protocol(protocol: Option<&str>, path: &Path, problems: &mut Problems) -> Option<u8> {
    match protocol {
        None | Some("TCP") => Some(TCP),
        Some("UDP") => Some(UDP),
        Some("SCTP") => Some(SCTP),
        Some(other) => {
            problems.unsupported(&path.field("protocol"), other, &["TCP", "UDP", "SCTP"]);
            None
        }
    }
}

fn read_port(port: &NetworkPolicyPort, path: &Path, problems: &mut Problems) -> Option<Port> {
    let NetworkPolicyPort { port, end_port, protocol: _ } = port;
    match (port, end_port) {
        (None, None) => Some(Port::Any),
        (None, Some(_)) => {
            problems.forbidden(&path.field("endPort"), "may not be given without port");
            None
        }
        (Some(IntOrString::Int(first)), end) => {
            let number = number(*first, &path.field("port"), problems);
            let last = match end {
                None => number,
                Some(last) => last_number(*first, *last, &path.field("endPort"), problems),
            };
            let (first, last) = number.zip(last)?;
            Some(Port::Range(PortRange { first, last }))
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            problems.forbidden(&path.field("endPort"), "may not be given with a named port");
            None
        }
        (Some(IntOrString::String(name)), None) if is_port_name(name) => Some(Port::Name(name.clone())),
        (Some(IntOrString::String(name)), None) => {
            problems.invalid(&path.field("port"), name, NAME);
            None
        }
    }
}

fn number(number: i32, path: &Path, problems: &mut Problems) -> Option<u16> {
    let read = u16::try_from(number).ok().filter(|number| *number != 0);
    if read.is_none() {
        problems.invalid_number(path, number, NUMBER);
    }
    read
}

fn last_number(first: i32, last: i32, path: &Path, problems: &mut Problems) -> Option<u16> {
    if last < first {
        problems.invalid_number(path, last, "must not be below port");
        return None;
    }
    number(last, path, problems)
}

/// An IANA service name (RFC 6335 §5.1), as upstream checks it.
fn is_port_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(legal)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

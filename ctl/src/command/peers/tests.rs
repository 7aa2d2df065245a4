#![allow(clippy::unwrap_used)]

use super::*;

fn session(yaml: &str) -> SessionRow {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn errors_are_told_once_for_all_nodes_that_see_them() {
    let down = |node: &str| {
        session(&format!(
            "{{node: {node}, peer: r12-tor-b, remote: 10.0.12.3, state: Connect, lastError: {{time: \
             '2026-11-20T10:00:00Z', from: Transport, name: Transport, text: 'Connection timed out (ETIMEDOUT)'}}}}"
        ))
    };
    let limit = session(
        "{node: worker-31, peer: r13-tor-a, remote: 10.0.13.2, state: Idle, retrySeconds: 859, lastError: {time: \
         '2026-11-20T10:03:19Z', from: Local, name: Cease/MaximumNumberOfPrefixesReached, text: received 5001 of 5000}}",
    );
    let now = "2026-11-20T10:04:00Z".parse().unwrap();
    assert_eq!(
        errors(&[down("worker-12"), down("worker-14"), limit], now),
        [
            "r12-tor-b   last error 4m ago, Transport, 2 nodes: Connection timed out (ETIMEDOUT)",
            "r13-tor-a   last error 41s ago, Local: Cease/MaximumNumberOfPrefixesReached: received 5001 of 5000; \
             tries again in 14m19s"
        ]
    );
}

#[test]
fn wide_says_what_was_agreed_and_what_was_malformed() {
    let row = session(
        "{node: n1, peer: lab, remote: 10.0.99.9, asn: 64999, state: Established, resets: 2, holdSeconds: 9, \
         localAddress: 10.0.99.1, capabilities: [FourOctetASN, RouteRefresh], malformed: [{message: UPDATE, attribute: 4, \
         reason: its length is not 4, action: TreatAsWithdraw, rfc: RFC 7606 §7.4, count: 3}, {message: OPEN, \
         reason: odd, action: CapabilityIgnored, rfc: RFC 5492 §3, count: 1}]}",
    );
    assert_eq!(wide(&row), ["64999", "10.0.99.1", "9s", "2", "4", "FourOctetASN,RouteRefresh"]);
    assert_eq!(
        malformed(&[row]),
        [
            "lab   3 times on n1: UPDATE attribute 4: its length is not 4: TreatAsWithdraw (RFC 7606 §7.4)",
            "lab   once on n1: OPEN: odd: CapabilityIgnored (RFC 5492 §3)"
        ]
    );
}

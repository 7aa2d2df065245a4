use super::*;
use serde_json::json;

#[test]
fn requests_are_spelled_as_the_sockets_document_them() {
    for (text, request) in [
        (r#"{"verb":"peers"}"#, BgpdRequest::Peers),
        (r#"{"verb":"status"}"#, BgpdRequest::Status),
        (r#"{"verb":"routes"}"#, BgpdRequest::Routes { peer: None, prefix: None }),
    ] {
        assert_eq!(serde_json::from_str::<BgpdRequest>(text).unwrap(), request);
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
    }
    let trace: FelixRequest = serde_json::from_value(
        json!({"verb": "trace", "from": "shop/web-1", "to": "10.0.0.1", "protocol": "tcp", "port": 5432}),
    )
    .unwrap();
    assert!(matches!(trace, FelixRequest::Trace { port: 5432, .. }));
    assert!(serde_json::from_str::<FelixRequest>(r#"{"verb":"peers"}"#).is_err());
}

#[test]
fn an_answer_tells_an_error_from_a_result() {
    let error: Answer<BgpdPeers> = serde_json::from_str(r#"{"error":"unknown verb"}"#).unwrap();
    assert!(matches!(error, Answer::Error(ControlError { error, .. }) if error == "unknown verb"));
    let peers: Answer<BgpdPeers> = serde_json::from_str(r#"{"node":"n1","sessions":[]}"#).unwrap();
    assert!(matches!(peers, Answer::Ok(BgpdPeers { node, .. }) if node == "n1"));
}

#[test]
fn a_report_begins_with_its_header_and_says_what_is_missing() {
    let now = Time(k8s_openapi::jiff::Timestamp::from_second(1_795_248_000).unwrap());
    let mut header = Header::new("FabricStatus", Source::Directory, now);
    header.miss("worker-40", "Timeout");
    let report =
        FabricStatus { header, fabric: None, result: Health::Fail, sections: vec![], invalid: vec![] };
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["apiVersion"], "cli.manx.dev/v1");
    assert_eq!(value["result"], "FAIL");
    assert_eq!(value["complete"], false);
    assert_eq!(value["missing"], json!([{"node": "worker-40", "reason": "Timeout"}]));
    assert_eq!(serde_json::from_value::<FabricStatus>(value).unwrap(), report);
}

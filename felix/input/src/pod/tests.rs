use super::*;

fn pod(spec: &str, status: &str) -> Pod {
    serde_saphyr::from_str(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web-1, namespace: shop, labels: {{app: web}}}}, \
          spec: {spec}, status: {status}}}"
    ))
    .unwrap()
}

const PLAIN: &str = "{containers: [{name: main}]}";

fn addresses(endpoint: &Endpoint) -> Vec<String> {
    endpoint.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn a_pod_elsewhere_has_the_addresses_of_its_status() {
    let read =
        endpoint(&pod(PLAIN, "{podIP: 10.1.0.7, podIPs: [{ip: 10.1.0.7}, {ip: 'fd00::7'}]}"), None).unwrap();
    assert_eq!(addresses(&read), ["10.1.0.7", "fd00::7"]);
    assert_eq!((read.namespace.as_str(), read.name.as_str(), read.interface), ("shop", "web-1", None));
    assert_eq!(read.labels.get("app").map(String::as_str), Some("web"));
    let old = endpoint(&pod(PLAIN, "{podIP: 10.1.0.7}"), None).unwrap();
    assert_eq!(addresses(&old), ["10.1.0.7"]);
    let odd = endpoint(&pod(PLAIN, "{podIPs: [{ip: nonsense}, {ip: 10.1.0.8}]}"), None).unwrap();
    assert_eq!(addresses(&odd), ["10.1.0.8"]);
}

#[test]
fn a_pod_on_the_host_network_is_no_endpoint() {
    let host = pod("{hostNetwork: true, containers: [{name: main}]}", "{podIP: 192.0.2.1}");
    assert_eq!(endpoint(&host, None), None);
}

#[test]
fn a_pod_that_has_ended_is_no_peer() {
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(endpoint(&pod(PLAIN, &format!("{{phase: {phase}, podIP: 10.1.0.7}}")), None), None);
    }
    assert!(endpoint(&pod(PLAIN, "{phase: Running, podIP: 10.1.0.7}"), None).is_some());
}

#[test]
fn a_link_here_beats_the_status() {
    let local = Local {
        interface: "manx0123456789a".into(),
        addresses: ["10.1.0.9".parse().unwrap()].into(),
        sources: [].into(),
    };
    let read = endpoint(&pod(PLAIN, "{phase: Succeeded, podIP: 10.1.0.7}"), Some(&local)).unwrap();
    assert_eq!(addresses(&read), ["10.1.0.9"]);
    assert_eq!(read.interface.as_deref(), Some("manx0123456789a"));
}

#[test]
fn named_ports_are_those_of_containers_and_sidecars() {
    let spec = "{initContainers: [
          {name: setup, ports: [{name: setup, containerPort: 1}]},
          {name: proxy, restartPolicy: Always, ports: [{name: admin, containerPort: 15000}]}],
        containers: [
          {name: main, ports: [{name: http, containerPort: 8080}, {containerPort: 9}, {name: dns, containerPort: 53, protocol: UDP}]},
          {name: other, ports: [{name: http, containerPort: 8081}, {name: bad, containerPort: 70000}, {name: odd, containerPort: 1, protocol: TLS}]}]}";
    let read = endpoint(&pod(spec, "{}"), None).unwrap();
    let ports: Vec<(String, u8, u16)> =
        read.ports.iter().map(|port| (port.name.clone(), port.protocol, port.number)).collect();
    let expected = [("admin", TCP, 15000), ("dns", UDP, 53), ("http", TCP, 8080), ("http", TCP, 8081)];
    assert_eq!(ports, expected.map(|(name, protocol, number)| (name.to_owned(), protocol, number)));
}

#[test]
fn the_identity_is_namespace_and_name() {
    assert_eq!(endpoint_id(&pod(PLAIN, "{}")), EndpointId::pod("shop", "web-1"));
}

//! Services through kube-proxy, with the addresses that Manx hands out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::Component;

use crate::asks::{at, connects, fetch_outside, list, own_addresses, pods, text};
use crate::fabric;
use crate::lab::Lab;

const PATIENCE: Duration = Duration::from_secs(30);
const SERVICE: &str = include_str!("service.yaml");
const NODE_PORT: u16 = 30080;

/// Addresses that the controller gave a Service.
pub(crate) fn given(lab: &Lab, service: &str) -> Result<Vec<IpAddr>> {
    let object = lab.json(&["get", "service", service])?;
    let given: Vec<IpAddr> = list(&object, "/status/loadBalancer/ingress")
        .iter()
        .map(|one| text(one, "/ip").parse())
        .collect::<Result<_, _>>()?;
    ensure!(!given.is_empty(), "Service {service} has no address: {}", object["status"]);
    Ok(given)
}

/// One Service that is all three at once: its addresses, after every pod has reached it by each.
fn reached_inside(lab: &Lab) -> Result<(Vec<IpAddr>, usize)> {
    lab.cluster.apply(SERVICE)?;
    let given = lab.until(PATIENCE, |lab| given(lab, "web"))?;
    let service = lab.json(&["get", "service", "web"])?;
    let cluster_ips: Vec<IpAddr> =
        list(&service, "/spec/clusterIPs").iter().map(|ip| text_of(ip).parse()).collect::<Result<_, _>>()?;
    ensure!(given.len() == cluster_ips.len(), "addresses {given:?} beside ClusterIPs {cluster_ips:?}");
    let mut inside: Vec<String> = cluster_ips.iter().chain(&given).map(|ip| at(*ip, 80)).collect();
    for node in lab.items(&["get", "nodes"])? {
        let all = list(&node, "/status/addresses").iter();
        for address in all.filter(|one| text(one, "/type") == "InternalIP") {
            inside.push(at(text(address, "/address").parse()?, NODE_PORT));
        }
    }
    for pod in pods(lab, "web")? {
        lab.until(PATIENCE, |lab| connects(lab, &pod, &inside))?;
    }
    Ok((given, inside.len()))
}

/// The same where nobody is outside.
pub(crate) fn inside(lab: &mut Lab) -> Result<String> {
    let (given, targets) = reached_inside(lab)?;
    Ok(format!("{given:?}; {targets} targets from every pod"))
}

/// The same, and from outside.
pub(crate) fn of_each_kind(lab: &mut Lab) -> Result<String> {
    let (given, inside) = reached_inside(lab)?;
    let mut outside: Vec<String> = given.iter().map(|ip| at(*ip, 80)).collect();
    for node in lab.cluster.nodes() {
        outside.extend(node.addresses()?.into_iter().map(|address| at(address, NODE_PORT)));
    }
    // The lab's gateway speaks no BGP: somebody there set a route to the pool by hand.
    let control = lab.cluster.plane()?.netns().clone();
    let first = lab.cluster.nodes().first().context("no node")?.addresses()?;
    for (address, via) in given.iter().zip(&first) {
        control.ip(&format!("route replace {address} via {via}\n"))?;
    }
    for target in &outside {
        lab.until(PATIENCE, |lab| fetch_outside(lab, &format!("http://{target}/hostname")))?;
    }
    for address in &given {
        control.ip(&format!("route del {address}\n"))?;
    }
    Ok(format!("{given:?}; {inside} targets from inside, {} from outside", outside.len()))
}

/// A Service of type LoadBalancer for the pods of web.yaml.
pub(crate) fn service_of(name: &str, policy: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{type: LoadBalancer, \
         externalTrafficPolicy: {policy}, ipFamilyPolicy: PreferDualStack, selector: {{app: web}}, \
         ports: [{{port: 80, targetPort: http}}]}}}}"
    )
}

/// Both traffic policies through the routers: who asks is hidden by the one and shown by the other, and only nodes with
/// an endpoint have the other's address.
pub(crate) fn behind_tors(lab: &mut Lab) -> Result<String> {
    lab.cluster.apply(SERVICE)?;
    lab.cluster.apply(&service_of("web-local", "Local"))?;
    let nodes = lab.cluster.nodes().len();
    let mut seen = Vec::new();
    for (service, keeps_source) in [("web", false), ("web-local", true)] {
        for address in lab.until(PATIENCE, |lab| given(lab, service))? {
            let prefix = address.to_string();
            lab.until(PATIENCE, |lab| {
                let ways = fabric::ways(lab, &prefix)?;
                ensure!(ways == nodes, "a ToR has {ways} ways to {service} {prefix}, expected {nodes}");
                Ok(())
            })?;
            let url = format!("http://{}/clientip", at(address, 80));
            let answer = lab.until(PATIENCE, |lab| fetch_outside(lab, &url))?;
            let source: SocketAddr = answer.trim().parse().with_context(|| format!("{url}: {answer}"))?;
            let is_client = own_addresses(&lab.cluster.client())?.contains(&source.ip());
            ensure!(is_client == keeps_source, "{service} {address} was asked by {source}");
            seen.push(prefix);
        }
    }
    for service in ["web", "web-local"] {
        told_by(lab, service, nodes)?;
    }
    only_where_endpoints_are(lab)?;
    let cluster_ip = lab.json(&["get", "service", "web"])?;
    let url = format!("http://{}/hostname", at(text(&cluster_ip, "/spec/clusterIP").parse()?, 80));
    lab.until(PATIENCE, |lab| fetch_outside(lab, &url))?;
    for node in lab.cluster.nodes() {
        for address in node.addresses()? {
            let url = format!("http://{}/hostname", at(address, NODE_PORT));
            lab.until(PATIENCE, |lab| fetch_outside(lab, &url))?;
        }
    }
    Ok(format!("{}, ClusterIP and NodePort from outside", seen.join(" ")))
}

/// `kubectl manx services` says of each address how many nodes tell it.
fn told_by(lab: &Lab, service: &str, nodes: usize) -> Result<()> {
    let addresses = given(lab, service)?;
    lab.until(PATIENCE, |lab| {
        let report = lab.manxctl(&["services"])?;
        let rows: Vec<_> =
            list(&report, "/services").iter().filter(|row| text(row, "/name") == service).collect();
        ensure!(rows.len() == addresses.len(), "{service} has {addresses:?}, manxctl says {report}");
        for row in rows {
            ensure!(
                text(row, "/state") == "announced" && row["nodes"] == nodes,
                "expected {nodes} nodes: {row}"
            );
        }
        Ok(())
    })
}

/// One pod on one node: one way.
fn only_where_endpoints_are(lab: &Lab) -> Result<()> {
    lab.cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: lonely, labels: {app: lonely}}, spec: {nodeName: n2, \
         terminationGracePeriodSeconds: 1, containers: [{name: web, image: \"localhost/agnhost:1\", \
         args: [netexec, --http-port=8080, --udp-port=-1], ports: [{name: http, containerPort: 8080}]}]}}",
    )?;
    lab.cluster.apply(&service_of("lonely", "Local").replace("app: web", "app: lonely"))?;
    for address in lab.until(PATIENCE, |lab| given(lab, "lonely"))? {
        lab.until(PATIENCE, |lab| {
            let ways = fabric::ways(lab, &address.to_string())?;
            ensure!(ways == 1, "a ToR has {ways} ways to {address}, whose only pod is on n2");
            Ok(())
        })?;
        lab.until(PATIENCE, |lab| fetch_outside(lab, &format!("http://{}/hostname", at(address, 80))))?;
    }
    lab.kubectl(&["delete", "pod/lonely", "service/lonely"]).map(drop)
}

fn text_of(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// kube-proxy ends and comes back on every node: its rules and ours live side by side.
pub(crate) fn proxy_restarted(lab: &mut Lab) -> Result<String> {
    for node in lab.cluster.nodes() {
        node.kill(Component::KubeProxy)?;
    }
    of_each_kind(lab)
}

//! Pods among each other, to the outside, and names.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::process::{Launch, Process};
use e2e::topology::{CLIENT_V4, CLIENT_V6};
use serde_json::Value;

use crate::asks::{Pod, at, connects, fetch, fetch_outside, own_addresses, pods, text};
use crate::lab::Lab;

/// Servers on every node, ready as soon as they answer the kubelet.
const WEB: &str = include_str!("web.yaml");
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the client answers.
const OUTSIDE: u16 = 9000;

/// Starts that many pods a node.
pub(crate) fn serve(lab: &Lab, each: usize) -> Result<Vec<Pod>> {
    let wanted = each * lab.cluster.size();
    let web = WEB.replace("@REPLICAS@", &wanted.to_string()).replace("@IMAGE@", &lab.pod_image);
    lab.cluster.apply(&web)?;
    lab.rolled_out_here("deployment/web")?;
    let pods = pods(lab, "web")?;
    ensure!(pods.len() == wanted, "{} pods, expected {wanted}", pods.len());
    Ok(pods)
}

/// Everybody to everybody, by every address.
pub(crate) fn pods_reach_pods(lab: &mut Lab, each: usize) -> Result<String> {
    let pods = serve(lab, each)?;
    let families = lab.cluster.options().pods().len();
    let mut targets = Vec::new();
    for pod in &pods {
        ensure!(pod.addresses.len() == families, "{} has {:?}", pod.name, pod.addresses);
        targets.extend(pod.addresses.iter().map(|address| at(*address, 8080)));
    }
    for pod in &pods {
        lab.until(PATIENCE, |lab| connects(lab, pod, &targets))?;
    }
    let flows = targets.len() * pods.len();
    Ok(format!("{flows} flows among {} pods", pods.len()))
}

/// A server in the client's namespace: what it answers on `/clientip` is who asked.
pub(crate) fn outside_server(lab: &Lab) -> Result<Process> {
    let binaries: PathBuf = lab.cluster.plane()?.binaries().directory().to_owned();
    Launch {
        label: "agnhost of the client".to_owned(),
        netns: lab.cluster.client(),
        program: binaries.join("agnhost"),
        arguments: vec!["netexec".into(), format!("--http-port={OUTSIDE}"), "--udp-port=-1".into()],
        capabilities: None,
        log: lab.cluster.options().home.join("logs/client.log"),
    }
    .start()
}

/// Who a pod is to the outside, by the family of the address that it asks.
pub(crate) fn source_outside(lab: &Lab, pod: &Pod, client: IpAddr) -> Result<IpAddr> {
    let answer = fetch(lab, pod, &format!("http://{}/clientip", at(client, OUTSIDE)))?;
    let source: std::net::SocketAddr =
        answer.trim().parse().with_context(|| format!("/clientip: {answer}"))?;
    Ok(source.ip())
}

/// Addresses of the client of the families that pods have.
fn clients(lab: &Lab) -> Vec<IpAddr> {
    let families = lab.cluster.options().families;
    let mut all = Vec::new();
    if families.ipv4() {
        all.push(CLIENT_V4.into());
    }
    if families.ipv6() {
        all.push(CLIENT_V6.into());
    }
    all
}

/// natOutgoing: the outside sees the node, because nothing out there knows pods.
pub(crate) fn masqueraded(lab: &mut Lab) -> Result<String> {
    let _server = outside_server(lab)?;
    let mut seen = Vec::new();
    for pod in pods(lab, "web")? {
        let node = own_addresses(lab.cluster.node(&pod.node)?.netns())?;
        for client in clients(lab) {
            let source = lab.until(PATIENCE, |lab| source_outside(lab, &pod, client))?;
            ensure!(node.contains(&source), "{client} saw {source}, expected an address of {}", pod.node);
            seen.push(source.to_string());
        }
    }
    Ok(seen.join(" "))
}

/// CoreDNS runs in a pod, behind a ClusterIP.
pub(crate) fn dns(lab: &mut Lab) -> Result<String> {
    lab.rolled_out("kube-system", "deployment/coredns")?;
    let name = "kubernetes.default.svc.cluster.local";
    let expected =
        lab.json(&["-n", "default", "get", "service", "kubernetes"])?["spec"]["clusterIP"].to_string();
    let expected = expected.trim_matches('"').to_owned();
    for pod in pods(lab, "web")? {
        lab.until(PATIENCE, |lab| {
            let answer = lab.in_pod(&pod.name, &format!("timeout 5 nslookup {name} 2>&1"))?;
            ensure!(answer.contains(&expected), "{} asks for {name}: {answer}", pod.name);
            Ok(())
        })?;
    }
    Ok(format!("{name} {expected}"))
}

/// Behind routers that know pods, the outside reaches them as they are.
pub(crate) fn from_outside(lab: &mut Lab) -> Result<String> {
    let mut seen = 0;
    for pod in pods(lab, "web")? {
        for address in &pod.addresses {
            let url = format!("http://{}/hostname", at(*address, 8080));
            let answer = lab.until(PATIENCE, |lab| fetch_outside(lab, &url))?;
            ensure!(answer.trim() == pod.name, "{url} answered {answer:?}, expected {}", pod.name);
            seen += 1;
        }
    }
    Ok(format!("{seen} addresses"))
}

/// A port of the node that the portmap plugin, chained behind manx-cni, leads to a pod.
pub(crate) fn host_port(lab: &mut Lab) -> Result<String> {
    const PORT: u16 = 30999;
    lab.cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: on-host-port, labels: {{app: on-host-port}}}}, \
         spec: {{nodeName: n1, terminationGracePeriodSeconds: 1, containers: [{{name: web, \
         image: \"localhost/agnhost:1\", args: [netexec, --http-port=8080, --udp-port=-1], \
         ports: [{{containerPort: 8080, hostPort: {PORT}}}]}}]}}}}"
    ))?;
    let mut seen = Vec::new();
    for address in lab.cluster.node("n1")?.addresses()? {
        let url = format!("http://{}/hostname", at(address, PORT));
        let answer = lab.until(PATIENCE, |lab| fetch_outside(lab, &url))?;
        ensure!(answer.trim() == "on-host-port", "{url} answered {answer:?}");
        seen.push(at(address, PORT));
    }
    lab.kubectl(&["delete", "pod", "on-host-port", "--wait=true"])?;
    let url = format!("http://{}/hostname", seen.first().context("no address")?);
    ensure!(fetch_outside(lab, &url).is_err(), "{url} still answers after its pod is gone");
    Ok(seen.join(" "))
}

/// A pod whose annotations limit it, by the bandwidth plugin that is chained behind manx-cni. What the kernel was told is
/// looked at, not traffic: containerd lets gigabytes pass before the limit holds.
pub(crate) fn bandwidth(lab: &mut Lab) -> Result<String> {
    let name = "limited";
    lab.cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}, annotations: \
         {{kubernetes.io/ingress-bandwidth: 3M, kubernetes.io/egress-bandwidth: 2M}}}}, spec: {{nodeName: n1, \
         terminationGracePeriodSeconds: 1, containers: [{{name: web, image: \"localhost/agnhost:1\", \
         args: [netexec, --http-port=8080, --udp-port=-1]}}]}}}}"
    ))?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/limited", "--timeout=60s"])?;
    let limits = |lab: &Lab| -> Result<Vec<(String, u64)>> {
        let listed = lab.cluster.node("n1")?.run(&["tc", "-j", "qdisc", "show"])?;
        let all: Vec<Value> = serde_json::from_str(&listed).context("tc's JSON")?;
        let buckets = all.iter().filter(|one| text(one, "/kind") == "tbf");
        let bits = |one: &Value| one.pointer("/options/rate").and_then(Value::as_u64).unwrap_or(0) * 8;
        Ok(buckets.map(|one| (text(one, "/dev").to_owned(), bits(one))).collect())
    };
    let set = limits(lab)?;
    let to_pod = set.iter().any(|(device, bits)| device.starts_with("manx") && *bits == 3_000_000);
    let from_pod = set.iter().any(|(device, bits)| device.starts_with("bwp") && *bits == 2_000_000);
    ensure!(to_pod && from_pod, "limits on n1: {set:?}");
    let pod = pods(lab, name)?.pop().context("no pod")?;
    for address in &pod.addresses {
        let url = format!("http://{}/hostname", at(*address, 8080));
        lab.cluster.node("n2")?.run(&["timeout", "5", "busybox", "wget", "-qO-", &url])?;
    }
    lab.kubectl(&["delete", "pod", name, "--wait=true"])?;
    let left = limits(lab)?;
    ensure!(left.is_empty(), "n1 keeps {left:?} of a pod that is gone");
    Ok(format!("{set:?}"))
}

/// A pod in a user namespace of its own, which its network namespace belongs to: who is root there is nobody outside.
pub(crate) fn user_namespace(lab: &mut Lab) -> Result<String> {
    let name = "own-users";
    lab.cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{hostUsers: false, \
         nodeName: n1, terminationGracePeriodSeconds: 1, containers: [{{name: web, image: \"localhost/agnhost:1\", \
         args: [netexec, --http-port=8080, --udp-port=-1], readinessProbe: {{httpGet: {{path: /, port: 8080}}, \
         periodSeconds: 1}}}}]}}}}"
    ))?;
    lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"])?;
    let map = lab.in_pod(name, "cat /proc/self/uid_map")?;
    let words: Vec<&str> = map.split_whitespace().collect();
    let [inside, outside, ..] = words.as_slice() else { anyhow::bail!("uid_map: {map:?}") };
    ensure!(*inside == "0" && *outside != "0", "root of the pod is root of the node: {map}");
    let pod = pods(lab, name)?.pop().context("no pod")?;
    let others = pods(lab, "web")?;
    let to_others: Vec<String> =
        others.iter().flat_map(|other| &other.addresses).map(|address| at(*address, 8080)).collect();
    lab.until(PATIENCE, |lab| connects(lab, &pod, &to_others))?;
    let to_it: Vec<String> = pod.addresses.iter().map(|address| at(*address, 8080)).collect();
    for other in &others {
        lab.until(PATIENCE, |lab| connects(lab, other, &to_it))?;
    }
    let links = |lab: &Lab| -> Result<usize> {
        let listed = lab.cluster.node("n1")?.run(&["ip", "-o", "link", "show", "type", "veth"])?;
        Ok(listed.lines().filter(|line| line.contains(": manx")).count())
    };
    let before = links(lab)?;
    lab.kubectl(&["delete", "pod", name, "--wait=true"])?;
    lab.until(PATIENCE, |lab| {
        let after = links(lab)?;
        ensure!(after + 1 == before, "{after} links on n1 after {before}");
        Ok(())
    })?;
    Ok(format!("root is {outside}; {} flows", to_others.len() + to_it.len() * others.len()))
}

use std::sync::{Arc, Mutex};

use manx_crds::store::Key;
use manx_crds::v1alpha1::BGPAdvertisement;

use super::*;

/// Watches that never say anything; which were begun, and which of them still run.
struct Starter {
    begun: Arc<Mutex<Vec<(Watched, AbortHandle)>>>,
}

impl Starter {
    fn services() -> (Services, Self) {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&begun);
        let start = move |kind, _: &mpsc::Sender<ServiceChange>| {
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            list.lock().unwrap().push((kind, task.clone()));
            task
        };
        (Services::with(Box::new(start), "n1"), Self { begun })
    }

    async fn running(&self) -> Vec<Watched> {
        tokio::task::yield_now().await;
        self.begun
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, task)| !task.is_finished())
            .map(|(kind, _)| *kind)
            .collect()
    }
}

fn rules(spec: &str) -> BTreeMap<String, ServiceAdvertisement> {
    let text = format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPAdvertisement, metadata: {{name: vips}},
          spec: {{services: {{addressTypes: [ClusterIP]{spec}}}}}}}"
    );
    let advertisement: BGPAdvertisement = serde_saphyr::from_str(&text).unwrap();
    BTreeMap::from([("vips".to_owned(), advertisement.spec.services.unwrap())])
}

fn service() -> Service {
    serde_saphyr::from_str(
        "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: web}, spec: {clusterIP: 10.96.0.1}}",
    )
    .unwrap()
}

fn slice() -> EndpointSlice {
    serde_saphyr::from_str(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{addresses: [10.244.0.1]}],
          metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}}",
    )
    .unwrap()
}

fn told(services: &mut Services) -> Vec<String> {
    services.update();
    services.index().prefixes().map(|(prefix, _)| prefix.to_string()).collect()
}

#[tokio::test]
async fn kinds_are_watched_only_while_a_rule_needs_them() {
    let (mut services, starter) = Starter::services();
    services.want(&BTreeMap::new(), &Gates::new(), false);
    assert!(services.in_sync());
    assert_eq!(starter.running().await, []);
    services.want(&rules(""), &Gates::new(), false);
    assert_eq!(starter.running().await, [Watched::Services, Watched::Slices]);
    services.want(&rules(", namespaceSelector: {}"), &Gates::new(), false);
    assert_eq!(starter.running().await, [Watched::Services, Watched::Slices, Watched::Namespaces]);
    services.want(&rules(""), &Gates::new(), false);
    assert_eq!(starter.running().await, [Watched::Services, Watched::Slices]);
    services.want(&BTreeMap::new(), &Gates::new(), false);
    assert_eq!(starter.running().await, []);
}

#[tokio::test]
async fn a_gate_needs_the_slices_alone_and_keeps_no_service_that_is_watched_no_more() {
    let (mut services, starter) = Starter::services();
    let web = Key::namespaced("shop", "web");
    let gates =
        Gates::from([("dns".to_owned(), BTreeSet::from([(web, "198.51.100.53/32".parse().unwrap())]))]);
    services.want(&BTreeMap::new(), &gates, false);
    assert_eq!(starter.running().await, [Watched::Slices]);
    assert!(!services.in_sync());
    let mut here = slice();
    here.endpoints[0].node_name = Some("n1".to_owned());
    services.take(ServiceChange::Slice(Change::Put(here)));
    assert_eq!(told(&mut services), Vec::<String>::new());
    services.take(ServiceChange::Slice(Change::InSync));
    assert_eq!(told(&mut services), ["198.51.100.53/32"]);
    services.want(&rules(""), &gates, false);
    services.take(ServiceChange::Service(Box::new(Change::Put(service()))));
    services.take(ServiceChange::Service(Box::new(Change::InSync)));
    assert_eq!(told(&mut services), ["10.96.0.1/32", "198.51.100.53/32"]);
    services.want(&BTreeMap::new(), &gates, false);
    assert_eq!(starter.running().await, [Watched::Slices]);
    assert_eq!(told(&mut services), ["198.51.100.53/32"]);
    // The Service went while nobody watched.
    services.want(&rules(""), &gates, false);
    services.take(ServiceChange::Service(Box::new(Change::InSync)));
    assert_eq!(told(&mut services), ["198.51.100.53/32"]);
}

#[tokio::test]
async fn rules_wait_for_the_lists_and_the_old_ones_stay_meanwhile() {
    let (mut services, _starter) = Starter::services();
    services.want(&rules(""), &Gates::new(), false);
    services.take(ServiceChange::Service(Box::new(Change::Put(service()))));
    services.take(ServiceChange::Slice(Change::Put(slice())));
    services.take(ServiceChange::Service(Box::new(Change::InSync)));
    assert!(!services.in_sync());
    assert_eq!(told(&mut services), Vec::<String>::new());
    services.take(ServiceChange::Slice(Change::InSync));
    assert!(services.in_sync());
    assert_eq!(told(&mut services), ["10.96.0.1/32"]);
    // A selector of namespaces that were not heard yet withdraws nothing, until they were.
    services.want(&rules(", namespaceSelector: {matchLabels: {team: a}}"), &Gates::new(), false);
    assert_eq!(told(&mut services), ["10.96.0.1/32"]);
    services.take(ServiceChange::Namespace(Change::InSync));
    assert_eq!(told(&mut services), Vec::<String>::new());
    let shop: Namespace = serde_saphyr::from_str(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}",
    )
    .unwrap();
    services.take(ServiceChange::Namespace(Change::Put(shop)));
    assert_eq!(told(&mut services), ["10.96.0.1/32"]);
}

#[tokio::test]
async fn nothing_of_an_ended_watch_is_left() {
    let (mut services, _starter) = Starter::services();
    services.want(&rules(""), &Gates::new(), false);
    for change in [
        ServiceChange::Service(Box::new(Change::Put(service()))),
        ServiceChange::Slice(Change::Put(slice())),
        ServiceChange::Service(Box::new(Change::InSync)),
        ServiceChange::Slice(Change::InSync),
    ] {
        // Still on its way when the rules change.
        services.changes.0.try_send(change).unwrap();
    }
    services.want(&BTreeMap::new(), &Gates::new(), false);
    assert_eq!(told(&mut services), Vec::<String>::new());
    services.want(&rules(""), &Gates::new(), false);
    assert!(!services.in_sync());
    services.take(ServiceChange::Service(Box::new(Change::InSync)));
    services.take(ServiceChange::Slice(Change::InSync));
    assert_eq!(told(&mut services), Vec::<String>::new(), "the new lists were empty");
}

#[tokio::test]
async fn what_is_remembered_counts_until_they_were_heard() {
    let (mut services, _starter) = Starter::services();
    let rule = |name: &str| BTreeSet::from([name.to_owned()]);
    let prefix = |text: &str| text.parse::<IpNet>().unwrap();
    let memory = [("10.96.0.1/32", "vips"), ("10.96.0.9/32", "vips"), ("10.96.0.8/32", "other")];
    let memory = memory.map(|(address, name)| (prefix(address), rule(name)));
    services.remember(&BTreeMap::from(memory));
    services.want(&rules(""), &Gates::new(), false);
    let all = ["10.96.0.1/32", "10.96.0.8/32", "10.96.0.9/32"];
    assert_eq!(told(&mut services), all);
    services.take(ServiceChange::Service(Box::new(Change::Put(service()))));
    services.take(ServiceChange::Slice(Change::Put(slice())));
    services.take(ServiceChange::Service(Box::new(Change::InSync)));
    assert_eq!(told(&mut services), all);
    services.take(ServiceChange::Slice(Change::InSync));
    // What is as it was is told without a gap; what is gone is withdrawn.
    let changed: Vec<String> = services.update().iter().map(ToString::to_string).collect();
    assert_eq!(changed, ["10.96.0.8/32", "10.96.0.9/32"]);
    assert_eq!(told(&mut services), ["10.96.0.1/32"]);
}

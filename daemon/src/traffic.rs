//! A datastore that counts what is asked of it, and knows since when it gives no answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use manx_crds::store::{
    Key, List, NewEvent, Object, Part, Revision, Selection, Store, StoreError, Watch, WatchEvent,
};

use crate::metrics::{Figures, Labels, as_f64};

/// What was asked, of which kind, and what came of it.
type Request = (&'static str, String, &'static str);

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<Request, u64>,
    /// Watches begun, by kind.
    watches: BTreeMap<String, u64>,
    /// The first request without an answer since the last one with one.
    silent_since: Option<Instant>,
}

/// What was asked of a datastore so far. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<Counts>>);

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // What is held is whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count<K: Object, T>(&self, verb: &'static str, outcome: &Result<T, StoreError>) {
        self.note(verb, &K::kind(&()), outcome);
    }

    /// Counts one request.
    pub fn note<T>(&self, verb: &'static str, kind: &str, outcome: &Result<T, StoreError>) {
        let mut counts = self.lock();
        let kind = kind.to_owned();
        *counts.requests.entry((verb, kind, code(outcome.as_ref().err()))).or_default() += 1;
        match outcome {
            Err(StoreError::Unavailable(_)) => drop(counts.silent_since.get_or_insert_with(Instant::now)),
            Ok(_) | Err(_) => counts.silent_since = None,
        }
    }

    /// Counts a watch that begins.
    pub fn note_watch(&self, kind: &str) {
        *self.lock().watches.entry(kind.to_owned()).or_default() += 1;
    }

    /// For how long the datastore has given no answer; zero while it does.
    pub fn silence(&self) -> Duration {
        self.lock().silent_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// `store_*` of a component but for what it makes of the objects.
    pub fn expose(&self, figures: &mut Figures, component: &str) {
        let own = || ("component", component.to_owned());
        let silence = [(vec![own()], self.silence().as_secs_f64())];
        figures.gauge(
            "store_disconnected_seconds",
            "For how long the datastore has given no answer; 0 while it does",
            silence,
        );
        let counts = self.lock();
        let requests = counts.requests.iter().map(|((verb, kind, code), count)| {
            let labels: Labels = vec![
                own(),
                ("verb", (*verb).to_owned()),
                ("kind", kind.clone()),
                ("code", (*code).to_owned()),
            ];
            (labels, *count)
        });
        figures.counter("store_requests", "Requests to the datastore, by what came of them", requests);
        let restarts = counts
            .watches
            .iter()
            .map(|(kind, begun)| (vec![own(), ("kind", kind.clone())], begun.saturating_sub(1)));
        figures.counter("store_watch_restarts", "Watches begun again after a gap", restarts);
    }
}

/// `store_in_sync` and `store_invalid_objects`: what a component has of the objects.
pub fn expose_objects(figures: &mut Figures, component: &str, in_sync: bool, invalid: &crate::kind::Invalid) {
    let in_sync = [(vec![("component", component.to_owned())], f64::from(u8::from(in_sync)))];
    figures.gauge("store_in_sync", "1 if every kind was heard whole", in_sync);
    let mut by_kind: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, _) in invalid.keys() {
        *by_kind.entry(kind).or_default() += 1;
    }
    let invalid = by_kind.into_iter().map(|(kind, count)| (vec![("kind", kind.to_owned())], as_f64(count)));
    figures.gauge("store_invalid_objects", "Stored forms that do not validate", invalid);
}

fn code(error: Option<&StoreError>) -> &'static str {
    match error {
        None => "OK",
        Some(StoreError::AlreadyExists { .. }) => "AlreadyExists",
        Some(StoreError::NotFound { .. }) => "NotFound",
        Some(StoreError::Conflict { .. }) => "Conflict",
        Some(StoreError::Expired { .. }) => "Expired",
        Some(StoreError::Invalid(_)) => "Invalid",
        Some(StoreError::Forbidden(_)) => "Forbidden",
        Some(StoreError::Unavailable(_)) => "Unavailable",
    }
}

/// A store whose requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    store: S,
    traffic: Traffic,
}

impl<S> Counted<S> {
    /// Counts what is asked of `store` from here on.
    pub fn new(store: S, traffic: &Traffic) -> Self {
        Self { store, traffic: traffic.clone() }
    }
}

/// A watch whose end is counted.
#[derive(Debug)]
pub struct CountedWatch<W> {
    watch: W,
    traffic: Traffic,
}

impl<K: Object, W: Watch<K>> Watch<K> for CountedWatch<W> {
    async fn next(&mut self) -> Result<WatchEvent<K>, StoreError> {
        let event = self.watch.next().await;
        match &event {
            Err(_) => self.traffic.count::<K, _>("watch", &event),
            Ok(_) => self.traffic.lock().silent_since = None,
        }
        event
    }

    fn revision(&self) -> Revision {
        self.watch.revision()
    }
}

impl<S: Store> Store for Counted<S> {
    type Watch<K: Object> = CountedWatch<S::Watch<K>>;

    async fn list<K: Object>(&self, selection: &Selection) -> Result<List<K>, StoreError> {
        let outcome = self.store.list(selection).await;
        self.traffic.count::<K, _>("list", &outcome);
        outcome
    }

    async fn watch<K: Object>(
        &self,
        selection: &Selection,
        from: &Revision,
    ) -> Result<Self::Watch<K>, StoreError> {
        let outcome = self.store.watch::<K>(selection, from).await;
        self.traffic.count::<K, _>("watch", &outcome);
        if outcome.is_ok() {
            self.traffic.note_watch(&K::kind(&()));
        }
        outcome.map(|watch| CountedWatch { watch, traffic: self.traffic.clone() })
    }

    async fn get<K: Object>(&self, key: &Key) -> Result<K, StoreError> {
        let outcome = self.store.get(key).await;
        self.traffic.count::<K, _>("get", &outcome);
        outcome
    }

    async fn create<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let outcome = self.store.create(object).await;
        self.traffic.count::<K, _>("create", &outcome);
        outcome
    }

    async fn replace<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let outcome = self.store.replace(object).await;
        self.traffic.count::<K, _>("update", &outcome);
        outcome
    }

    async fn delete<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&Revision>,
    ) -> Result<(), StoreError> {
        let outcome = self.store.delete::<K>(key, uid, revision).await;
        self.traffic.count::<K, _>("delete", &outcome);
        outcome
    }

    async fn apply<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        manager: &str,
        part: Part,
        body: serde_json::Value,
    ) -> Result<K, StoreError> {
        let outcome = self.store.apply(key, uid, manager, part, body).await;
        self.traffic.count::<K, _>("apply", &outcome);
        outcome
    }

    async fn record_event<K: Object>(&self, about: &K, event: NewEvent) -> Result<(), StoreError> {
        let outcome = self.store.record_event(about, event).await;
        self.traffic.count::<k8s_openapi::api::events::v1::Event, _>("create", &outcome);
        outcome
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Node;
    use manx_crds::store::dir::DirStore;

    #[tokio::test]
    async fn requests_and_silence_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let traffic = Traffic::default();
        let store = Counted::new(DirStore::open(directory.path()).unwrap(), &traffic);
        let listed = store.list::<Node>(&Selection::default()).await.unwrap();
        assert!(store.get::<Node>(&Key::cluster("n1")).await.is_err());
        for _ in 0..3 {
            drop(store.watch::<Node>(&Selection::default(), &listed.revision).await.unwrap());
        }
        traffic.count::<Node, ()>("apply", &Err(StoreError::Unavailable("gone".to_owned())));
        std::thread::sleep(Duration::from_millis(5));
        assert!(traffic.silence() >= Duration::from_millis(5));
        let mut figures = Figures::default();
        traffic.expose(&mut figures, "test");
        let text = figures.expose().unwrap();
        for line in [
            r#"manx_store_requests_total{component="test",verb="list",kind="Node",code="OK"} 1"#,
            r#"manx_store_requests_total{component="test",verb="get",kind="Node",code="NotFound"} 1"#,
            r#"manx_store_requests_total{component="test",verb="apply",kind="Node",code="Unavailable"} 1"#,
            r#"manx_store_watch_restarts_total{component="test",kind="Node"} 2"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(store.get::<Node>(&Key::cluster("n1")).await.is_err());
        assert_eq!(traffic.silence(), Duration::ZERO, "NotFound is an answer");
    }
}

//! Random writers, and a reader that holds the same at the end: no final state is missed.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use manx_crds::store::follow::{Change, Follow};
use manx_crds::store::{Store, StoreError, Watch, WatchEvent};
use manx_crds::v1alpha1::BGPPeer;
use serde_json::json;

use super::objects::*;
use super::suite::Backend;

/// A small generator, so that a failure repeats with its seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// One random write; what another writer did meanwhile is no error.
async fn write<S: Store>(store: &S, dice: &mut Dice) {
    let name = format!("p{}", dice.roll(4));
    let port = u16::try_from(dice.roll(60_000) + 1).unwrap();
    let result = match dice.roll(4) {
        0 => store.create(&peer(&name, "tor", port)).await.map(|_| ()),
        1 => match store.get::<BGPPeer>(&cluster(&name)).await {
            Ok(mut object) => {
                object.spec.port = Some(port);
                store.replace(&object).await.map(|_| ())
            }
            Err(error) => Err(error),
        },
        2 => store.delete::<BGPPeer>(&cluster(&name), None, None).await,
        _ => {
            let count = json!({"sessions": {"desired": dice.roll(9), "established": 0}});
            store
                .apply::<BGPPeer>(
                    &cluster(&name),
                    None,
                    "manx-controller",
                    manx_crds::store::Part::Status,
                    count,
                )
                .await
                .map(|_| ())
        }
    };
    match result {
        Ok(())
        | Err(StoreError::AlreadyExists { .. } | StoreError::NotFound { .. } | StoreError::Conflict { .. }) =>
            {}
        Err(other) => panic!("{other}"),
    }
}

async fn writers<S: Store>(b: &Backend<S>, seed: u64, writes: u32) {
    let tasks = (0..4_u64).map(|n| {
        let store = if n % 2 == 0 { b.here.clone() } else { b.there.clone() };
        tokio::spawn(async move {
            let mut dice = Dice::new(seed * 31 + n);
            for _ in 0..writes {
                write(&store, &mut dice).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Waits until a reader holds what the store holds.
async fn settles<S: Store>(store: &S, seen: impl AsyncFn() -> BTreeMap<String, String>, what: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let (wanted, has) = (state::<BGPPeer, S>(store).await, seen().await);
        if wanted == has {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what}: the store holds {wanted:?}, the reader {has:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn a_follower_ends_where_the_store_does<S: Store>(b: &Backend<S>, reader: S) {
    let seen = std::sync::Arc::new(tokio::sync::Mutex::new(BTreeMap::new()));
    let kept = std::sync::Arc::clone(&seen);
    let following = tokio::spawn(async move {
        let mut follow = Follow::<S, BGPPeer>::new(reader, everything());
        loop {
            let change = follow.next().await;
            let mut kept = kept.lock().await;
            match change {
                Change::Put(object) => {
                    kept.insert(object.name_any(), object.resource_version().unwrap());
                }
                Change::Deleted(object) => {
                    assert!(kept.remove(&object.name_any()).is_some(), "deleted what was not there");
                }
                Change::InSync | Change::Invalid(_) | Change::Valid(_) => {}
            }
        }
    });
    for seed in 0..4 {
        writers(b, seed, 30).await;
        settles(&b.here, async || seen.lock().await.clone(), &format!("seed {seed}")).await;
    }
    assert!(!following.is_finished(), "the follower stands");
    following.abort();
}

/// A reader that drops its watch again and again, and goes on from where it was.
pub async fn an_interrupted_reader_ends_where_the_store_does<S: Store>(b: &Backend<S>, reader: S) {
    let seen = std::sync::Arc::new(tokio::sync::Mutex::new(BTreeMap::new()));
    let kept = std::sync::Arc::clone(&seen);
    let reading = tokio::spawn(async move {
        let mut dice = Dice::new(77);
        let mut resumed = 0_u32;
        'list: loop {
            let list = reader.list::<BGPPeer>(&everything()).await.unwrap();
            *kept.lock().await =
                list.items.iter().map(|o| (o.name_any(), o.resource_version().unwrap())).collect();
            let mut from = list.revision;
            loop {
                let mut watch = match reader.watch::<BGPPeer>(&everything(), &from).await {
                    Ok(watch) => watch,
                    Err(StoreError::Expired { .. }) => continue 'list,
                    Err(other) => panic!("{other}"),
                };
                resumed += 1;
                for _ in 0..=dice.roll(6) {
                    match watch.next().await.unwrap() {
                        WatchEvent::Put(object) => {
                            kept.lock().await.insert(object.name_any(), object.resource_version().unwrap());
                        }
                        WatchEvent::Deleted(object) => {
                            kept.lock().await.remove(&object.name_any());
                        }
                        WatchEvent::Invalid(_) | WatchEvent::Valid(_) => {}
                    }
                }
                from = watch.revision();
                drop(watch);
                assert!(resumed < 100_000);
            }
        }
    });
    for seed in 10..13 {
        writers(b, seed, 30).await;
        settles(&b.here, async || seen.lock().await.clone(), &format!("seed {seed}")).await;
    }
    assert!(!reading.is_finished(), "the reader stands");
    reading.abort();
}

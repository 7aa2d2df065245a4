//! What the driver leaves for the thread: of each prefix the newest wish, and the questions.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bgp_proto::AfiSafi;
use felix_kernel::route::{Route, RouteKey, RouteState};
use tokio::sync::oneshot;

/// A look at the kernel's routes, or at how one of them stands.
pub(super) enum Errand {
    Sweep(AfiSafi),
    /// Somebody may have changed our routes, or a link came back.
    Look,
    /// How one route stands.
    Tell(RouteKey, oneshot::Sender<RouteState>),
}

/// All that waited, taken at once. Wishes come first: whoever asks afterwards is answered with them in mind.
#[derive(Default)]
pub(super) struct Letters {
    /// None: no route of ours.
    pub(super) wishes: BTreeMap<RouteKey, Option<Route>>,
    pub(super) errands: Vec<Errand>,
}

impl Letters {
    fn is_empty(&self) -> bool {
        self.wishes.is_empty() && self.errands.is_empty()
    }
}

#[derive(Default)]
pub(super) struct Inbox {
    letters: Mutex<Letters>,
    arrived: Condvar,
}

impl Inbox {
    /// Replaces whatever was wished for this place and is not taken yet.
    pub(super) fn wish(&self, key: RouteKey, route: Option<Route>) {
        self.leave(|letters| drop(letters.wishes.insert(key, route)));
    }

    pub(super) fn ask(&self, errand: Errand) {
        self.leave(|letters| letters.errands.push(errand));
    }

    /// What is there, at once, or what arrives within `patience`; none: nothing did.
    pub(super) fn take(&self, patience: Duration) -> Option<Letters> {
        let letters = self.lock();
        let waited = self.arrived.wait_timeout_while(letters, patience, |letters| letters.is_empty());
        let (mut letters, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!letters.is_empty()).then(|| std::mem::take(&mut *letters))
    }

    /// The thread sleeps only while nothing is there: whoever adds to something need not wake it, which is a system call a route.
    fn leave(&self, put: impl FnOnce(&mut Letters)) {
        let mut letters = self.lock();
        let was_empty = letters.is_empty();
        put(&mut letters);
        drop(letters);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

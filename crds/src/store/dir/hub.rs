//! One inotify descriptor for the whole directory, and who wants to know.
//!
//! The thread watches every directory that holds objects or their status, also those that appear later: after
//! a directory was added, its kind is read anew as a whole, because what was in it before the watch was not
//! seen. So is everything after an overflow.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::layout::{STATUS, object_name};
use crate::store::Key;

/// What has to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dirty {
    Key(Key),
    All,
}

#[derive(Debug)]
struct Subscriber {
    folder: String,
    sender: UnboundedSender<Dirty>,
}

type Subscribers = Arc<Mutex<Vec<Subscriber>>>;

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Hub {
    subscribers: Subscribers,
    alive: Arc<AtomicBool>,
    _stop: OwnedFd,
}

impl Hub {
    pub(super) fn start(root: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let (stopped, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let subscribers = Subscribers::default();
        let alive = Arc::new(AtomicBool::new(true));
        let mut eye = Eye {
            inotify,
            roles: HashMap::new(),
            root: root.to_owned(),
            subscribers: Arc::clone(&subscribers),
            degraded: false,
        };
        eye.add(root.to_owned(), Role::Base)?;
        eye.look_around();
        let thread_alive = Arc::clone(&alive);
        std::thread::Builder::new().name("dir-watch".to_owned()).spawn(move || {
            eye.run(&stopped);
            thread_alive.store(false, Ordering::Release);
            // whoever waits has to ask again, and hears that the directory is gone
            eye.tell(None, &Dirty::All);
        })?;
        Ok(Self { subscribers, alive, _stop: stop })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(super) fn subscribe(&self, folder: &str) -> UnboundedReceiver<Dirty> {
        let (sender, receiver) = unbounded_channel();
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(Subscriber { folder: folder.to_owned(), sender });
        receiver
    }
}

/// What a watched directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// The store itself, or `.status`.
    Base,
    Folder(String),
    Namespace(String, String),
}

impl Role {
    fn folder(&self) -> Option<&str> {
        match self {
            Self::Base => None,
            Self::Folder(folder) | Self::Namespace(folder, _) => Some(folder),
        }
    }

    /// What a directory inside is; none where nothing of ours stands.
    fn of_child(&self, name: &str) -> Option<Self> {
        match self {
            Self::Base if name == STATUS => Some(Self::Base),
            Self::Base | Self::Folder(_) if name.starts_with('.') => None,
            Self::Base => Some(Self::Folder(name.to_owned())),
            Self::Folder(folder) => Some(Self::Namespace(folder.clone(), name.to_owned())),
            Self::Namespace(..) => None,
        }
    }

    fn key(&self, file: &str) -> Option<Key> {
        let name = object_name(file)?.to_owned();
        match self {
            Self::Base => None,
            Self::Folder(_) => Some(Key::cluster(name)),
            Self::Namespace(_, namespace) => Some(Key::namespaced(namespace, name)),
        }
    }
}

struct Eye {
    inotify: Inotify,
    roles: HashMap<WatchDescriptor, (Role, PathBuf)>,
    root: PathBuf,
    subscribers: Subscribers,
    /// A directory could not be watched: everything is read once a second instead.
    degraded: bool,
}

impl Eye {
    fn run(&mut self, stopped: &OwnedFd) {
        loop {
            let timeout = if self.degraded { PollTimeout::from(1000_u16) } else { PollTimeout::NONE };
            let mut fds = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Ok(0) => {
                    self.look_around();
                    self.tell(None, &Dirty::All);
                    continue;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "watching the directory failed");
                    return;
                }
            }
            let [_, stop] = &fds;
            if stop.revents().is_some_and(|events| !events.is_empty()) {
                return;
            }
            match self.inotify.read_events() {
                Ok(events) => {
                    if !events.iter().all(|event| self.take(event)) {
                        return;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "watching the directory failed");
                    return;
                }
            }
        }
    }

    /// Takes one notice; false when the store's own directory is gone.
    fn take(&mut self, event: &InotifyEvent) -> bool {
        let has = |flag: AddWatchFlags| event.mask.contains(flag);
        if has(AddWatchFlags::IN_Q_OVERFLOW) {
            tracing::debug!("more changes than the kernel keeps: everything is read again");
            self.look_around();
            self.tell(None, &Dirty::All);
            return true;
        }
        let Some((role, path)) = self.roles.get(&event.wd).cloned() else { return true };
        if has(AddWatchFlags::IN_IGNORED) || has(AddWatchFlags::IN_MOVE_SELF) {
            self.roles.remove(&event.wd);
            self.tell(role.folder(), &Dirty::All);
            return path != self.root;
        }
        let Some(name) = event.name.as_ref().and_then(|name| name.to_str()) else { return true };
        if has(AddWatchFlags::IN_ISDIR) {
            if let Some(child) = role.of_child(name) {
                if has(AddWatchFlags::IN_CREATE) || has(AddWatchFlags::IN_MOVED_TO) {
                    self.add_tree(path.join(name), child.clone());
                }
                self.tell(child.folder(), &Dirty::All);
            }
            return true;
        }
        let Some(key) = role.key(name) else { return true };
        // a new file is empty until its writer closes it; a link is whole from the start
        let unfinished =
            has(AddWatchFlags::IN_CREATE) && fs::metadata(path.join(name)).is_ok_and(|m| m.len() == 0);
        if !unfinished {
            self.tell(role.folder(), &Dirty::Key(key));
        }
        true
    }

    fn add(&mut self, path: PathBuf, role: Role) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let watch = self.inotify.add_watch(&path, flags)?;
        self.roles.insert(watch, (role, path));
        Ok(())
    }

    fn add_tree(&mut self, path: PathBuf, role: Role) {
        match self.add(path.clone(), role.clone()) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.degraded, true) {
                    tracing::error!(directory = %path.display(), %error, "cannot be watched: everything is read once a second (fs.inotify.max_user_watches)");
                }
                return;
            }
        }
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            if let Some(child) = entry.file_name().to_str().and_then(|name| role.of_child(name))
                && entry.path().is_dir()
            {
                self.add_tree(entry.path(), child);
            }
        }
    }

    /// Watches every directory that there is; those that are watched already stay so.
    fn look_around(&mut self) {
        self.degraded = false;
        self.add_tree(self.root.clone(), Role::Base);
    }

    fn tell(&self, folder: Option<&str>, dirty: &Dirty) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| {
            let concerned = folder.is_none_or(|folder| folder == subscriber.folder);
            !subscriber.sender.is_closed() && (!concerned || subscriber.sender.send(dirty.clone()).is_ok())
        });
    }
}

#[cfg(test)]
mod tests;

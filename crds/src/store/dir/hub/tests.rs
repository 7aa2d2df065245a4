use super::*;

fn eye(root: &Path) -> (Eye, UnboundedReceiver<Dirty>) {
    let (sender, receiver) = unbounded_channel();
    let subscriber = Subscriber { folder: "pods".to_owned(), sender };
    let mut eye = Eye {
        inotify: Inotify::init(InitFlags::IN_NONBLOCK).unwrap(),
        roles: HashMap::new(),
        root: root.to_owned(),
        subscribers: Arc::new(Mutex::new(vec![subscriber])),
        degraded: false,
    };
    eye.look_around();
    (eye, receiver)
}

fn drain(receiver: &mut UnboundedReceiver<Dirty>) -> Vec<Dirty> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

/// Takes what the kernel has; false once the root is gone.
fn take_all(eye: &mut Eye) -> bool {
    let events = eye.inotify.read_events().unwrap_or_default();
    events.iter().all(|event| eye.take(event))
}

fn web_1() -> Dirty {
    Dirty::Key(Key { namespace: Some("shop".to_owned()), name: "web-1".to_owned() })
}

#[test]
fn directories_that_appear_are_watched_and_read_as_a_whole() {
    let root = tempfile::tempdir().unwrap();
    let (mut eye, mut receiver) = eye(root.path());
    let shop = root.path().join(".status/pods/shop");
    fs::create_dir_all(&shop).unwrap();
    fs::write(shop.join("web-1.yaml"), "{}").unwrap();
    assert!(take_all(&mut eye));
    assert!(drain(&mut receiver).contains(&Dirty::All), "what was there before the watch");
    take_all(&mut eye);
    drain(&mut receiver);
    fs::write(shop.join("web-1.yaml"), "{ }").unwrap();
    fs::write(shop.join(".web-1.yaml.1.2.tmp"), "x").unwrap();
    assert!(take_all(&mut eye));
    assert_eq!(drain(&mut receiver), [web_1()], "and no temporary file");
}

#[test]
fn other_kinds_are_not_told() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("nodes")).unwrap();
    let (mut eye, mut receiver) = eye(root.path());
    fs::write(root.path().join("nodes/n1.yaml"), "x").unwrap();
    assert!(take_all(&mut eye));
    assert_eq!(drain(&mut receiver), []);
}

#[test]
fn after_an_overflow_everything_is_read_again_and_nothing_is_unwatched() {
    let root = tempfile::tempdir().unwrap();
    let (mut eye, mut receiver) = eye(root.path());
    let shop = root.path().join("pods/shop");
    fs::create_dir_all(&shop).unwrap();
    // the notice of the new directory is among those that were lost
    let lost = eye.inotify.read_events().unwrap();
    let wd = lost.first().unwrap().wd;
    let overflow = InotifyEvent { wd, mask: AddWatchFlags::IN_Q_OVERFLOW, cookie: 0, name: None };
    assert!(eye.take(&overflow));
    assert_eq!(drain(&mut receiver), [Dirty::All]);
    fs::write(shop.join("web-1.yaml"), "x").unwrap();
    assert!(take_all(&mut eye));
    let told = drain(&mut receiver);
    assert!(!told.is_empty() && told.iter().all(|dirty| *dirty == web_1()), "{told:?}");
}

#[test]
fn the_root_going_away_ends_the_watching() {
    let root = tempfile::tempdir().unwrap();
    let inner = root.path().join("store");
    fs::create_dir_all(inner.join("pods")).unwrap();
    let (mut eye, mut receiver) = eye(&inner);
    fs::remove_dir_all(&inner).unwrap();
    assert!(!take_all(&mut eye));
    assert!(drain(&mut receiver).contains(&Dirty::All));
}

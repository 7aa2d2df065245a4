use super::*;

#[test]
fn network_filesystems_are_known_by_type_however_wide_it_is() {
    assert_eq!(refused(0x6969), Some("NFS"));
    assert_eq!(refused(i128::from(0xff53_4d42_u32.cast_signed())), Some("CIFS"));
    assert_eq!(refused(0xff53_4d42), Some("CIFS"));
    assert_eq!(refused(0xef53), None, "ext4");
    assert_eq!(refused(0x0102_1994), None, "tmpfs");
    assert_eq!(network_filesystem(Path::new("/proc")).unwrap(), None);
}

#[test]
fn a_claim_does_not_overwrite_and_leaves_no_temporary_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/a.yaml");
    create(&path, b"one", 0o600).unwrap();
    assert_eq!(create(&path, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(read(&path).unwrap().unwrap(), b"one");
    replace(&path, b"three", 0o600).unwrap();
    assert_eq!(read(&path).unwrap().unwrap(), b"three");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    remove(&path).unwrap();
    remove(&path).unwrap();
    assert_eq!(read(&path).unwrap(), None);
}

#[test]
fn what_somebody_renamed_in_meanwhile_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yaml");
    create(&path, b"one", 0o600).unwrap();
    assert!(replace_held(&path, Some(b"one"), b"two", 0o600).unwrap());
    for (held, there) in [(Some(&b"one"[..]), Some(&b"two"[..])), (None, Some(b"two")), (Some(b"two"), None)]
    {
        if there.is_none() {
            remove(&path).unwrap();
        }
        assert!(!replace_held(&path, held, b"three", 0o600).unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), there);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_lock_has_one_holder() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".lock");
    let held = Lock::take(&path).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let other = path.clone();
    let waiting = std::thread::spawn(move || {
        let _lock = Lock::take(&other).unwrap();
        sender.send(()).unwrap();
    });
    assert!(receiver.recv_timeout(std::time::Duration::from_millis(100)).is_err());
    drop(held);
    receiver.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    waiting.join().unwrap();
}

use std::fs;

use super::{Record, Setting, Sysctl, host_settings};

#[test]
fn accept_ra_comes_before_forwarding() {
    let settings = host_settings(&["eth0", "eth1"]);
    let at = |key: &str| settings.iter().position(|setting| setting.key == key).unwrap();
    assert!(at("net/ipv6/conf/eth1/accept_ra") < at("net/ipv6/conf/all/forwarding"));
}

#[test]
fn what_cannot_be_set_is_named_with_what_was_found_and_the_rest_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let setting = |key: &str, optional| Setting {
        key: key.to_owned(),
        value: "1",
        also: &["3"],
        why: "the test wants it",
        optional,
    };
    fs::write(root.path().join("good"), "0\n").unwrap();
    fs::write(root.path().join("other"), "3\n").unwrap();
    // A directory can be neither read nor written as a file, whoever asks.
    fs::create_dir(root.path().join("stuck")).unwrap();
    let sysctl = Sysctl::at(root.path());
    let mut record = Record::new();
    let settings = [
        setting("stuck", true),
        setting("gone", true),
        setting("missing", false),
        setting("other", false),
        setting("good", false),
    ];
    let problems = sysctl.apply(&settings, &mut record);
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["stuck", "missing"]);
    assert!(
        problems[1].to_string().starts_with("sysctl missing is unreadable, expected 1 (the test wants it): ")
    );
    assert_eq!(problems[1].remedy(), "sysctl -w missing=1");
    assert_eq!(fs::read_to_string(root.path().join("good")).unwrap(), "1");
    assert_eq!(fs::read_to_string(root.path().join("other")).unwrap(), "3\n", "does as well, left alone");
    assert_eq!(record.into_iter().collect::<Vec<_>>(), [("good".to_owned(), "0".to_owned())]);

    let mut record: Record = [("stuck", "0"), ("good", "0"), ("vanished/key", "0")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let problems = sysctl.restore(&mut record);
    assert_eq!(problems.len(), 1);
    assert_eq!(record.keys().collect::<Vec<_>>(), ["stuck"], "kept until it can be put back");
    assert_eq!(fs::read_to_string(root.path().join("good")).unwrap(), "0");
}

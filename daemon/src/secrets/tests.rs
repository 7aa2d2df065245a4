#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use manx_crds::store::InvalidObject;
use manx_crds::store::follow::Change;
use serde_json::json;

use super::*;

fn secret(data: serde_json::Value) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": "tor", "namespace": "keys"}, "data": data})).unwrap()
}

fn reference(key: &str) -> SecretKeyRef {
    SecretKeyRef { name: "tor".to_owned(), key: key.to_owned() }
}

fn heard(secrets: Vec<Secret>) -> Secrets {
    let mut all = Secrets::of("keys");
    for secret in secrets {
        all.kind.take(Change::Put(secret), &mut Invalid::new());
    }
    all.kind.take(Change::InSync, &mut Invalid::new());
    all
}

fn missing(secrets: &Secrets, key: &str) -> (ResolvedRefs, String) {
    let Missing { reason, message } = secrets.key(&reference(key), &Invalid::new()).unwrap_err();
    (reason, message)
}

#[test]
fn a_key_is_what_the_secret_holds_without_the_line_break_of_a_file() {
    // "pw", "pw\n", "pw\r\n", "\n"
    let secrets = heard(vec![secret(json!({"a": "cHc=", "b": "cHcK", "c": "cHcNCg==", "d": "Cg=="}))]);
    for key in ["a", "b", "c"] {
        assert_eq!(secrets.key(&reference(key), &Invalid::new()).unwrap().bytes(), b"pw", "{key}");
    }
    let (reason, text) = missing(&secrets, "d");
    assert_eq!(reason, ResolvedRefs::SecretKeyMissing);
    assert_eq!(text, "key d of Secret keys/tor is empty: put the session's password there");
    assert_eq!(SessionKey::new(&[b'x'; 81]).unwrap_err(), "has 81 bytes, and TCP-MD5 takes 80 at most");
    assert!(SessionKey::new(&[b'x'; 80]).is_ok());
}

#[test]
fn what_is_missing_is_named_with_its_namespace_and_key() {
    let (reason, text) = missing(&heard(vec![]), "r12");
    assert_eq!(reason, ResolvedRefs::SecretNotFound);
    assert_eq!(
        text,
        "there is no Secret keys/tor: create it with the session's password under key r12, or name another"
    );
    let (reason, text) = missing(&heard(vec![secret(json!({"r11": "cHc=", "r13": "cHc="}))]), "r12");
    assert_eq!(reason, ResolvedRefs::SecretKeyMissing);
    assert!(text.starts_with("Secret keys/tor has no key r12 (it has r11, r13): put"), "{text}");
    let (reason, text) = missing(&Secrets::of("keys"), "r12");
    assert_eq!(reason, ResolvedRefs::SecretNotFound);
    assert!(text.contains("was not read yet"), "{text}");
}

#[test]
fn a_refused_file_says_why_it_is_refused() {
    let place = Key::namespaced("keys", "tor");
    let refused = InvalidObject {
        kind: "Secret".to_owned(),
        namespace: place.namespace.clone(),
        name: place.name.clone(),
        place: "/objects/secrets/keys/tor.yaml".to_owned(),
        line: None,
        error: "mode 0644: others could read this Secret".to_owned(),
        expected: Some("mode 0600".to_owned()),
        last_good: false,
    };
    let invalid = Invalid::from([(("Secret".to_owned(), place), refused)]);
    let text = heard(vec![]).key(&reference("r12"), &invalid).unwrap_err().message;
    assert_eq!(
        text,
        "Secret keys/tor is not used: /objects/secrets/keys/tor.yaml: mode 0644: others could read this Secret, \
         expected mode 0600"
    );
}

#[test]
fn an_excerpt_holds_what_is_used_and_reads_back_as_the_same_keys() {
    let secrets = heard(vec![secret(json!({"used": "cHc=", "other": "eA=="}))]);
    let used =
        |key: &str| BTreeSet::from([("tor".to_owned(), key.to_owned()), ("no".to_owned(), "x".to_owned())]);
    let excerpt = secrets.excerpt(&used("used"));
    let data = excerpt[0].data.as_ref().unwrap();
    assert_eq!((excerpt.len(), data.keys().cloned().collect::<Vec<_>>()), (1, vec!["used".to_owned()]));
    let mut recalled = Secrets::of("keys");
    recalled.kind.remember(excerpt);
    assert_eq!(
        recalled.key(&reference("used"), &Invalid::new()),
        secrets.key(&reference("used"), &Invalid::new())
    );
    assert!(secrets.excerpt(&used("none")).is_empty());
}

#[test]
fn nothing_shows_a_key() {
    let key = SessionKey::new(b"hunter2").unwrap();
    assert_eq!(format!("{key:?}"), "SessionKey");
}

#[test]
fn every_reference_is_named_by_its_field() {
    let auth = |value| serde_json::from_value::<SessionAuth>(value).unwrap();
    let fields =
        |auth: &SessionAuth| references(auth).into_iter().map(|(field, _)| field).collect::<Vec<_>>();
    assert_eq!(fields(&auth(json!({"md5": {"secretRef": {"name": "a", "key": "b"}}}))), ["md5.secretRef"]);
    let keys = json!([{"id": 1, "secretRef": {"name": "a", "key": "b"}}, {"id": 2, "secretRef": {"name": "a", "key": "c"}}]);
    assert_eq!(
        fields(&auth(json!({"tcpAO": {"keys": keys}}))),
        ["tcpAO.keys[0].secretRef", "tcpAO.keys[1].secretRef"]
    );
}

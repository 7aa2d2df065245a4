//! The file's bytes: what comes back, and that nothing else than what was written does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use k8s_openapi::api::core::v1::{Namespace, Pod};
use manx_crds::v1alpha1::{IPBlock, IPPool};
use serde_json::json;

use super::*;

fn owner() -> Owner {
    Owner { agent: "felix".into(), node: "n1".into(), store: "kubernetes".into() }
}

fn head() -> Head {
    Head {
        owner: owner(),
        version: "0.1.0".into(),
        schema_revision: SCHEMA_REVISION,
        boot: "b0".into(),
        saved: "2026-03-04T05:06:07Z".parse().unwrap(),
    }
}

fn object<K: Object>(value: serde_json::Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn pod() -> Pod {
    object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": "a", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}, "managedFields": [{"manager": "m"}],
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "y"}]}}))
}

fn draft() -> Draft {
    let block: IPBlock = object(json!({"apiVersion": "manx.dev/v1alpha1", "kind": "IPBlock",
        "metadata": {"name": "10-244-0-0-26", "uid": "u2", "resourceVersion": "41"},
        "spec": {"cidr": "10.244.0.0/26", "pool": "v4", "nodeName": "n1"}}));
    let mut draft = Draft::default();
    draft.kind(Some("17".into()), [pod()]).unwrap();
    draft.kind(Some("41".into()), [block]).unwrap();
    draft.kind::<Namespace>(None, []).unwrap();
    draft.value("servicePrefixes", &["192.0.2.1/32"]).unwrap();
    draft
}

fn bytes() -> Vec<u8> {
    draft().encode(&head()).unwrap()
}

#[test]
fn what_was_written_comes_back_without_what_nobody_reads() {
    let mut inputs = Inputs::decode(&bytes(), &owner()).unwrap();
    assert_eq!(inputs.head, head());
    assert_eq!(inputs.value::<Vec<String>>("servicePrefixes").unwrap(), ["192.0.2.1/32"]);
    let mut expected = pod();
    expected.metadata.managed_fields = None;
    expected.metadata.owner_references = None;
    assert_eq!(inputs.take::<Pod>().unwrap(), [expected]);
    let block = &inputs.take::<IPBlock>().unwrap()[0];
    assert_eq!(block.metadata.resource_version.as_deref(), Some("41"));
    assert_eq!(block.spec.node_name.as_deref(), Some("n1"));
    assert_eq!(inputs.take::<Namespace>().unwrap(), []);
    assert!(bytes().starts_with(b"manx-inputs 1 "));
}

#[test]
fn every_byte_counts() {
    let whole = bytes();
    for position in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut damaged = whole.clone();
            damaged[position] ^= flip;
            let outcome = Inputs::decode(&damaged, &owner());
            assert!(outcome.is_err(), "byte {position} ^ {flip:#x} went unnoticed");
        }
    }
    for length in 0..whole.len() {
        assert!(Inputs::decode(&whole[..length], &owner()).is_err(), "cut to {length} bytes");
    }
    let mut longer = whole;
    longer.push(b'\n');
    assert_eq!(Inputs::decode(&longer, &owner()).unwrap_err(), Refusal::Checksum);
}

#[test]
fn what_is_not_ours_to_use_is_refused_by_name() {
    let text = String::from_utf8(bytes()).unwrap();
    let refusal = |bytes: &[u8]| Inputs::decode(bytes, &owner()).unwrap_err().to_string();
    assert_eq!(
        refusal(text.replacen("manx-inputs 1", "manx-inputs 2", 1).as_bytes()),
        "its format is \"2\", this program reads \"1\""
    );
    assert_eq!(refusal(b"manx-journal 1\n"), "it does not begin with \"manx-inputs\"");
    assert_eq!(refusal(b""), "it does not begin with \"manx-inputs\"");
    let by = |change: fn(&mut Head)| {
        let mut head = head();
        change(&mut head);
        refusal(&draft().encode(&head).unwrap())
    };
    assert_eq!(
        by(|head| head.schema_revision = SCHEMA_REVISION + 1),
        format!(
            "it was written for schema revision {}, this program knows {SCHEMA_REVISION}",
            SCHEMA_REVISION + 1
        )
    );
    assert_eq!(
        by(|head| head.owner.store = "/etc/manx/objects".into()),
        "it was written by felix of node n1 for store /etc/manx/objects"
    );
    assert!(by(|head| head.owner.node = "n2".into()).contains("node n2"));
    assert!(by(|head| head.owner.agent = "bgpd".into()).contains("by bgpd"));
    let mut older = head();
    older.schema_revision = 0;
    assert!(Inputs::decode(&draft().encode(&older).unwrap(), &owner()).is_ok());
}

#[test]
fn a_kind_that_was_not_written_is_no_empty_kind() {
    let mut inputs = Inputs::decode(&bytes(), &owner()).unwrap();
    assert_eq!(inputs.take::<IPPool>().unwrap_err().to_string(), "ippools.manx.dev: missing");
    assert_eq!(inputs.value::<Vec<String>>("other").unwrap_err().to_string(), "other: missing");
    assert!(inputs.value::<u32>("servicePrefixes").is_err());
}

#[test]
fn equal_contents_have_one_digest_whenever_they_are_saved() {
    let mut other = draft();
    assert_eq!(draft().digest().unwrap(), other.digest().unwrap());
    other.kind::<Pod>(Some("17".into()), []).unwrap();
    assert_ne!(draft().digest().unwrap(), other.digest().unwrap());
}

mod keeping {
    use std::time::{Duration, Instant};

    use super::super::keeper::{Gather, Keeper};
    use super::*;

    fn keeper(dir: &std::path::Path) -> Keeper {
        Keeper::new(dir, owner())
    }

    fn gather(name: &'static str) -> Gather {
        Box::new(move || {
            let mut draft = draft();
            draft.value("name", &name)?;
            Ok(draft)
        })
    }

    fn name(inputs: &Inputs) -> Result<String, Refusal> {
        inputs.value("name")
    }

    async fn write(keeper: &mut Keeper, at: Instant, name: &'static str) {
        keeper.tick(at, || gather(name));
        let deadline = Instant::now() + Duration::from_secs(10);
        while keeper.is_writing() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
            keeper.tick(at, || gather("too soon"));
        }
    }

    #[tokio::test]
    async fn a_file_is_written_once_a_minute_and_only_when_something_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, begun) = (keeper(dir.path()), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let path = dir.path().join("inputs-felix");
        // Before the store was heard nothing is: a memory must not be replaced by less.
        keeper.touch();
        write(&mut keeper, at(100), "unheard").await;
        assert!(!path.exists());
        keeper.heard(at(100));
        write(&mut keeper, at(101), "too early").await;
        assert!(!path.exists());
        write(&mut keeper, at(106), "one").await;
        let read = |path: &std::path::Path| {
            name(&Inputs::decode(&std::fs::read(path).unwrap(), &owner()).unwrap()).unwrap()
        };
        assert_eq!(read(&path), "one");
        keeper.touch();
        write(&mut keeper, at(160), "two").await;
        assert_eq!(read(&path), "one");
        write(&mut keeper, at(167), "two").await;
        assert_eq!(read(&path), "two");
        // Nothing changed; then something that nobody reads.
        let written = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let before = written();
        write(&mut keeper, at(500), "three").await;
        keeper.touch();
        write(&mut keeper, at(600), "two").await;
        assert_eq!(written(), before);
        keeper.touch();
        keeper.finish(gather("last")).await;
        assert_eq!(read(&path), "last");
    }

    #[tokio::test]
    async fn a_silent_store_is_replaced_by_the_memory_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = keeper(dir.path());
        first.heard(Instant::now());
        first.finish(gather("kept")).await;
        let mut keeper = keeper(dir.path());
        let now = Instant::now();
        assert!(!keeper.is_silent(now) && keeper.is_silent(now + Duration::from_secs(4)));
        let read = keeper.recall(|inputs, same_boot| Ok((name(&inputs)?, same_boot)));
        assert_eq!(read, Some(("kept".to_owned(), true)));
        assert!(keeper.is_recalled() && !keeper.is_silent(now + Duration::from_secs(9)));
        assert!(keeper.report().remembered && keeper.report().age_seconds.is_some());
        assert!(keeper.remark().contains("does not answer: since"), "{}", keeper.remark());
        keeper.heard(now);
        assert!(!keeper.is_recalled() && !keeper.report().remembered);
        assert!(keeper.remark().contains("did not answer: from"), "{}", keeper.remark());
    }

    #[tokio::test]
    async fn a_damaged_file_is_moved_aside_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inputs-felix");
        let mut whole = bytes();
        whole.pop();
        std::fs::write(&path, whole).unwrap();
        let mut keeper = keeper(dir.path());
        assert_eq!(keeper.recall(|_, _| Ok(())), None);
        assert!(!path.exists() && !keeper.is_recalled());
        let problem = keeper.report().problem.unwrap();
        assert!(problem.contains("checksum") && problem.contains("inputs-felix.corrupt-"), "{problem}");
        assert!(keeper.remark().contains(&problem) && keeper.remark().contains("no inputs are remembered"));
        let kept = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(kept, 1);
    }
}

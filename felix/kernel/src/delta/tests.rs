use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Counts, Delta};

#[derive(Debug, Clone)]
enum Step {
    Set(u8, Option<u8>),
    /// Writes everything pending; a write answers yes, no, or not at all (and then took effect or not).
    Apply(Vec<Answer>),
    /// Somebody else changes the kernel, and we read it anew.
    Resync(BTreeMap<u8, u8>),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Done,
    Refused,
    LostDone,
    LostRefused,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        Just(Answer::Done),
        Just(Answer::Refused),
        Just(Answer::LostDone),
        Just(Answer::LostRefused)
    ];
    prop_oneof![
        4 => (0..8u8, proptest::option::of(0..4u8)).prop_map(|(k, v)| Step::Set(k, v)),
        3 => proptest::collection::vec(answer, 0..12).prop_map(Step::Apply),
        1 => proptest::collection::btree_map(0..8u8, 0..4u8, 0..8).prop_map(Step::Resync),
    ]
}

/// Writes what is pending into `kernel`, each write answered as told, the rest with success.
fn apply(delta: &mut Delta<u8, u8>, kernel: &mut BTreeMap<u8, u8>, answers: &[Answer]) {
    let mut work: Vec<(u8, Option<u8>)> = delta.updates().map(|(k, v)| (*k, Some(*v))).collect();
    work.extend(delta.deletions().map(|k| (*k, None)));
    for (i, (key, value)) in work.into_iter().enumerate() {
        let answer = answers.get(i).copied().unwrap_or(Answer::Done);
        if matches!(answer, Answer::Done | Answer::LostDone) {
            match value {
                Some(value) => kernel.insert(key, value),
                None => kernel.remove(&key),
            };
        }
        match answer {
            Answer::Done => delta.confirm(key, value),
            Answer::Refused => {}
            Answer::LostDone | Answer::LostRefused => delta.doubt(key),
        }
    }
}

proptest! {
    #[test]
    fn whatever_was_refused_or_lost_one_clean_apply_makes_the_kernel_as_wanted(steps in proptest::collection::vec(step(), 0..40)) {
        let mut delta = Delta::new();
        let mut kernel = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for step in steps {
            match step {
                Step::Set(key, value) => {
                    match value { Some(v) => wanted.insert(key, v), None => wanted.remove(&key) };
                    delta.set(key, value);
                }
                Step::Apply(answers) => apply(&mut delta, &mut kernel, &answers),
                Step::Resync(state) => {
                    kernel = state;
                    delta.resync(kernel.clone());
                }
            }
            let counts = Counts { desired: wanted.len(), unwritten: delta.updates().count() };
            prop_assert_eq!(delta.counts(), counts);
            // Nothing that differs is ever missing from what is pending.
            for key in 0..8u8 {
                if wanted.get(&key) != kernel.get(&key) {
                    prop_assert!(delta.is_pending(&key));
                }
            }
        }
        apply(&mut delta, &mut kernel, &[]);
        prop_assert_eq!(&kernel, &wanted);
        prop_assert_eq!(delta.pending(), 0);
    }
}

#[test]
fn a_failed_write_stays_pending_and_a_stranger_is_swept() {
    let mut delta = Delta::new();
    delta.resync([("stranger", 1)]);
    delta.set("ours", Some(2));
    assert_eq!(delta.updates().collect::<Vec<_>>(), [(&"ours", &2)]);
    assert_eq!(delta.deletions().collect::<Vec<_>>(), [&"stranger"]);
    delta.confirm("stranger", None);
    assert_eq!(delta.pending(), 1, "ours was never confirmed");
    delta.confirm("ours", Some(2));
    assert_eq!(delta.pending(), 0);
}

#[test]
fn a_change_taken_back_before_the_write_leaves_nothing_to_do() {
    let mut delta = Delta::new();
    delta.resync([("a", 1)]);
    delta.set("a", Some(2));
    delta.set("a", Some(1));
    assert_eq!(delta.pending(), 0);
}

#[test]
fn a_change_taken_back_after_a_lost_answer_is_written_again() {
    let mut delta = Delta::new();
    delta.set("a", Some(1));
    delta.confirm("a", Some(1));
    delta.set("a", Some(2));
    delta.doubt("a");
    delta.set("a", Some(1));
    assert_eq!(delta.updates().collect::<Vec<_>>(), [(&"a", &1)]);
}

use super::*;

fn pod(container: &str, ip: &str, step: Step) -> PodRecord {
    PodRecord {
        container_id: container.into(),
        interface: "eth0".into(),
        namespace: "shop".into(),
        name: "web-1".into(),
        uid: "5b0c3e9e".into(),
        addresses: vec![Address {
            ip: ip.parse().unwrap(),
            block: "10.244.17.0/26".parse().unwrap(),
            pool: "default-ipv4".into(),
        }],
        step,
        host_interface: Some("manx4f2a1c09b7d".into()),
        mac: Some(MacAddress([2, 0, 0, 0, 0, 0xaf])),
        host_mac: None,
        network: "manx".into(),
    }
}

fn removed(container: &str, ip: &str, until: i64) -> Record {
    Record::Removed {
        container_id: container.into(),
        interface: "eth0".into(),
        cooling: vec![Cooling { ip: ip.parse().unwrap(), until: at(until) }],
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn journal(records: &[Record]) -> Vec<u8> {
    let mut bytes = HEADER.as_bytes().to_vec();
    records.iter().for_each(|record| bytes.extend(record.encode()));
    bytes
}

fn sample() -> Vec<Record> {
    vec![
        Record::Pod(pod("one", "10.244.17.1", Step::Assigned)),
        Record::Pod(pod("two", "10.244.17.2", Step::Assigned)),
        Record::Pod(pod("one", "10.244.17.1", Step::Programmed)),
        removed("two", "10.244.17.2", 60),
        Record::Leaving { block: "10.244.18.0/26".parse().unwrap() },
    ]
}

fn folded(records: &[Record]) -> State {
    let mut state = State::default();
    records.iter().cloned().for_each(|record| state.apply(record));
    state
}

#[test]
fn a_journal_reads_back_as_it_was_written() {
    let bytes = journal(&sample());
    let replay = replay(&bytes);
    assert!(replay.complete());
    assert_eq!((replay.valid_length, replay.torn), (bytes.len(), 0));
    assert_eq!(replay.state, folded(&sample()));
    let (_, left) = replay.state.pods.first_key_value().unwrap();
    assert_eq!(*left, pod("one", "10.244.17.1", Step::Programmed));
    assert_eq!(replay.state.cooling.get(&"10.244.17.2".parse().unwrap()), Some(&at(60)));
}

#[test]
fn one_line_is_text_that_a_person_can_read() {
    let line = String::from_utf8(removed("two", "10.244.17.2", 60).encode()).unwrap();
    let (sum, json) = line.split_once(' ').unwrap();
    assert_eq!(sum.len(), 8);
    assert_eq!(
        json,
        "{\"removed\":{\"container_id\":\"two\",\"interface\":\"eth0\",\
         \"cooling\":[{\"ip\":\"10.244.17.2\",\"until\":\"1970-01-01T00:01:00Z\"}]}}\n"
    );
}

#[test]
fn a_journal_cut_anywhere_keeps_every_whole_record() {
    let records = sample();
    let bytes = journal(&records);
    for length in 0..=bytes.len() {
        let cut = bytes.get(..length).unwrap();
        let replay = replay(cut);
        assert!(replay.complete(), "cut at {length}: {:?}", replay.corrupt);
        assert_eq!(replay.valid_length + replay.torn, length);
        let whole = (0..=records.len()).rev().find(|n| journal(&records[..*n]).len() <= length);
        assert_eq!(replay.state, folded(&records[..whole.unwrap_or(0)]), "cut at {length}");
        assert_eq!(replay.valid_length, whole.map_or(0, |n| journal(&records[..n]).len()));
    }
}

#[test]
fn every_flipped_bit_in_the_middle_is_found_and_named() {
    let records = sample();
    let bytes = journal(&records);
    let second = HEADER.len() + records[0].encode().len();
    for offset in second..second + records[1].encode().len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[offset] ^= 1 << bit;
            let replay = replay(&damaged);
            // The case of a checksum digit is not what it says.
            if replay.complete() {
                assert_eq!(replay.state, folded(&records), "byte {offset} bit {bit}");
                continue;
            }
            assert_eq!(replay.corrupt[0].line, 3, "byte {offset} bit {bit}");
            // what is whole is still there
            assert!(replay.state.pods.values().any(|pod| pod.container_id == "one"));
        }
    }
}

#[test]
fn a_damaged_last_line_is_a_torn_tail() {
    let mut bytes = journal(&sample());
    let last = bytes.len() - 5;
    bytes[last] ^= 1;
    let replay = replay(&bytes);
    assert!(replay.complete());
    assert_eq!(replay.torn, sample()[4].encode().len());
    assert!(replay.state.leaving.is_empty() && !replay.state.cooling.is_empty());
}

#[test]
fn what_is_no_journal_is_reported_and_an_empty_file_is_not() {
    assert!(replay(b"").complete());
    let other = replay(b"# a file that somebody put here by mistake\nand a second line\n");
    assert!(!other.complete());
    assert_eq!(
        other.corrupt[0].to_string(),
        "journal line 1 (byte 0): the first line is not \"manx-journal 1\""
    );
    assert_eq!(other.valid_length, 0);
}

#[test]
fn compaction_says_the_same_in_fewer_bytes() {
    let mut records = sample();
    records.push(removed("three", "10.244.17.3", 10));
    let state = folded(&records);
    let bytes = state.compact(at(20));
    assert!(bytes.len() < journal(&records).len());
    let replay = replay(&bytes);
    assert!(replay.complete());
    assert_eq!(replay.state.pods, state.pods);
    assert_eq!(replay.state.cooling.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.17.2"]);
    assert_eq!((&replay.state.leaving, state.leaving.len()), (&state.leaving, 1));
}

#[test]
fn a_block_that_came_back_leaves_no_longer() {
    let block = "10.244.17.0/26".parse().unwrap();
    let (leaving, kept) = (Record::Leaving { block }, Record::Kept { block });
    assert!(folded(&[leaving.clone(), kept.clone()]).leaving.is_empty());
    assert_eq!(folded(&[leaving.clone(), kept, leaving]).leaving.len(), 1);
}

#[test]
fn an_address_that_is_owned_again_cools_no_longer() {
    let state = folded(&[
        removed("two", "10.244.17.2", 60),
        Record::Pod(pod("three", "10.244.17.2", Step::Assigned)),
    ]);
    assert!(state.cooling.is_empty());
}

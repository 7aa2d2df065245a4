//! The fuzzers' corpus, replayed: what they found once stays found. `make fuzz` looks for more.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(dead_code)]

mod collector;
mod hand;
mod malformed_table;
mod targets;
mod updates;

use std::path::PathBuf;

use malformed_table::{Session, cases, open_of};
use peak_alloc::PeakAlloc;
use targets::{TARGETS, Target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs one input; `Err`: how many octets of memory it took, where that is more than it may.
fn run(target: &Target, data: &[u8]) -> Result<(), usize> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(data);
    let took = MEMORY.peak_usage().saturating_sub(before);
    if took > target.most(data.len()) { Err(took) } else { Ok(()) }
}

fn corpus(target: &Target) -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let files =
        std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn part(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
}

/// The table of malformed messages as inputs: where a fuzzer that has no corpus begins.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let body = |kind: u8| {
        let of_kind = move |bytes: &Vec<u8>| bytes.len() > 19 && bytes[18] == kind;
        cases().into_iter().map(|case| case.bytes).filter(of_kind).map(|bytes| bytes[19..].to_vec())
    };
    match target.name {
        "framing" => {
            cases().into_iter().map(|case| [vec![1], open_of(case.session), case.bytes].concat()).collect()
        }
        "open" => body(1).collect(),
        "capabilities" => {
            body(1).filter_map(|open| Some([&[*open.get(12)?], open.get(14..)?].concat())).collect()
        }
        "notification" => body(3).chain(body(5)).collect(),
        "update" => {
            let of = |case: &malformed_table::Case| match case.session {
                Session::Opening | Session::External | Session::Ipv4Alone => 0,
                Session::TwoOctet => 1,
                Session::Internal => 2,
                Session::Ipv6Alone => 3,
            };
            let updates = cases().into_iter().filter(|case| case.bytes.len() > 22 && case.bytes[18] == 2);
            let malformed = updates.map(|case| [vec![of(&case)], part(&case.bytes[19..])].concat());
            malformed.chain(path_seeds()).collect()
        }
        "bfd" => bfd_seeds(),
        "bmp" => bmp_seeds(),
        "speaker" => cases()
            .into_iter()
            .map(|case| {
                let said = [open_of(case.session), hand::keepalive(), case.bytes];
                let said = said.iter().flat_map(|bytes| [&[1][..], &part(bytes)].concat());
                [vec![0], said.collect(), vec![2, 40]].concat()
            })
            .chain(path_session_seeds())
            .collect(),
        name => panic!("no seeds for {name}"),
    }
}

/// UPDATEs of the peer with several paths per prefix: told, replaced, withdrawn; without identifiers, and cut off.
fn path_seeds() -> Vec<Vec<u8>> {
    let net: ipnet::IpNet = "10.3.1.0/24".parse().unwrap();
    let announce = |ids: &[Option<u32>], hop: u8| {
        let named: Vec<_> = ids.iter().map(|id| (*id, net)).collect();
        let path = updates::path(&[65005, u32::from(hop)], true);
        updates::announce(&named, [192, 0, 2, hop].into(), &path, &vec![])
    };
    let withdraw =
        |ids: &[Option<u32>]| updates::withdraw(&ids.iter().map(|id| (*id, net)).collect::<Vec<_>>());
    let (told, replaced) = (announce(&[Some(1), Some(u32::MAX), Some(0)], 1), announce(&[Some(1)], 2));
    let said = |bodies: &[&[u8]]| bodies.iter().flat_map(|body| [vec![4], part(body)].concat()).collect();
    vec![
        said(&[&told]),
        said(&[&told, &replaced, &withdraw(&[Some(0), Some(9)])]),
        said(&[&told, &announce(&[None], 3)]),
        said(&[&told, &told[..told.len() - 3]]),
        said(&[&withdraw(&[None])]),
    ]
}

/// Sessions with several paths per prefix, in deeds of `targets::speaker`: configured, opened, told, refreshed, reconfigured.
fn path_session_seeds() -> Vec<Vec<u8>> {
    let up = [24, 1, 2, 0, 23, 6];
    vec![
        [&up[..], &[25, 7, 1, 25, 7, 2, 25, 7, 1, 8]].concat(),
        [&up[..], &[25, 7, 1, 9, 1, 25, 7, 2, 9, 2, 17, 4, 9, 0]].concat(),
        [&up[..], &[7, 7], &[0, 23, 6, 25, 1, 1]].concat(),
        [&up[..], &[25, 7, 1, 24, 1, 4, 24, 0, 4, 2, 90, 0, 23, 6]].concat(),
        [&up[..], &[18, 1, 25, 7, 1, 25, 7, 2]].concat(),
    ]
}

/// A session that comes up, is asked, reconfigured and lost; and packets that are too short, too long, of nobody.
fn bfd_seeds() -> Vec<Vec<u8>> {
    let configure = [3, 90, 90, 3, 0];
    let up = [&configure[..], &[2, 60], &[1, 1, 0x30, 10], &[1, 2, 0x30, 10], &[1, 3, 0x31, 10]].concat();
    let packet = |first: u8, second: u8, length: u8, octets: usize| {
        let mut packet = vec![first, second, 3, length, 0, 0, 0, 9];
        packet.resize(octets, 0);
        [vec![0, 1], part(&packet)].concat()
    };
    vec![
        up.clone(),
        [&up[..], &[2, 250, 2, 250]].concat(),
        [&up[..], &[3, 10, 10, 5, 1], &[1, 3, 0x32, 1], &[4]].concat(),
        [&configure[..], &packet(0x20, 0x40, 24, 24)].concat(),
        [&configure[..], &packet(0x20, 0x40, 24, 23)].concat(),
        [&configure[..], &packet(0x20, 0x44, 26, 28)].concat(),
        [
            &configure[..],
            &packet(0x40, 0x40, 24, 24),
            &packet(0x20, 0xC0, 24, 24),
            &packet(0x20, 0x41, 24, 24),
        ]
        .concat(),
    ]
}

/// A station before the session, during it and after it; slow; while policies, routes and our AS change.
fn bmp_seeds() -> Vec<Vec<u8>> {
    let up = [0, 4, 6];
    let routes = [7, 1, 7, 2, 7, 3, 17, 9, 17, 10, 8];
    vec![
        [&[23], &up[..], &routes[..], &[27, 2, 28, 9, 29]].concat(),
        [&up[..], &routes[..], &[23, 26, 1, 7, 4, 26, 0, 31]].concat(),
        [&[23, 25], &up[..], &routes[..], &[13, 2, 20], &up[..], &[7, 1, 25]].concat(),
        [&[23], &up[..], &routes[..], &[30, 1, 2, 20], &up[..], &[7, 5, 23, 24, 23]].concat(),
        [&[23, 0, 5, 1, 6], &routes[..], &[13, 2, 4, 0, 5, 1, 6, 7, 1, 8]].concat(),
        [&[23], &up[..], &[10, 6, 4, 2, 40, 14, 15, 23]].concat(),
    ]
}

/// One test, since the allocator counts for the whole process. `BGP_SEED_CORPUS`: writes the seeds there, for `make fuzz`.
#[test]
fn the_corpus_does_no_harm_and_its_memory_is_bounded() {
    let hungry = Target { name: "hungry", run: |_| drop(vec![1u8; 100_000]), memory: (50_000, 0) };
    assert!(run(&hungry, &[]).is_err_and(|took| took >= 100_000), "what takes too much is found");
    assert_eq!(
        bfd_seeds().iter().filter(|seed| targets::bfd::ups(seed) > 0).count(),
        3,
        "sessions come up at all"
    );
    assert!(
        bmp_seeds().iter().filter(|seed| targets::bmp::told(seed) > 0).count() >= 3,
        "stations are told of sessions"
    );
    for target in &TARGETS {
        let seeds = seeds(target);
        for (number, seed) in seeds.iter().enumerate() {
            if let Ok(directory) = std::env::var("BGP_SEED_CORPUS") {
                let directory = PathBuf::from(directory).join(target.name);
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(directory.join(format!("seed-{number}")), seed).unwrap();
            }
            assert_eq!(run(target, seed), Ok(()), "{} {number}: {seed:?}", target.name);
        }
        let corpus = corpus(target);
        assert!(
            corpus.len() >= 8 && seeds.len() >= 4,
            "{}: {} and {}",
            target.name,
            corpus.len(),
            seeds.len()
        );
        for file in corpus {
            let took = run(target, &std::fs::read(&file).unwrap());
            assert_eq!(took, Ok(()), "{}", file.display());
        }
    }
}

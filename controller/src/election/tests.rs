#![allow(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::*;

fn now(millis: u64) -> Now {
    // The wall clock of the test jumps about: nothing may depend on it.
    let wall = if millis.is_multiple_of(3) { 0 } else { 1_000_000_000 };
    Now {
        monotonic: Duration::from_millis(millis),
        wall: Timestamp::from_millisecond(wall + i64::try_from(millis).unwrap()).unwrap(),
    }
}

/// The API server's part: compare and swap.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    revision: u64,
    away: bool,
}

impl Server {
    fn put(&mut self, mut lease: Lease) -> Answer {
        let current = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if current != lease.metadata.resource_version {
            return Answer::Conflict;
        }
        self.revision += 1;
        lease.metadata.resource_version = Some(self.revision.to_string());
        self.lease = Some(lease.clone());
        Answer::Written(Box::new(lease))
    }

    fn carry_out(&mut self, step: Step) -> Answer {
        if self.away {
            return Answer::Failed;
        }
        match step {
            Step::Get => self.lease.clone().map_or(Answer::Absent, |lease| Answer::Found(Box::new(lease))),
            Step::Create(lease) | Step::Replace(lease) => self.put(*lease),
            Step::Wait(_) => unreachable!("not a request"),
        }
    }
}

fn run(server: &mut Server, election: &mut Election, at: u64) {
    loop {
        match election.step(now(at)) {
            Step::Wait(_) => return,
            step => {
                let answer = server.carry_out(step);
                election.answer(answer, now(at).monotonic);
            }
        }
    }
}

fn leads(election: &Election, at: u64) -> bool {
    election.leads_until().is_some_and(|until| now(at).monotonic < until)
}

#[test]
fn one_leads_and_a_killed_leader_is_followed_within_14_s() {
    let mut server = Server::default();
    let mut a = Election::new("manx-system", "manx-controller", "a");
    let mut b = Election::new("manx-system", "manx-controller", "b");
    for at in (0..60_000).step_by(100) {
        run(&mut server, &mut a, at);
        run(&mut server, &mut b, at + 50);
        assert!(leads(&a, at) && !leads(&b, at));
    }
    assert_eq!(b.holder(), Some("a"));
    // a is killed at 60 s.
    let taken = (60_000..90_000).step_by(100).find(|at| {
        run(&mut server, &mut b, *at);
        leads(&b, *at)
    });
    assert!((70_000..=74_000).contains(&taken.unwrap()), "{taken:?}");
    let spec = server.lease.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
}

#[test]
fn a_leader_that_cannot_renew_stops_before_another_may_begin() {
    let mut server = Server::default();
    let mut a = Election::new("n", "l", "a");
    run(&mut server, &mut a, 0);
    assert!(leads(&a, 0));
    server.away = true;
    for at in (100..20_000).step_by(100) {
        run(&mut server, &mut a, at);
        assert_eq!(leads(&a, at), at < 8_000, "{at}");
    }
    assert_eq!(a.leads_until(), None);
}

#[test]
fn what_is_given_back_is_taken_at_once() {
    let mut server = Server::default();
    let mut a = Election::new("n", "l", "a");
    let mut b = Election::new("n", "l", "b");
    run(&mut server, &mut a, 0);
    run(&mut server, &mut b, 10);
    let released = a.release(now(1_000)).unwrap();
    assert!(matches!(server.put(released), Answer::Written(_)));
    run(&mut server, &mut b, 2_010);
    assert!(leads(&b, 2_010));
    assert_eq!(b.release(now(2_020)).unwrap().spec.unwrap().holder_identity, None);
    assert_eq!(Election::new("n", "l", "c").release(now(0)), None);
}

/// Any number of candidates, any delays of requests, outages and pauses: never two that may write at one time.
#[test]
fn never_two_at_one_time() {
    for seed in 0..300_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let mut server = Server::default();
        let mut candidates: Vec<Election> =
            (0..3).map(|n| Election::new("n", "l", &format!("c{n}"))).collect();
        // Requests on their way: when they reach the server, and when the answer comes back.
        let mut flying: BTreeMap<usize, (Option<Step>, u64, Option<Answer>, u64)> = BTreeMap::new();
        let mut paused = [0_u64; 3];
        let mut terms = 0;
        let mut leader = None;
        for at in (0..200_000).step_by(50) {
            for who in 0..3 {
                if let Some((step, arrives, answer, back)) = flying.get_mut(&who) {
                    if at >= *arrives
                        && let Some(step) = step.take()
                    {
                        server.away = next(10) == 0;
                        *answer = Some(server.carry_out(step));
                    }
                    // A request is given up after 3 s; it may arrive all the same.
                    if at >= *back && paused[who] <= at {
                        let answer = answer.take().unwrap_or(Answer::Failed);
                        let lost = next(8) == 0;
                        candidates[who].answer(if lost { Answer::Failed } else { answer }, now(at).monotonic);
                        flying.remove(&who);
                    }
                    continue;
                }
                if paused[who] > at {
                    continue;
                }
                if next(400) == 0 {
                    paused[who] = at + next(30_000);
                    continue;
                }
                match candidates[who].step(now(at)) {
                    Step::Wait(_) => {}
                    step => {
                        let (there, back) = (next(2_000), next(1_000));
                        flying.insert(who, (Some(step), at + there, None, at + there + back));
                    }
                }
            }
            let leading: Vec<usize> = (0..3).filter(|who| leads(&candidates[*who], at)).collect();
            assert!(leading.len() <= 1, "seed {seed} at {at}: {leading:?}");
            if !leading.is_empty() && leading.first() != leader.as_ref() {
                terms += 1;
                leader = leading.first().copied();
            }
        }
        assert!(terms >= 1, "seed {seed}: nobody ever led");
    }
}

//! The socket against a kernel that answers as told: late, wrong, or not at all.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use super::{Disagreement, Intent, NetlinkError, Refusal, RouteSocket};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR,
};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};

use crate::packet::{self, Request};
use crate::wire::{self, Message};

const PATIENCE: Duration = Duration::from_millis(300);

/// A socket of ours and the other end, where the test plays the kernel.
fn pair() -> (RouteSocket, UnixDatagram) {
    let (ours, kernel) = UnixDatagram::pair().unwrap();
    kernel.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (RouteSocket::from_fd(OwnedFd::from(ours)).with_timeout(PATIENCE), kernel)
}

/// The sequence numbers and flags of the messages of the next datagram.
fn asked(kernel: &UnixDatagram) -> Vec<(u32, u16)> {
    let mut buffer = vec![0; 128 * 1024];
    let length = kernel.recv(&mut buffer).unwrap();
    wire::messages(&buffer[..length]).map(|message| (message.sequence, message.flags)).collect()
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut message = Message::new(kind, flags);
    message.put(body);
    message.finish_into(sequence, &mut bytes);
    bytes
}

/// NLMSG_ERROR: the number, the echoed header, and the explanation.
fn error(sequence: u32, errno: i32, text: &str) -> Vec<u8> {
    let mut body = (-errno).to_ne_bytes().to_vec();
    body.extend([0; 16]);
    let mut flags = NLM_F_CAPPED;
    if !text.is_empty() {
        flags |= NLM_F_ACK_TLVS;
        let length = u16::try_from(text.len() + 5).unwrap();
        body.extend(length.to_ne_bytes());
        body.extend(1u16.to_ne_bytes());
        body.extend(text.as_bytes());
        body.push(0);
    }
    message(NLMSG_ERROR, flags, sequence, &body)
}

fn request() -> Request {
    packet::request(RouteNetlinkMessage::SetLink(LinkMessage::default()), 0)
}

#[test]
fn a_silent_kernel_ends_in_a_timeout() {
    let (socket, _kernel) = pair();
    let start = Instant::now();
    assert!(matches!(socket.request("set link", request()), Err(NetlinkError::Timeout { .. })));
    assert!(start.elapsed() >= PATIENCE && start.elapsed() < PATIENCE * 10);
}

#[test]
fn the_answer_to_an_earlier_request_is_not_taken_for_this_one() {
    let (socket, kernel) = pair();
    assert!(socket.request("first", request()).is_err(), "nobody answered in time");
    let late = asked(&kernel)[0].0;
    kernel.send(&error(late, libc::EINVAL, "late")).unwrap();
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let sequence = asked(&kernel)[0].0;
            assert_ne!(sequence, late);
            kernel.send(&error(sequence, 0, "")).unwrap();
        });
        socket.request("second", request()).unwrap();
        answering.join().unwrap();
    });
}

#[test]
fn refusals_in_a_batch_reach_the_message_they_mean() {
    let (socket, kernel) = pair();
    let messages: Vec<_> = (0..300).map(|_| request()).collect();
    let outcomes = thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while seen < 300 {
                let asked = asked(&kernel);
                for (at, (sequence, flags)) in asked.iter().enumerate() {
                    let last = at + 1 == asked.len();
                    assert_eq!(flags & NLM_F_ACK != 0, last, "only the last asks for an acknowledgement");
                    let number = seen + at;
                    if number % 100 == 7 {
                        kernel
                            .send(&error(*sequence, libc::ENETUNREACH, "Nexthop has invalid gateway"))
                            .unwrap();
                    } else if last {
                        kernel.send(&error(*sequence, 0, "")).unwrap();
                    }
                }
                seen += asked.len();
            }
        });
        socket.batch("write routes", messages).unwrap()
    });
    let refused: Vec<usize> = (0..300).filter(|&at| outcomes[at].is_some()).collect();
    assert_eq!((outcomes.len(), refused), (300, vec![7, 107, 207]));
    let refusal = outcomes[7].as_ref().unwrap();
    assert_eq!(refusal.to_string(), "ENETUNREACH: Network is unreachable (Nexthop has invalid gateway)");
}

#[test]
fn a_batch_whose_last_answer_is_lost_ends_in_a_timeout() {
    let (socket, kernel) = pair();
    thread::scope(|scope| {
        scope.spawn(|| {
            let asked = asked(&kernel);
            kernel.send(&error(asked[0].0, libc::EEXIST, "")).unwrap();
        });
        let result = socket.batch("write routes", vec![request(), request()]);
        assert!(matches!(result, Err(NetlinkError::Timeout { .. })), "{result:?}");
    });
}

#[test]
fn an_interrupted_dump_is_begun_again_and_hands_out_only_the_consistent_one() {
    let (socket, kernel) = pair();
    let mut listed = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for (content, flags) in [(1u32, NLM_F_DUMP_INTR), (2, 0)] {
                let sequence = asked(&kernel)[0].0;
                kernel.send(&message(libc::RTM_NEWLINK, flags, sequence, &content.to_ne_bytes())).unwrap();
                kernel.send(&message(NLMSG_DONE, 0, sequence, &0i32.to_ne_bytes())).unwrap();
            }
        });
        listed = socket.dump("list links", &request(), |_, body| wire::u32_at(body, 0)).unwrap();
    });
    assert_eq!(listed, [2]);
}

#[test]
fn the_three_disagreements_are_told_apart_by_what_was_meant() {
    let how = |errno, intent| Refusal { errno, text: None }.disagreement(intent);
    assert_eq!(how(libc::EEXIST, Intent::Create), Disagreement::AlreadySo);
    assert_eq!(how(libc::EEXIST, Intent::Delete), Disagreement::Wrong);
    assert_eq!(how(libc::ESRCH, Intent::Delete), Disagreement::AlreadySo);
    assert_eq!(how(libc::ENODEV, Intent::Delete), Disagreement::AlreadySo);
    assert_eq!(how(libc::ENODEV, Intent::Create), Disagreement::NotYet);
    assert_eq!(how(libc::ENETUNREACH, Intent::Create), Disagreement::NotYet);
    assert_eq!(how(libc::EPERM, Intent::Create), Disagreement::Wrong);
    assert_eq!(how(libc::EPERM, Intent::Delete), Disagreement::Wrong);
    assert_eq!(how(libc::EINVAL, Intent::Create), Disagreement::Wrong);
}

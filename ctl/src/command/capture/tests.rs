use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use k8s_openapi::ByteString;

use super::*;

fn message(sent: bool, remote: &str, octets: Vec<u8>) -> CapturedMessage {
    let local = if remote.starts_with('[') { "[fd00::1]:179" } else { "10.0.0.1:179" };
    let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
    CapturedMessage { time: 1_700_000_000_000_007, local, remote, sent, octets: ByteString(octets) }
}

fn update(length: usize) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&[0, 0, 2]);
    octets.resize(length, 1);
    octets
}

/// What a file holds: seconds, microseconds, the packet.
fn records(file: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let field = |bytes: &[u8]| u32::from_ne_bytes(*bytes.first_chunk().unwrap());
    assert_eq!((field(file), field(&file[20..])), (0xa1b2_c3d4, 101));
    let (mut rest, mut records) = (&file[24..], Vec::new());
    while !rest.is_empty() {
        let length = field(&rest[8..]) as usize;
        assert_eq!(field(&rest[12..]) as usize, length);
        records.push((field(rest), field(&rest[4..]), rest[16..16 + length].to_vec()));
        rest = &rest[16 + length..];
    }
    records
}

fn written(messages: &[CapturedMessage]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut pcap = Pcap::new(&mut file).unwrap();
    messages.iter().for_each(|message| pcap.write(message).unwrap());
    drop(pcap);
    file
}

#[test]
fn both_directions_have_running_numbers_and_right_checksums() {
    let remote = "10.0.0.2:40000";
    let said = [
        message(true, remote, update(50)),
        message(false, remote, update(30)),
        message(true, remote, update(19)),
    ];
    let mut numbers = Vec::new();
    for (seconds, microseconds, packet) in records(&written(&said)) {
        assert_eq!((seconds, microseconds), (1_700_000_000, 7));
        let sliced = SlicedPacket::from_ip(&packet).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (sliced.net, sliced.transport)
        else {
            panic!("no TCP in IPv4");
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let expected = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap();
        assert_eq!(tcp.checksum(), expected);
        numbers.push((
            tcp.source_port(),
            tcp.sequence_number(),
            tcp.acknowledgment_number(),
            tcp.payload().len(),
        ));
    }
    assert_eq!(numbers, [(179, 1, 1, 50), (40000, 1, 51, 30), (179, 51, 31, 19)]);
}

#[test]
fn ipv6_and_the_longest_message() {
    let said = [message(false, "[fd00::2]:179", update(65_535)), message(false, "[fd00::2]:179", update(23))];
    let packets = records(&written(&said));
    let mut stream = Vec::new();
    for (_, _, packet) in &packets {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        assert_eq!(tcp.sequence_number() as usize, stream.len() + 1);
        stream.extend_from_slice(tcp.payload());
    }
    assert_eq!(packets.len(), 3);
    assert_eq!(stream, [update(65_535), update(23)].concat());
}

#[test]
fn a_line_names_what_it_can() {
    let shown = line(&message(true, "10.0.0.2:179", update(57)));
    assert_eq!(shown, "2023-11-14T22:13:20.000007Z > 10.0.0.2 UPDATE 57 octets");
    let shown = line(&message(false, "10.0.0.2:179", b"GET /".to_vec()));
    assert!(shown.ends_with("< 10.0.0.2 no BGP message 5 octets"), "{shown}");
}

#[test]
fn it_ends_after_ten_seconds_unless_told_otherwise() {
    let limits = |follow, count, seconds| Limits { follow, count, seconds }.time();
    assert_eq!(limits(false, None, None), Some(LOOK));
    assert_eq!(limits(true, None, None), None);
    assert_eq!(limits(false, Some(3), None), None);
    assert_eq!(limits(true, Some(3), Some(5)), Some(Duration::from_secs(5)));
}

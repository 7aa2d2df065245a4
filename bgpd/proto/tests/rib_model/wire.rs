//! A second, naive codec: what the test says to the RIB and how it reads what the RIB says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The attributes that the model knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Attributes {
    pub(crate) origin: u8,
    pub(crate) path: Vec<u32>,
    pub(crate) next_hop: IpAddr,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<u32>,
    pub(crate) unknown: Option<u8>,
    /// ORIGINATOR_ID of a reflected route.
    pub(crate) originator: Option<u32>,
}

fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    out.extend([flags, code, u8::try_from(value.len()).unwrap()]);
    out.extend(value);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A prefix, and the path identifier before it.
pub(crate) type Named = (IpNet, Option<u32>);

fn nlri(prefixes: &[Named]) -> Vec<u8> {
    let one = |(net, id): &Named| {
        let mut out: Vec<u8> = id.iter().flat_map(|id| id.to_be_bytes()).collect();
        out.push(net.prefix_len());
        out.extend(&octets(net.network())[..usize::from(net.prefix_len().div_ceil(8))]);
        out
    };
    prefixes.iter().flat_map(one).collect()
}

fn as_path(path: &[u32], width: usize) -> Vec<u8> {
    let mut out = Vec::new();
    if !path.is_empty() {
        out.extend([2, u8::try_from(path.len()).unwrap()]);
    }
    for asn in path {
        let asn = if width == 2 && *asn > 65535 { 23456 } else { *asn };
        out.extend(&asn.to_be_bytes()[4 - width..]);
    }
    out
}

/// The body of an UPDATE that announces prefixes of one family; `shuffled`: attributes in another order.
pub(crate) fn announce(prefixes: &[Named], a: &Attributes, four_octet: bool, shuffled: bool) -> Vec<u8> {
    let ipv6 = a.next_hop.is_ipv6();
    let mut list: Vec<Vec<u8>> = Vec::new();
    let mut add = |flags: u8, code: u8, value: &[u8]| {
        let mut one = Vec::new();
        put(&mut one, flags, code, value);
        list.push(one);
    };
    if ipv6 {
        let link_local: Ipv6Addr = "fe80::7".parse().unwrap();
        let mut value = vec![0, 2, 1, if shuffled { 32 } else { 16 }];
        value.extend(octets(a.next_hop));
        if shuffled {
            value.extend(link_local.octets());
        }
        value.push(0);
        value.extend(nlri(prefixes));
        add(0x80, 14, &value);
    } else {
        add(0x40, 3, &octets(a.next_hop));
    }
    add(0x40, 1, &[a.origin]);
    add(0x40, 2, &as_path(&a.path, if four_octet { 4 } else { 2 }));
    if let Some(med) = a.med {
        add(0x80, 4, &med.to_be_bytes());
    }
    if let Some(local_pref) = a.local_pref {
        add(0x40, 5, &local_pref.to_be_bytes());
    }
    if !a.communities.is_empty() {
        add(0xC0, 8, &a.communities.iter().flat_map(|one| one.to_be_bytes()).collect::<Vec<_>>());
    }
    if let Some(unknown) = a.unknown {
        add(0xC0, 99, &[unknown]);
    }
    if !four_octet && a.path.iter().any(|asn| *asn > 65535) {
        add(0xC0, 17, &as_path(&a.path, 4));
    }
    if shuffled {
        list.reverse();
    } else if !ipv6 {
        list.sort_by_key(|one| one[1]);
    }
    let (list, behind) = (list.concat(), if ipv6 { Vec::new() } else { nlri(prefixes) });
    body(&[], &list, &behind)
}

/// The body of an UPDATE that withdraws prefixes of one family.
pub(crate) fn withdraw(prefixes: &[Named]) -> Vec<u8> {
    if matches!(prefixes.first(), Some((IpNet::V6(_), _))) {
        let mut value = vec![0, 2, 1];
        value.extend(nlri(prefixes));
        let mut list = Vec::new();
        put(&mut list, 0x80, 15, &value);
        return body(&[], &list, &[]);
    }
    body(&nlri(prefixes), &[], &[])
}

fn body(withdrawn: &[u8], list: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    out.extend(withdrawn);
    out.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
    out.extend(list);
    out.extend(behind);
    out
}

/// A peer's side of the connection: whole messages are applied as they come in.
#[derive(Default, Clone)]
pub(crate) struct Receiver {
    pub(crate) four_octet: bool,
    /// Families with path identifiers: IPv4, IPv6.
    pub(crate) ids: (bool, bool),
    pub(crate) stream: Vec<u8>,
    /// By prefix and path identifier, 0 without.
    pub(crate) table: BTreeMap<(IpNet, u32), Attributes>,
    pub(crate) ends: Vec<&'static str>,
}

impl Receiver {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.stream.extend(bytes);
        while self.stream.len() >= 19 {
            assert!(self.stream[..16].iter().all(|octet| *octet == 0xFF), "marker");
            let length = usize::from(u16::from_be_bytes([self.stream[16], self.stream[17]]));
            assert!((23..=4096).contains(&length) && self.stream[18] == 2, "header {length}");
            if self.stream.len() < length {
                return;
            }
            let message: Vec<u8> = self.stream.drain(..length).collect();
            self.message(&message[19..]);
        }
    }

    pub(crate) fn is_between_messages(&self) -> bool {
        self.stream.is_empty()
    }

    fn message(&mut self, body: &[u8]) {
        let withdrawn = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let list = usize::from(u16::from_be_bytes([body[2 + withdrawn], body[3 + withdrawn]]));
        let attributes = &body[4 + withdrawn..4 + withdrawn + list];
        let behind = &body[4 + withdrawn + list..];
        if withdrawn == 0 && list == 0 && behind.is_empty() {
            self.ends.push("IPv4");
        }
        for prefix in prefixes(&body[2..2 + withdrawn], false, self.ids.0) {
            self.table.remove(&prefix);
        }
        let (decoded, reach, unreach) = self.attributes(attributes);
        for prefix in prefixes(&unreach.unwrap_or_default(), true, self.ids.1) {
            self.table.remove(&prefix);
        }
        let reach = prefixes(&reach, true, self.ids.1);
        for prefix in prefixes(behind, false, self.ids.0).into_iter().chain(reach) {
            self.table.insert(prefix, decoded.clone().expect("prefixes without attributes"));
        }
    }

    /// Attributes, NLRI of MP_REACH, NLRI of MP_UNREACH.
    fn attributes(&mut self, mut list: &[u8]) -> (Option<Attributes>, Vec<u8>, Option<Vec<u8>>) {
        if list.is_empty() {
            return (None, vec![], None);
        }
        let (mut reach, mut unreach, mut as4, mut last) = (vec![], None, None, 0);
        let nowhere = IpAddr::from([0, 0, 0, 0]);
        let mut a = Attributes {
            origin: 9,
            path: vec![],
            next_hop: nowhere,
            med: None,
            local_pref: None,
            communities: BTreeSet::new(),
            unknown: None,
            originator: None,
        };
        let word = |v: &[u8]| u32::from_be_bytes(v.try_into().unwrap());
        while !list.is_empty() {
            let (head, length) = if list[0] & 0x10 != 0 {
                (4, usize::from(u16::from_be_bytes([list[2], list[3]])))
            } else {
                (3, usize::from(list[2]))
            };
            let (code, value) = (list[1], &list[head..head + length]);
            if code != 14 {
                assert!(code > last, "attribute {code} behind {last}");
                last = code;
            }
            match code {
                1 => a.origin = value[0],
                2 => a.path = path(value, if self.four_octet { 4 } else { 2 }),
                3 => a.next_hop = IpAddr::from(<[u8; 4]>::try_from(value).unwrap()),
                4 => a.med = Some(word(value)),
                5 => a.local_pref = Some(word(value)),
                8 => a.communities = value.chunks(4).map(word).collect(),
                9 => a.originator = Some(word(value)),
                10 => assert_eq!(value, [9, 9, 9, 9], "our cluster alone, behind ORIGINATOR_ID"),
                14 => {
                    let length = usize::from(value[3]);
                    a.next_hop = IpAddr::from(<[u8; 16]>::try_from(&value[4..20]).unwrap());
                    reach = value[5 + length..].to_vec();
                }
                15 => unreach = Some(value[3..].to_vec()),
                17 => as4 = Some(path(value, 4)),
                99 => {
                    assert_eq!(list[0], 0xE0, "an unknown attribute is passed on as partial");
                    a.unknown = Some(value[0]);
                }
                other => panic!("attribute {other}"),
            }
            list = &list[head + length..];
        }
        if unreach.as_ref().is_some_and(Vec::is_empty) {
            self.ends.push("IPv6");
        }
        if let Some(as4) = as4 {
            assert!(!self.four_octet, "AS4_PATH on a four-octet session");
            let keep = a.path.len() - as4.len();
            a.path.truncate(keep);
            a.path.extend(as4);
        }
        (Some(a), reach, unreach)
    }
}

fn path(mut value: &[u8], width: usize) -> Vec<u32> {
    let mut out = Vec::new();
    while !value.is_empty() {
        assert_eq!(value[0], 2, "only sequences are sent here");
        let end = 2 + usize::from(value[1]) * width;
        out.extend(
            value[2..end]
                .chunks(width)
                .map(|asn| asn.iter().fold(0u32, |a, octet| a << 8 | u32::from(*octet))),
        );
        value = &value[end..];
    }
    out
}

fn prefixes(mut field: &[u8], ipv6: bool, ids: bool) -> Vec<(IpNet, u32)> {
    let mut out = Vec::new();
    while !field.is_empty() {
        let mut id = 0;
        if ids {
            id = u32::from_be_bytes(field[..4].try_into().unwrap());
            field = &field[4..];
        }
        let (len, octets) = (field[0], usize::from(field[0].div_ceil(8)));
        let mut whole = [0; 16];
        whole[..octets].copy_from_slice(&field[1..=octets]);
        let address =
            if ipv6 { IpAddr::from(whole) } else { IpAddr::from(<[u8; 4]>::try_from(&whole[..4]).unwrap()) };
        out.push((IpNet::new(address, len).unwrap(), id));
        field = &field[1 + octets..];
    }
    out
}

#![allow(clippy::cast_possible_truncation)]

use super::{Link, MacAddress};

#[test]
fn mac_addresses_are_read_as_they_are_written() {
    let mac = MacAddress([0x02, 0, 0x5e, 0x10, 0xff, 0x01]);
    assert_eq!(mac.to_string(), "02:00:5e:10:ff:01");
    assert_eq!(mac.to_string().parse(), Ok(mac));
    for wrong in [
        "",
        "02:00:5e:10:ff",
        "02:00:5e:10:ff:01:02",
        "2:0:5e:10:ff:1",
        "02:00:5e:10:ff:0g",
        "02-00-5e-10-ff-01",
    ] {
        assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
    }
}

#[test]
fn an_attribute_that_cannot_be_decoded_loses_no_link() {
    let mut body = vec![0; 16];
    body[4] = 3;
    for (kind, value) in [
        // A name that is not UTF-8, a carrier of two bytes, and data of a veth that are no attributes.
        (3u16, b"eth\xff\0".as_slice()),
        (33, &[1, 1]),
        (18, b"\x09\0\x01\0veth\0\0\0\0\x05\0\x02\0\xff\0\0\0"),
        (4, &1400u32.to_ne_bytes()),
    ] {
        body.extend((value.len() as u16 + 4).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let link = Link::parse(&body).unwrap();
    assert_eq!((link.index, link.name.as_str(), link.mtu), (3, "eth\u{fffd}", 1400));
    assert_eq!(link.kind.as_deref(), Some("veth"));
}

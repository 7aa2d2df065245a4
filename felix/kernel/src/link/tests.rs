use super::MacAddress;

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

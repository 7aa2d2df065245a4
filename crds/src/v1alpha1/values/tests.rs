use super::*;

#[test]
fn a_duration_reads_gep_2257_and_prints_what_it_reads() {
    for (text, millis, printed) in [
        ("300ms", 300, "300ms"),
        ("90s", 90_000, "90s"),
        ("1h30m", 5_400_000, "5400s"),
        ("0s", 0, "0s"),
        ("1s500ms", 1_500, "1s500ms"),
        ("99999h", 359_996_400_000, "99999h0m0s"),
    ] {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(duration.get().as_millis(), millis, "{text}");
        assert_eq!(duration.to_string(), printed);
        assert_eq!(printed.parse::<Duration>().unwrap(), duration);
    }
    for bad in ["", "90", "s", "1d", "100000s", "1s1s1s1s1s", "-1s", "1.5s", "1s "] {
        assert!(bad.parse::<Duration>().is_err(), "{bad}");
    }
}

#[test]
fn a_cidr_is_canonical_and_names_its_block() {
    assert_eq!("10.244.17.0/26".parse::<Cidr>().unwrap().block_name(), "10-244-17-0-26");
    assert_eq!("fd00:10:244::40/122".parse::<Cidr>().unwrap().block_name(), "fd00-10-244--40-122");
    for bad in ["10.244.1.0/16", "10.0.0.0", "fd00:0::/64", "FD00::/64", "10.0.0.0/33", ""] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
}

#[test]
fn a_community_is_a_number_or_a_name() {
    assert_eq!("64512:100".parse(), Ok(Community::Standard(64512, 100)));
    assert_eq!("4200000000:1:2".parse(), Ok(Community::Large(4_200_000_000, 1, 2)));
    assert_eq!("no-export".parse(), Ok(Community::Named("no-export".into())));
    for bad in ["65536:1", "1:2:3:4", "", "Upper", "1:", "+1:2"] {
        assert!(bad.parse::<Community>().is_err(), "{bad}");
    }
}

#[test]
fn reserved_as_numbers_are_nobodys() {
    assert_eq!(Asn::checked(64512), Some(Asn(64512)));
    for reserved in Asn::RESERVED {
        assert_eq!(Asn::checked(reserved), None);
    }
}

//! Range: a CIDR, or addresses from a first to a last (api.md §2).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde_json::json;

use super::schema;
use super::values::{Cidr, Ip, ValueError, refuse, text_value};

/// Addresses of one family, the first and the last included.
///
/// The schema cannot compare two addresses, so a span whose first is above its last can be read; it holds no
/// address, and [`Range::is_ordered`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Range {
    Cidr(Cidr),
    Span { first: IpAddr, last: IpAddr },
}

impl Range {
    /// The first address, the network's own included.
    pub fn first(&self) -> IpAddr {
        match self {
            Self::Cidr(cidr) => cidr.net().network(),
            Self::Span { first, .. } => *first,
        }
    }

    /// The last address, the broadcast's included.
    pub fn last(&self) -> IpAddr {
        match self {
            Self::Cidr(cidr) => cidr.net().broadcast(),
            Self::Span { last, .. } => *last,
        }
    }

    /// Whether the first address is not above the last.
    pub fn is_ordered(&self) -> bool {
        self.first() <= self.last()
    }

    /// Whether the address is in here.
    pub fn contains(&self, address: IpAddr) -> bool {
        same_family(self.first(), address) && self.first() <= address && address <= self.last()
    }

    /// Whether an address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        same_family(self.first(), other.first())
            && self.first().max(other.first()) <= self.last().min(other.last())
    }

    /// How many addresses; `u128::MAX` stands for the 2^128 of `::/0` as well.
    pub fn size(&self) -> u128 {
        let (first, last) = (number(self.first()), number(self.last()));
        last.checked_sub(first).map_or(0, |distance| distance.saturating_add(1))
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cidr(cidr) => cidr.fmt(f),
            Self::Span { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for Range {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((first, last)) = text.split_once('-') else {
            return text.parse().map(Self::Cidr).or_else(|_| refuse(text, schema::RANGE_MESSAGE));
        };
        match (first.parse::<Ip>(), last.parse::<Ip>()) {
            (Ok(first), Ok(last)) if same_family(first.0, last.0) => {
                Ok(Self::Span { first: first.0, last: last.0 })
            }
            _ => refuse(text, schema::RANGE_MESSAGE),
        }
    }
}

text_value!(
    Range,
    json!({"type": "string", "maxLength": 79,
        "x-kubernetes-validations": [{"rule": schema::RANGE_RULE, "message": schema::RANGE_MESSAGE}]})
);

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_a_cidr_or_a_span_of_one_family() {
        for text in ["192.0.2.0/25", "192.0.2.200-192.0.2.220", "2001:db8:0:1::/112", "fd00::1-fd00::ff"] {
            assert_eq!(range(text).to_string(), text);
        }
        for text in [
            "192.0.2.10",
            "192.0.2.10/24",
            "192.0.2.10-192.0.2",
            "192.0.2.10-fd00::1",
            "192.0.2.1-192.0.2.2-192.0.2.3",
            "192.0.2.10 - 192.0.2.20",
            "fd00:0::1-fd00::2",
            "",
        ] {
            let error = text.parse::<Range>().unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("{text:?} must be a CIDR with no host bits")),
                "{error}"
            );
        }
    }

    #[test]
    fn both_ends_belong_to_it() {
        let span = range("192.0.2.200-192.0.2.220");
        for (address, inside) in
            [("192.0.2.199", false), ("192.0.2.200", true), ("192.0.2.220", true), ("192.0.2.221", false)]
        {
            assert_eq!(span.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(!span.contains("::c000:2c8".parse().unwrap()));
        assert!(range("192.0.2.0/25").contains("192.0.2.127".parse().unwrap()));
        assert_eq!((span.size(), range("192.0.2.0/25").size()), (21, 128));
        assert_eq!(range("fd00::/64").size(), 1 << 64);
        assert_eq!(range("::/0").size(), u128::MAX);
    }

    #[test]
    fn ranges_overlap_in_one_address() {
        let overlaps = |a: &str, b: &str| {
            assert_eq!(range(a).overlaps(&range(b)), range(b).overlaps(&range(a)));
            range(a).overlaps(&range(b))
        };
        assert!(overlaps("192.0.2.0/25", "192.0.2.127-192.0.2.130"));
        assert!(!overlaps("192.0.2.0/25", "192.0.2.128-192.0.2.130"));
        assert!(overlaps("192.0.2.0/24", "192.0.2.4-192.0.2.5"));
        assert!(!overlaps("0.0.0.0/0", "::/0"));
    }

    #[test]
    fn a_span_the_wrong_way_round_is_empty() {
        let span = range("192.0.2.20-192.0.2.10");
        assert!(!span.is_ordered());
        assert_eq!(span.size(), 0);
        assert!(!span.contains("192.0.2.15".parse().unwrap()));
        assert!(!span.overlaps(&range("192.0.2.0/24")));
        assert!(range("192.0.2.10-192.0.2.10").is_ordered());
    }
}

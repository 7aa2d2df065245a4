//! Runs of addresses: a pool's ranges, and what is left of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use manx_crds::v1alpha1 as api;
use manx_ipam::pool::Family;

/// Addresses of one family, both ends included; the first is never above the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    family: Family,
    first: u128,
    last: u128,
}

impl Range {
    pub fn family(&self) -> Family {
        self.family
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.family == Family::of(ip) && (self.first..=self.last).contains(&number(ip))
    }

    pub fn overlaps(&self, other: &Range) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// How many addresses; the whole of IPv6 counts one less.
    pub fn size(&self) -> u128 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

impl TryFrom<&api::Range> for Range {
    type Error = Empty;

    fn try_from(range: &api::Range) -> Result<Range, Empty> {
        let (first, last) = (range.first(), range.last());
        let family = Family::of(first);
        let (first, last) = (number(first), number(last));
        if family == Family::of(range.last()) && first <= last {
            Ok(Range { family, first, last })
        } else {
            Err(Empty)
        }
    }
}

/// The first address is above the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first address is above the last")]
pub struct Empty;

impl From<IpNet> for Range {
    fn from(net: IpNet) -> Range {
        let net = net.trunc();
        Range { family: Family::of(net.addr()), first: number(net.addr()), last: number(last_of(net)) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", address(self.family, self.first), address(self.family, self.last))
    }
}

/// Sorted, disjoint ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// `whole` without `excluded`.
    pub fn without(whole: &[Range], excluded: &[Range]) -> Ranges {
        let mut left = Vec::new();
        for range in united(whole) {
            let mut rest = Some(range);
            for hole in united(excluded).into_iter().filter(|hole| hole.overlaps(&range)) {
                let Some(current) = rest else { break };
                if hole.first > current.first {
                    left.push(Range { last: hole.first - 1, ..current });
                }
                rest = hole
                    .last
                    .checked_add(1)
                    .filter(|first| *first <= current.last)
                    .map(|first| Range { first, ..current });
            }
            left.extend(rest);
        }
        Ranges(left)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(ip))
    }

    /// Whether any address of the range is among these.
    pub fn meets(&self, range: &Range) -> bool {
        self.0.iter().any(|own| own.overlaps(range))
    }

    pub fn size(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, range| sum.saturating_add(range.size()))
    }

    pub fn has(&self, family: Family) -> bool {
        self.0.iter().any(|range| range.family == family)
    }

    pub fn overlaps(&self, other: &Ranges) -> Option<(Range, Range)> {
        self.0.iter().find_map(|mine| {
            other.0.iter().find(|theirs| mine.overlaps(theirs)).map(|theirs| (*mine, *theirs))
        })
    }

    /// The lowest address of a family that is free. `is_free` is asked once for each address below it, so the cost
    /// is the number of addresses in use, not the size of the range.
    pub fn lowest(&self, family: Family, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        self.0
            .iter()
            .filter(|range| range.family == family)
            .flat_map(|range| range.first..=range.last)
            .map(|number| address(family, number))
            .find(|ip| is_free(*ip))
    }
}

fn united(ranges: &[Range]) -> Vec<Range> {
    let mut sorted = ranges.to_vec();
    sorted.sort();
    let mut united: Vec<Range> = Vec::new();
    for range in sorted {
        match united.last_mut() {
            Some(before) if before.family == range.family && range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            Some(_) | None => united.push(range),
        }
    }
    united
}

fn last_of(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => IpAddr::V4(net.broadcast()),
        IpNet::V6(net) => IpAddr::V6(net.broadcast()),
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // An IPv4 range is made of IPv4 addresses only.
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| Range::try_from(&text.parse::<api::Range>().unwrap()).unwrap()).collect()
    }

    #[test]
    fn a_range_of_the_api_is_read_whole() {
        assert_eq!(ranges(&["192.0.2.0/25"])[0].to_string(), "192.0.2.0-192.0.2.127");
        assert_eq!(ranges(&["192.0.2.9-192.0.2.9"])[0].size(), 1);
        assert_eq!(ranges(&["2001:db8::/64"])[0].size(), 1 << 64);
        assert_eq!(ranges(&["::/0"])[0].size(), u128::MAX);
        let reversed: api::Range = "192.0.2.20-192.0.2.10".parse().unwrap();
        assert_eq!(Range::try_from(&reversed), Err(Empty));
    }

    #[test]
    fn holes_are_cut_out_and_neighbours_united() {
        let whole = ranges(&["10.0.0.8/29", "10.0.0.0/29", "2001:db8::/126"]);
        let left =
            Ranges::without(&whole, &ranges(&["10.0.0.0-10.0.0.1", "10.0.0.7-10.0.0.9", "2001:db8::3/128"]));
        let texts: Vec<String> = left.0.iter().map(Range::to_string).collect();
        assert_eq!(texts, ["10.0.0.2-10.0.0.6", "10.0.0.10-10.0.0.15", "2001:db8::-2001:db8::2"]);
        assert_eq!(left.size(), 5 + 6 + 3);
        assert_eq!(Ranges::without(&whole, &whole), Ranges::default());
        let edge = Ranges::without(
            &ranges(&["ffff::/16"]),
            &ranges(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"]),
        );
        assert_eq!(edge.size(), (1 << 112) - 1);
    }

    #[test]
    fn the_lowest_free_address_is_found_behind_those_in_use() {
        let left = Ranges::without(&ranges(&["10.0.0.0/30", "10.0.1.0/30", "2001:db8::/64"]), &[]);
        let used: Vec<IpAddr> = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.0"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let free = |ip: IpAddr| !used.contains(&ip);
        assert_eq!(left.lowest(Family::Ipv4, free), Some("10.0.1.1".parse().unwrap()));
        assert_eq!(left.lowest(Family::Ipv6, free), Some("2001:db8::".parse().unwrap()));
        assert_eq!(left.lowest(Family::Ipv4, |_| false), None);
    }
}

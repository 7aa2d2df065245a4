//! Values by neighbour or range of neighbours: of several that hold an address the narrowest counts, as in the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Values by prefix; one neighbour is a prefix of full length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByPrefix<T>(BTreeMap<IpNet, T>);

impl<T> Default for ByPrefix<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> ByPrefix<T> {
    /// What stands for this address: of the longest prefix that holds it.
    pub(crate) fn of(&self, address: IpAddr) -> Option<&T> {
        self.prefix_of(address).and_then(|prefix| self.0.get(&prefix))
    }

    /// The longest prefix that holds the address.
    pub(crate) fn prefix_of(&self, address: IpAddr) -> Option<IpNet> {
        let longest = IpNet::from(address).prefix_len();
        (0..=longest)
            .rev()
            .filter_map(|length| Some(IpNet::new(address, length).ok()?.trunc()))
            .find(|prefix| self.0.contains_key(prefix))
    }

    pub(crate) fn get(&self, prefix: &IpNet) -> Option<&T> {
        self.0.get(prefix)
    }

    pub(crate) fn get_mut(&mut self, prefix: &IpNet) -> Option<&mut T> {
        self.0.get_mut(prefix)
    }

    pub(crate) fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        self.0.insert(prefix, value)
    }

    pub(crate) fn remove(&mut self, prefix: &IpNet) -> Option<T> {
        self.0.remove(prefix)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&IpNet, &T)> {
        self.0.iter()
    }
}

impl<T> FromIterator<(IpNet, T)> for ByPrefix<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_prefix_counts() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let values: ByPrefix<u8> = [
            (net("10.0.0.0/8"), 8),
            (net("10.1.0.0/16"), 16),
            (net("10.1.2.3/32"), 32),
            (net("fd00::/64"), 64),
        ]
        .into_iter()
        .collect();
        let of = |text: &str| values.of(text.parse().unwrap()).copied();
        assert_eq!([of("10.1.2.3"), of("10.1.2.4"), of("10.2.0.0")], [Some(32), Some(16), Some(8)]);
        assert_eq!([of("11.0.0.0"), of("fd00::1"), of("fd00:0:0:1::1")], [None, Some(64), None]);
    }
}

//! Which addresses this node goes by: a person's word on the FabricNode, else as `node.address` of the
//! FabricConfiguration says. Never "first found": where several would do, the one in use stays, or nobody is chosen.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use manx_crds::conditions::AddressesReady;
use manx_crds::v1alpha1::AddressSource;
use manx_crds::v1alpha1::settings::EffectiveNode;

/// The choice, and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) ipv4: Option<IpAddr>,
    pub(crate) ipv6: Option<IpAddr>,
    /// `Node InternalIP`, for status.
    pub(crate) source: String,
    pub(crate) problem: Option<(AddressesReady, String)>,
}

impl Chosen {
    pub(crate) fn of_family(&self, v4: bool) -> Option<IpAddr> {
        if v4 { self.ipv4 } else { self.ipv6 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    /// For people: `192.0.2.1 2001:db8::1`.
    pub(crate) fn text(&self) -> String {
        let all: Vec<String> = [self.ipv4, self.ipv6].iter().flatten().map(ToString::to_string).collect();
        all.join(" ")
    }
}

/// What there is to choose from.
pub(crate) struct Offer<'a> {
    pub(crate) name: &'a str,
    pub(crate) effective: &'a EffectiveNode,
    pub(crate) node: Option<&'a Node>,
    /// Interface and address of everything that the kernel holds for the outside, pods' links left out.
    pub(crate) held: &'a [(String, IpAddr)],
    /// What the node goes by now.
    pub(crate) before: &'a Chosen,
}

impl Offer<'_> {
    pub(crate) fn choose(&self) -> Chosen {
        let mut chosen = Chosen::default();
        let mut sources: Vec<String> = Vec::new();
        for v4 in [true, false] {
            let own = if v4 { self.effective.ipv4 } else { self.effective.ipv6 };
            let (address, source) = match own {
                Some(address) => (Some(address), "FabricNode spec.addresses".to_owned()),
                None => (self.configured(v4, &mut chosen.problem), self.source()),
            };
            if address.is_some() && !sources.contains(&source) {
                sources.push(source);
            }
            *(if v4 { &mut chosen.ipv4 } else { &mut chosen.ipv6 }) = address;
        }
        chosen.source = sources.join(", ");
        if chosen.is_empty() && chosen.problem.is_none() {
            chosen.problem = Some(self.nothing());
        }
        chosen
    }

    fn configured(&self, v4: bool, problem: &mut Option<(AddressesReady, String)>) -> Option<IpAddr> {
        let settings = &self.effective.address;
        let held = |wanted: &dyn Fn(&str, IpAddr) -> bool| {
            let held = self.held.iter().filter(|(_, address)| address.is_ipv4() == v4);
            held.filter(|(name, address)| wanted(name, *address)).map(|(_, address)| *address).collect()
        };
        match &settings.source {
            AddressSource::InternalIP => self.listed("InternalIP", v4),
            AddressSource::ExternalIP => self.listed("ExternalIP", v4),
            AddressSource::Interface => {
                let interface = settings.interface.as_deref().unwrap_or_default();
                self.only(held(&|name, _| name == interface), problem)
            }
            AddressSource::Subnet => {
                let subnets: Vec<IpNet> = settings.subnets.iter().map(|subnet| subnet.net()).collect();
                self.only(held(&|_, address| subnets.iter().any(|subnet| subnet.contains(&address))), problem)
            }
            AddressSource::Unknown(_) => None,
        }
    }

    /// The first of a type in the Node's own list.
    fn listed(&self, kind: &str, v4: bool) -> Option<IpAddr> {
        let listed = self.node?.status.as_ref()?.addresses.as_ref()?;
        listed
            .iter()
            .filter(|address| address.type_ == kind)
            .filter_map(|address| address.address.parse::<IpAddr>().ok())
            .find(|address| address.is_ipv4() == v4)
    }

    /// The one in use, else the only one.
    fn only(
        &self,
        candidates: Vec<IpAddr>,
        problem: &mut Option<(AddressesReady, String)>,
    ) -> Option<IpAddr> {
        match candidates.as_slice() {
            [] => None,
            [only] => Some(*only),
            [first, ..] => {
                let before = self.before.of_family(first.is_ipv4());
                let kept = before.filter(|address| candidates.contains(address));
                if kept.is_none() {
                    let all: Vec<String> = candidates.iter().map(ToString::to_string).collect();
                    let text = format!(
                        "{} matches {}: set spec.addresses of FabricNode {}, or narrow node.address",
                        self.source(),
                        all.join(" and "),
                        self.name
                    );
                    *problem = Some((AddressesReady::AmbiguousAddress, text));
                }
                kept
            }
        }
    }

    fn source(&self) -> String {
        let settings = &self.effective.address;
        match &settings.source {
            AddressSource::InternalIP => "Node InternalIP".to_owned(),
            AddressSource::ExternalIP => "Node ExternalIP".to_owned(),
            AddressSource::Interface => format!("interface {}", settings.interface.as_deref().unwrap_or("")),
            AddressSource::Subnet => {
                let subnets: Vec<String> = settings.subnets.iter().map(|s| s.net().to_string()).collect();
                format!("subnets {}", subnets.join(" "))
            }
            AddressSource::Unknown(value) => format!("node.address.source {value}"),
        }
    }

    fn nothing(&self) -> (AddressesReady, String) {
        if !self.before.is_empty() {
            let text = format!(
                "{} is gone and {} has no other: the node keeps its routes, and its peers lose it",
                self.before.text(),
                self.source()
            );
            return (AddressesReady::AddressRemoved, text);
        }
        let what = match &self.effective.address.source {
            AddressSource::InternalIP => format!("Node {} has no InternalIP", self.name),
            AddressSource::ExternalIP => format!("Node {} has no ExternalIP", self.name),
            AddressSource::Interface | AddressSource::Subnet => {
                format!("no address of this node matches {}", self.source())
            }
            AddressSource::Unknown(_) => format!("{} is not known to this version", self.source()),
        };
        (
            AddressesReady::NoMatchingAddress,
            format!("{what} and FabricNode spec.addresses is empty: set either"),
        )
    }
}

#[cfg(test)]
mod tests;

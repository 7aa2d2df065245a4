//! How one check is set up at both ends: what is said to bgpd, and what to the peer, whoever it is.

use std::collections::BTreeSet;

use crate::third::Told;

/// What bgpd announces and what the peer announces inside the pools.
pub(crate) const OWN: [&str; 2] = ["10.244.0.0/26", "fd00:10:244::/122"];
pub(crate) const THEIRS: [&str; 2] = ["10.244.7.0/26", "fd00:10:244::700/122"];

/// Told by the peer as well, so that a limit of one prefix is passed.
pub(crate) const MORE: &str = "10.244.8.0/26";

/// Who the peer is, in whichever release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Frr,
    Bird,
    GoBgp,
    OpenBgpd,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Frr, Self::Bird, Self::GoBgp, Self::OpenBgpd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Frr => "FRR",
            Self::Bird => "BIRD",
            Self::GoBgp => "GoBGP",
            Self::OpenBgpd => "OpenBGPD",
        }
    }
}

/// What a peer is told to do beside having a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feature {
    /// Sends no capabilities at all.
    NoCapabilities,
    /// Has two-octet AS numbers only.
    OldAs,
    Passive,
    /// Listens at port 1790.
    OtherPort,
    /// Speaks from 10.99.0.1, with a router in between.
    Multihop,
    /// Knows the node by `IDENTITY`, on the node's loopback. With `Multihop`.
    Identity,
    Gtsm,
    GracefulRestart,
    ExtendedMessages,
    /// With `RESTART_TIME`, and stale routes for a minute after that.
    LongLived,
    /// Offers to keep routes after a NOTIFICATION (RFC 8538).
    RestartNotification,
    Bfd,
    /// Writes down what it receives.
    Verbose,
    /// Sockets at both ends hold a few thousand octets.
    NarrowPipe,
    /// The link has link-local addresses and no others; bgpd knows its interface alone.
    Unnumbered,
    /// Offers IPv6 next hops of IPv4 prefixes (RFC 8950).
    ExtendedNextHop,
}

/// Addresses inside those, where packets go from and to; and what the link has where it is unnumbered.
pub(crate) const FROM: [&str; 2] = ["10.244.0.1", "fd00:10:244::1"];
pub(crate) const TO: [&str; 2] = ["10.244.7.1", "fd00:10:244::701"];
pub(crate) const LINK_LOCAL: [&str; 2] = ["fe80::2", "fe80::1"];

/// An address of the node that no link has.
pub(crate) const IDENTITY: &str = "10.255.0.11";

/// Seconds in which a peer with long-lived graceful restart is to be back.
pub(crate) const RESTART_TIME: u64 = 3;

/// One session, described for both ends.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) manx_asn: u32,
    /// The AS that bgpd expects.
    pub(crate) expects: u32,
    /// What it expects in place of that AS.
    pub(crate) asn_type: Option<&'static str>,
    /// Where bgpd finds the peer.
    pub(crate) remote: &'static str,
    /// Further lines of the BGPPeer's spec, two spaces deep.
    pub(crate) spec: String,
    /// The password in the Secret, and with it `session.auth`.
    pub(crate) manx_password: Option<&'static str>,
    /// Attributes of the BGPAdvertisement, as a flow mapping.
    pub(crate) attributes: &'static str,
    /// The AS that the peer is.
    pub(crate) asn: u32,
    /// The AS that the peer expects.
    pub(crate) expects_manx: u32,
    pub(crate) password: Option<&'static str>,
    pub(crate) features: BTreeSet<Feature>,
    /// What stands in the BGPPeer instead of an address.
    pub(crate) place: Option<&'static str>,
    /// The peer's processes are stopped once the session is up.
    pub(crate) falls_silent: bool,
    /// Said when the session is shut down.
    pub(crate) text: &'static str,
    /// Hold time that bgpd offers.
    pub(crate) hold: &'static str,
    /// Whether there is a BGPAdvertisement.
    pub(crate) advertises: bool,
    /// The second prefix that the peer tells.
    pub(crate) more: &'static str,
    /// A third speaker beside both.
    pub(crate) third: Option<Told>,
    /// Further lines of the spec of bgpd's BGPPeer for the third.
    pub(crate) third_spec: &'static str,
    /// Objects beside those that every check has: name and text.
    pub(crate) objects: Vec<(String, String)>,
    /// In the peer's own language.
    pub(crate) says: Says,
}

/// Lines in the peer's own language, by place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Says {
    /// Of its whole configuration.
    pub(crate) global: &'static str,
    /// Of the session with bgpd.
    pub(crate) neighbor: &'static str,
    /// Of the session with bgpd in each family.
    pub(crate) family: &'static str,
    /// What it does to the routes that it tells bgpd.
    pub(crate) export: &'static str,
    /// Of the session with the third speaker.
    pub(crate) third: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            manx_asn: 4_200_000_001,
            expects: 65001,
            asn_type: None,
            remote: "10.9.0.1",
            spec: String::new(),
            manx_password: None,
            attributes: "{}",
            asn: 65001,
            expects_manx: 4_200_000_001,
            password: None,
            features: BTreeSet::new(),
            place: None,
            falls_silent: false,
            text: "",
            hold: "9s",
            advertises: true,
            more: MORE,
            third: None,
            third_spec: "",
            objects: Vec::new(),
            says: Says::default(),
        }
    }
}

impl Setup {
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    pub(crate) fn with(mut self, features: &[Feature]) -> Self {
        self.features.extend(features);
        self
    }

    /// Each peer's own words for one thing.
    pub(crate) fn saying(
        mut self,
        kind: Kind,
        place: fn(&mut Says) -> &mut &'static str,
        words: [&'static str; 4],
    ) -> Self {
        let index = Kind::ALL.iter().position(|one| *one == kind).unwrap();
        *place(&mut self.says) = words[index];
        self
    }

    /// With a third speaker of this AS beside both; bgpd hands on what it learns.
    pub(crate) fn with_third(mut self, asn: u32, attributes: &[u8]) -> Self {
        // Between internal peers all are of one AS.
        self.third = Some(Told { asn, peer_asn: self.asn, behind: None, attributes: attributes.to_vec() });
        self
    }

    /// Where the peer finds bgpd: an address, or the interface.
    pub(crate) fn manx_address(&self) -> &'static str {
        match (self.has(Feature::Unnumbered), self.remote.contains(':')) {
            (true, _) => "eth0",
            (false, true) => "fd09::2",
            (false, false) if self.has(Feature::Identity) => IDENTITY,
            (false, false) => "10.9.0.2",
        }
    }

    /// From where the peer speaks.
    pub(crate) fn peer_address(&self) -> &'static str {
        self.remote
    }
}

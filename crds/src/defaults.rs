//! The objects that an installation begins with: created where absent, never changed afterwards.

/// One object: its kind's plural, and its text.
#[derive(Clone, Copy, Debug)]
pub struct Default {
    pub plural: &'static str,
    pub yaml: &'static str,
}

/// All of them, in the order in which they are created.
pub const DEFAULTS: [Default; 8] = [
    Default { plural: "tiers", yaml: include_str!("../defaults/tier-kube-admin.yaml") },
    Default { plural: "tiers", yaml: include_str!("../defaults/tier-default.yaml") },
    Default { plural: "tiers", yaml: include_str!("../defaults/tier-kube-baseline.yaml") },
    Default { plural: "bfdprofiles", yaml: include_str!("../defaults/bfdprofile-default.yaml") },
    Default { plural: "ippools", yaml: include_str!("../defaults/ippool-default-ipv4.yaml") },
    Default { plural: "ippools", yaml: include_str!("../defaults/ippool-default-ipv6.yaml") },
    Default {
        plural: "bgpadvertisements",
        yaml: include_str!("../defaults/bgpadvertisement-pool-blocks.yaml"),
    },
    Default {
        plural: "bgpadvertisements",
        yaml: include_str!("../defaults/bgpadvertisement-load-balancer-ips.yaml"),
    },
];

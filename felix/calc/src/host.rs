//! What the kernel sees of us: names and numbers by which we know our own objects, defined once.

/// Every interface of a pod on the host: this, then 11 hexadecimal digits.
pub const INTERFACE_PREFIX: &str = "manx";
/// Our nftables table, family inet.
pub const TABLE: &str = "manx";
/// Route protocol of what bgpd learned (`rtm_protocol`); away from BIRD's 12 and Calico's 80.
pub const ROUTE_PROTOCOL_BGP: u8 = 77;
/// Route protocol of felix's routes to local pods.
pub const ROUTE_PROTOCOL_LOCAL: u8 = 78;
/// Group of our nflog messages.
pub const NFLOG_GROUP: u16 = 77;
/// Metric of learned routes, so that an administrator's wins; of a learned default route.
pub const METRIC_LEARNED: u32 = 512;
pub const METRIC_LEARNED_DEFAULT: u32 = 4096;
/// The pod's gateway: on every host end, answered by permanent neighbour entries.
pub const POD_GATEWAY_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);
pub const POD_GATEWAY_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

//! Capabilities (RFC 5492): what each side can do, offered in its OPEN.

use crate::types::{AfiSafi, Asn};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const ROLE: u8 = 9;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_ASN: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_ROUTE_REFRESH: u8 = 70;
const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;

/// One capability. A family is kept as numbers, because a peer offers families we do not carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// 1: routes of this family (RFC 4760).
    Multiprotocol {
        /// Address Family Identifier.
        afi: u16,
        /// Subsequent Address Family Identifier.
        safi: u8,
    },
    /// 2: answers ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// 5: prefixes of one family with next hops of another (RFC 8950).
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// 6: messages of up to 65,535 octets are understood (RFC 8654).
    ExtendedMessage,
    /// 9: the sender's part in the relation between the two AS (RFC 9234).
    Role(Role),
    /// 64 (RFC 4724).
    GracefulRestart(GracefulRestartCapability),
    /// 65: AS numbers of four octets, and the sender's own (RFC 6793).
    FourOctetAsn(Asn),
    /// 69: several paths per prefix (RFC 7911).
    AddPath(Vec<AddPathFamily>),
    /// 70: the beginning and the end of a refresh are told (RFC 7313).
    EnhancedRouteRefresh,
    /// 71 (RFC 9494).
    LongLivedGracefulRestart(Vec<LongLivedFamily>),
    /// Any other, or one of the above whose value is not what its RFC says: kept as it came, and without effect. No RFC
    /// of the above asks for a NOTIFICATION then, so the session goes on without it.
    Other {
        /// IANA's number.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// The value of the graceful-restart capability (RFC 4724 §3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GracefulRestartCapability {
    /// R: the sender has restarted; do not wait for its End-of-RIB.
    pub restarting: bool,
    /// N: NOTIFICATIONs too are survived (RFC 8538).
    pub notification: bool,
    /// Seconds after which routes are dropped if the session is not back; at most 4095.
    pub restart_time: u16,
    /// The families whose routes the receiver should keep.
    pub families: Vec<RestartFamily>,
}

/// One family of the graceful-restart capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartFamily {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
    /// F: the sender's forwarding state survived its restart.
    pub forwarding: bool,
}

/// One entry of the extended-next-hop capability (RFC 8950 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendedNextHop {
    /// Address Family Identifier of the prefixes.
    pub afi: u16,
    /// Subsequent Address Family Identifier of the prefixes, two octets here.
    pub safi: u16,
    /// Address Family Identifier of the next hop.
    pub next_hop_afi: u16,
}

/// One family of the add-path capability (RFC 7911 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddPathFamily {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
    /// The sender can take several paths.
    pub receive: bool,
    /// The sender can send several paths.
    pub send: bool,
}

/// One family of the long-lived graceful-restart capability (RFC 9494 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
    /// F: the sender's forwarding state survived its restart.
    pub forwarding: bool,
    /// Seconds for which the receiver should keep stale routes after the restart time; 24 bits.
    pub stale_time: u32,
}

/// A speaker's part in the relation between two AS (RFC 9234 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// 0: gives transit to the other.
    Provider,
    /// 1: a route server.
    RouteServer,
    /// 2: a client of one.
    RouteServerClient,
    /// 3: takes transit from the other.
    Customer,
    /// 4: lateral.
    Peer,
}

impl Role {
    /// Every role, in the order of their numbers.
    pub const ALL: [Role; 5] =
        [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];

    /// The role with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Role> {
        Role::ALL.get(usize::from(number)).copied()
    }

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Role::Provider => 0,
            Role::RouteServer => 1,
            Role::RouteServerClient => 2,
            Role::Customer => 3,
            Role::Peer => 4,
        }
    }

    /// The only role that the other side may have (RFC 9234 §4.2).
    #[must_use]
    pub fn opposite(self) -> Role {
        match self {
            Role::Provider => Role::Customer,
            Role::Customer => Role::Provider,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Peer => Role::Peer,
        }
    }

    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Provider => "Provider",
            Role::RouteServer => "RouteServer",
            Role::RouteServerClient => "RouteServerClient",
            Role::Customer => "Customer",
            Role::Peer => "Peer",
        }
    }
}

impl ExtendedNextHop {
    /// IPv4 prefixes with IPv6 next hops.
    pub const IPV4_VIA_IPV6: ExtendedNextHop = ExtendedNextHop { afi: 1, safi: 1, next_hop_afi: 2 };

    fn decode(entry: &[u8; 6]) -> ExtendedNextHop {
        let [a, b, c, d, e, f] = *entry;
        ExtendedNextHop {
            afi: u16::from_be_bytes([a, b]),
            safi: u16::from_be_bytes([c, d]),
            next_hop_afi: u16::from_be_bytes([e, f]),
        }
    }
}

impl AddPathFamily {
    /// RFC 7911 §4: an entry with another Send/Receive value is ignored.
    fn decode(entry: &[u8; 4]) -> Option<AddPathFamily> {
        let [a, b, safi, mode] = *entry;
        let (receive, send) = (mode & 1 != 0, mode & 2 != 0);
        let afi = u16::from_be_bytes([a, b]);
        matches!(mode, 1..=3).then_some(AddPathFamily { afi, safi, receive, send })
    }
}

impl LongLivedFamily {
    fn decode(entry: &[u8; 7]) -> LongLivedFamily {
        let [a, b, safi, flags, high, middle, low] = *entry;
        LongLivedFamily {
            afi: u16::from_be_bytes([a, b]),
            safi,
            forwarding: flags & 0x80 != 0,
            stale_time: u32::from_be_bytes([0, high, middle, low]),
        }
    }
}

/// The entries of a value that is a list of equal ones; `None`: octets are left over.
fn entries<const N: usize>(value: &[u8]) -> Option<&[[u8; N]]> {
    let (entries, rest) = value.as_chunks::<N>();
    rest.is_empty().then_some(entries)
}

impl GracefulRestartCapability {
    /// What it says about one family of ours; `None`: not included.
    #[must_use]
    pub fn family(&self, family: AfiSafi) -> Option<&RestartFamily> {
        self.families.iter().find(|entry| (entry.afi, entry.safi) == (family.afi(), family.safi()))
    }

    fn decode(value: &[u8]) -> Option<GracefulRestartCapability> {
        let (&[high, low], families) = value.split_first_chunk::<2>()?;
        let (families, rest) = families.as_chunks::<4>();
        rest.is_empty().then(|| GracefulRestartCapability {
            restarting: high & 0x80 != 0,
            notification: high & 0x40 != 0,
            restart_time: u16::from_be_bytes([high & 0x0f, low]),
            families: families
                .iter()
                .map(|&[a, b, safi, flags]| RestartFamily {
                    afi: u16::from_be_bytes([a, b]),
                    safi,
                    forwarding: flags & 0x80 != 0,
                })
                .collect(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let flags = (u16::from(self.restarting) << 15) | (u16::from(self.notification) << 14);
        out.extend_from_slice(&(flags | self.restart_time.min(4095)).to_be_bytes());
        for family in &self.families {
            out.extend_from_slice(&family.afi.to_be_bytes());
            out.extend_from_slice(&[family.safi, u8::from(family.forwarding) << 7]);
        }
    }
}

impl Capability {
    /// The capability for a family of ours.
    #[must_use]
    pub fn multiprotocol(family: AfiSafi) -> Capability {
        Capability::Multiprotocol { afi: family.afi(), safi: family.safi() }
    }

    /// Understands one value; what it cannot understand stays [`Capability::Other`].
    #[must_use]
    pub fn decode(code: u8, value: &[u8]) -> Capability {
        let understood = match (code, value) {
            (MULTIPROTOCOL, &[a, b, _reserved, safi]) => {
                Some(Capability::Multiprotocol { afi: u16::from_be_bytes([a, b]), safi })
            }
            (ROUTE_REFRESH, []) => Some(Capability::RouteRefresh),
            (GRACEFUL_RESTART, value) => {
                GracefulRestartCapability::decode(value).map(Capability::GracefulRestart)
            }
            (FOUR_OCTET_ASN, &[a, b, c, d]) => {
                Some(Capability::FourOctetAsn(Asn(u32::from_be_bytes([a, b, c, d]))))
            }
            (EXTENDED_NEXT_HOP, value) => {
                let list = entries(value).map(|list| list.iter().map(ExtendedNextHop::decode).collect());
                list.map(Capability::ExtendedNextHop)
            }
            (EXTENDED_MESSAGE, []) => Some(Capability::ExtendedMessage),
            (ROLE, &[number]) => Role::from_number(number).map(Capability::Role),
            (ADD_PATH, value) => {
                let list = entries(value).map(|list| list.iter().filter_map(AddPathFamily::decode).collect());
                list.map(Capability::AddPath)
            }
            (ENHANCED_ROUTE_REFRESH, []) => Some(Capability::EnhancedRouteRefresh),
            (LONG_LIVED_GRACEFUL_RESTART, value) => {
                let list = entries(value).map(|list| list.iter().map(LongLivedFamily::decode).collect());
                list.map(Capability::LongLivedGracefulRestart)
            }
            _ => None,
        };
        understood.unwrap_or_else(|| Capability::Other { code, value: value.to_vec() })
    }

    /// Writes code, length and value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0]);
        match self {
            Capability::Multiprotocol { afi, safi } => {
                out.extend_from_slice(&afi.to_be_bytes());
                out.extend_from_slice(&[0, *safi]);
            }
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRouteRefresh => {}
            Capability::ExtendedNextHop(list) => {
                for entry in list {
                    for field in [entry.afi, entry.safi, entry.next_hop_afi] {
                        out.extend_from_slice(&field.to_be_bytes());
                    }
                }
            }
            Capability::Role(role) => out.push(role.number()),
            Capability::AddPath(list) => {
                for entry in list {
                    out.extend_from_slice(&entry.afi.to_be_bytes());
                    out.extend_from_slice(&[entry.safi, u8::from(entry.receive) | u8::from(entry.send) << 1]);
                }
            }
            Capability::LongLivedGracefulRestart(list) => {
                for entry in list {
                    out.extend_from_slice(&entry.afi.to_be_bytes());
                    let [_, high, middle, low] = entry.stale_time.min(0xff_ffff).to_be_bytes();
                    out.extend_from_slice(&[entry.safi, u8::from(entry.forwarding) << 7, high, middle, low]);
                }
            }
            Capability::GracefulRestart(restart) => restart.encode(out),
            Capability::FourOctetAsn(asn) => out.extend_from_slice(&asn.0.to_be_bytes()),
            Capability::Other { value, .. } => out.extend_from_slice(value.get(..255).unwrap_or(value)),
        }
        let length = u8::try_from(out.len() - start - 2).unwrap_or(u8::MAX);
        if let Some(field) = out.get_mut(start + 1) {
            *field = length;
        }
    }

    /// IANA's number.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol { .. } => MULTIPROTOCOL,
            Capability::RouteRefresh => ROUTE_REFRESH,
            Capability::ExtendedNextHop(_) => EXTENDED_NEXT_HOP,
            Capability::ExtendedMessage => EXTENDED_MESSAGE,
            Capability::Role(_) => ROLE,
            Capability::AddPath(_) => ADD_PATH,
            Capability::EnhancedRouteRefresh => ENHANCED_ROUTE_REFRESH,
            Capability::LongLivedGracefulRestart(_) => LONG_LIVED_GRACEFUL_RESTART,
            Capability::GracefulRestart(_) => GRACEFUL_RESTART,
            Capability::FourOctetAsn(_) => FOUR_OCTET_ASN,
            Capability::Other { code, .. } => *code,
        }
    }

    /// Whether this is a code that we know with a value that its RFC does not allow.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(
            self,
            Capability::Other {
                code: MULTIPROTOCOL
                    | ROUTE_REFRESH
                    | EXTENDED_NEXT_HOP
                    | EXTENDED_MESSAGE
                    | ROLE
                    | GRACEFUL_RESTART
                    | FOUR_OCTET_ASN
                    | ADD_PATH
                    | ENHANCED_ROUTE_REFRESH
                    | LONG_LIVED_GRACEFUL_RESTART,
                ..
            }
        )
    }
}

#[cfg(test)]
mod tests;

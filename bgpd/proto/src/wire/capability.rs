//! Capabilities (RFC 5492): what each side can do, offered in its OPEN.

use crate::types::{AfiSafi, Asn};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_ASN: u8 = 65;

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
    /// 64 (RFC 4724).
    GracefulRestart(GracefulRestartCapability),
    /// 65: AS numbers of four octets, and the sender's own (RFC 6793).
    FourOctetAsn(Asn),
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
            Capability::RouteRefresh => {}
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
            Capability::Other { code: MULTIPROTOCOL | ROUTE_REFRESH | GRACEFUL_RESTART | FOUR_OCTET_ASN, .. }
        )
    }
}

#[cfg(test)]
mod tests;

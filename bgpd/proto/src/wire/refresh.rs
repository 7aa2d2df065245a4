//! ROUTE-REFRESH (RFC 2918).

/// The body of a ROUTE-REFRESH message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address Family Identifier.
    pub afi: u16,
    /// 0: send again; 1 and 2 are RFC 7313's borders and come only where enhanced refresh was agreed.
    pub subtype: u8,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

impl RouteRefresh {
    /// Reads the body that follows the header; what follows the fourth octet (RFC 5291 filters, never agreed) is ignored.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<RouteRefresh> {
        let (&[high, low, subtype, safi], _) = body.split_first_chunk::<4>()?;
        Some(RouteRefresh { afi: u16::from_be_bytes([high, low]), subtype, safi })
    }

    /// Writes the body that follows the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.afi.to_be_bytes());
        out.extend_from_slice(&[self.subtype, self.safi]);
    }
}

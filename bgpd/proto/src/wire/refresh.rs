//! ROUTE-REFRESH (RFC 2918, RFC 7313).

/// Send again.
pub const REQUEST: u8 = 0;
/// What follows is told again, from its beginning (BoRR, RFC 7313).
pub const BEGIN: u8 = 1;
/// It was told to its end (EoRR, RFC 7313).
pub const END: u8 = 2;

/// The body of a ROUTE-REFRESH message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address Family Identifier.
    pub afi: u16,
    /// [`REQUEST`], [`BEGIN`] or [`END`]; the latter two only where enhanced refresh was agreed.
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

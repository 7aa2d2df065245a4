//! OPEN (RFC 4271 §4.2, §6.2) with capabilities (RFC 5492) and extended optional parameters (RFC 9072).

use std::net::Ipv4Addr;

use super::notification::open;
use super::{Capability, Notification};
use crate::types::{Asn, RouterId};

const VERSION: u8 = 4;
const PARAMETER_CAPABILITIES: u8 = 2;
const PARAMETER_EXTENDED: u8 = 255;

/// The body of an OPEN message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field; see [`Open::asn`].
    pub my_as: u16,
    /// Seconds.
    pub hold_time: u16,
    /// Never 0.0.0.0.
    pub router_id: RouterId,
    /// In the order they came.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The sender's AS: of the four-octet capability if it sent one (RFC 6793 §4.1), else of the field.
    #[must_use]
    pub fn asn(&self) -> Asn {
        self.four_octet_asn().unwrap_or(Asn(u32::from(self.my_as)))
    }

    /// The AS of the four-octet capability.
    #[must_use]
    pub fn four_octet_asn(&self) -> Option<Asn> {
        self.capabilities.iter().find_map(|capability| {
            if let Capability::FourOctetAsn(asn) = capability { Some(*asn) } else { None }
        })
    }

    /// Reads the body that follows the header and makes the checks of RFC 4271 §6.2 that need no configuration.
    ///
    /// # Errors
    /// The NOTIFICATION to send.
    pub fn decode(body: &[u8]) -> Result<Open, Notification> {
        let malformed = || Notification::new(2, 0);
        let (&[version, as_high, as_low, hold_high, hold_low, a, b, c, d], parameters) =
            body.split_first_chunk::<9>().ok_or_else(malformed)?;
        if version != VERSION {
            // "The Data field is a 2-octet unsigned integer, which indicates the largest, locally-supported version
            // number less than the version the remote BGP peer bid" (RFC 4271 §6.2)
            return Err(Notification::with_data(2, open::UNSUPPORTED_VERSION_NUMBER, [0, VERSION]));
        }
        let hold_time = u16::from_be_bytes([hold_high, hold_low]);
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::with_data(2, open::UNACCEPTABLE_HOLD_TIME, [hold_high, hold_low]));
        }
        let router_id = Ipv4Addr::new(a, b, c, d);
        if router_id.is_unspecified() {
            return Err(Notification::with_data(2, open::BAD_BGP_IDENTIFIER, router_id.octets()));
        }
        let mut capabilities = Vec::new();
        for (parameter_type, value) in parameters_of(parameters).ok_or_else(malformed)? {
            if parameter_type != PARAMETER_CAPABILITIES {
                return Err(Notification::new(2, open::UNSUPPORTED_OPTIONAL_PARAMETER));
            }
            decode_capabilities(value, &mut capabilities).ok_or_else(malformed)?;
        }
        Ok(Open {
            my_as: u16::from_be_bytes([as_high, as_low]),
            hold_time,
            router_id: RouterId(router_id),
            capabilities,
        })
    }

    /// Writes the body that follows the header. All capabilities share one optional parameter, as RFC 5492 §4 asks; past
    /// 255 octets the extended form of RFC 9072 is used.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.my_as.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.router_id.0.octets());
        let mut value = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut value);
        }
        match (u8::try_from(value.len()), u8::try_from(value.len() + 2)) {
            (Ok(0), _) => out.push(0),
            (Ok(length), Ok(all)) => out.extend_from_slice(&[all, PARAMETER_CAPABILITIES, length]),
            _ => {
                let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&[255, PARAMETER_EXTENDED]);
                out.extend_from_slice(&length.saturating_add(3).to_be_bytes());
                out.push(PARAMETER_CAPABILITIES);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        out.extend_from_slice(&value);
    }
}

/// The optional parameters, from their length octet on; `None` if their lengths do not add up.
fn parameters_of(field: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let (&length, plain) = field.split_first()?;
    // RFC 9072 §2: the extended form is told by the type 255 where the first parameter's type would be; the length octet
    // before it should be 255 and any value but 0 is accepted.
    if let ([PARAMETER_EXTENDED, high, low, extended @ ..], 1..) = (plain, length) {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        return (extended.len() == length).then(|| split_parameters(extended, true))?;
    }
    (plain.len() == usize::from(length)).then(|| split_parameters(plain, false))?
}

fn split_parameters(mut bytes: &[u8], extended: bool) -> Option<Vec<(u8, &[u8])>> {
    let mut parameters = Vec::new();
    while let [parameter_type, rest @ ..] = bytes {
        let (length, rest) = match (extended, rest) {
            (true, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (false, [length, rest @ ..]) => (usize::from(*length), rest),
            (true | false, _) => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        parameters.push((*parameter_type, value));
        bytes = rest;
    }
    Some(parameters)
}

fn decode_capabilities(mut bytes: &[u8], capabilities: &mut Vec<Capability>) -> Option<()> {
    while let [code, rest @ ..] = bytes {
        let (length, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        capabilities.push(Capability::decode(*code, value));
        bytes = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests;

//! NOTIFICATION: why a session ends (RFC 4271 §4.5 and §6), with IANA's names and RFC 9003's text.

use std::fmt;

/// The body of a NOTIFICATION message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Error code: 1 message header, 2 OPEN, 3 UPDATE, 4 hold timer, 5 FSM, 6 Cease, 7 ROUTE-REFRESH.
    pub code: u8,
    /// Error subcode within the code; 0 is unspecific.
    pub subcode: u8,
    /// What the code and subcode define.
    pub data: Vec<u8>,
}

/// Subcodes of Message Header Error (1).
pub mod header {
    /// The marker is not all ones.
    pub const CONNECTION_NOT_SYNCHRONIZED: u8 = 1;
    /// The length is impossible for the type.
    pub const BAD_MESSAGE_LENGTH: u8 = 2;
    /// The type is unknown.
    pub const BAD_MESSAGE_TYPE: u8 = 3;
}

/// Subcodes of OPEN Message Error (2).
pub mod open {
    /// Not version 4.
    pub const UNSUPPORTED_VERSION_NUMBER: u8 = 1;
    /// Not the AS we expect.
    pub const BAD_PEER_AS: u8 = 2;
    /// Zero, or our own.
    pub const BAD_BGP_IDENTIFIER: u8 = 3;
    /// Not a capability list.
    pub const UNSUPPORTED_OPTIONAL_PARAMETER: u8 = 4;
    /// One or two seconds.
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    /// A capability we need is not offered (RFC 5492).
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    /// Not the role that goes with ours (RFC 9234).
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of Finite State Machine Error (5), RFC 6608.
pub mod fsm {
    /// Unexpected message in OpenSent.
    pub const IN_OPEN_SENT: u8 = 1;
    /// Unexpected message in OpenConfirm.
    pub const IN_OPEN_CONFIRM: u8 = 2;
    /// Unexpected message in Established.
    pub const IN_ESTABLISHED: u8 = 3;
}

/// Subcodes of Cease (6), RFC 4486 and RFC 9384.
pub mod cease {
    /// Above the prefix limit; data: AFI, SAFI, limit.
    pub const MAXIMUM_NUMBER_OF_PREFIXES_REACHED: u8 = 1;
    /// Shut down by an operator; data: text (RFC 9003).
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    /// Removed from the configuration.
    pub const PEER_DE_CONFIGURED: u8 = 3;
    /// Reset by an operator; data: text (RFC 9003).
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    /// Nobody here speaks to this address.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// Reset to take over another change.
    pub const OTHER_CONFIGURATION_CHANGE: u8 = 6;
    /// The connection lost a collision (RFC 4271 §6.8).
    pub const CONNECTION_COLLISION_RESOLUTION: u8 = 7;
    /// What it carries is not to be survived; data: another code, subcode and data (RFC 8538).
    pub const HARD_RESET: u8 = 9;
    /// BFD says that nothing reaches the peer (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// Subcodes of ROUTE-REFRESH Message Error (7), RFC 7313.
pub mod refresh {
    /// The border of a refresh that is not four octets long.
    pub const INVALID_MESSAGE_LENGTH: u8 = 1;
}

impl Notification {
    /// A NOTIFICATION without data.
    #[must_use]
    pub fn new(code: u8, subcode: u8) -> Notification {
        Notification { code, subcode, data: Vec::new() }
    }

    /// The same with data.
    #[must_use]
    pub fn with_data(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Notification {
        Notification { code, subcode, data: data.into() }
    }

    /// Whether a session that ends so keeps no routes although NOTIFICATIONs are survived otherwise: an operator's word, a limit
    /// that was passed, and a peer that BFD cannot reach (RFC 8538 §3.1 leaves the choice; RFC 9384 §3).
    #[must_use]
    pub fn is_final(&self) -> bool {
        let last = [
            cease::MAXIMUM_NUMBER_OF_PREFIXES_REACHED,
            cease::ADMINISTRATIVE_SHUTDOWN,
            cease::PEER_DE_CONFIGURED,
            cease::ADMINISTRATIVE_RESET,
            cease::HARD_RESET,
            cease::BFD_DOWN,
        ];
        self.code == 6 && last.contains(&self.subcode)
    }

    /// The same as Cease/Hard Reset (RFC 8538 §3).
    #[must_use]
    pub fn hard_reset(self) -> Notification {
        let mut data = vec![self.code, self.subcode];
        data.extend(self.data);
        Notification::with_data(6, cease::HARD_RESET, data)
    }

    /// What a Cease/Hard Reset carries, and whether it was one. One without content stays as it is.
    #[must_use]
    pub fn open_hard_reset(self) -> (Notification, bool) {
        match (self.code, self.subcode, self.data.as_slice()) {
            (6, cease::HARD_RESET, [code, subcode, data @ ..]) => {
                (Notification::with_data(*code, *subcode, data), true)
            }
            (6, cease::HARD_RESET, _) => (self, true),
            _ => (self, false),
        }
    }

    /// A Cease that carries a text for the operator on the other side: cut at 255 bytes, between characters (RFC 9003 §2).
    #[must_use]
    pub fn cease_with_text(subcode: u8, text: &str) -> Notification {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default();
        let Some(length) = u8::try_from(text.len()).ok().filter(|length| *length > 0) else {
            return Notification::new(6, subcode);
        };
        let mut data = Vec::with_capacity(text.len() + 1);
        data.push(length);
        data.extend_from_slice(text.as_bytes());
        Notification::with_data(6, subcode, data)
    }

    /// Reads the body that follows the header. `None`: it has no code and subcode.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Notification> {
        let (&[code, subcode], data) = body.split_first_chunk::<2>()?;
        Some(Notification::with_data(code, subcode, data))
    }

    /// Writes the body that follows the header; `data` is cut where the message would pass 4096 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code);
        out.push(self.subcode);
        out.extend_from_slice(self.data.get(..4096 - 21).unwrap_or(&self.data));
    }

    /// The text of an Administrative Shutdown or Reset: what is valid of it (RFC 9003 §3: a length above what is there
    /// makes the text void; the session goes down all the same).
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if self.code != 6
            || !matches!(self.subcode, cease::ADMINISTRATIVE_SHUTDOWN | cease::ADMINISTRATIVE_RESET)
        {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = rest.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    /// The name of code and subcode as IANA registers them: `Cease/AdministrativeShutdown`.
    #[must_use]
    pub fn name(&self) -> Name {
        Name { code: self.code, subcode: self.subcode }
    }
}

/// Prints `Code/Subcode` in CamelCase; numbers where IANA has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    code: u8,
    subcode: u8,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match code_name(self.code) {
            Some(code) => f.write_str(code)?,
            None => return write!(f, "Error{}/{}", self.code, self.subcode),
        }
        match subcode_name(self.code, self.subcode) {
            Some(subcode) => write!(f, "/{subcode}"),
            None if self.subcode == 0 => Ok(()),
            None => write!(f, "/{}", self.subcode),
        }
    }
}

fn code_name(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "MessageHeaderError",
        2 => "OpenMessageError",
        3 => "UpdateMessageError",
        4 => "HoldTimerExpired",
        5 => "FiniteStateMachineError",
        6 => "Cease",
        7 => "RouteRefreshMessageError",
        8 => "SendHoldTimerExpired",
        _ => return None,
    })
}

fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 1) => "ConnectionNotSynchronized",
        (1, 2) => "BadMessageLength",
        (1, 3) => "BadMessageType",
        (2, 1) => "UnsupportedVersionNumber",
        (2, 2) => "BadPeerAS",
        (2, 3) => "BadBGPIdentifier",
        (2, 4) => "UnsupportedOptionalParameter",
        (2, 6) => "UnacceptableHoldTime",
        (2, 7) => "UnsupportedCapability",
        (2, 11) => "RoleMismatch",
        (3, 1) => "MalformedAttributeList",
        (3, 2) => "UnrecognizedWellKnownAttribute",
        (3, 3) => "MissingWellKnownAttribute",
        (3, 4) => "AttributeFlagsError",
        (3, 5) => "AttributeLengthError",
        (3, 6) => "InvalidOriginAttribute",
        (3, 8) => "InvalidNextHopAttribute",
        (3, 9) => "OptionalAttributeError",
        (3, 10) => "InvalidNetworkField",
        (3, 11) => "MalformedASPath",
        (5, 1) => "ReceiveUnexpectedMessageInOpenSent",
        (5, 2) => "ReceiveUnexpectedMessageInOpenConfirm",
        (5, 3) => "ReceiveUnexpectedMessageInEstablished",
        (6, 1) => "MaximumNumberOfPrefixesReached",
        (6, 2) => "AdministrativeShutdown",
        (6, 3) => "PeerDeconfigured",
        (6, 4) => "AdministrativeReset",
        (6, 5) => "ConnectionRejected",
        (6, 6) => "OtherConfigurationChange",
        (6, 7) => "ConnectionCollisionResolution",
        (6, 8) => "OutOfResources",
        (6, 9) => "HardReset",
        (6, 10) => "BFDDown",
        (7, 1) => "InvalidMessageLength",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

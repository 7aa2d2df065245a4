//! What a peer says that is not as the RFCs want it: counted per reason, told once per reason.

use super::{Context, Peer};
use crate::output::SessionEvent;
use crate::status::Malformation;
use crate::wire::notification::{header, open};
use crate::wire::verdict::Fault;
use crate::wire::{Capability, Notification};

/// Stands for [`crate::wire::verdict::ErrorAction::SessionReset`] where it is not an UPDATE that is at fault.
const SESSION_RESET: &str = "SessionReset";

impl Peer {
    /// Counts one malformed message or attribute. `true`: the first of its kind from this peer.
    fn count(&mut self, malformation: Malformation) -> bool {
        let count = self.malformed.entry(malformation).or_default();
        *count = count.saturating_add(1);
        *count == 1
    }

    fn tell(&self, what: String, ctx: &mut Context<'_>) {
        ctx.event(SessionEvent::Malformed { peer: self.name.clone(), what });
    }

    /// The faults of one UPDATE that did not end the session are told; one that did is told with the end of the session.
    pub(super) fn count_faults(&mut self, faults: &[Fault], ctx: &mut Context<'_>) {
        if !faults.is_empty() {
            self.messages.malformed_updates += 1;
        }
        for fault in faults {
            let first = self.count(Malformation {
                message: "UPDATE",
                attribute: fault.attribute,
                reason: fault.reason,
                action: fault.action.as_str(),
                rfc: fault.rfc,
            });
            if first && fault.action.as_str() != SESSION_RESET {
                self.tell(fault.to_string(), ctx);
            }
        }
    }

    /// A header that ends the session. Returns the text for the operator.
    pub(super) fn count_header(&mut self, notification: &Notification) -> String {
        let reason = match notification.subcode {
            header::CONNECTION_NOT_SYNCHRONIZED => "what came is not BGP: the marker is wrong",
            header::BAD_MESSAGE_LENGTH => "a message has an impossible length",
            _ => "a message has an unknown type",
        };
        let (message, rfc) = ("header", "RFC 4271 §6.1");
        self.count(Malformation { message, attribute: 0, reason, action: SESSION_RESET, rfc });
        match notification.data[..] {
            [high, low] => format!("{reason}: {}", u16::from_be_bytes([high, low])),
            [kind] => format!("{reason}: {kind}"),
            _ => reason.to_owned(),
        }
    }

    /// An OPEN that cannot be read or whose fields no configuration accepts. Returns the text for the operator.
    pub(super) fn count_open(&mut self, body: &[u8], notification: &Notification) -> String {
        let hold_time =
            body.get(3..5).map_or(0, |field| field.iter().fold(0, |all, one| all << 8 | u16::from(*one)));
        let (reason, detail) = match notification.subcode {
            open::UNSUPPORTED_VERSION_NUMBER => {
                let version = body.first().copied().unwrap_or_default();
                ("not version 4", format!("the peer speaks BGP version {version}, expected 4"))
            }
            open::UNACCEPTABLE_HOLD_TIME => (
                "an unacceptable hold time",
                format!("the peer proposes a hold time of {hold_time} s, expected 0 or at least 3"),
            ),
            open::BAD_BGP_IDENTIFIER => {
                ("no BGP identifier", "the peer's BGP identifier is 0.0.0.0, expected any other".to_owned())
            }
            open::UNSUPPORTED_OPTIONAL_PARAMETER => (
                "an optional parameter that is no list of capabilities",
                "the peer's OPEN has an optional parameter other than capabilities".to_owned(),
            ),
            _ => ("its lengths do not add up", "the lengths in the peer's OPEN do not add up".to_owned()),
        };
        let (message, rfc) = ("OPEN", "RFC 4271 §6.2");
        self.count(Malformation { message, attribute: 0, reason, action: SESSION_RESET, rfc });
        detail
    }

    /// Capabilities that we know and cannot read: the session goes on without them.
    pub(super) fn count_capabilities(&mut self, capabilities: &[Capability], ctx: &mut Context<'_>) {
        for capability in capabilities.iter().filter(|capability| capability.is_malformed()) {
            let first = self.count(Malformation {
                message: "OPEN",
                attribute: capability.code(),
                reason: "a capability whose value is not what its RFC says",
                action: "CapabilityIgnored",
                rfc: "RFC 5492 §3",
            });
            if first {
                let code = capability.code();
                self.tell(format!("capability {code}: its value is not what its RFC says; the session goes on without it"), ctx);
            }
        }
    }
}

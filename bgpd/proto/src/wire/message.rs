//! The message header and framing (RFC 4271 §4.1, §6.1).

use super::Notification;
use super::notification::header;

/// Marker, length, type.
pub const HEADER_LENGTH: usize = 19;
/// The longest message (RFC 4271 §4.1), and the longest OPEN and KEEPALIVE ever.
pub const MAX_LENGTH: usize = 4096;
/// The longest extended message (RFC 8654 §4).
pub const MAX_EXTENDED_LENGTH: usize = 65_535;

const MARKER_LENGTH: usize = 16;

/// The type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// 1
    Open,
    /// 2
    Update,
    /// 3
    Notification,
    /// 4
    Keepalive,
    /// 5 (RFC 2918)
    RouteRefresh,
}

impl MessageType {
    /// The type with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<MessageType> {
        Some(match number {
            1 => MessageType::Open,
            2 => MessageType::Update,
            3 => MessageType::Notification,
            4 => MessageType::Keepalive,
            5 => MessageType::RouteRefresh,
            _ => return None,
        })
    }

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            MessageType::Open => 1,
            MessageType::Update => 2,
            MessageType::Notification => 3,
            MessageType::Keepalive => 4,
            MessageType::RouteRefresh => 5,
        }
    }

    /// The lengths a message of this type may have, header included.
    fn accepts_length(self, length: usize) -> bool {
        match self {
            MessageType::Open => (29..=MAX_LENGTH).contains(&length),
            MessageType::Update => length >= 23,
            MessageType::Notification => length >= 21,
            MessageType::Keepalive => length == HEADER_LENGTH,
            MessageType::RouteRefresh => length >= 23,
        }
    }
}

/// One whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub message_type: MessageType,
    /// What follows the header.
    pub body: &'a [u8],
}

/// Cuts a stream of bytes into messages. Whole messages are handed out where they lie; only an unfinished one is kept.
#[derive(Debug, Default)]
pub struct Framer {
    /// Extended messages are expected.
    extended: bool,
    unfinished: Vec<u8>,
    /// `unfinished` was handed out as a whole message and is forgotten at the next call.
    taken: bool,
}

impl Framer {
    /// From the next message on, extended ones are taken (RFC 8654): we have said so in our OPEN.
    pub fn expect_extended(&mut self) {
        self.extended = true;
    }

    fn limit(&self) -> usize {
        if self.extended { MAX_EXTENDED_LENGTH } else { MAX_LENGTH }
    }

    /// The next whole message of what is kept plus `input`, which is advanced; `None`: `input` is used up.
    ///
    /// # Errors
    /// The NOTIFICATION that RFC 4271 §6.1 asks for. The stream has lost its framing: there is no next message.
    pub fn next<'f, 'i: 'f>(&'f mut self, input: &mut &'i [u8]) -> Option<Result<Frame<'f>, Notification>> {
        if self.taken {
            self.unfinished.clear();
            self.taken = false;
        }
        if self.unfinished.is_empty() {
            return match message_length(input, self.limit()) {
                Err(notification) => Some(Err(notification)),
                Ok(Some(length)) if input.len() >= length => {
                    let (message, rest) = input.split_at(length);
                    *input = rest;
                    Some(frame(message))
                }
                Ok(_) => {
                    self.unfinished.extend_from_slice(input);
                    *input = &[];
                    None
                }
            };
        }
        loop {
            let wanted = match message_length(&self.unfinished, self.limit()) {
                Err(notification) => return Some(Err(notification)),
                Ok(None) => HEADER_LENGTH,
                Ok(Some(length)) if self.unfinished.len() == length => {
                    self.taken = true;
                    return Some(frame(&self.unfinished));
                }
                Ok(Some(length)) => length,
            };
            let (now, later) = input.split_at(input.len().min(wanted - self.unfinished.len()));
            if now.is_empty() {
                return None;
            }
            self.unfinished.extend_from_slice(now);
            *input = later;
        }
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_within_message(&self) -> bool {
        !self.taken && !self.unfinished.is_empty()
    }
}

/// The length that the message at the start of `bytes` says it has, header checked; `None`: less than a header is there.
/// What is there of the marker is checked at once, so that garbage does not have to fill a header first. `limit` is the
/// longest message expected.
///
/// # Errors
/// The NOTIFICATION of RFC 4271 §6.1.
pub fn message_length(bytes: &[u8], limit: usize) -> Result<Option<usize>, Notification> {
    if bytes.iter().take(MARKER_LENGTH).any(|byte| *byte != 0xff) {
        return Err(Notification::new(1, header::CONNECTION_NOT_SYNCHRONIZED));
    }
    let Some(&[high, low, number]) = bytes.get(MARKER_LENGTH..HEADER_LENGTH) else {
        return Ok(None);
    };
    // RFC 4271 §6.1 lists the checks in this order; the data is the erroneous field.
    let length = usize::from(u16::from_be_bytes([high, low]));
    let bad_length = || Notification::with_data(1, header::BAD_MESSAGE_LENGTH, [high, low]);
    if !(HEADER_LENGTH..=limit).contains(&length) {
        return Err(bad_length());
    }
    match MessageType::from_number(number) {
        None => Err(Notification::with_data(1, header::BAD_MESSAGE_TYPE, [number])),
        Some(message_type) if !message_type.accepts_length(length) => Err(bad_length()),
        Some(_) => Ok(Some(length)),
    }
}

/// `message` was measured by [`message_length`].
fn frame(message: &[u8]) -> Result<Frame<'_>, Notification> {
    let body = message.get(HEADER_LENGTH..).unwrap_or_default();
    let number = message.get(HEADER_LENGTH - 1).copied().unwrap_or_default();
    match MessageType::from_number(number) {
        Some(message_type) => Ok(Frame { message_type, body }),
        None => Err(Notification::with_data(1, header::BAD_MESSAGE_TYPE, [number])),
    }
}

/// Appends one message to `out`; `body` writes what follows the header.
pub fn encode(message_type: MessageType, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; MARKER_LENGTH]);
    out.extend_from_slice(&[0, 0, message_type.number()]);
    body(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start + MARKER_LENGTH..start + MARKER_LENGTH + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;

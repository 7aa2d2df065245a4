//! The control packet (RFC 5880 §4.1): bytes ↔ values, and the checks of §6.8.6 that need no session.

use std::fmt;

use super::{Diagnostic, State};

/// The mandatory section; we neither send nor take an authentication section.
pub const LENGTH: usize = 24;
/// With the A bit set the shortest packet has an authentication section of two bytes (RFC 5880 §6.8.6).
const LENGTH_WITH_AUTHENTICATION: u8 = 26;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// A BFD control packet without authentication. Intervals are microseconds, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPacket {
    /// Why the sender's session left Up last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender asks for a packet with `is_final`.
    pub poll: bool,
    /// The answer to `poll`.
    pub is_final: bool,
    /// The sender's BFD survives its control plane.
    pub control_plane_independent: bool,
    /// The sender wants no periodic packets while both ends are Up.
    pub demand: bool,
    /// How many packets in a row may be missing at the receiver; never 0.
    pub detect_multiplier: u8,
    /// The sender's discriminator; never 0.
    pub my_discriminator: u32,
    /// The receiver's, as far as the sender knows it; 0: it does not.
    pub your_discriminator: u32,
    /// The shortest interval at which the sender would like to send.
    pub desired_min_tx: u32,
    /// The shortest interval that the sender can take; 0: send no periodic packets.
    pub required_min_rx: u32,
    /// The same for echo packets; 0: none.
    pub required_min_echo_rx: u32,
}

/// Why a packet is not looked at any further, in the order in which RFC 5880 §6.8.6 asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discard {
    /// It did not travel as its port demands: RFC 5881 §5, TTL or hop limit other than 255.
    HopLimit,
    /// Not version 1.
    Version,
    /// The length says less than a packet has, or more than there is.
    Length,
    /// A multiplier of 0.
    DetectMultiplier,
    /// The M bit, which is reserved.
    Multipoint,
    /// A sender without discriminator.
    MyDiscriminator,
    /// No session of ours has this discriminator.
    YourDiscriminator,
    /// A sender that does not know us is Init or Up.
    State,
    /// No session is configured for this sender.
    UnknownSender,
    /// The A bit, and no authentication is configured.
    Authentication,
    /// Our session is AdminDown.
    AdminDown,
}

impl Discard {
    /// Every reason.
    pub const ALL: [Discard; 11] = [
        Discard::HopLimit,
        Discard::Version,
        Discard::Length,
        Discard::DetectMultiplier,
        Discard::Multipoint,
        Discard::MyDiscriminator,
        Discard::YourDiscriminator,
        Discard::State,
        Discard::UnknownSender,
        Discard::Authentication,
        Discard::AdminDown,
    ];
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Discard::HopLimit => "TTL or hop limit is not 255",
            Discard::Version => "version is not 1",
            Discard::Length => "length does not fit",
            Discard::DetectMultiplier => "multiplier is 0",
            Discard::Multipoint => "multipoint bit is set",
            Discard::MyDiscriminator => "my discriminator is 0",
            Discard::YourDiscriminator => "your discriminator is of no session",
            Discard::State => "your discriminator is 0 in state Init or Up",
            Discard::UnknownSender => "no session with this sender",
            Discard::Authentication => "authentication is not configured",
            Discard::AdminDown => "the session is AdminDown",
        })
    }
}

/// A packet as read, and whether it claims authentication: that is judged after the session is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) packet: ControlPacket,
    pub(super) is_authenticated: bool,
}

impl ControlPacket {
    /// The bytes of the packet.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, DEMAND);
        let [a, b, c, d] = self.my_discriminator.to_be_bytes();
        let [e, f, g, h] = self.your_discriminator.to_be_bytes();
        let [i, j, k, l] = self.desired_min_tx.to_be_bytes();
        let [m, n, o, p] = self.required_min_rx.to_be_bytes();
        let [q, r, s, t] = self.required_min_echo_rx.to_be_bytes();
        let first = (VERSION << 5) | self.diagnostic.0 & 0x1f;
        let second = (self.state.code() << 6) | flags;
        [
            first,
            second,
            self.detect_multiplier,
            24,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
            n,
            o,
            p,
            q,
            r,
            s,
            t,
        ]
    }

    /// Reads the payload of a datagram that claims no authentication.
    ///
    /// # Errors
    /// The first check of RFC 5880 §6.8.6 that fails, of those that need no session.
    pub fn decode(bytes: &[u8]) -> Result<ControlPacket, Discard> {
        let parsed = parse(bytes)?;
        if parsed.is_authenticated { Err(Discard::Authentication) } else { Ok(parsed.packet) }
    }
}

/// The checks of RFC 5880 §6.8.6 up to My Discriminator, in their order.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Discard> {
    // Too short to say anything: it cannot be as long as its length field must say.
    let Some((&fixed, _)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(match bytes.first() {
            Some(first) if first >> 5 != VERSION => Discard::Version,
            Some(_) | None => Discard::Length,
        });
    };
    let [first, second, detect_multiplier, length, rest @ ..] = fixed;
    if first >> 5 != VERSION {
        return Err(Discard::Version);
    }
    let is_authenticated = second & AUTHENTICATION != 0;
    let shortest = if is_authenticated { LENGTH_WITH_AUTHENTICATION } else { 24 };
    if length < shortest || usize::from(length) > bytes.len() {
        return Err(Discard::Length);
    }
    if detect_multiplier == 0 {
        return Err(Discard::DetectMultiplier);
    }
    if second & MULTIPOINT != 0 {
        return Err(Discard::Multipoint);
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = rest;
    let packet = ControlPacket {
        diagnostic: Diagnostic(first & 0x1f),
        state: State::of_code(second >> 6),
        poll: second & POLL != 0,
        is_final: second & FINAL != 0,
        control_plane_independent: second & CONTROL_PLANE_INDEPENDENT != 0,
        demand: second & DEMAND != 0,
        detect_multiplier,
        my_discriminator: u32::from_be_bytes([a, b, c, d]),
        your_discriminator: u32::from_be_bytes([e, f, g, h]),
        desired_min_tx: u32::from_be_bytes([i, j, k, l]),
        required_min_rx: u32::from_be_bytes([m, n, o, p]),
        required_min_echo_rx: u32::from_be_bytes([q, r, s, t]),
    };
    if packet.my_discriminator == 0 {
        return Err(Discard::MyDiscriminator);
    }
    Ok(Parsed { packet, is_authenticated })
}

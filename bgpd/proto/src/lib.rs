//! A BGP-4 speaker as a value (RFC 4271): no I/O, no clock, no tasks, no locks.
//!
//! ```text
//!            Input (and `now`)                                   Output
//!   Configure, Originate, Withdraw ─┐                    ┌─► Dial, CancelDial, Close
//!   KernelRoutesFound               ┤
//!   Connected, DialFailed, Accepted ┤   ┌───────────┐    ├─► Fib(change), FibComplete
//!   Bytes, Unread, Closed           ┼──►│  Speaker  ├────┼─► TrackNextHop
//!   LinkDown, BfdDown, NextHop      ┤   └──┬─────▲──┘    └─► Event(SessionEvent)
//!   Reset, RequestRefresh, TellAgain┤      │     │
//!   Timeout, Stop                  ─┘      ▼     │ transmitted(conn, n)
//!                             poll_transmit(conn) → bytes
//! ```
//!
//! # How to drive it
//!
//! 1. [`Speaker::new`], then [`Input::KernelRoutesFound`] (what an earlier life left in the kernel), the first
//!    [`Input::Originate`]s, and [`Input::Configure`] with the whole desired configuration: it starts the peers.
//! 2. One thing happens: hand it in with [`Speaker::handle_input`]. It returns nothing, because every input has a
//!    defined outcome in every state.
//! 3. Drain [`Speaker::poll_output`] until `None` and do what it says, in order.
//! 4. For each connection of [`Speaker::take_ready`], as soon as its socket can write and until it has no more:
//!    [`Speaker::poll_transmit`], write, [`Speaker::transmitted`]. Ask for more of them until there are none.
//! 5. Wait for the next input or for [`Speaker::poll_timeout`], whichever is first; the latter is [`Input::Timeout`], before
//!    which [`Speaker::unheard`] asks who has bytes waiting.
//!
//! The shell numbers the connections ([`ConnId`]); the speaker owns their meaning. A connection the speaker does not
//! want any more leaves by [`Output::Close`] or [`Output::Refuse`], which carry the last bytes; one that ends by itself
//! is reported once by [`Input::Closed`]. Inputs about connections the speaker has forgotten are ignored, so no race
//! needs care outside.

mod audience;
pub mod bfd;
pub mod bmp;
pub mod config;
mod connection;
pub mod decision;
pub mod durations;
pub mod fsm;
pub mod input;
pub mod link_local;
pub mod negotiate;
pub mod output;
mod peer;
pub mod policy;
mod restart;
pub mod rib;
pub mod route;
pub mod speaker;
pub mod status;
pub mod types;
pub mod wire;

pub use config::{PeerConfig, SpeakerConfig};
pub use input::{Input, TransportErrorKind};
pub use output::{Output, SessionEvent};
pub use speaker::Speaker;
pub use types::{AfiSafi, Asn, ConnId, PeerId, PeerName, RouterId};

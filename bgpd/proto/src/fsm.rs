//! The finite state machine of one connection (RFC 4271 §8), as a table: what follows from a state and an event.
//!
//! The table decides; `peer` carries out. Timers, sockets and routes are not known here.

use std::fmt;

use serde::Serialize;

/// The states of RFC 4271 §8.2.2, in the order a session passes them.
///
/// ```text
///                start, passive                      TCP lost before OPEN
///        ┌───────────────────────────► Active ◄───────────────────────────┐
///        │                             │ ▲  │                             │
///        │               retry timer   │ │  │ TCP accepted                │
///        │                             ▼ │  ▼                             │
///  ──► Idle ──────────────────────► Connect ─────────► OpenSent ──────────┘
///        ▲   start                     │   TCP up        │
///        │                             │                 │ OPEN acceptable
///        │ stop                        │                 ▼
///        ├─────────────────────────────┘            OpenConfirm
///        │                                               │
///        │ stop, any error, NOTIFICATION,                │ KEEPALIVE
///        │ timer, TCP lost                               ▼
///        └────────────────────────────────────────── Established
/// ```
///
/// Left out, all optional in RFC 4271 §8.1: DelayOpen (events 12 and 20), TCP validation before the handshake (14, 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// Nothing is tried; connections are refused.
    Idle,
    /// An attempt to connect is under way.
    Connect,
    /// Waiting: for the peer to connect, or for the next attempt.
    Active,
    /// Connected, our OPEN is sent.
    OpenSent,
    /// The peer's OPEN was accepted.
    OpenConfirm,
    /// The session is up.
    Established,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];

    /// Whether a TCP connection is up in this state.
    #[must_use]
    pub fn has_connection(self) -> bool {
        match self {
            State::Idle | State::Connect | State::Active => false,
            State::OpenSent | State::OpenConfirm | State::Established => true,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        })
    }
}

/// The events of RFC 4271 §8.1, by their names there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// 1 and 3, and 13 (the idle hold timer): start, and dial.
    Start,
    /// 4 and 5: start, and only listen.
    StartPassive,
    /// 2 and 8: an operator, the configuration or a limit ends the session.
    Stop,
    /// 9
    ConnectRetryTimerExpires,
    /// 10
    HoldTimerExpires,
    /// 11
    KeepaliveTimerExpires,
    /// 29 (RFC 9687): the peer has not read for too long.
    SendHoldTimerExpires,
    /// 16 and 17: a connection is up, ours or theirs.
    TcpConnectionConfirmed,
    /// 18: an attempt failed, or the connection is gone.
    TcpConnectionFails,
    /// 19: an OPEN that is acceptable.
    BgpOpen,
    /// 21
    BgpHeaderErr,
    /// 22: an OPEN that is not.
    BgpOpenMsgErr,
    /// 23: this connection lost a collision (RFC 4271 §6.8).
    OpenCollisionDump,
    /// 24 and 25
    NotifMsg,
    /// 26
    KeepAliveMsg,
    /// 27
    UpdateMsg,
    /// 28: an UPDATE that RFC 7606 ends the session for, or a ROUTE-REFRESH that RFC 7313 does.
    UpdateMsgErr,
    /// ROUTE-REFRESH (RFC 2918), which RFC 4271 does not know.
    RouteRefreshMsg,
}

impl Event {
    /// Its number in RFC 4271 §8.1, the first where several are one here; 0: it has none.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Event::Start => 1,
            Event::StartPassive => 4,
            Event::Stop => 2,
            Event::ConnectRetryTimerExpires => 9,
            Event::HoldTimerExpires => 10,
            Event::KeepaliveTimerExpires => 11,
            Event::SendHoldTimerExpires => 29,
            Event::TcpConnectionConfirmed => 16,
            Event::TcpConnectionFails => 18,
            Event::BgpOpen => 19,
            Event::BgpHeaderErr => 21,
            Event::BgpOpenMsgErr => 22,
            Event::OpenCollisionDump => 23,
            Event::NotifMsg => 25,
            Event::KeepAliveMsg => 26,
            Event::UpdateMsg => 27,
            Event::UpdateMsgErr => 28,
            Event::RouteRefreshMsg => 0,
        }
    }

    /// Every event.
    pub const ALL: [Event; 18] = [
        Event::Start,
        Event::StartPassive,
        Event::Stop,
        Event::ConnectRetryTimerExpires,
        Event::HoldTimerExpires,
        Event::KeepaliveTimerExpires,
        Event::SendHoldTimerExpires,
        Event::TcpConnectionConfirmed,
        Event::TcpConnectionFails,
        Event::BgpOpen,
        Event::BgpHeaderErr,
        Event::BgpOpenMsgErr,
        Event::OpenCollisionDump,
        Event::NotifMsg,
        Event::KeepAliveMsg,
        Event::UpdateMsg,
        Event::UpdateMsgErr,
        Event::RouteRefreshMsg,
    ];
}

/// What is to be done on a transition, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask for a connection.
    Dial,
    /// Give up an attempt.
    CancelDial,
    /// Arm ConnectRetry anew, jittered.
    RestartConnectRetryTimer,
    /// Send our OPEN; the hold timer gets its large initial value.
    SendOpen,
    /// Arm hold and keepalive timers with what was agreed.
    StartSessionTimers,
    /// Send a KEEPALIVE and arm its timer anew.
    SendKeepalive,
    /// Arm the hold timer anew.
    RestartHoldTimer,
    /// The session is up: its routes count from here.
    SessionUp,
    /// The session is down: its routes go, or are kept as stale.
    SessionDown,
    /// Send the NOTIFICATION that the event brought along.
    SendNotification,
    /// Send a Finite State Machine Error, its subcode by the state left (RFC 6608).
    SendFsmError,
    /// Close the TCP connection.
    DropConnection,
    /// Stop all timers.
    StopTimers,
    /// Count a failure: the next attempt waits longer (DampPeerOscillations).
    CountFailure,
}

/// What follows from a state and an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state after it.
    pub next: State,
    /// What to do.
    pub actions: &'static [Action],
}

/// RFC 4271 §8.2.2. Every pair is listed, so that a new state or event does not compile until it has its place.
#[must_use]
pub fn transition(state: State, event: Event) -> Transition {
    match state {
        State::Idle => idle(event),
        State::Connect => connect(event),
        State::Active => active(event),
        State::OpenSent => open_sent(event),
        State::OpenConfirm => open_confirm(event),
        State::Established => established(event),
    }
}

use Action as A;

/// Ends a connection that we have something to say about.
const NOTIFY_AND_CLOSE: &[A] = &[A::SendNotification, A::DropConnection, A::StopTimers, A::CountFailure];
/// Ends it on an operator's word: nothing failed.
const CEASE: &[A] = &[A::SendNotification, A::DropConnection, A::StopTimers];
const FSM_ERROR: &[A] = &[A::SendFsmError, A::DropConnection, A::StopTimers, A::CountFailure];
/// Ends it without a word, since nobody would hear it.
const CLOSE: &[A] = &[A::DropConnection, A::StopTimers, A::CountFailure];
/// The same, of a session that was up.
const DOWN_NOTIFY: &[A] =
    &[A::SessionDown, A::SendNotification, A::DropConnection, A::StopTimers, A::CountFailure];
const DOWN_CEASE: &[A] = &[A::SessionDown, A::SendNotification, A::DropConnection, A::StopTimers];
const DOWN_FSM_ERROR: &[A] =
    &[A::SessionDown, A::SendFsmError, A::DropConnection, A::StopTimers, A::CountFailure];
const DOWN_CLOSE: &[A] = &[A::SessionDown, A::DropConnection, A::StopTimers, A::CountFailure];
/// An event that says something impossible while there is no connection (a message, say).
const GIVE_UP: &[A] = &[A::CancelDial, A::StopTimers, A::CountFailure];

const fn to(next: State, actions: &'static [Action]) -> Transition {
    Transition { next, actions }
}

fn idle(event: Event) -> Transition {
    match event {
        Event::Start => to(State::Connect, &[A::RestartConnectRetryTimer, A::Dial]),
        Event::StartPassive => to(State::Active, &[]),
        // "any other event received in the Idle state does not cause change in the state" (§8.2.2)
        Event::Stop
        | Event::ConnectRetryTimerExpires
        | Event::HoldTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::SendHoldTimerExpires
        | Event::TcpConnectionConfirmed
        | Event::TcpConnectionFails
        | Event::BgpOpen
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr
        | Event::OpenCollisionDump
        | Event::NotifMsg
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg => to(State::Idle, &[]),
    }
}

fn connect(event: Event) -> Transition {
    match event {
        Event::Start | Event::StartPassive => to(State::Connect, &[]),
        Event::Stop => to(State::Idle, &[A::CancelDial, A::StopTimers]),
        Event::ConnectRetryTimerExpires => to(State::Connect, &[A::RestartConnectRetryTimer, A::Dial]),
        Event::TcpConnectionConfirmed => to(State::OpenSent, &[A::StopTimers, A::SendOpen]),
        // §8.2.2 goes to Idle here unless DelayOpen runs; a peer that comes up while we wait should be heard at once, so
        // this is that other branch: keep the retry timer going and listen.
        Event::TcpConnectionFails => to(State::Active, &[A::RestartConnectRetryTimer]),
        Event::HoldTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::SendHoldTimerExpires
        | Event::BgpOpen
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr
        | Event::OpenCollisionDump
        | Event::NotifMsg
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg => to(State::Idle, GIVE_UP),
    }
}

fn active(event: Event) -> Transition {
    match event {
        Event::Start | Event::StartPassive => to(State::Active, &[]),
        Event::Stop => to(State::Idle, &[A::CancelDial, A::StopTimers]),
        Event::ConnectRetryTimerExpires => to(State::Connect, &[A::RestartConnectRetryTimer, A::Dial]),
        Event::TcpConnectionConfirmed => to(State::OpenSent, &[A::StopTimers, A::SendOpen]),
        // The late answer of an attempt that was given up; the retry timer is running already.
        Event::TcpConnectionFails => to(State::Active, &[]),
        Event::HoldTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::SendHoldTimerExpires
        | Event::BgpOpen
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr
        | Event::OpenCollisionDump
        | Event::NotifMsg
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg => to(State::Idle, GIVE_UP),
    }
}

fn open_sent(event: Event) -> Transition {
    match event {
        Event::Start | Event::StartPassive => to(State::OpenSent, &[]),
        // A second connection has a machine of its own (§8.2.1).
        Event::TcpConnectionConfirmed => to(State::OpenSent, &[]),
        Event::Stop => to(State::Idle, CEASE),
        Event::OpenCollisionDump => to(State::Idle, CEASE),
        Event::TcpConnectionFails => {
            to(State::Active, &[A::DropConnection, A::StopTimers, A::RestartConnectRetryTimer])
        }
        Event::BgpOpen => to(State::OpenConfirm, &[A::StartSessionTimers, A::SendKeepalive]),
        Event::HoldTimerExpires
        | Event::SendHoldTimerExpires
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr => to(State::Idle, NOTIFY_AND_CLOSE),
        // §8.2.2 lists it among "any other event"; a NOTIFICATION is never answered by one (§6.4).
        Event::NotifMsg => to(State::Idle, CLOSE),
        Event::ConnectRetryTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg => to(State::Idle, FSM_ERROR),
    }
}

fn open_confirm(event: Event) -> Transition {
    match event {
        Event::Start | Event::StartPassive | Event::TcpConnectionConfirmed => to(State::OpenConfirm, &[]),
        Event::Stop => to(State::Idle, CEASE),
        Event::OpenCollisionDump => to(State::Idle, CEASE),
        Event::KeepaliveTimerExpires => to(State::OpenConfirm, &[A::SendKeepalive]),
        Event::KeepAliveMsg => to(State::Established, &[A::RestartHoldTimer, A::SessionUp]),
        Event::HoldTimerExpires
        | Event::SendHoldTimerExpires
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr => to(State::Idle, NOTIFY_AND_CLOSE),
        Event::TcpConnectionFails | Event::NotifMsg => to(State::Idle, CLOSE),
        Event::ConnectRetryTimerExpires
        | Event::BgpOpen
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg => to(State::Idle, FSM_ERROR),
    }
}

fn established(event: Event) -> Transition {
    match event {
        Event::Start | Event::StartPassive | Event::TcpConnectionConfirmed => to(State::Established, &[]),
        Event::Stop => to(State::Idle, DOWN_CEASE),
        Event::OpenCollisionDump => to(State::Idle, DOWN_CEASE),
        Event::KeepaliveTimerExpires => to(State::Established, &[A::SendKeepalive]),
        Event::KeepAliveMsg | Event::UpdateMsg | Event::RouteRefreshMsg => {
            to(State::Established, &[A::RestartHoldTimer])
        }
        Event::HoldTimerExpires | Event::SendHoldTimerExpires | Event::BgpHeaderErr | Event::UpdateMsgErr => {
            to(State::Idle, DOWN_NOTIFY)
        }
        Event::TcpConnectionFails | Event::NotifMsg => to(State::Idle, DOWN_CLOSE),
        Event::ConnectRetryTimerExpires | Event::BgpOpen | Event::BgpOpenMsgErr => {
            to(State::Idle, DOWN_FSM_ERROR)
        }
    }
}

#[cfg(test)]
mod tests;

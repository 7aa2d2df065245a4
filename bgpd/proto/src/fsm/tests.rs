use super::*;

use Action as A;
use Event as E;
use State as S;

/// What each event leads to in Idle, Connect, Active, OpenSent, OpenConfirm, Established: written from RFC 4271 §8.2.2,
/// independently of the code.
const TABLE: [(E, [S; 6]); 18] = [
    (E::Start, [S::Connect, S::Connect, S::Active, S::OpenSent, S::OpenConfirm, S::Established]),
    (E::StartPassive, [S::Active, S::Connect, S::Active, S::OpenSent, S::OpenConfirm, S::Established]),
    (E::Stop, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (E::ConnectRetryTimerExpires, [S::Idle, S::Connect, S::Connect, S::Idle, S::Idle, S::Idle]),
    (E::HoldTimerExpires, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (E::KeepaliveTimerExpires, [S::Idle, S::Idle, S::Idle, S::Idle, S::OpenConfirm, S::Established]),
    (E::SendHoldTimerExpires, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (
        E::TcpConnectionConfirmed,
        [S::Idle, S::OpenSent, S::OpenSent, S::OpenSent, S::OpenConfirm, S::Established],
    ),
    (E::TcpConnectionFails, [S::Idle, S::Active, S::Active, S::Active, S::Idle, S::Idle]),
    (E::BgpOpen, [S::Idle, S::Idle, S::Idle, S::OpenConfirm, S::Idle, S::Idle]),
    (E::BgpHeaderErr, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (E::BgpOpenMsgErr, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (E::OpenCollisionDump, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (E::NotifMsg, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (E::KeepAliveMsg, [S::Idle, S::Idle, S::Idle, S::Idle, S::Established, S::Established]),
    (E::UpdateMsg, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Established]),
    (E::UpdateMsgErr, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Idle]),
    (E::RouteRefreshMsg, [S::Idle, S::Idle, S::Idle, S::Idle, S::Idle, S::Established]),
];

fn every_pair() -> impl Iterator<Item = (S, E, Transition)> {
    S::ALL
        .into_iter()
        .flat_map(|state| E::ALL.into_iter().map(move |event| (state, event, transition(state, event))))
}

#[test]
fn every_state_and_event_has_the_rfcs_next_state() {
    assert_eq!(TABLE.map(|row| row.0), E::ALL, "the table names every event once, in order");
    for (event, row) in TABLE {
        for (state, next) in S::ALL.into_iter().zip(row) {
            assert_eq!(transition(state, event).next, next, "{event:?} in {state}");
        }
    }
}

#[test]
fn leaving_a_connection_drops_it_and_stops_its_timers() {
    for (state, event, Transition { next, actions }) in every_pair() {
        let leaves = state.has_connection() && !next.has_connection();
        assert_eq!(actions.contains(&A::DropConnection), leaves, "{event:?} in {state}");
        if leaves {
            assert!(actions.contains(&A::StopTimers), "{event:?} in {state}");
        }
    }
}

#[test]
fn routes_follow_established_exactly() {
    for (state, event, Transition { next, actions }) in every_pair() {
        let (was, is) = (state == S::Established, next == S::Established);
        assert_eq!(actions.contains(&A::SessionUp), !was && is, "{event:?} in {state}");
        assert_eq!(actions.contains(&A::SessionDown), was && !is, "{event:?} in {state}");
    }
}

#[test]
fn a_notification_is_the_last_word_and_never_answers_one() {
    for (state, event, Transition { next, actions }) in every_pair() {
        let says = actions.iter().any(|a| matches!(a, A::SendNotification | A::SendFsmError));
        assert!(!says || state.has_connection() && next == S::Idle, "{event:?} in {state}");
        if matches!(event, E::NotifMsg | E::TcpConnectionFails) {
            assert!(!says, "{event:?} in {state}");
        }
        let order: Vec<_> = actions
            .iter()
            .filter(|a| {
                matches!(a, A::SessionDown | A::SendNotification | A::SendFsmError | A::DropConnection)
            })
            .collect();
        assert!(!says || order.last() == Some(&&A::DropConnection), "{event:?} in {state}");
    }
}

#[test]
fn idle_ignores_all_but_a_start() {
    for event in E::ALL {
        let Transition { next, actions } = transition(S::Idle, event);
        let starts = matches!(event, E::Start | E::StartPassive);
        assert_eq!(next != S::Idle, starts, "{event:?}");
        assert!(starts || actions.is_empty(), "{event:?}");
    }
}

#[test]
fn an_operators_stop_counts_no_failure() {
    for state in S::ALL {
        assert!(!transition(state, E::Stop).actions.contains(&A::CountFailure), "{state}");
        assert!(
            !transition(state, E::OpenCollisionDump).actions.contains(&A::CountFailure)
                || !state.has_connection()
        );
    }
}

#[test]
fn rfc6608_an_unexpected_message_is_a_state_machine_error() {
    for (state, events) in [
        (S::OpenSent, &[E::KeepAliveMsg, E::UpdateMsg, E::RouteRefreshMsg][..]),
        (S::OpenConfirm, &[E::BgpOpen, E::UpdateMsg, E::RouteRefreshMsg]),
        (S::Established, &[E::BgpOpen]),
    ] {
        for event in events {
            assert!(transition(state, *event).actions.contains(&A::SendFsmError), "{event:?} in {state}");
        }
    }
}

#[test]
fn dialling_is_armed_with_a_retry() {
    for (state, event, Transition { actions, .. }) in every_pair() {
        if actions.contains(&A::Dial) {
            assert!(actions.contains(&A::RestartConnectRetryTimer), "{event:?} in {state}");
        }
    }
}

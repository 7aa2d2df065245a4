//! Condition types and their reasons (api.md, with each kind). A reason knows its type and its status, so that
//! no condition can be written with a reason of another, or with the wrong sign.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A reason of one condition type.
pub trait ConditionReason: Copy + fmt::Debug {
    /// The condition's `type`.
    const TYPE: &'static str;
    fn as_str(self) -> &'static str;
    /// `True` or `False`: all our conditions are of positive polarity.
    fn status(self) -> &'static str;
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident $type:literal { $($yes:ident),+ | $($no:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($yes,)+
            $($no,)+
        }

        impl $name {
            /// Every reason, those of True first.
            pub const ALL: &'static [Self] = &[$(Self::$yes,)+ $(Self::$no,)+];
        }

        impl ConditionReason for $name {
            const TYPE: &'static str = $type;
            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$yes => stringify!($yes),)+
                    $(Self::$no => stringify!($no),)+
                }
            }
            fn status(self) -> &'static str {
                match self {
                    $(Self::$yes => "True",)+
                    $(Self::$no => "False",)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Whether an object is used at all.
    Accepted "Accepted" {
        Accepted |
        UnknownValue, DuplicateCommunity, OverlapsPeer, AddressIsOurs, NoListener, UnknownCommunity, Overlaps,
        InvalidSelector, InvalidRule, TierNotFound, PolicyRejected, InvalidRange, SameOrder, Terminating,
        NoMatchingNode,
    }
}
reasons! {
    /// Whether what an object names exists.
    ResolvedRefs "ResolvedRefs" {
        ResolvedRefs |
        BFDProfileNotFound, BGPFilterNotFound, SecretNotFound, SecretKeyMissing, ServiceNotFound,
    }
}
reasons! {
    /// FabricConfiguration: node-to-node sessions.
    TopologyReady "TopologyReady" { Ready | NotEnoughCandidates, MeshTooLarge }
}
reasons! {
    /// FabricConfiguration: agents and schema (api.md §14).
    SchemaCompatible "SchemaCompatible" { Compatible | SchemaOlderThanAgents, AgentsOlderThanSchema }
}
reasons! {
    /// FabricNode, by felix.
    AddressesReady "AddressesReady" { Selected | NoMatchingAddress, AmbiguousAddress, AddressRemoved }
}
reasons! {
    /// FabricNode, by the controller.
    IdentityUnique "IdentityUnique" { Unique | DuplicateAddress, DuplicateRouterID }
}
reasons! {
    /// FabricNode, by felix.
    DataplaneReady "DataplaneReady" {
        Programmed | InitialSync, KernelRejected, KernelTooOld, HostileRuleset, HostSetting,
    }
}
reasons! {
    /// FabricNode, by felix.
    PolicyProgrammed "PolicyProgrammed" { Programmed | Behind, PartlyFailed }
}
reasons! {
    /// FabricNode, by bgpd.
    BGPReady "BGPReady" {
        SessionsEstablished, NoPeers |
        NoneEstablished, SomeDown, Drained, Shutdown, InvalidASNLabel, IdentityNotUnique, AwaitingEndOfRIB,
        EncapsulationBypassed,
    }
}
reasons! {
    /// BGPPeer, by the controller.
    PeerEstablished "Established" {
        AllEstablished | SomeDown, NoneEstablished, NoMatchingNode, Drained, Shutdown,
    }
}
reasons! {
    /// BGPSession, by bgpd.
    SessionEstablished "Established" {
        Established |
        Connecting, ConnectionRefused, ConnectionTimedOut, NoRoute, InterfaceDown, NeighborNotFound,
        SecretMissing, AuthUnsupported, BadPeerAS, RoleMismatch, HoldTimerExpired, BFDDown, NotificationSent,
        NotificationReceived, MaxPrefixesReached, AdminShutdown,
    }
}
reasons! {
    /// BGPSession, by bgpd.
    Synchronized "Synchronized" { Synchronized | AwaitingEndOfRIB, Stale, LongLivedStale, NotEstablished }
}
reasons! {
    /// BGPSession, by bgpd.
    BFDUp "BFDUp" { Up | Down, AdminDown }
}
reasons! {
    /// IPPool, by the controller.
    Allocatable "Allocatable" { Allocatable | Overlaps, AssignmentNone, Terminating, NoMatchingNode }
}
reasons! {
    /// IPPool, by the controller.
    AddressesAvailable "AddressesAvailable" { Available | NearlyExhausted, Exhausted }
}
reasons! {
    /// Policies, by the controller.
    Programmed "Programmed" { Programmed, Audit | Pending, NodesFailed }
}

/// Sets the condition of `reason`'s type. `lastTransitionTime` changes with the status only.
/// Answers whether anything differs, and hence needs a write.
pub fn set_condition<R: ConditionReason>(
    conditions: &mut Vec<Condition>,
    reason: R,
    message: impl Into<String>,
    observed_generation: Option<i64>,
    now: Time,
) -> bool {
    let old = conditions.iter_mut().find(|condition| condition.type_ == R::TYPE);
    let last_transition_time = match &old {
        Some(old) if old.status == reason.status() => old.last_transition_time.clone(),
        Some(_) | None => now,
    };
    let new = Condition {
        type_: R::TYPE.to_owned(),
        status: reason.status().to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.into(),
        observed_generation,
        last_transition_time,
    };
    match old {
        Some(old) if *old == new => false,
        Some(old) => {
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], condition_type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == condition_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_transition_time_changes_with_the_status_only() {
        let mut conditions = Vec::new();
        assert!(set_condition(&mut conditions, SessionEstablished::Connecting, "a", Some(1), at(1)));
        assert!(!set_condition(&mut conditions, SessionEstablished::Connecting, "a", Some(1), at(2)));
        assert!(set_condition(&mut conditions, SessionEstablished::NoRoute, "b", Some(1), at(3)));
        assert_eq!(conditions[0].last_transition_time, at(1));
        assert_eq!((conditions[0].status.as_str(), conditions[0].reason.as_str()), ("False", "NoRoute"));
        assert!(set_condition(&mut conditions, SessionEstablished::Established, "", Some(1), at(4)));
        assert_eq!(conditions[0].last_transition_time, at(4));
        assert!(set_condition(&mut conditions, Synchronized::Synchronized, "", None, at(5)));
        assert_eq!(conditions.len(), 2);
        assert_eq!(find(&conditions, "Synchronized").unwrap().status, "True");
    }
}

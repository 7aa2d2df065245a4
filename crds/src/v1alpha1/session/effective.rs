//! The settings that a session runs with: each leaf from the first that sets it.

use super::*;
use std::time::Duration as Span;

/// A session's settings after inheritance; the numbers of api.md §3 where nobody set any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSession {
    /// Zero is none: neither keepalives nor a hold timer (RFC 4271 §4.4).
    pub hold: Span,
    pub keepalive: Span,
    /// Jittered by whoever runs the timer.
    pub connect_retry: Span,
    pub bfd_profile: Option<String>,
    pub auth: Option<SessionAuth>,
    pub ttl_security: bool,
    pub graceful_restart: GracefulRestartMode,
    pub restart_time: Span,
    /// Zero is off.
    pub long_lived_stale_time: Span,
    pub add_path_receive: bool,
    pub add_path_send: Option<u8>,
    pub max_prefixes_ipv4: u32,
    pub max_prefixes_ipv6: u32,
    pub max_prefixes_action: MaxPrefixesAction,
    pub warn_percent: u8,
    /// Zero stays down.
    pub restart_after: Span,
}

/// The first level that sets a leaf.
fn first<T>(levels: &[&Session], leaf: impl Fn(&Session) -> Option<T>) -> Option<T> {
    levels.iter().find_map(|level| leaf(level))
}

fn span(levels: &[&Session], built_in: u64, leaf: impl Fn(&Session) -> Option<Duration>) -> Span {
    first(levels, leaf).map_or(Span::from_secs(built_in), Duration::get)
}

impl EffectiveSession {
    /// The session of a BGPPeer.
    pub fn of_peer(peer: &BGPPeer, configuration: Option<&FabricConfiguration>) -> Self {
        let fabric = configuration.and_then(|c| c.spec.session.as_ref());
        Self::inherit(peer.spec.session.as_ref(), fabric)
    }

    /// A node-to-node session.
    pub fn of_topology(configuration: Option<&FabricConfiguration>) -> Self {
        let own = configuration.and_then(|c| c.spec.topology.as_ref()?.session.as_ref());
        Self::inherit(own, configuration.and_then(|c| c.spec.session.as_ref()))
    }

    /// `own` before `fabric` before what is built in; `auth` from `own` alone.
    pub fn inherit(own: Option<&Session>, fabric: Option<&Session>) -> Self {
        let levels: Vec<&Session> = own.into_iter().chain(fabric).collect();
        let levels = levels.as_slice();
        let timer =
            |pick: fn(&SessionTimers) -> Option<Duration>| move |s: &Session| pick(s.timers.as_ref()?);
        let restart = |pick: fn(&GracefulRestart) -> Option<Duration>| {
            move |s: &Session| pick(s.graceful_restart.as_ref()?)
        };
        let hold = span(levels, 30, timer(|t| t.hold));
        // A keepalive that inheritance leaves at or above hold becomes a third of it.
        let keepalive = first(levels, timer(|t| t.keepalive))
            .map(Duration::get)
            .filter(|keepalive| *keepalive < hold)
            .unwrap_or(hold / 3);
        let prefixes =
            |pick: fn(&MaxPrefixes) -> Option<u32>| move |s: &Session| pick(s.max_prefixes.as_ref()?);
        Self {
            hold,
            keepalive,
            connect_retry: span(levels, 5, timer(|t| t.connect_retry)),
            bfd_profile: first(levels, |s| s.bfd_profile.clone()).filter(|name| !name.is_empty()),
            auth: own.and_then(|s| s.auth.clone()),
            ttl_security: first(levels, |s| s.ttl_security).unwrap_or(false),
            graceful_restart: first(levels, |s| s.graceful_restart.as_ref()?.mode.clone())
                .unwrap_or(GracefulRestartMode::Full),
            restart_time: span(levels, 120, restart(|g| g.restart_time)),
            long_lived_stale_time: span(levels, 0, restart(|g| g.long_lived_stale_time)),
            add_path_receive: first(levels, |s| s.add_path.as_ref()?.receive).unwrap_or(false),
            add_path_send: first(levels, |s| s.add_path.as_ref()?.send),
            max_prefixes_ipv4: first(levels, prefixes(|m| m.ipv4)).unwrap_or(50_000),
            max_prefixes_ipv6: first(levels, prefixes(|m| m.ipv6)).unwrap_or(50_000),
            max_prefixes_action: first(levels, |s| s.max_prefixes.as_ref()?.action.clone())
                .unwrap_or(MaxPrefixesAction::Shutdown),
            warn_percent: first(levels, |s| s.max_prefixes.as_ref()?.warn_percent).unwrap_or(80),
            restart_after: span(levels, 15 * 60, |s| s.max_prefixes.as_ref()?.restart_after),
        }
    }
}
